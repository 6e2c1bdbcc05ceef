# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Makes the status page: one HTML file without a script or a request, from what the exporter wrote and what fires.

Whatever comes from an app, a site or Prometheus is text on it and nothing else: everything is escaped in one place, and
the page's own policy lets no browser run or fetch anything.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import html
import json
import math
import time
import urllib.request
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

REFRESH_SECONDS = 30
STALE_SECONDS = 300
_ANSWER_LIMIT = 4 << 20
_MINUTE, _HOUR, _DAY = 60, 3600, 86400
_DAYS_SOON, _DAYS_NOW = 30, 7


class Safe(str):
    """Text that is HTML already."""


def put(template: str, **values: object) -> Safe:
    """Fill a template; every value that is not HTML already is escaped."""
    return Safe(template.format(**{key: escape(value) for key, value in values.items()}))


def escape(value: object) -> Safe:
    """A value as text of the page; what cannot be shown, or turns the direction of text, is left out."""
    if isinstance(value, Safe):
        return value
    text = "".join(one for one in str(value) if one.isprintable())
    return Safe(html.escape(text))


def join(parts: Iterable[Safe]) -> Safe:
    """Pieces of HTML, one after the other."""
    return Safe("".join(parts))


# Numbers for people -----------------------------------------------------------------------------------------


def span(seconds: float) -> str:
    """A duration in its two largest units."""
    rest = max(0, round(seconds))
    if rest < _MINUTE:
        return f"{rest} s"
    if rest < _HOUR:
        return f"{rest // _MINUTE} min {rest % _MINUTE} s" if rest < 10 * _MINUTE else f"{rest // _MINUTE} min"
    if rest < _DAY:
        return f"{rest // _HOUR} h {rest % _HOUR // _MINUTE} min"
    return f"{rest // _DAY} days" if rest >= 2 * _DAY else f"1 day {(rest - _DAY) // _HOUR} h"


def ago(at: float, now: float) -> Safe:
    """How long ago something was, with the moment itself."""
    if at <= 0:
        return Safe("never")
    moment = datetime.fromtimestamp(at, UTC)
    return put(
        '<time datetime="{iso}" title="{iso}">{ago} ago</time>',
        iso=f"{moment:%Y-%m-%d %H:%M:%S} UTC",
        ago=span(now - at),
    )


def days(end: float, now: float) -> int:
    """Whole days until a moment."""
    return math.floor((end - now) / _DAY)


def size(count: float) -> str:
    """A number of bytes."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:  # noqa: PLR2004 - the units are thousands
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


# Alerts -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Alert:
    """An alert that fires."""

    name: str
    severity: str
    said: str
    remedy: str
    since: float


def fetch_alerts(prometheus: str) -> list[Alert] | None:
    """What fires now, the worst first; None where Prometheus does not answer."""
    try:
        with urllib.request.urlopen(f"{prometheus}/api/v1/alerts", timeout=5) as answer:  # noqa: S310 - the loopback
            return read_alerts(json.loads(answer.read(_ANSWER_LIMIT)))
    except (OSError, ValueError):
        return None


def read_alerts(answer: dict[str, Any]) -> list[Alert]:
    """Prometheus' answer: those that fire, not those that only may."""
    found = []
    for one in answer["data"]["alerts"]:
        if one["state"] == "firing":
            labels, notes = one["labels"], one["annotations"]
            since = datetime.fromisoformat(one["activeAt"].partition(".")[0].rstrip("Z")).replace(tzinfo=UTC)
            said, remedy = notes.get("summary", labels["alertname"]), notes.get("remedy", "")
            found.append(Alert(labels["alertname"], labels.get("severity", ""), said, remedy, since.timestamp()))
    return sorted(found, key=lambda one: (one.severity != "critical", -one.since))


# The page ---------------------------------------------------------------------------------------------------

_MARKS = {
    "good": '<circle cx="10" cy="10" r="9" fill="currentColor"/><path d="M5.6 10.4l3 3 5.8-6.4" {line}/>',
    "warn": '<path d="M10 1l9.3 17H.7z" fill="currentColor"/><path d="M10 7.2v5M10 15.2v.2" {line}/>',
    "bad": '<circle cx="10" cy="10" r="9" fill="currentColor"/><path d="M6.6 6.6l6.8 6.8M13.4 6.6l-6.8 6.8" {line}/>',
    "neutral": '<circle cx="10" cy="10" r="8" fill="none" stroke="currentColor" stroke-width="2.2"/>',
}
_LINE = 'fill="none" stroke="var(--paper)" stroke-width="2.2" stroke-linecap="round" stroke-linejoin="round"'


def mark(kind: str) -> Safe:
    """A sign whose form says what its colour says."""
    return Safe(f'<svg class="mark" viewBox="0 0 20 20" aria-hidden="true">{_MARKS[kind].format(line=_LINE)}</svg>')


def said(kind: str, text: object) -> Safe:
    """A state: sign, colour and word."""
    return put('<span class="state {kind}">{mark}{text}</span>', kind=kind, mark=mark(kind), text=text)


_NONE = Safe(' class="none"')


def table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> Safe:
    """A table whose first column names the row; on a phone each row is a card."""
    shown = []
    for first, *rest in rows:
        cells = join(
            put(
                '<td{none} data-head="{head}"><span>{cell}</span></td>',
                none=_NONE if cell == "" else "",
                head=head,
                cell=cell,
            )
            for head, cell in zip(heads[1:], rest, strict=True)
        )
        shown.append(put('<tr><th scope="row">{first}</th>{cells}</tr>\n', first=first, cells=cells))
    head = join(put('<th scope="col">{head}</th>', head=one) for one in heads)
    return put("<table><thead><tr>{head}</tr></thead><tbody>\n{rows}</tbody></table>", head=head, rows=join(shown))


_NODE = {"online": "good", "offline": "bad", "registered": "neutral", "unregistered": "bad"}
_RUN = {"completed": "good", "failed": "bad", "stopped": "neutral"}


def page(federation: str, state: dict[str, Any], alerts: list[Alert] | None, style: str, now: float) -> str:
    """The whole page.

    Args:
        federation: its name.
        state: what the exporter wrote.
        alerts: those that fire; None where Prometheus does not answer.
        style: the page's CSS.
        now: seconds since 1970.
    """
    sites, online = state["sites"], [one for one in state["sites"] if one["status"] == "online"]
    kind, words = verdict(state, alerts, now)
    policy = (
        f"default-src 'none'; style-src 'sha256-{base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()}'"
    )
    body = join(
        [
            put("<header><h1>{name}</h1>\n", name=federation),
            put(
                '<p class="verdict {kind}">{mark}<strong>{words}</strong></p>', kind=kind, mark=mark(kind), words=words
            ),
            _facts(state, len(online), now),
            Safe("</header>\n"),
            _alerts(alerts, now),
            _sites(sites, now),
            _runs(state["runs"], now),
            _certificates(state["certificates"], now),
        ]
    )
    made = f"{datetime.fromtimestamp(now, UTC):%Y-%m-%d %H:%M:%S} UTC"
    return put(
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta http-equiv="refresh" content="{refresh}">\n<title>{name}: {words}</title>\n'
        "<style>{style}</style>\n</head>\n<body>\n{body}\n"
        "<footer>Made {made} on the coordinator, and loaded anew every {refresh} seconds.</footer>\n</body>\n</html>\n",
        policy=policy,
        refresh=REFRESH_SECONDS,
        name=federation,
        words=words,
        style=Safe(style),
        body=body,
        made=made,
    )


def verdict(state: dict[str, Any], alerts: list[Alert] | None, now: float) -> tuple[str, str]:
    """The worst that is known, in a few words."""
    if state["problem"]:
        return "bad", "The SuperLink's database cannot be read"
    if now - state["at"] > STALE_SECONDS:
        return "bad", f"Nothing new for {span(now - state['at'])}: what is below is as old"
    if alerts is None:
        return "warn", "Prometheus does not answer: no alert is known"
    critical = sum(one.severity == "critical" for one in alerts)
    if alerts:
        count = f"{len(alerts)} alert{'s' if len(alerts) > 1 else ''}"
        return ("bad", f"{count}, {critical} critical") if critical else ("warn", count)
    offline = [one["name"] for one in state["sites"] if one["status"] != "online"]
    if offline:
        return "warn", f"{len(offline)} of {len(state['sites'])} sites not online"
    return "good", "All is well"


def _facts(state: dict[str, Any], online: int, now: float) -> Safe:
    running = sum(state["counts"].get(one, 0) for one in ("pending", "starting", "running"))
    facts: list[tuple[str, object]] = [
        ("sites online", f"{online} of {len(state['sites'])}"),
        ("runs under way", running),
    ]
    latest = next((one for one in state["runs"] if one["round_seconds"]), None)
    if latest:
        facts.append(("latest round took", span(latest["round_seconds"])))
    if state["certificates"]:
        facts.append(("first certificate ends", _days(min(one["end"] for one in state["certificates"]), now)))
    if state["backup"]:
        facts.append(("last backup", _done(state["backup"], now)))
    if state["database_bytes"] is not None:
        facts.append(("database", size(state["database_bytes"])))
    inner = join(put("<div><dt>{name}</dt><dd>{value}</dd></div>\n", name=name, value=value) for name, value in facts)
    return put('<dl class="facts">{inner}</dl>\n', inner=inner)


def _done(known: dict[str, Any], now: float) -> Safe:
    at = known.get("finished_at")
    at = float(at) if isinstance(at, int | float) and math.isfinite(at) else 0.0
    return ago(at, now) if known.get("ok") is True else said("bad", join([Safe("failed "), ago(at, now)]))


def _days(end: float, now: float) -> Safe:
    left = days(end, now)
    if end <= now:
        return said("bad", "has ended")
    text = f"in {left} day{'' if left == 1 else 's'}"
    return said("bad" if left < _DAYS_NOW else "warn", text) if left < _DAYS_SOON else escape(text)


def _alerts(alerts: list[Alert] | None, now: float) -> Safe:
    if alerts is None:
        return Safe(
            "<h2>Alerts</h2><p>Prometheus does not answer: see <code>systemctl status flower-prometheus</code>.</p>"
        )
    if not alerts:
        return Safe('<h2>Alerts</h2><p class="soft">None.</p>')
    items = join(
        put(
            '<li class="{severity}">{state} <span class="soft">{name}, since {since}</span><p>{remedy}</p></li>\n',
            severity="critical" if one.severity == "critical" else "warning",
            state=said("bad" if one.severity == "critical" else "warn", one.said),
            name=one.name,
            since=Safe(ago(one.since, now).replace(" ago<", "<")),
            remedy=one.remedy,
        )
        for one in alerts
    )
    return put('<h2>Alerts</h2><ul class="alerts">{items}</ul>', items=items)


def _sites(sites: list[dict[str, Any]], now: float) -> Safe:
    if not sites:
        return Safe('<h2>Sites</h2><p class="soft">None is registered.</p>')
    heads = ["site", "node", "since", "last reply"]
    probed = any(one["probe_at"] for one in sites)
    rows = []
    for one in sites:
        state = said(_NODE.get(one["status"], "neutral"), one["status"])
        rows.append([one["name"], state, ago(one["since"], now), ago(one["last_reply"], now)])
        if probed:
            rows[-1].append(_done({"finished_at": one["probe_at"], "ok": one["probe_ok"] or not one["probe_at"]}, now))
    return put("<h2>Sites</h2>{table}", table=table([*heads, "last probe"] if probed else heads, rows))


def _runs(runs: list[dict[str, Any]], now: float) -> Safe:
    if not runs:
        return Safe('<h2>Latest runs</h2><p class="soft">There was none.</p>')
    rows = []
    for one in runs:
        replies: object = f"{one['replied'] - one['failed']} of {one['asked']}" if one["asked"] else ""
        if one["finished"] and one["replied"] - one["failed"] < one["asked"]:
            replies = said("warn", replies)
        rows.append(
            (
                join([escape(one["app"]), Safe(" <code>"), escape(one["run_id"]), Safe("</code>")]),
                said(_RUN.get(one["status"], "neutral"), one["status"]),
                ago(one["started"], now),
                span((one["finished"] or now) - one["started"]),
                one["rounds"] or "",
                span(one["round_seconds"]) if one["round_seconds"] else "",
                replies,
            )
        )
    heads = ("run", "status", "started", "took", "rounds", "last round", "replies")
    return put("<h2>Latest runs</h2>{table}", table=table(heads, rows))


def _certificates(certificates: list[dict[str, Any]], now: float) -> Safe:
    if not certificates:
        return Safe("")
    rows = [
        (join([Safe("<code>"), escape(one["path"]), Safe("</code>")]), _days(one["end"], now)) for one in certificates
    ]
    return put("<h2>The coordinator's certificates</h2>{table}", table=table(("certificate", "ends"), rows))


def main() -> None:
    """Make the page once."""
    parser = argparse.ArgumentParser(description="The federation's status as one page.")
    parser.add_argument("--federation", required=True)
    parser.add_argument("--state", type=Path, required=True, help="state.json, as the exporter writes it")
    parser.add_argument("--prometheus", required=True, help="its address, as http://127.0.0.1:9090")
    parser.add_argument("--into", type=Path, required=True, help="folder that receives index.html")
    options = parser.parse_args()
    state = json.loads(options.state.read_text())
    style = Path(__file__).with_name("status_page.css").read_text()
    text = page(options.federation, state, fetch_alerts(options.prometheus), style, time.time())
    new = options.into / ".index.html.new"
    new.write_text(text)
    new.chmod(0o644)
    new.replace(options.into / "index.html")


if __name__ == "__main__":
    main()
