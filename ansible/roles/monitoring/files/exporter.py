# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Tells Prometheus, by the node exporter's text files, what Flower and Flowerbed know of a federation.

It runs every few seconds as a user without any right to change what it reads: the SuperLink's database, the record of
the sites' names, the notes of the runs, the certificates, and the results of the last backup and probe. It writes
`flowerbed.prom` for the node exporter and `state.json` for the status page.

What an app wrote is among what it reads: notes are bounded, and what cannot be read counts as absent.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import re
import sqlite3
import stat
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

LATEST_RUNS = 10
STATUSES = ("pending", "starting", "running", "completed", "failed", "stopped")
_NOTES_LIMIT = 8 << 20
_TEXT_LIMIT = 120
_SQLITE_SIGN = 1 << 63
_BUSY_SECONDS = 5.0
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----\n?", re.DOTALL)


@dataclass
class Site:
    """A site as the SuperLink sees it; times are seconds since 1970, 0 for never."""

    name: str
    node_id: str
    status: str = "unregistered"
    """online, offline, registered (never seen), or unregistered."""
    since: float = 0.0
    """When the status began, as far as the SuperLink says."""
    last_reply: float = 0.0
    """When the ServerApp of a run had the site's last reply that was no error."""
    probe_at: float = 0.0
    """When a probe was last run at the site."""
    probe_ok: bool = False
    clock_ahead: float | None = None
    """Seconds after its coming at which the last reply was made by the site's clock; above 0, one clock is wrong."""


@dataclass
class Run:
    """A run, and what the coordinator noted of its messages."""

    run_id: str
    app: str
    status: str
    """One of STATUSES."""
    started: float
    finished: float
    rounds: int = 0
    """How many rounds were begun."""
    round_seconds: float = 0.0
    """How long the last round took of which every message is answered."""
    asked: int = 0
    replied: int = 0
    failed: int = 0
    """Replies that are errors."""


@dataclass
class Certificate:
    """A certificate, and its end in seconds since 1970."""

    path: str
    end: float


@dataclass
class State:
    """All that is known."""

    at: float
    sites: list[Site] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    """The latest ones, newest first."""
    counts: dict[str, int] = field(default_factory=dict)
    """All runs of the database, by status."""
    last: dict[str, float] = field(default_factory=dict)
    """When the last run ended so, by status; 0 for never."""
    certificates: list[Certificate] = field(default_factory=list)
    backup: dict[str, Any] | None = None
    database_bytes: int | None = None
    problem: str = ""
    """Why the database could not be read."""


# The SuperLink's database -----------------------------------------------------------------------------------


def open_database(path: Path) -> sqlite3.Connection:
    """Open it for reading alone; sqlite3.Error where it cannot be.

    A SuperLink that is at work keeps a write-ahead log; without one nobody writes, and the file can be read as it is.
    """
    quiet = "" if path.with_name(f"{path.name}-wal").exists() else "&immutable=1"
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro{quiet}", uri=True, timeout=_BUSY_SECONDS)


def read_sites(database: sqlite3.Connection, names: dict[str, str], now: float) -> list[Site]:
    """The sites of the record with their nodes' states; `names` gives the node id of each."""
    nodes = {}
    columns = "node_id, status, registered_at, last_activated_at, last_deactivated_at, online_until"
    for node_id, status, registered, activated, deactivated, until in database.execute(f"SELECT {columns} FROM node"):  # noqa: S608 - no value is put in
        online = status == "online" and (until or 0) > now
        began = _time(activated) if online else max(_time(deactivated), min(until or 0.0, now))
        kind = "offline" if status == "online" and not online else str(status)
        nodes[_unsigned(node_id)] = (kind, began or _time(registered))
    sites = []
    for name, node_id in sorted(names.items()):
        kind, since = nodes.get(node_id, ("unregistered", 0.0))
        sites.append(Site(name, node_id, kind, since))
    return sites


def read_runs(database: sqlite3.Connection) -> tuple[list[Run], dict[str, int], dict[str, float]]:
    """The latest runs, how many there are of each status, and when one last ended so."""
    counts = dict.fromkeys(STATUSES, 0)
    last = dict.fromkeys(STATUSES[3:], 0.0)
    latest = []
    columns = "run.run_id, fab_id, pending_at, starting_at, running_at, finished_at, sub_status"
    query = f"SELECT {columns} FROM run JOIN task ON task.task_id = run.primary_task_id ORDER BY pending_at DESC"  # noqa: S608 - no value is put in
    for run_id, app, pending, starting, running, finished, sub_status in database.execute(query):
        status = "pending"
        if finished:
            status = sub_status if sub_status in last else "failed"
            last[status] = max(last[status], _time(finished))
        elif running or starting:
            status = "running" if running else "starting"
        counts[status] += 1
        if len(latest) < LATEST_RUNS:
            latest.append(Run(_unsigned(run_id), str(app or "")[:_TEXT_LIMIT], status, _time(pending), _time(finished)))
    return latest, counts, last


def _unsigned(number: int) -> str:
    return str(int(number) % (2 * _SQLITE_SIGN))


def _time(text: str | None) -> float:
    if not text:
        return 0.0
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return 0.0
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


# What the coordinator noted of the runs' messages -----------------------------------------------------------


def add_notes(run: Run, sites: Iterable[Site], file: Path) -> None:
    """Add to a run what its notes tell, and to the sites when they last replied."""
    by_node = {site.node_id: site for site in sites}
    sent: dict[str, tuple[int, float]] = {}
    rounds: dict[int, list[float]] = {}
    answered: dict[str, float] = {}
    for entry in _entries(file):
        at = _number(entry.get("at"))
        if entry.get("event") == "sent" and entry.get("taken"):
            number = entry.get("round")
            number = number if isinstance(number, int) else 0
            sent[str(entry.get("message"))] = (number, at)
            rounds.setdefault(number, []).append(at)
        elif entry.get("event") == "reply" and (key := str(entry.get("to"))) in sent and key not in answered:
            answered[key] = at
            run.failed += "error" in entry
            site = by_node.get(str(entry.get("node")))
            if site and "error" not in entry and at > site.last_reply:
                site.last_reply = at
                site.clock_ahead = _number(entry.get("created")) - at
    run.asked, run.replied = len(sent), len(answered)
    run.rounds = len([number for number in rounds if number > 0])
    whole = [
        number
        for number in sorted(rounds)
        if number > 0 and all(key in answered for key, (of, _) in sent.items() if of == number)
    ]
    if whole:
        ends = [answered[key] for key, (of, _) in sent.items() if of == whole[-1]]
        run.round_seconds = max(0.0, max(ends) - min(rounds[whole[-1]]))


def _entries(file: Path) -> Iterator[dict[str, Any]]:
    text = _bounded(file, _NOTES_LIMIT)
    for line in text.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            entry = json.loads(line)
            if isinstance(entry, dict):
                yield entry


def _bounded(file: Path, limit: int) -> bytes:
    """The beginning of a plain file; nothing of what is a link, a pipe or not there. An app could have put it there."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return b""
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        return b""
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read(limit)


def _number(value: Any) -> float:
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else 0.0


# Certificates, backup, probe --------------------------------------------------------------------------------


def read_certificates(folders: Iterable[Path]) -> list[Certificate]:
    """Every certificate below the folders, with its end."""
    found = []
    for file in sorted({file for folder in folders for file in folder.rglob("*.crt")}):
        with contextlib.suppress(OSError):
            for pem in _CERTIFICATE.findall(file.read_text(errors="replace")):
                end = _end(pem)
                if end is not None:
                    found.append(Certificate(str(file), end))
    return found


def _end(pem: str) -> float | None:
    command = ["openssl", "x509", "-noout", "-enddate"]
    said = subprocess.run(command, input=pem, capture_output=True, text=True, check=False).stdout
    try:
        moment = datetime.strptime(said.strip(), "notAfter=%b %d %H:%M:%S %Y GMT")
    except ValueError:
        return None
    return moment.replace(tzinfo=UTC).timestamp()


def read_json(file: Path) -> dict[str, Any] | None:
    """A small JSON object; None where there is none."""
    try:
        document = json.loads(_bounded(file, 1 << 20))
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def add_probes(sites: Iterable[Site], record: dict[str, Any]) -> None:
    """Add what `flowerbed health --probe` left on the coordinator."""
    for site in sites:
        known = record.get(site.name)
        if isinstance(known, dict):
            site.probe_at, site.probe_ok = _time(str(known.get("at"))), known.get("ok") is True


# All together -----------------------------------------------------------------------------------------------


def collect(root: Path, configuration: Path, now: float, *, superlink: bool) -> State:
    """Read all that there is.

    Args:
        root: /var/lib/flower.
        configuration: /etc/flower, whose certificates count.
        now: seconds since 1970.
        superlink: whether this host has one.
    """
    state = State(now, certificates=read_certificates([configuration]))
    if not superlink:
        return state
    state.backup = read_json(root / "backups" / "last.json")
    record = read_json(root / "nodes.json") or {}
    names = {
        name: str(node["node_id"]) for name, node in record.items() if isinstance(node, dict) and "node_id" in node
    }
    database = root / "superlink" / "superlink.db"
    try:
        with contextlib.closing(open_database(database)) as opened:
            state.sites = read_sites(opened, names, now)
            state.runs, state.counts, state.last = read_runs(opened)
        state.database_bytes = sum(file.stat().st_size for file in database.parent.glob(f"{database.name}*"))
    except (sqlite3.Error, OSError) as error:
        state.problem = f"{database}: {error}"
    add_probes(state.sites, read_json(root / "probes.json") or {})
    for run in state.runs:
        add_notes(run, state.sites, root / "results" / ".flowerbed" / run.run_id / "replies.jsonl")
    return state


def keep_last_replies(state: State, before: dict[str, Any] | None) -> None:
    """Notes go with their run; when a site last replied is remembered from one call to the next."""
    for known in (before or {}).get("sites", []):
        for site in state.sites:
            if site.node_id == known.get("node_id") and site.last_reply < _number(known.get("last_reply")):
                site.last_reply, site.clock_ahead = _number(known["last_reply"]), known.get("clock_ahead")


# Prometheus' text format ------------------------------------------------------------------------------------


def metrics(state: State) -> str:
    """The state as the node exporter's textfile collector reads it."""
    page = _Page()
    page.add("read_success", "1: the last look at the SuperLink's database succeeded", {}, float(not state.problem))
    page.add("read_timestamp_seconds", "When it was looked at", {}, state.at)
    for site in state.sites:
        label = {"site": site.name}
        page.add("site_online", "1: the site's SuperNode is online", label, float(site.status == "online"))
        page.add("site_status_since_timestamp_seconds", "When the site's state began", label, site.since)
        page.add("site_last_reply_timestamp_seconds", "When the site last trained, 0: never", label, site.last_reply)
        if site.probe_at:
            page.add("site_probe_timestamp_seconds", "When a probe last trained at the site", label, site.probe_at)
            page.add("site_probe_success", "1: that probe succeeded", label, float(site.probe_ok))
        if site.clock_ahead is not None:
            page.add(
                "site_clock_ahead_seconds",
                "How much later than it came the last reply claims to be made",
                label,
                site.clock_ahead,
            )
    for status, count in state.counts.items():
        page.add("runs", "Runs in the SuperLink's database", {"status": status}, count)
    for status, at in state.last.items():
        page.add("run_last_timestamp_seconds", "When a run last ended so, 0: never", {"status": status}, at)
    measured = next((run for run in state.runs if run.round_seconds), None)
    if measured:
        page.add("round_duration_seconds", "How long the latest complete round took", {}, measured.round_seconds)
    if state.runs:
        latest = state.runs[0]
        page.add("latest_run_rounds", "Rounds of the latest run that were begun", {}, latest.rounds)
        for outcome, count in (("asked", latest.asked), ("replied", latest.replied), ("failed", latest.failed)):
            page.add("latest_run_messages", "Messages of the latest run", {"outcome": outcome}, count)
    for path in dict.fromkeys(one.path for one in state.certificates):
        end = min(one.end for one in state.certificates if one.path == path)
        page.add(
            "certificate_end_timestamp_seconds", "When the first certificate of the file ends", {"path": path}, end
        )
    if state.database_bytes is not None:
        page.add("superlink_database_bytes", "Size of the SuperLink's database", {}, state.database_bytes)
    if state.backup is not None:
        ended = _number(state.backup.get("finished_at"))
        page.add("backup_finished_timestamp_seconds", "When the last backup ended", {}, ended)
        page.add("backup_success", "1: the last backup succeeded", {}, float(state.backup.get("ok") is True))
    return page.text()


class _Page:
    """Collects samples; those of one metric stand together."""

    def __init__(self) -> None:
        self._samples: dict[str, list[str]] = {}
        self._help: dict[str, str] = {}

    def add(self, name: str, text: str, labels: dict[str, str], value: float) -> None:
        """Add a sample of `flowerbed_<name>`."""
        name = f"flowerbed_{name}"
        self._help[name] = text
        inner = ",".join(f'{key}="{_label(one)}"' for key, one in labels.items())
        self._samples.setdefault(name, []).append(f"{name}{{{inner}}} {value!r}" if inner else f"{name} {value!r}")

    def text(self) -> str:
        """The page."""
        lines = []
        for name, samples in self._samples.items():
            lines += [f"# HELP {name} {self._help[name]}", f"# TYPE {name} gauge", *samples]
        return "\n".join(lines) + "\n"


def _label(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")


def write(file: Path, text: str) -> None:
    """Replace a file that everybody may read, as a whole."""
    new = file.with_name(f".{file.name}.new")
    new.write_text(text)
    new.chmod(0o644)
    new.replace(file)


def main() -> None:
    """Look once."""
    parser = argparse.ArgumentParser(description="What Flower knows, for Prometheus.")
    parser.add_argument("--root", type=Path, default=Path("/var/lib/flower"))
    parser.add_argument("--configuration", type=Path, default=Path("/etc/flower"))
    parser.add_argument("--into", type=Path, required=True, help="folder that receives flowerbed.prom and state.json")
    parser.add_argument("--superlink", action="store_true", help="this host has the SuperLink")
    options = parser.parse_args()
    state = collect(options.root, options.configuration, time.time(), superlink=options.superlink)
    keep_last_replies(state, read_json(options.into / "state.json"))
    write(options.into / "state.json", json.dumps(asdict(state)))
    write(options.into / "flowerbed.prom", metrics(state))


if __name__ == "__main__":
    main()
