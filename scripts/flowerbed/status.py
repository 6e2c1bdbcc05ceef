"""What a federation is like right now: units, nodes, certificates, runs."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from flowerbed import health, runs
from flowerbed.federation import FederationFolder
from flowerbed.health import Level, ask
from flowerbed.health.facts import Facts
from flowerbed.health.judge import ALARM_DAYS, WARN_DAYS, Finding, age

__all__ = ["ALARM_DAYS", "WARN_DAYS", "HostStatus", "Status", "look"]

_LATEST_RUNS = 5


@dataclass(frozen=True)
class HostStatus:
    """One host."""

    name: str
    role: str
    """`coordinator` or `site`."""
    address: str
    units: dict[str, str] = field(default_factory=dict)
    """Flower's units on the host and their state, as systemd names it."""
    node: str = ""
    """A site's node as the SuperLink sees it: online, offline, registered, or unregistered."""
    certificate_days: int | None = None
    """Days until the first certificate on the host expires."""
    problem: str = ""
    """What is critical, but for the node and the probe run, which stand for themselves."""
    warning: str = ""
    """What is no problem yet, such as a certificate that ends soon."""
    by_kit: bool = False
    """The site joined by kit: nobody but its hospital logs in there, so only its node is known."""
    probe: str = ""
    """Whether the site trained in the last probe run, and when; empty where it was never probed."""

    @property
    def healthy(self) -> bool:
        """Whether nothing on the host is critical."""
        return not self.problem


@dataclass(frozen=True)
class Status:
    """A federation."""

    federation: str
    gateway: str
    """The endpoint that SuperNodes connect to, as address:port; empty where there is no gateway."""
    release: str
    hosts: list[HostStatus]
    runs: list[runs.RunInfo]

    @property
    def healthy(self) -> bool:
        """Whether every host is healthy and every site online."""
        return all(host.healthy and (host.role != "site" or host.node == "online") for host in self.hosts)

    def to_json(self) -> dict[str, Any]:
        """One JSON document."""
        return {**dataclasses.asdict(self), "healthy": self.healthy}


def look(federation: FederationFolder) -> Status:
    """Ask every host at once, and the SuperLink for nodes and runs.

    Raises WorkFailed when the coordinator does not answer; a site that does not is part of the answer.
    """
    known = ask.ask(federation, _LATEST_RUNS)
    if known.failure:
        raise known.failure
    judged = health.judged(known)
    coordinator = known.coordinator
    return Status(
        federation=known.federation,
        gateway=f"{coordinator.address}:{coordinator.gateway_port}" if coordinator.gateway_port else "",
        release=coordinator.release,
        hosts=[_host_status(host, judged.of(host.name)) for host in known.hosts],
        runs=known.latest,
    )


def _host_status(host: Facts, findings: list[Finding]) -> HostStatus:
    return HostStatus(
        name=host.name,
        role=host.role,
        address=host.address,
        units={name: unit.state for name, unit in host.units.items()},
        node=host.node,
        certificate_days=host.certificate_days,
        problem=_told(findings, Level.CRITICAL),
        warning=_told(findings, Level.WARNING),
        by_kit=host.by_kit,
        probe=f"{'trained' if host.probe.ok else 'failed'} {age(host.probe.age)} ago" if host.probe else "",
    )


def _told(findings: list[Finding], level: Level) -> str:
    # The node and the probe run stand for themselves.
    return "; ".join(one.what for one in findings if one.level is level and one.check not in ("node", "probe"))
