"""The status page says what is known in words, and nothing from outside is more than text on it."""

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Any

import pytest

from flowerbed.paths import ANSIBLE
from tests.host_programs import host_program

program = host_program("monitoring", "status_page")
STYLE = (ANSIBLE / "roles" / "monitoring" / "files" / "status_page.css").read_text()
NOW = 1_795_000_000.0
EVIL = "</title></style><script>alert(1)</script><img src=//evil.invalid onerror=alert(1)>\"'{0}{x}%s&lt;\u202e\x00"


def state(**more: Any) -> dict[str, Any]:
    """What the exporter writes."""
    site = {"name": "a", "node_id": "7", "status": "online", "since": NOW - 90, "last_reply": NOW - 30, "probe_at": 0.0}
    run = {"run_id": "1", "app": "us/app", "status": "completed", "started": NOW - 500, "finished": NOW - 400}
    notes = {"rounds": 3, "round_seconds": 12.4, "asked": 6, "replied": 6, "failed": 0}
    known: dict[str, Any] = {
        "at": NOW,
        "sites": [site | {"probe_ok": False, "clock_ahead": None}],
        "runs": [run | notes],
        "counts": {"completed": 1},
        "last": {},
        "certificates": [{"path": "/etc/flower/ca.crt", "end": NOW + 86400 * 90}],
        "backup": None,
        "database_bytes": 5_000_000,
        "problem": "",
    }
    return known | more


def page(known: dict[str, Any] | None = None, alerts: list[Any] | None = None, name: str = "lab") -> str:
    return str(program.page(name, known or state(), [] if alerts is None else alerts, STYLE, NOW))


def alert(**more: Any) -> Any:
    return program.Alert(**({"name": "X", "severity": "warning", "said": "s", "remedy": "r", "since": NOW - 60} | more))


def verdict(known: dict[str, Any], alerts: list[Any] | None) -> str:
    return str(program.verdict(known, alerts, NOW)[1])


@pytest.mark.parametrize(
    ("known", "alerts", "said"),
    [
        ({}, [], "All is well"),
        ({}, [alert()], "1 alert"),
        ({}, [alert(), alert(severity="critical")], "2 alerts, 1 critical"),
        ({}, None, "Prometheus does not answer: no alert is known"),
        ({"at": NOW - 4000}, [], "Nothing new for 1 h 6 min: what is below is as old"),
        ({"problem": "no such table"}, [], "The SuperLink's database cannot be read"),
        ({"sites": [{"name": "a", "status": "offline"}]}, [], "1 of 1 sites not online"),
    ],
)
def test_the_verdict_is_the_worst_that_is_known(known: dict[str, Any], alerts: list[Any] | None, said: str) -> None:
    assert verdict(state(**known), alerts) == said


class Tags(HTMLParser):
    """Which tags and attributes a browser would find."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def test_text_from_outside_is_inert_wherever_it_stands() -> None:
    known = state()
    known["sites"][0] |= {"name": EVIL, "status": EVIL}
    known["runs"][0] |= {"app": EVIL, "run_id": EVIL, "status": EVIL}
    known["certificates"][0]["path"] = EVIL
    evil, calm = Tags(), Tags()
    text = page(known, [alert(name=EVIL, said=EVIL, remedy=EVIL, severity=EVIL)], EVIL)
    evil.feed(text)
    calm.feed(page(alerts=[alert()]))
    assert evil.tags == calm.tags and evil.attributes == calm.attributes
    assert text.count("&lt;script&gt;") >= 8
    assert "\u202e" not in text and "\x00" not in text


def test_an_alert_is_told_with_its_remedy() -> None:
    text = page(alerts=[alert(said="a is offline", remedy="ask the hospital", severity="critical")])
    shown = text.split("<h2>Alerts</h2>")[1].split("<h2>")[0]
    assert "&lt;" not in shown
    assert re.search(r'<li class="critical"><span class="state bad"><svg.*</svg>a is offline</span>', shown)
    assert "<p>ask the hospital</p>" in shown


def test_the_page_asks_for_nothing_and_lets_nothing_run() -> None:
    text = page()
    found = Tags()
    found.feed(text)
    assert not found.tags & {"script", "img", "link", "iframe", "object", "form", "a"}
    assert not found.attributes & {"src", "href", "style", "onclick", "onerror"}
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', text)
    assert policy
    style = re.search(r"<style>(.*)</style>", text, re.DOTALL)
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy[1] == f"default-src &#x27;none&#x27;; style-src &#x27;sha256-{digest}&#x27;"


def test_a_run_whose_replies_are_not_all_good_is_marked() -> None:
    known = state()
    known["runs"][0] |= {"replied": 5, "failed": 1}
    assert "4 of 6" in page(known)
    assert '<span class="state warn">' in page(known).split("Latest runs")[1]


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "0 s"), (59.6, "1 min 0 s"), (601, "10 min"), (3700, "1 h 1 min"), (90000, "1 day 1 h"), (864000, "10 days")],
)
def test_durations_are_told_in_their_largest_units(seconds: float, said: str) -> None:
    assert program.span(seconds) == said


def test_only_alerts_that_fire_are_shown_the_worst_first() -> None:
    def one(name: str, state: str, severity: str) -> dict[str, Any]:
        labels = {"alertname": name, "severity": severity}
        return {"state": state, "labels": labels, "annotations": {}, "activeAt": "2026-11-26T22:05:14.655592854Z"}

    answer = {
        "data": {
            "alerts": [one("A", "firing", "warning"), one("B", "pending", "critical"), one("C", "firing", "critical")]
        }
    }
    assert [found.name for found in program.read_alerts(answer)] == ["C", "A"]
    assert program.read_alerts(answer)[0].since == 1795730714
