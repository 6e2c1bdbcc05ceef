"""A probe run: a tiny app trains at every site that is online, and the coordinator keeps what came of it."""

import json
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flowerbed import control, inventory, joining, runs
from flowerbed.errors import WorkFailed
from flowerbed.federation import FederationFolder
from flowerbed.runs.events import OnEvent
from flowerbed.runs.follow import ReplyError, reason

APP = Path(__file__).parent / "probe_app"
TIMEOUT = 300.0
"""Seconds after which a probe run is stopped."""
_RECORD = "/var/lib/flower/probes.json"
_SAID = "probe.json"


@dataclass(frozen=True)
class Result:
    """What the probe found at one site."""

    ok: bool
    detail: str


def run(
    federation: FederationFolder, *, timeout: float = TIMEOUT, on_event: OnEvent | None = None
) -> dict[str, Result]:
    """Run the probe app on the federation, and keep each site's result on the coordinator.

    After `timeout` seconds the run is stopped; a site that has not trained by then has failed. Raises WorkFailed when
    the SuperLink cannot be reached or refuses the run, or somebody interrupts the waiting; nothing is then kept.
    """
    with control.open_way(federation) as way, tempfile.TemporaryDirectory(prefix="flowerbed-probe-") as folder:
        ended = runs.submit_and_follow(
            way.connection,
            way.shell,
            APP,
            {"reply-timeout": timeout / 3},  # the ServerApp ends by itself, and says who was silent
            deployed=way.deployed,
            timeout=timeout,
            on_event=on_event,
            into=Path(folder),
        )
        if ended.verdict.status == runs.RUNNING:
            raise WorkFailed(f"the probe run {ended.run_id} was not waited for: {ended.verdict.reason}")
        names = {*inventory.read(federation).sites, *joining.approved(federation)}
        found = results(_said(ended), way.deployed.sites, names, ended.verdict)
        at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        kept = {
            name: {"at": at, "ok": one.ok, "detail": one.detail, "run_id": ended.run_id} for name, one in found.items()
        }
        way.shell.run(["python3", "-c", _KEEP, _RECORD, json.dumps(kept)])
    return found


def results(
    said: Mapping[str, Any] | None, nodes: Mapping[str, str], sites: set[str], verdict: runs.Verdict
) -> dict[str, Result]:
    """Each site's result, from what the app wrote (None: it never got so far).

    `nodes` is the node id of each registered site, `sites` the names of all, `verdict` how the run ended.
    """
    found = {}
    for name in sorted(sites):
        told = (said or {}).get(nodes.get(name, ""))
        if said is None:
            found[name] = Result(False, f"the probe run {verdict.status}: {verdict.reason}")
        elif told is None:
            found[name] = Result(False, "it was not online")
        elif told["ok"]:
            rounds, seconds = len(told["losses"]), told["seconds"]
            found[name] = Result(True, f"trained {rounds} rounds, the last in {seconds:.0f} s")
        else:
            error = ReplyError("", reason(told["problem"]))
            found[name] = Result(False, error.told("it") if error.refused else error.reason)
    return found


def _said(ended: runs.RunResult) -> dict[str, Any] | None:
    """What the ServerApp wrote, by node id."""
    file = next(ended.folder.rglob(_SAID), None) if ended.folder else None
    if file is None:
        return None
    try:
        sites: dict[str, Any] = json.loads(file.read_text())["sites"]
    except (ValueError, KeyError):
        raise WorkFailed(f"what the probe run {ended.run_id} wrote cannot be read") from None
    return sites


# Runs on the coordinator with its own Python: sites that were not asked keep what they had.
_KEEP = """
import json, os, pathlib, sys
record, new = pathlib.Path(sys.argv[1]), json.loads(sys.argv[2])
try:
    known = json.loads(record.read_text())
except (OSError, ValueError):
    known = {}
written = record.with_name(".%s.%d" % (record.name, os.getpid()))
written.write_text(json.dumps({**known, **new}, indent=2))
written.chmod(0o644)
written.replace(record)
"""
