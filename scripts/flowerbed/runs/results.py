"""The folder of a run on the operator's machine: runs/<date>/<time>/, complete or not there at all.

run.json says how the results came about. Its form is SCHEMA 2; 1 lacked what is marked with a star, and readers take
a missing key for unknown. Times are ISO 8601, durations seconds, sizes bytes of arrays; null stands for what is not
known or no number.

    schema, run_id, status, reason, exit_code, *lost   the verdict, as flowerbed.runs.verdict describes it
    flower_status, flower_details               the SuperLink's own word on it
    app             name, publisher, version, fab_hash
    origin          the folder or the git reference that the app came from
    config          the whole run config; overrides: what of it was given for this run
    federation      its name; sites: site name to node id; *labels: site name to its labels; *simulation: whether this
                    was a simulation of it
    by*             who submitted the run, and from which machine; *retry_of: the run that it does again
    release         the hosts' release; flower: the submitter's version of Flower
    versions*       flowerbed, and of the coordinator flower, python and the packages that the app asks for
    submitted, started, finished, seconds, client_seconds
    timings*        queue: until the ServerApp started; running: from then on; phases: kind to seconds in all;
                    sites: site, kind to {messages, replies, mean, slowest, to_site, from_site}
    bytes           from_sites, to_sites: all traffic, messages about messages included
    rounds          each with round, server: what the ServerApp measured, sites: phase, site and metric to value, and
                    for each phase (train, evaluate, *and what else an app asks its sites)
                      sampled, online, results, failures, missing, seconds, metrics, errors: [{site, reason, refused}]
                      *replies: site to {outcome: result, failure or missing, sent: time, seconds: until the ServerApp
                      had the reply, created: seconds until the site had made it, by the site's clock, to_site,
                      from_site, reason}; an app that asks a site twice in a phase: the last
    recorded*       whether the coordinator noted the messages (replies.jsonl)
    files           what the ServerApp wrote; files_error: why it did not come home
"""

import csv
import json
import math
import shutil
import statistics
import tempfile
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flowerbed.errors import FlowerbedError
from flowerbed.runs import report
from flowerbed.runs.connection import Deployed
from flowerbed.runs.flwr import ConfigValue, RunInfo
from flowerbed.runs.follow import Phase, Round
from flowerbed.runs.replies import NAME, Exchange, Recording, aligned, merge, of_exchanges
from flowerbed.runs.verdict import Verdict, without_files

SCHEMA = 2
SiteMetrics = dict[int, dict[str, dict[str, dict[str, Any]]]]
"""Round number, phase, site and metric to value."""


@dataclass(frozen=True)
class Submission:
    """What only the submitter knows of a run; kept beside the results until the run comes home."""

    run_id: str
    origin: str
    """Where the app came from: a folder, or a git reference."""
    config: Mapping[str, ConfigValue]
    """The whole run config, with the overrides applied."""
    overrides: Mapping[str, ConfigValue]
    release: str | None
    flower: str
    sites: Mapping[str, str] = field(default_factory=dict)
    requirements: Mapping[str, str | None] = field(default_factory=dict)
    """The packages that the app asks for, to their versions in the release."""
    by: str | None = None
    """Who submitted it, and from which machine."""
    flowerbed: str | None = None
    retry_of: str | None = None
    """The run that this one does again."""
    repeatable: bool = True
    """False for a session's, which is nothing without its script."""


def remember(into: Path, submission: Submission) -> None:
    """Keep a submission, so that a later call can bring its run home with everything about it."""
    file = _submission_file(into, submission.run_id)
    file.parent.mkdir(parents=True, exist_ok=True)
    _write_json(file, vars(submission))


def recall(into: Path, run_id: str) -> Submission | None:
    """Give a submission that was made from here; None: it was made elsewhere."""
    try:
        return Submission(**json.loads(_submission_file(into, run_id).read_text(encoding="utf-8")))
    except (FileNotFoundError, json.JSONDecodeError, TypeError):
        return None


def forget(into: Path, run_id: str) -> None:
    """Wait no more for a run that was submitted from here."""
    _submission_file(into, run_id).unlink(missing_ok=True)


def waited_for(into: Path) -> list[str]:
    """The ids of the runs that were submitted from here and are not home yet, the oldest first."""
    files = sorted((into / ".submitted").glob("*.json"), key=lambda file: file.stat().st_mtime)
    return [file.stem for file in files]


def find(into: Path, run_id: str) -> Path | None:
    """The folder of a run that is home already, with its files; None: it is not."""
    for file in sorted(into.glob("????-??-??/*/run.json"), reverse=True):
        try:
            there = read(file.parent)
        except (OSError, json.JSONDecodeError):
            continue
        if there.get("run_id") == run_id and there.get("files_error") is None:
            return file.parent
    return None


def read(folder: Path) -> dict[str, Any]:
    """What a run's run.json holds."""
    there: dict[str, Any] = json.loads((folder / "run.json").read_text(encoding="utf-8"))
    return there


def sites_of(folder: Path) -> SiteMetrics:
    """The values per site that stand in a run's folder."""
    return {entry["round"]: entry["sites"] for entry in read(folder)["rounds"] if entry.get("sites")}


def log_of(folder: Path) -> list[str]:
    """The lines of a run's log.txt."""
    return (folder / "log.txt").read_text(encoding="utf-8").splitlines()


def verdict_of(folder: Path) -> Verdict:
    """The verdict that stands in a run's folder."""
    there = read(folder)
    return Verdict(there["status"], there["reason"], there["exit_code"], there.get("lost", False))


def write(
    into: Path,
    run: RunInfo,
    verdict: Verdict,
    rounds: Sequence[Round],
    log: Iterable[str],
    *,
    deployed: Deployed,
    submission: Submission | None,
    fetch: Callable[[Path], None],
    recording: Recording | None = None,
) -> Path:
    """Write the run's folder under `into` and point `into`/latest to it.

    `fetch` fills a folder with what the ServerApp wrote. When it fails, everything else still comes home, but the
    run counts as incomplete. `recording` is what the coordinator noted of the run's messages; `rounds` are those of
    the log, or merged with the recording already. Gives the folder, which no run had before.
    """
    notes = aligned(rounds, recording or Recording())
    rounds = merge(rounds, notes)
    date = _started(run).strftime("%Y-%m-%d")
    (into / date).mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".arriving-", dir=into / date))
    try:
        files_error = _fetch(fetch, draft / "files")
        if files_error is not None:
            verdict = without_files(verdict, files_error)
        sites = _with_told(_noted_metrics(notes, deployed), site_metrics(draft / "files" / "metrics.json", deployed))
        details = record(run, verdict, rounds, sites, deployed=deployed, submission=submission, recording=notes)
        details["files_error"] = files_error
        details["files"] = sorted(
            file.relative_to(draft / "files").as_posix() for file in (draft / "files").rglob("*") if file.is_file()
        )
        _write_json(draft / "run.json", details)
        _write_json(draft / "metrics.json", {"run_id": run.run_id, "rounds": _metrics(rounds, sites)})
        _write_csv(draft / "metrics.csv", rounds, sites)
        (draft / "log.txt").write_text("".join(f"{line}\n" for line in log), encoding="utf-8")
        if notes.text:
            (draft / NAME).write_bytes(notes.text)
        report.write_or_say_why(draft)
        draft.chmod(0o755)
        folder = _settle(draft, into, run)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise
    _point(into / "latest", folder)
    if files_error is None:
        _submission_file(into, run.run_id).unlink(missing_ok=True)
    return folder


def record(
    run: RunInfo,
    verdict: Verdict,
    rounds: Sequence[Round],
    sites: SiteMetrics,
    *,
    deployed: Deployed,
    submission: Submission | None,
    recording: Recording | None = None,
) -> dict[str, Any]:
    """What run.json holds: all that says how these results came about."""
    notes = recording or Recording()
    publisher, _, name = run.app.rpartition("/")
    phases = notes.phases()
    numbers = sorted({round_.number for round_ in rounds} | {number for number, _ in phases} | set(sites))
    by_number = {round_.number: round_ for round_ in rounds}
    known = submission.sites if submission else deployed.sites
    return {
        "schema": SCHEMA,
        "run_id": run.run_id,
        "status": verdict.status,
        "reason": verdict.reason,
        "exit_code": verdict.exit_code,
        "lost": verdict.lost,
        "flower_status": run.status,
        "flower_details": run.details,
        "app": {
            "name": name,
            "publisher": publisher,
            "version": run.version,
            "fab_hash": run.fab_hash,
        },
        "origin": submission.origin if submission else None,
        "config": dict(submission.config) if submission else None,
        "overrides": dict(submission.overrides) if submission else None,
        "federation": deployed.name,
        "simulation": deployed.simulated,
        "sites": dict(known),
        "labels": {site: dict(deployed.labels.get(site, {})) for site in known},
        "by": submission.by if submission else None,
        "retry_of": submission.retry_of if submission else None,
        "release": submission.release if submission else deployed.release,
        "flower": submission.flower if submission else None,
        "versions": {
            "flowerbed": submission.flowerbed if submission else None,
            "flower": notes.flower,
            "python": notes.python,
            "packages": dict(submission.requirements) if submission else {},
        },
        "submitted": _iso(run.submitted),
        "started": _iso(run.started),
        "finished": _iso(run.finished),
        "seconds": _between(run.submitted, run.finished),
        "client_seconds": run.client_seconds,
        "timings": _timings(run, rounds, notes, deployed),
        "bytes": {"from_sites": run.received_bytes, "to_sites": run.sent_bytes},
        "rounds": [
            _round(
                by_number.get(number, Round(number)),
                sites.get(number, {}),
                {kind: each for (of, kind), each in phases.items() if of == number},
                deployed,
            )
            for number in numbers
        ],
        "recorded": bool(notes.exchanges),
    }


def site_metrics(file: Path, deployed: Deployed) -> SiteMetrics:
    """Read the per-site values that an app may write to metrics.json in its results folder.

    The form is {"rounds": [{"round": 1, "phase": "evaluate", "sites": {"<node id>": {"accuracy": 0.9}}}]}, where
    `phase` is `evaluate` if not given. Another form is the app's own affair: then there are no per-site values.
    """
    found: SiteMetrics = {}
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))["rounds"]
        for entry in entries:
            sites = {
                deployed.site(str(node)): {str(name): value for name, value in values.items() if _is_metric(value)}
                for node, values in entry.get("sites", {}).items()
            }
            found.setdefault(int(entry["round"]), {})[str(entry.get("phase", "evaluate"))] = sites
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}
    return found


def _noted_metrics(notes: Recording, deployed: Deployed) -> SiteMetrics:
    found: SiteMetrics = {}
    for exchange in notes.exchanges:
        if exchange.reply is not None and exchange.reply.metrics:
            by_site = found.setdefault(exchange.round, {}).setdefault(exchange.kind, {})
            by_site[deployed.site(exchange.node_id)] = dict(exchange.reply.metrics)
    return found


def _with_told(noted: SiteMetrics, told: SiteMetrics) -> SiteMetrics:
    """What the coordinator noted, overlaid with what the app itself tells."""
    for number, phases in told.items():
        for phase, by_site in phases.items():
            for site, values in by_site.items():
                noted.setdefault(number, {}).setdefault(phase, {}).setdefault(site, {}).update(values)
    return noted


def _fetch(fetch: Callable[[Path], None], folder: Path) -> str | None:
    folder.mkdir()
    try:
        fetch(folder)
    except FlowerbedError as error:
        return str(error)
    return None


def _round(
    round_: Round, sites: Mapping[str, Any], noted: Mapping[str, Sequence[Exchange]], deployed: Deployed
) -> dict[str, Any]:
    phases = {phase.kind: _phase(phase, noted.get(phase.kind, ()), deployed) for phase in round_.phases}
    for kind, exchanges in noted.items():
        if kind not in phases:
            phases[kind] = _phase(of_exchanges(kind, exchanges), exchanges, deployed)
    return {"round": round_.number, **phases, "server": _finite(round_.server), "sites": _finite(sites)}


def _phase(phase: Phase, exchanges: Sequence[Exchange], deployed: Deployed) -> dict[str, Any]:
    return {
        "sampled": phase.sampled,
        "online": phase.online,
        "results": phase.results,
        "failures": phase.failures,
        "missing": phase.missing,
        "seconds": None if phase.seconds is None else round(phase.seconds, 1),
        "metrics": _finite(phase.metrics),
        "errors": [
            {"site": deployed.site(error.node_id), "reason": error.reason, "refused": error.refused}
            for error in phase.errors
        ],
        "replies": {deployed.site(one.node_id): _exchange(one) for one in exchanges},
    }


def _exchange(exchange: Exchange) -> dict[str, Any]:
    reply = exchange.reply
    created = None if reply is None or reply.created is None else reply.created - exchange.sent
    return {
        "outcome": exchange.outcome,
        "sent": _iso(datetime.fromtimestamp(exchange.sent, UTC)),
        "seconds": None if exchange.seconds is None else round(exchange.seconds, 2),
        "created": None if created is None else round(created, 2),
        "to_site": exchange.bytes,
        "from_site": None if reply is None else reply.bytes,
        "reason": None if reply is None or reply.error is None else reply.error.reason,
    }


def _timings(run: RunInfo, rounds: Sequence[Round], notes: Recording, deployed: Deployed) -> dict[str, Any]:
    phases: dict[str, float] = {}
    for round_ in rounds:
        for phase in round_.phases:
            if phase.seconds is not None:
                phases[phase.kind] = round(phases.get(phase.kind, 0.0) + phase.seconds, 1)
    sites: dict[str, dict[str, list[Exchange]]] = {}
    for exchange in notes.exchanges:
        sites.setdefault(deployed.site(exchange.node_id), {}).setdefault(exchange.kind, []).append(exchange)
    return {
        "queue": _between(run.submitted, run.started),
        "running": _between(run.started, run.finished),
        "phases": phases,
        "sites": {site: {kind: _of_site(each) for kind, each in kinds.items()} for site, kinds in sites.items()},
    }


def _of_site(exchanges: Sequence[Exchange]) -> dict[str, Any]:
    seconds = [one.seconds for one in exchanges if one.seconds is not None]
    return {
        "messages": len(exchanges),
        "replies": len(seconds),
        "mean": round(statistics.fmean(seconds), 2) if seconds else None,
        "slowest": round(max(seconds), 2) if seconds else None,
        "to_site": sum(one.bytes for one in exchanges),
        "from_site": sum(one.reply.bytes for one in exchanges if one.reply),
    }


def _metrics(rounds: Sequence[Round], sites: SiteMetrics) -> list[dict[str, Any]]:
    return [
        {
            "round": round_.number,
            **{phase.kind: _finite(phase.metrics) for phase in round_.phases},
            "server": _finite(round_.server),
            "sites": _finite(sites.get(round_.number, {})),
        }
        for round_ in _with_site_rounds(rounds, sites)
    ]


def _write_csv(file: Path, rounds: Sequence[Round], sites: SiteMetrics) -> None:
    with file.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["round", "phase", "site", "metric", "value"])
        for round_ in _with_site_rounds(rounds, sites):
            groups: list[tuple[str, str, Mapping[str, Any]]] = [
                (phase.kind, "", phase.metrics) for phase in round_.phases
            ]
            groups.append(("server", "", round_.server))
            for phase, by_site in sites.get(round_.number, {}).items():
                groups += [(phase, site, values) for site, values in sorted(by_site.items())]
            for phase_name, site, values in groups:
                for name, value in values.items():
                    text = json.dumps(value) if isinstance(value, list) else value
                    writer.writerow([round_.number, phase_name, site, name, text])


def _with_site_rounds(rounds: Sequence[Round], sites: SiteMetrics) -> list[Round]:
    """The log's rounds, and those that only the app's own file knows."""
    known = {round_.number for round_ in rounds}
    return sorted([*rounds, *(Round(number) for number in sites if number not in known)], key=lambda each: each.number)


def _is_metric(value: object) -> bool:
    return isinstance(value, int | float) or (
        isinstance(value, list) and all(isinstance(item, int | float) for item in value)
    )


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: null stands for them."""
    if isinstance(value, Mapping):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _settle(draft: Path, into: Path, run: RunInfo) -> Path:
    """Rename the finished draft to the first free name: a rename onto a folder that is not empty fails."""
    for folder in _folders(into, run):
        try:
            return draft.rename(folder)
        except OSError:
            if not folder.exists():
                raise
    raise AssertionError("there is always a next name")


def _folders(into: Path, run: RunInfo) -> Iterable[Path]:
    started = _started(run)
    base = into / started.strftime("%Y-%m-%d") / started.strftime("%H-%M-%S")
    yield base
    number = 2
    while True:
        yield base.with_name(f"{base.name}-{number}")
        number += 1


def _started(run: RunInfo) -> datetime:
    """When the run was submitted, in the operator's own time."""
    return (run.submitted or datetime.now(UTC)).astimezone()


def _point(link: Path, folder: Path) -> None:
    fresh = link.with_name(f".latest-{uuid.uuid4().hex}")
    fresh.symlink_to(folder.relative_to(link.parent))
    fresh.replace(link)


def _submission_file(into: Path, run_id: str) -> Path:
    return into / ".submitted" / f"{run_id}.json"


def _write_json(file: Path, document: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")


def _between(start: datetime | None, end: datetime | None) -> float | None:
    return (end - start).total_seconds() if start and end else None


def _iso(time: datetime | None) -> str | None:
    return time.isoformat() if time else None
