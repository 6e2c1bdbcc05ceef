"""The status page of real hosts, brought by `flowerbed dashboard` and looked at in a real browser."""

import http.client
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.e2e.conftest import Standing

OUTSIDE = """() => [...document.body.querySelectorAll('*')].filter(one => one.clientWidth)
  .filter(one => one.getBoundingClientRect().right > innerWidth + 1).map(one => one.outerHTML.slice(0, 80))"""


@pytest.fixture(scope="module")
def dashboard(monitored: Standing) -> Iterator[str]:
    """The URL that the command prints; it ends by Ctrl-C."""
    command = [monitored.program, "dashboard", monitored.path, "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        said = json.loads(process.stdout.readline())
        assert said["wrong"] == ""
        yield said["url"]
        process.send_signal(signal.SIGINT)
    assert process.returncode == 0


def opened(browser: Browser, url: str, width: int = 1280, scheme: str = "light") -> tuple[Page, list[str], list[str]]:
    """A page, what it asked for, and what the browser complained of."""
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)  # type: ignore[arg-type] - light or dark
    page = context.new_page()
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: said.append(message.text))
    page.goto(url)
    return page, asked, said


def test_the_page_tells_sites_and_runs(monitored: Standing, dashboard: str, browser: Browser) -> None:
    run = monitored.run_example("-c", "num-server-rounds=1")
    page, _, _ = opened(browser, dashboard)
    first = page.locator("h2:text-is('Latest runs') + table tbody tr").first
    for _ in range(30):  # it is there while it runs, too
        if all(word in first.inner_text() for word in (run["run_id"], "completed")):
            break
        page.wait_for_timeout(2000)
        page.reload()
    assert page.locator("h1").inner_text() == "monitoring"
    sites = page.locator("h2:text-is('Sites') + table tbody tr")
    assert [row.split("\t")[:2] for row in sites.all_inner_texts()] == [
        ["hospital-a", "online"],
        ["hospital-b", "online"],
    ]
    latest = page.locator("h2:text-is('Latest runs') + table tbody tr").first.inner_text()
    assert "flowerbed/breast-cancer" in latest and run["run_id"] in latest
    assert "completed" in latest and latest.rstrip().endswith("4 of 4")
    assert "/etc/flower/gateway/server.crt" in page.locator("table").last.inner_text()


def test_the_page_asks_for_itself_alone_and_the_browser_has_nothing_to_say(dashboard: str, browser: Browser) -> None:
    page, asked, said = opened(browser, dashboard)
    assert [url for url in asked if not url.endswith("/favicon.ico")] == [dashboard]
    assert said == []
    assert page.evaluate("getComputedStyle(document.body).maxWidth") != "none"  # its style is let through by its policy


@pytest.mark.parametrize("width", [320, 390, 800, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_every_screen(dashboard: str, browser: Browser, width: int, scheme: str, tmp_path: Path) -> None:
    page, _, _ = opened(browser, dashboard, width, scheme)
    assert page.evaluate(OUTSIDE) == []
    page.screenshot(path=str(tmp_path / f"{width}-{scheme}.png"), full_page=True)
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 27)"
    assert dark == (scheme == "dark")


def test_a_state_is_told_by_word_and_form_and_not_by_colour_alone(dashboard: str, browser: Browser) -> None:
    page, _, _ = opened(browser, dashboard)
    for state in page.locator(".state").all():
        assert state.inner_text().strip()
        assert state.locator("svg").count() == 1


@pytest.mark.parametrize("name", ["evil.invalid", "coordinator"])
def test_another_name_that_points_here_is_refused(dashboard: str, name: str) -> None:
    connection = http.client.HTTPConnection(dashboard.split("/")[2], timeout=10)
    connection.request("GET", "/", headers={"Host": name})
    assert connection.getresponse().status == 421


@pytest.mark.parametrize(
    ("method", "path", "status"), [("POST", "/", 403), ("GET", "/index.html", 404), ("GET", "/..", 400)]
)
def test_it_serves_one_page_and_nothing_else(dashboard: str, method: str, path: str, status: int) -> None:
    connection = http.client.HTTPConnection(dashboard.split("/")[2], timeout=10)
    connection.request(method, path)
    answer = connection.getresponse()
    assert answer.status == status
    assert "frame-ancestors 'none'" in (answer.getheader("Content-Security-Policy") or "") or status == 400


def test_a_federation_that_is_not_monitored_is_told_what_to_do(monitored: Standing) -> None:
    monitored.host("coordinator").check_output("mv /etc/flower/monitoring/page.conf /etc/flower/monitoring/aside")
    try:
        done = monitored.flowerbed("dashboard", monitored.path)
    finally:
        monitored.host("coordinator").check_output("mv /etc/flower/monitoring/aside /etc/flower/monitoring/page.conf")
    assert done.returncode == 2
    assert "coordinator is not monitored: name it in `monitored` of the platform's file" in done.stderr
