"""The audit trail of a federation: what its hosts' journals say of who joined, ran, was refused, or changed what."""

import dataclasses
import json
import re
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from flowerbed import inventory, journal, ssh
from flowerbed.errors import UsageError, WorkFailed
from flowerbed.federation import FederationFolder

TRUSTED = ("root", "flower-superexec", "flower-gateway")
"""Whose entries count: everybody on a host may write to its journal, and journald notes who did."""
_AT_ONCE = 16
_AGO = re.compile(r"([0-9]{1,6})([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True)
class Entry:
    """One thing that happened."""

    time: datetime
    """In UTC, by the clock of the host's journal."""
    host: str
    event: str
    """As `site.approved`."""
    message: str
    fields: dict[str, str]
    """What else the entry says, by the names in ansible/plugins/module_utils/audit.py."""
    user: str
    """Who wrote it, as journald saw it."""

    def to_json(self) -> dict[str, Any]:
        """For the command line's --json."""
        return {**dataclasses.asdict(self), "time": self.time.isoformat().replace("+00:00", "Z")}


@dataclass(frozen=True)
class Trail:
    """The entries of all hosts in the order of time, and what is missing from them."""

    federation: str
    entries: list[Entry]
    forged: dict[str, int] = field(default_factory=dict)
    """How many entries on a host were somebody else's and were left out."""
    unreachable: dict[str, str] = field(default_factory=dict)
    """Hosts whose journal could not be read, and why."""

    def to_json(self) -> dict[str, Any]:
        """One JSON document."""
        return {**dataclasses.asdict(self), "entries": [entry.to_json() for entry in self.entries]}


def read(
    federation: FederationFolder, *, since: datetime | None = None, site: str | None = None, event: str | None = None
) -> Trail:
    """Read the journals of the coordinator and the sites at once.

    `since` leaves out what is older, `site` keeps what happened at this site or concerns it, `event` keeps one kind:
    `run.submitted`, or `run` for all that begin so. A host that does not answer is named in the result. Raises
    UsageError for a site that is unknown.
    """
    hosts = inventory.read(federation)
    if site is not None and site not in hosts.sites:
        known = ", ".join(sorted(hosts.sites)) or "none"
        raise UsageError(
            f"site '{site}' is none that SSH reaches (there are: {known}): its own journal has its entries"
        )
    machines = [hosts.coordinator, *(one for name, one in hosts.sites.items() if site in (None, name))]
    shells = [ssh.Shell(federation, machine) for machine in machines]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        answers = list(pool.map(lambda shell: _ask(shell, since), shells))
    entries, forged, unreachable = [], {}, {}
    for machine, answer in zip(machines, answers, strict=True):
        if isinstance(answer, str):
            unreachable[machine.name] = answer
            continue
        entries += [_entry(machine.name, one) for one in answer["entries"]]
        if answer["forged"]:
            forged[machine.name] = int(answer["forged"])
    wanted = _wanted(entries, site, event)
    return Trail(federation.name, sorted(wanted, key=lambda one: one.time), forged, unreachable)


def moment(text: str) -> datetime:
    """Read a point in time: `2026-11-22`, `2026-11-22T10:00`, in this machine's zone if it names none, or `36h` ago.

    Raises UsageError for anything else.
    """
    ago = _AGO.fullmatch(text)
    if ago:
        return datetime.now(UTC) - timedelta(**{_UNITS[ago[2]]: int(ago[1])})
    try:
        return datetime.fromisoformat(text).astimezone(UTC)
    except ValueError:
        message = "is no point in time: write 2026-11-22, 2026-11-22T10:00 or 30m, 36h, 7d, 4w for so long ago"
        raise UsageError(f"--since {text}: {message}") from None


def _wanted(entries: Iterable[Entry], site: str | None, event: str | None) -> list[Entry]:
    return [
        entry
        for entry in entries
        if site in (None, entry.host, entry.fields.get("site"))
        and (event is None or entry.event == event or entry.event.startswith(f"{event}."))
    ]


def _ask(shell: ssh.Shell, since: datetime | None) -> dict[str, Any] | str:
    asked = {"users": TRUSTED, "identifier": journal.IDENTIFIER, "since": since.timestamp() if since else 0}
    try:
        answer: dict[str, Any] = json.loads(shell.run(["python3", "-c", _LOOK, json.dumps(asked)]))
    except WorkFailed as error:
        return str(error)
    except json.JSONDecodeError:
        return f"{shell.host.name}: its answer cannot be read"
    return answer


def _entry(host: str, known: dict[str, Any]) -> Entry:
    time = datetime.fromtimestamp(known["microseconds"] / 1e6, UTC)
    return Entry(time, host, known["event"], known["message"], known["fields"], known["user"])


# Runs on a host with its own Python; prints one JSON document. A field that comes twice, or holds more than text, is
# none that the writers of the trail make.
_LOOK = r"""
import json, pathlib, pwd, subprocess, sys
asked = json.loads(sys.argv[1])
users = {str(one.pw_uid): one.pw_name for one in pwd.getpwall() if one.pw_name in asked["users"]}
entries, forged = [], 0
command = ["journalctl", "--output=json", "--all", "--quiet", "--no-pager", "--since=@%f" % asked["since"]]
done = subprocess.run([*command, "SYSLOG_IDENTIFIER=" + asked["identifier"]], stdout=subprocess.PIPE, check=True)
for line in done.stdout.splitlines():
    known = {name: value for name, value in json.loads(line).items() if isinstance(value, str)}
    if "FLOWERBED_EVENT" not in known:
        continue
    if known.get("_UID") not in users:
        forged += 1
        continue
    fields = {name[10:].lower(): value for name, value in known.items() if name.startswith("FLOWERBED_")}
    entries.append({
        "microseconds": int(known["__REALTIME_TIMESTAMP"]),
        "event": fields.pop("event"),
        "message": known.get("MESSAGE", ""),
        "fields": fields,
        "user": users[known["_UID"]],
    })
# What a coordinator that is gone had in its journal, and a restore brought back.
kept = pathlib.Path("/var/lib/flower/audit.json")
if kept.exists() and kept.stat().st_uid == 0:
    seen = {(one["microseconds"], one["event"], one["message"]) for one in entries}
    for one in json.loads(kept.read_text()):
        key = (one["microseconds"], one["event"], one["message"])
        if key not in seen and one["microseconds"] >= asked["since"] * 1e6:
            entries.append(one)
print(json.dumps({"entries": entries, "forged": forged}))
"""
