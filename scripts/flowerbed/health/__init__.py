"""Whether a federation is well: what its hosts and its SuperLink say, judged, and a probe run that really trains."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from flowerbed.federation import FederationFolder
from flowerbed.health import ask
from flowerbed.health.facts import Facts
from flowerbed.health.judge import LIMITS, Finding, Level, Limits, judge, worst

__all__ = ["LIMITS", "Facts", "Finding", "Health", "Level", "Limits", "examine", "judge", "judged", "worst"]


@dataclass(frozen=True)
class Health:
    """A federation's health."""

    federation: str
    at: datetime
    findings: list[Finding]

    @property
    def level(self) -> Level:
        """The worst that was found."""
        return worst(self.findings)

    @property
    def healthy(self) -> bool:
        """Whether nothing is critical or unknown; a warning leaves time."""
        return self.level in (Level.OK, Level.WARNING)

    def of(self, host: str) -> list[Finding]:
        """One host's findings."""
        return [finding for finding in self.findings if finding.host == host]

    def to_json(self) -> dict[str, Any]:
        """One JSON document."""
        hosts: dict[str, Any] = {}
        for finding in self.findings:
            told = {"level": finding.level.name.lower(), "what": finding.what, "remedy": finding.remedy}
            hosts.setdefault(finding.host, {})[finding.check] = told
        return {
            "federation": self.federation,
            "at": self.at.isoformat(timespec="seconds").replace("+00:00", "Z"),
            "level": self.level.name.lower(),
            "healthy": self.healthy,
            "hosts": {
                name: {"level": worst(self.of(name)).name.lower(), "checks": checks} for name, checks in hosts.items()
            },
        }


def examine(federation: FederationFolder, limits: Limits = LIMITS) -> Health:
    """Look at every host of the federation at once, and ask the SuperLink.

    Raises UsageError where the federation has no inventory; whatever does not answer is in the result.
    """
    return judged(ask.ask(federation), limits)


def judged(known: ask.Known, limits: Limits = LIMITS) -> Health:
    """Judge what is known of a federation."""
    findings = []
    for host in known.hosts:
        findings += judge(host, known.coordinator, known.federation, limits)
        if host is known.coordinator:
            failed, level = known.failure, Level.CRITICAL if known.failure else Level.OK
            findings.append(Finding(host.name, "superlink", level, str(failed) if failed else "answers"))
    return Health(known.federation, datetime.now(UTC), findings)
