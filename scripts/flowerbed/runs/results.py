"""The folder of a run on the operator's machine: runs/<date>/<time>/, complete or not there at all."""

import csv
import json
import math
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flowerbed.errors import FlowerbedError
from flowerbed.runs.connection import Deployed
from flowerbed.runs.flwr import ConfigValue, RunInfo
from flowerbed.runs.follow import Phase, Round
from flowerbed.runs.verdict import Verdict, without_files

SCHEMA = 1
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


def log_of(folder: Path) -> list[str]:
    """The lines of a run's log.txt."""
    return (folder / "log.txt").read_text(encoding="utf-8").splitlines()


def verdict_of(folder: Path) -> Verdict:
    """The verdict that stands in a run's folder."""
    there = read(folder)
    return Verdict(there["status"], there["reason"], there["exit_code"])


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
) -> Path:
    """Write the run's folder under `into` and point `into`/latest to it.

    `fetch` fills a folder with what the ServerApp wrote. When it fails, everything else still comes home, but the
    run counts as incomplete. Gives the folder, which no run had before.
    """
    date = _started(run).strftime("%Y-%m-%d")
    (into / date).mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".arriving-", dir=into / date))
    try:
        files_error = _fetch(fetch, draft / "files")
        if files_error is not None:
            verdict = without_files(verdict, files_error)
        sites = site_metrics(draft / "files" / "metrics.json", deployed)
        details = record(run, verdict, rounds, sites, deployed=deployed, submission=submission)
        details["files_error"] = files_error
        details["files"] = sorted(
            file.relative_to(draft / "files").as_posix() for file in (draft / "files").rglob("*") if file.is_file()
        )
        _write_json(draft / "run.json", details)
        _write_json(draft / "metrics.json", {"run_id": run.run_id, "rounds": _metrics(rounds, sites)})
        _write_csv(draft / "metrics.csv", rounds, sites)
        (draft / "log.txt").write_text("".join(f"{line}\n" for line in log), encoding="utf-8")
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
) -> dict[str, Any]:
    """What run.json holds: all that says how these results came about."""
    publisher, _, name = run.app.rpartition("/")
    return {
        "schema": SCHEMA,
        "run_id": run.run_id,
        "status": verdict.status,
        "reason": verdict.reason,
        "exit_code": verdict.exit_code,
        "flower_status": run.status,
        "flower_details": run.details,
        "app": {"name": name, "publisher": publisher, "version": run.version, "fab_hash": run.fab_hash},
        "origin": submission.origin if submission else None,
        "config": dict(submission.config) if submission else None,
        "overrides": dict(submission.overrides) if submission else None,
        "federation": deployed.name,
        "simulation": deployed.simulated,
        "sites": dict(submission.sites if submission else deployed.sites),
        "release": submission.release if submission else deployed.release,
        "flower": submission.flower if submission else None,
        "submitted": _iso(run.submitted),
        "started": _iso(run.started),
        "finished": _iso(run.finished),
        "seconds": (run.finished - run.submitted).total_seconds() if run.finished and run.submitted else None,
        "client_seconds": run.client_seconds,
        "bytes": {"from_sites": run.received_bytes, "to_sites": run.sent_bytes},
        "rounds": [_round(round_, sites.get(round_.number, {}), deployed) for round_ in rounds],
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


def _fetch(fetch: Callable[[Path], None], folder: Path) -> str | None:
    folder.mkdir()
    try:
        fetch(folder)
    except FlowerbedError as error:
        return str(error)
    return None


def _round(round_: Round, sites: Mapping[str, Any], deployed: Deployed) -> dict[str, Any]:
    return {
        "round": round_.number,
        **{phase.kind: _phase(phase, deployed) for phase in round_.phases},
        "server": _finite(round_.server),
        "sites": _finite(sites),
    }


def _phase(phase: Phase, deployed: Deployed) -> dict[str, Any]:
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


def _iso(time: datetime | None) -> str | None:
    return time.isoformat() if time else None
