"""A real browser: Debian's Chromium, without a network."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

QUIET = ("quic", "background-networking", "component-update", "sync", "gpu")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium as this machine has it."""
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if program is None:
        pytest.fail("chromium is missing, and these tests look at real pages: apt-get install chromium")
    options = ["--no-sandbox", "--no-first-run", *(f"--disable-{what}" for what in QUIET)]
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=options)
        yield started
        started.close()


@pytest.fixture(scope="session")
def look(browser: Browser) -> Callable[..., Page]:
    """Opens a report; what it asks of the network is in `page.asked`.

    A page is opened once for all tests that only look at it; `fresh` gives one that may be changed.
    """
    opened: dict[tuple[Path, int, str], Page] = {}

    def look(folder: Path, width: int = 1280, scheme: str = "light", *, fresh: bool = False) -> Page:
        key = (folder, width, scheme)
        if fresh or key not in opened:
            context = browser.new_context(
                viewport={"width": width, "height": 900},
                color_scheme=scheme,  # type: ignore[arg-type] - light or dark
            )
            page = opened[key] = context.new_page()
            asked: list[str] = []
            page.on("request", lambda request: asked.append(request.url))
            page.on("dialog", lambda dialog: asked.append(f"dialog {dialog.message}"))
            page.goto((folder / "report.html").as_uri())
            page.asked = asked  # type: ignore[attr-defined] - kept with the page that it is about
        return opened.pop(key) if fresh else opened[key]

    return look
