"""Leaving: a site is taken out of a federation, and Flowerbed off machines that exist without it.

Who was removed stands in the federation's `removed.json` until its entry is gone as well, so that no `up` lets it in
again by mistake. What was made on a host is known to the host itself: see `plugins/module_utils/made.py`.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from flowerbed import control, hosts, inventory, joining, ssh
from flowerbed.console import Steps
from flowerbed.errors import FlowerbedError, UsageError, WorkFailed
from flowerbed.federation import FederationFolder

WAIT_SECONDS = 600
LEAVE = "/opt/flower/libexec/leave"
"""On every host: what a hospital's own administrator runs to leave."""


@dataclass
class Gone:
    """What was done to a site that was removed."""

    site: str
    purged: bool = False
    removed: list[str] = field(default_factory=list)
    """What was taken away on its machine."""
    packages: list[str] = field(default_factory=list)
    """Packages that were installed for Flowerbed and stay on the machine."""
    left_to_do: list[str] = field(default_factory=list)
    """What the operator or the hospital does now."""


def removed(federation: FederationFolder) -> list[str]:
    """The sites that stay out; raises UsageError when the file is damaged."""
    file = federation.removed_file
    if not file.exists():
        return []
    try:
        names = json.loads(file.read_text())
    except ValueError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UsageError(f"{file}: holds no list of names: write one, or remove the file")
    return names


def remove(
    federation: FederationFolder,
    site: str,
    steps: Steps,
    *,
    purge: bool = False,
    packages: bool = False,
    wait: int = WAIT_SECONDS,
) -> Gone:
    """Unregister a site, and stop its services; with `purge` take all that was made on its machine away as well.

    It happens between two rounds of the runs that are going on, for which `wait` seconds may pass; 0 does not wait.
    `packages` takes away what was installed from the distribution, too. A call that was interrupted is continued by
    the same call. Raises UsageError for a site that is unknown, WorkFailed where its machine does not answer: the
    site is unregistered then all the same.
    """
    known = inventory.read(federation)
    by_kit = joining.approved(federation)
    registered = control.sites(federation)
    machine = known.sites.get(site) or known.removed.get(site)
    if machine is None and site not in by_kit and site not in registered:
        names = ", ".join(sorted({*known.sites, *by_kit, *registered}))
        raise UsageError(f"{federation.name} has no site '{site}': there are {names or 'none'}")
    _write(federation, [*removed(federation), site] if machine else removed(federation))
    silence = _silence(federation, machine) if machine else ""
    reached = machine is not None and not silence
    gone = Gone(site)
    with steps.step("unregister") as step:
        limit = [known.coordinator.name, *([site] if reached else [])]
        _unregister(federation, limit, site, wait, step.now)
        joining.forget(federation, site)
        step.result = f"{site} is out" + (" and its services are stopped" if reached else "")
    if silence:
        raise WorkFailed(f"{site} is unregistered, but its services were not stopped: {silence}; then run this again")
    if purge and reached:
        with steps.step("purge") as step:
            outcome = hosts.play(
                federation, "leave.yml", limit=[site], variables={"leave_packages": packages}, on_step=step.now
            )
            gone.purged = True
            gone.removed = _told(outcome, "remove ")
            gone.packages = [] if packages else _packages(outcome)
            step.result = f"{len(gone.removed)} things taken away"
    gone.left_to_do = _left_to_do(federation, site, by_kit=machine is None)
    if federation.platform_file and site in known.sites:
        _move(federation, site)
    return gone


def take_off(federation: FederationFolder, steps: Steps, *, packages: bool = False) -> list[str]:
    """Take Flowerbed off all machines of a federation whose machines exist without it, the coordinator's last.

    Returns the packages that stay. Run history, keys and results on the machines are lost; the federation's folder
    with its CA stays. Raises WorkFailed when a machine does not answer, before anything is taken away.
    """
    known = inventory.read(federation)
    machines = [*known.sites.values(), *known.removed.values(), known.coordinator]
    for machine in machines:
        if silence := _silence(federation, machine):
            raise WorkFailed(silence)
    stay: set[str] = set()
    for group in ([machine.name for machine in machines[:-1]], [known.coordinator.name]):
        if not group:
            continue
        with steps.step(", ".join(group) if len(group) == 1 else "sites") as step:
            outcome = hosts.play(
                federation, "leave.yml", limit=group, variables={"leave_packages": packages}, on_step=step.now
            )
            stay |= set(_packages(outcome))
            step.result = f"{len(_told(outcome, 'remove '))} things taken away"
    return [] if packages else sorted(stay)


def add(federation: FederationFolder, site: str) -> None:
    """Let a removed site join again, by the next `up`; raises UsageError for one that was not removed."""
    names = removed(federation)
    if site not in names:
        raise UsageError(f"'{site}' was not removed: {', '.join(names) or 'no site'} was; a new one is one entry more")
    _write(federation, [name for name in names if name != site])


def settle(federation: FederationFolder, entries: set[str]) -> list[str]:
    """Forget those removed sites that have no entry any more; returns those that stay out."""
    names = removed(federation)
    kept = [name for name in names if name in entries]
    if kept != names:
        _write(federation, kept)
    return kept


def refuse_entries(federation: FederationFolder, sites: set[str]) -> None:
    """A file that was written by hand is not to say that a removed site is there; raises UsageError."""
    there = settle(federation, sites)
    if there:
        raise UsageError(
            f"{federation.hosts_file}: {there[0]} was removed from {federation.name}: take its entry out, or let it "
            f"join again with `flowerbed site add {there[0]} --federation {federation.name}`"
        )


def _unregister(
    federation: FederationFolder, limit: list[str], site: str, wait: int, on_step: Callable[[str], None]
) -> None:
    variables = {"leave_site": site, "flowerbed_hold": wait > 0, "flowerbed_wait": wait}
    try:
        hosts.play(federation, "unregister.yml", limit=limit, variables=variables, on_step=on_step)
    except BaseException:  # an interruption as well
        with suppress(FlowerbedError):
            hosts.play(federation, "resume.yml")
        raise


def _silence(federation: FederationFolder, machine: inventory.Host) -> str:
    """Why the machine does not answer; empty where it does."""
    try:
        ssh.Shell(federation, machine).run(["true"])
    except WorkFailed as error:
        return str(error)
    return ""


def _told(outcome: hosts.Outcome, word: str) -> list[str]:
    lines = [
        line for change in outcome.changes for one in change["diff"] for line in one.get("before", "").splitlines()
    ]
    return [line.removeprefix(word) for line in lines if line.startswith(word)]


def _packages(outcome: hosts.Outcome) -> list[str]:
    found = _told(outcome, "keep the packages ")
    return sorted({name.strip() for line in found for name in line.rsplit(",", 1)[0].split(",")})


def _left_to_do(federation: FederationFolder, site: str, *, by_kit: bool) -> list[str]:
    if by_kit:
        return [f"the hospital takes the software off its machine with `sudo {LEAVE} --purge`"]
    file = federation.platform_file or federation.hosts_file
    return [
        f"take the entry of {site} out of {file}"
        + (": `up` then takes its machine" if federation.platform_file else "")
    ]


def _move(federation: FederationFolder, site: str) -> None:
    """In the generated hosts.json the site is one of the removed from now on, as `up` would write it."""
    document = json.loads(federation.hosts_file.read_text())
    groups = document["all"]["children"]
    entry = groups["supernode"]["hosts"].pop(site)
    groups.setdefault("removed", {"hosts": {}})["hosts"][site] = entry
    inventory.replace_file(federation.hosts_file, json.dumps(document, indent=2, sort_keys=True) + "\n")


def _write(federation: FederationFolder, names: list[str]) -> None:
    if names:
        inventory.replace_file(federation.removed_file, json.dumps(sorted(set(names)), indent=2) + "\n")
    else:
        federation.removed_file.unlink(missing_ok=True)
