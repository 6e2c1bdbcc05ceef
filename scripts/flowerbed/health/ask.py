"""Asks every host of a federation at once, and the SuperLink for its nodes; judges nothing."""

import json
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from flowerbed import control, inventory, joining, runs, ssh
from flowerbed.errors import FlowerbedError, WorkFailed
from flowerbed.federation import FederationFolder
from flowerbed.health.facts import COORDINATOR, SITE, Backup, Facts, Probe
from flowerbed.paths import ANSIBLE

_PROGRAM = ANSIBLE / "plugins" / "module_utils" / "look.py"
_AT_ONCE = 16
_STILL_REFUSED_SECONDS = 45.0
"""A SuperNode that is refused comes again every half a minute."""


@dataclass(frozen=True)
class Known:
    """A federation at one moment."""

    federation: str
    hosts: list[Facts]
    """The coordinator first."""
    latest: list[runs.RunInfo] = field(default_factory=list)
    failure: FlowerbedError | None = None
    """Why the SuperLink was not asked."""

    @property
    def coordinator(self) -> Facts:
        """The host with the SuperLink."""
        return self.hosts[0]


def ask(federation: FederationFolder, latest_runs: int = 0) -> Known:
    """Find out what there is to know; a host or a SuperLink that does not answer is part of the answer.

    `latest_runs` is how many runs are listed. Raises UsageError where the federation has no inventory.
    """
    hosts = inventory.read(federation)
    shells = [ssh.Shell(federation, host) for host in (hosts.coordinator, *hosts.sites.values())]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        looking = [pool.submit(_look, shell) for shell in shells]
        nodes, listed, failure = _ask_superlink(federation, latest_runs)
        answers = [one.result() for one in looking]
    first = answers[0]
    coordinator = _facts(hosts.coordinator, COORDINATOR, first)
    if isinstance(first, _Answer) and first.known["backup"]:
        coordinator = replace(coordinator, backup=_backup(first.known["backup"], first.now))
    sites = [
        _with_node(_facts(shell.host, SITE, answer), nodes, first)
        for shell, answer in zip(shells[1:], answers[1:], strict=True)
    ]
    for name, site in joining.approved(federation).items():
        sites.append(_with_node(Facts(name, SITE, by_kit=True, release=site.release), nodes, first))
    return Known(federation.name, [coordinator, *sites], listed, failure)


@dataclass(frozen=True)
class _Answer:
    """What a host's program printed, and the operator's clock as it was asked and as the answer arrived."""

    known: Mapping[str, Any]
    asked: float
    arrived: float

    @property
    def now(self) -> float:
        """The host's clock, seconds since the epoch."""
        return float(self.known["time"])

    @property
    def off(self) -> float:
        """Seconds that the host's clock is ahead of the operator's."""
        return ahead(self.now, self.asked, self.arrived)


def ahead(host: float, asked: float, arrived: float) -> float:
    """Seconds by which a host's clock is ahead of ours, at least.

    `host` is what it said, `asked` and `arrived` are ours before and after: a slow answer is no wrong clock.
    """
    return host - min(max(host, asked), arrived)


def _look(shell: ssh.Shell) -> _Answer | str:
    """Ask one host; why it cannot be asked."""
    asked = time.time()
    try:
        said = shell.run(["python3", "-c", _PROGRAM.read_text()])
        return _Answer(json.loads(said), asked, time.time())
    except WorkFailed as error:
        return str(error)
    except json.JSONDecodeError:
        return f"{shell.host.name}: its answer cannot be read"


def _ask_superlink(
    federation: FederationFolder, latest_runs: int
) -> tuple[dict[str, str] | None, list[runs.RunInfo], FlowerbedError | None]:
    """The status of each registered site's node, None where nobody knows; the latest runs; why nobody knows."""
    try:
        with control.open_way(federation) as way, runs.control(way.connection) as api:
            status = {node.node_id: node.status for node in api.nodes()}
            listed = api.runs(latest_runs) if latest_runs else []
            return {name: status.get(node, "unregistered") for name, node in way.deployed.sites.items()}, listed, None
    except FlowerbedError as error:
        return None, [], error


def _facts(host: inventory.Host, role: str, answer: _Answer | str) -> Facts:
    if isinstance(answer, str):
        return Facts(host.name, role, host.address, unreachable=answer)
    return Facts.read(answer.known, name=host.name, role=role, address=host.address, clock=answer.off)


def _with_node(site: Facts, nodes: Mapping[str, str] | None, coordinator: _Answer | str) -> Facts:
    """Add what the coordinator knows of a site."""
    site = replace(site, node="unknown" if nodes is None else nodes.get(site.name, "unregistered"))
    if isinstance(coordinator, str):
        return replace(site, clock=None)
    if site.clock is not None:
        site = replace(site, clock=site.clock - coordinator.off)
    refusal = coordinator.known["refusals"].get(site.name)
    probe = coordinator.known["probes"].get(site.name)
    return replace(
        site,
        refused=_refused(refusal) if refusal and not site.connected else "",
        probe=_probe(probe, coordinator.now) if probe else None,
    )


def _refused(refusal: Mapping[str, Any]) -> str:
    if refusal["seconds"] > _STILL_REFUSED_SECONDS:
        return ""
    return f"the gateway refused it {refusal['count']} times in the last minutes, last with {refusal['status']}"


def _probe(told: Mapping[str, Any], now: float) -> Probe:
    return Probe(bool(told["ok"]), str(told["detail"]), _age(told["at"], now), str(told["run_id"]))


def _backup(told: Mapping[str, Any], now: float) -> Backup:
    return Backup(bool(told.get("ok")), str(told.get("error") or ""), _age(told.get("finished_at"), now))


def _age(moment: Any, now: float) -> float:
    """Seconds from an ISO 8601 time, or seconds since the epoch, until now; of what is neither, the whole of time."""
    try:
        if isinstance(moment, int | float):
            return now - moment
        at = datetime.fromisoformat(str(moment))
        return now - (at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp()
    except ValueError:
        return now
