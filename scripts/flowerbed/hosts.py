"""The hosts' layer: runs the collection's playbooks and tells in few words what they did."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowerbed.errors import UsageError, WorkFailed
from flowerbed.federation import FederationFolder
from flowerbed.paths import ANSIBLE


@dataclass
class Outcome:
    """What a playbook did."""

    changed: dict[str, int] = field(default_factory=dict)
    changes: list[dict[str, Any]] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)
    warnings: dict[str, list[str]] = field(default_factory=dict)
    """What a module warned of, and the hosts that it concerns."""
    findings: list[dict[str, Any]] = field(default_factory=list)
    """What the module preflight found, each with its host."""

    @property
    def total_changed(self) -> int:
        """Tasks that changed something, over all hosts."""
        return sum(self.changed.values())


def play(
    federation: FederationFolder,
    playbook: str,
    *,
    check: bool = False,
    limit: list[str] | None = None,
    variables: Mapping[str, Any] | None = None,
    also: Path | None = None,
    tolerate: bool = False,
    skip: Sequence[str] = (),
    on_step: Callable[[str], None] = lambda step: None,
) -> Outcome:
    """Run one of the collection's playbooks on the federation.

    `check` changes nothing and reports what would change; `limit` names the hosts, otherwise all; `variables` go before
    those of the inventory, and `also` is a second one; `tolerate` leaves failed hosts to the caller; `skip` names the
    tags of what is left out; `on_step` hears each play's and task's name.
    Raises WorkFailed with one line that names the first host that failed, and UsageError where Ansible
    cannot read the inventory.
    """
    # Killed with us: a playbook that goes on alone would meet the next call's.
    command = ["setpriv", "--pdeathsig", "TERM", "--"] if shutil.which("setpriv") else []
    command += [str(Path(sys.executable).with_name("ansible-playbook"))]
    command += ["--inventory", str(federation.hosts_file), str(ANSIBLE / "playbooks" / playbook)]
    command += ["--inventory", str(also)] if also else []
    command += ["--check", "--diff"] if check else []
    command += ["--limit", ",".join(limit)] if limit else []
    command += ["--skip-tags", ",".join(skip)] if skip else []
    command += ["--extra-vars", json.dumps(dict(variables))] if variables else []
    outcome = Outcome()
    other: list[str] = []
    began = time.monotonic()
    federation.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (
        (federation.state / "last-play.log").open("w", buffering=1) as log,
        subprocess.Popen(
            command, env=_environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process,
    ):
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        for line in process.stdout:
            log.write(f"{time.monotonic() - began:7.1f} {line}")
            event = _event(line)
            if event is None:
                other.append(line.strip())
            else:
                _take(event, outcome, on_step)
    if outcome.failures and tolerate:
        return outcome
    if outcome.failures:
        in_the_way = any(one["blocks"] for one in outcome.findings)
        more = f": `flowerbed preflight {federation.name}` names everything" if in_the_way else ""
        raise WorkFailed(_failure_line(outcome.failures, more))
    if process.returncode:
        reason = next((line for line in other if "ERROR" in line), " ".join(other)[-400:])
        raise UsageError(f"{playbook}: {reason or f'ansible-playbook ended with {process.returncode}'}")
    return outcome


def _environment() -> dict[str, str]:
    return {
        **os.environ,
        "ANSIBLE_CONFIG": str(ANSIBLE / "ansible.cfg"),
        "ANSIBLE_STDOUT_CALLBACK": "flowerbed.federation.events",
        "ANSIBLE_NOCOLOR": "1",
        "PYTHONUNBUFFERED": "1",
    }


def _event(line: str) -> dict[str, Any] | None:
    if not line.startswith('{"event"'):
        return None
    try:
        parsed: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError:
        return None
    return parsed


def _take(event: dict[str, Any], outcome: Outcome, on_step: Callable[[str], None]) -> None:
    match event["event"]:
        case "play" | "task":
            on_step(event["name"])
        case "changed":
            outcome.changes.append({key: event[key] for key in ("host", "task", "diff")})
        case "warning":
            concerned = outcome.warnings.setdefault(event["message"], [])
            concerned += [] if event["host"] in concerned else [event["host"]]
        case "findings":
            outcome.findings += [{"host": event["host"], **finding} for finding in event["findings"]]
        case "failed" | "unreachable":
            outcome.failures.setdefault(event["host"], event["message"])
        case "stats":
            outcome.changed = {host: counts["changed"] for host, counts in event["hosts"].items()}


def _failure_line(failures: dict[str, str], more: str) -> str:
    host, message = next(iter(failures.items()))
    same = [name for name, text in failures.items() if text == message]
    names = host if len(same) == 1 else ", ".join(same)
    others = len(failures) - len(same)
    return f"{names}: {message}" + (f" (and {others} more hosts failed{more})" if others else "")
