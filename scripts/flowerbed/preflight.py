"""What stands in the way of bringing a federation up: this machine, its files, and every host; changes nothing."""

from collections.abc import Callable
from dataclasses import dataclass

from flowerbed import check, doctor, hosts
from flowerbed.federation import FederationFolder

OPERATOR = "operator"
"""Stands for this machine where a host is named."""


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    host: str
    """`operator` for this machine and the federation's files."""
    check: str
    """In one word, as `clock`; the whole list stands in ansible/plugins/modules/preflight.py."""
    level: str
    """`ok`, `note` for what one should know, or `problem`."""
    what: str
    remedy: str = ""
    blocks: bool = False
    """Whether `up` refuses to change anything for it; it goes on with a problem that it may mend itself."""

    @property
    def ok(self) -> bool:
        """Whether it is no problem."""
        return self.level != "problem"


def examine(federation: FederationFolder, on_step: Callable[[str], None] = lambda step: None) -> list[Finding]:
    """Look at this machine and, where they exist, at all hosts at once; `on_step` hears what is looked at.

    Raises UsageError where Ansible cannot read the inventory.
    """
    findings = _this_machine(federation)
    if not federation.hosts_file.exists():
        remedy = f"`flowerbed up {federation.name}` makes them"
        return [*findings, Finding(OPERATOR, "machines", "note", "the machines are not made yet", remedy)]
    if any(one.check == "files" for one in findings):
        return findings  # what the hosts are does not stand anywhere
    outcome = hosts.play(
        federation, "preflight.yml", variables={"preflight_only": True}, tolerate=True, on_step=on_step
    )
    findings += [Finding(**one) for one in outcome.findings]
    for host, message in outcome.failures.items():
        what, _, remedy = message.partition(": ")
        findings.append(Finding(host, "host", "problem", what, remedy, blocks=True))
    return list(dict.fromkeys(findings))  # the coordinator is looked at once for each of its roles


def _this_machine(federation: FederationFolder) -> list[Finding]:
    platform = federation.platform_file.stem if federation.platform_file else "existing"
    found = [one for one in doctor.examine() if one.platform in ("all", platform)]
    found += doctor.examine_secrets([federation])
    findings = [
        Finding(OPERATOR, "doctor", "ok" if one.ok else "problem", one.what, one.remedy, blocks=not one.ok)
        for one in found
    ]
    if federation.platform_file is None:
        wrong = check.examine(federation)
        findings += [Finding(OPERATOR, "files", "problem", str(one), "", blocks=True) for one in wrong]
    return findings
