"""From one release to another on a standing federation, and back.

What `up` and `kit` go by is the federation's lock, unless locks are held: from the first change of an upgrade to its
end, and after a rollback, the hosts' release is the held one, so that nothing else brings the other one in between.
"""

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from flowerbed import control, hosts, inventory, joining, journal, release, runs, ssh
from flowerbed.console import Steps
from flowerbed.errors import FlowerbedError, UsageError, WorkFailed
from flowerbed.federation import FederationFolder

WAIT_SECONDS = 600
BATCH = 5
_WAIT_SECONDS_BACK = 60
_CURRENT = "/opt/flower/current"
_NO_RELEASE = "none"
_AT_ONCE = 16


@dataclass
class Switched:
    """What became of an upgrade or a rollback."""

    federation: str
    before: str
    """The coordinator's release before."""
    release: str
    """The coordinator's release now."""
    hosts_changed: dict[str, int] = field(default_factory=dict)
    need_a_kit: list[str] = field(default_factory=list)
    """Sites that joined by kit and have another release: nobody but the hospital installs there."""
    warnings: list[str] = field(default_factory=list)
    """What the hosts said of it, such as runs that the older database does not have."""
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def changed(self) -> bool:
        """Whether any host was switched."""
        return bool(self.hosts_changed)


def upgrade(federation: FederationFolder, steps: Steps, *, wait: int | None = None, batch: int = BATCH) -> Switched:
    """Bring every host to the release that the federation's lock names; on a failure, every host back.

    The release is installed and checked on all hosts before the first is switched: the coordinator, then the sites,
    `batch` of them at a time. `wait` is how many seconds runs may take: to their end for another Flower, whose
    SuperLink would refuse their ServerApps, else until they are held between two rounds; None refuses while there are
    runs.
    Runs that are submitted meanwhile wait. An interrupted call is continued by the same call.
    Raises WorkFailed with the host and the reason when one fails; the release before is then the active one again.
    """
    known = inventory.read(federation)
    with steps.step("release") as step:
        built = {python: release.wanted(federation, step.now, python) for python in known.pythons}
        step.result = ", ".join(one.id for one in built.values())
    active = _active(federation, known)
    before = active[known.coordinator.name]
    goal = built[known.coordinator.python].id
    if _all_have(known, active, built):
        _settle(federation, known, built)
        return _result(federation, known, before, built, hosts.Outcome(), steps)
    _refuse_in_a_run(federation, steps, wait)
    if not federation.switch_file.exists():
        _hold(federation, known)
    back = _held(federation, known)
    untouched = _all_have(known, active, back)
    _set_out(federation, goal)
    try:
        _prepare(federation, steps, built)
        untouched = False
        outcome = _switch(federation, steps, wait, batch)
    except FlowerbedError as error:
        raise WorkFailed(_go_back(federation, steps, known, back, error, untouched)) from None
    _settle(federation, known, built)
    return _done(federation, known, before, built, outcome, steps)


def rollback(federation: FederationFolder, steps: Steps, *, wait: int | None = None, batch: int = BATCH) -> Switched:
    """Bring every host to the release before the last upgrade, or out of an upgrade that was interrupted.

    Parameters as for `upgrade`. A second call changes nothing. `up` stays with that release, too, until `upgrade` is
    called. Raises UsageError where there is no release before.
    """
    known = inventory.read(federation)
    if not federation.held.exists():
        if not federation.release_before.exists():
            raise UsageError(f"{federation.name} has no release before: nothing was upgraded from here")
        federation.release_before.rename(federation.held)
    with steps.step("release") as step:
        built = _held(federation, known)
        step.result = ", ".join(one.id for one in built.values())
    active = _active(federation, known)
    before = active[known.coordinator.name]
    if not federation.switch_file.exists() and _all_have(known, active, built):
        return _result(federation, known, before, built, hosts.Outcome(), steps)
    _refuse_in_a_run(federation, steps, wait)
    _set_out(federation, built[known.coordinator.python].id)
    try:
        _prepare(federation, steps, built, back=True)
        outcome = _switch(federation, steps, wait, batch, back=True)
    except FlowerbedError:
        _resume(federation)
        raise
    federation.switch_file.unlink()
    return _done(federation, known, before, built, outcome, steps)


def refuse_half_way(federation: FederationFolder) -> None:
    """Raise UsageError where the hosts are between two releases: nothing else may change them then."""
    if federation.switch_file.exists():
        goal = json.loads(federation.switch_file.read_text())["to"]
        raise UsageError(
            f"{federation.name} is on its way to release {goal}: `flowerbed upgrade {federation.name}` or "
            f"`flowerbed rollback {federation.name}` ends it"
        )


def same_flower(
    federation: FederationFolder, coordinator: inventory.Host, built: list[release.Release]
) -> release.Release:
    """Give the release that is the coordinator's of those that were built.

    Raises UsageError where the coordinator runs another version of Flower: `up` has no way back from that.
    """
    its = next(one for one in built if one.target.python == coordinator.python)
    with suppress(WorkFailed):  # a machine that is new, or does not answer, is for the playbook to judge
        active = _ask(federation, coordinator)
        flower = active.partition("-")[0]
        if active and flower != its.version:
            raise UsageError(
                f"{coordinator.name} runs Flower {flower} and release {its.id} has {its.version}: "
                f"`flowerbed upgrade {federation.name}` changes that, with a way back"
            )
    return its


def stays(federation: FederationFolder) -> str:
    """What to say where the hosts stay with another release than the lock's; empty otherwise."""
    for held in sorted(federation.held.glob("*.lock")):
        lock = federation.path / held.name
        if lock.exists() and lock.read_text() != held.read_text():
            return (
                f"{federation.name} stays with the release that it was rolled back to: "
                f"`flowerbed upgrade {federation.name}` brings the one of {lock.name}"
            )
    return ""


def link(federation: FederationFolder, python: str, archive: Path) -> None:
    """Let the playbooks find the release of hosts with one Python under one name, whichever it is."""
    name = federation.release_for(python)
    name.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if name.is_symlink() and name.readlink() == archive:
        return
    new = name.with_name(f".{name.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(archive)
    new.replace(name)


def _prepare(
    federation: FederationFolder, steps: Steps, built: dict[str, release.Release], *, back: bool = False
) -> None:
    """Install the release beside the active one and check it, on every host; `back`: it ran there before."""
    _link_all(federation, built)
    with steps.step("install") as step:
        outcome = hosts.play(federation, "prepare_release.yml", variables={"upgrade_back": back}, on_step=step.now)
        changed = sum(1 for count in outcome.changed.values() if count)
        step.result = f"on {changed} of {len(outcome.changed)} hosts{'' if back else ', checked on all'}"


def _switch(
    federation: FederationFolder,
    steps: Steps,
    wait: int | None,
    batch: int,
    *,
    back: bool = False,
    forced: bool = False,
) -> hosts.Outcome:
    """Switch every host to what is installed beside.

    `back` goes on with the other sites after a failure; `forced` also where a run has not come to its end or a pause.
    """
    variables = {
        "flowerbed_wait": WAIT_SECONDS if wait is None else wait,
        "upgrade_batch": batch,
        "upgrade_back": back,
        "upgrade_forced": forced,
    }
    with steps.step("back" if back else "switch") as step:
        outcome = hosts.play(federation, "switch_release.yml", variables=variables, on_step=step.now)
        step.result = f"{sum(1 for count in outcome.changed.values() if count)} of {len(outcome.changed)} hosts"
    for warning, concerned in outcome.warnings.items():
        steps.say(f"{', '.join(sorted(concerned))}: {warning}")
    return outcome


def _go_back(
    federation: FederationFolder,
    steps: Steps,
    known: inventory.Hosts,
    back: dict[str, release.Release],
    error: FlowerbedError,
    untouched: bool,
) -> str:
    """Bring every host back to the held release; one line with what failed, and what became of it."""
    old = back[known.coordinator.python].id
    _link_all(federation, back)
    if untouched:
        federation.switch_file.unlink()
        return f"{error}; nothing was switched: every host is on {old}"
    reason = f"{error}{_last_words(federation, known, str(error))}"
    try:
        _switch(federation, steps, _WAIT_SECONDS_BACK, BATCH, back=True, forced=True)
    except FlowerbedError as second:
        _resume(federation)
        return f"{reason}; on the way back to {old}: {second} (`flowerbed rollback {federation.name}` goes on with it)"
    federation.switch_file.unlink()
    return f"{reason}; every host is on {old} again"


def _resume(federation: FederationFolder) -> None:
    """Let the runs go on; where this fails too, what holds them ends by itself."""
    with suppress(FlowerbedError):
        hosts.play(federation, "resume.yml")


def _last_words(federation: FederationFolder, known: inventory.Hosts, said: str) -> str:
    """What the SuperNode of a site said last that did not come online."""
    site = known.sites.get(said.partition(":")[0])
    if site is None or "online" not in said:
        return ""
    try:
        words = ssh.Shell(federation, site).run(
            ["journalctl", "--unit", "flower-supernode.service", "--output=cat", "--no-pager", "--lines=4"]
        )
    except WorkFailed as error:
        return f" ({error})"
    return f" (its SuperNode's last words: {' | '.join(line.strip() for line in words.splitlines() if line.strip())})"


def _done(
    federation: FederationFolder,
    known: inventory.Hosts,
    before: str,
    built: dict[str, release.Release],
    outcome: hosts.Outcome,
    steps: Steps,
) -> Switched:
    """Note it in the coordinator's audit trail, and say whom it does not reach."""
    result = _result(federation, known, before, built, outcome, steps)
    fields = {"federation": federation.name, "by": journal.operator(), "detail": f"{before} to {result.release}"}
    message = f"{federation.name} went from release {before} to {result.release}"
    try:
        ssh.Shell(federation, known.coordinator).record("release.switched", message, fields)
    except WorkFailed as error:
        steps.say(f"the audit trail has no entry of this: {error}")
    return result


def _result(
    federation: FederationFolder,
    known: inventory.Hosts,
    before: str,
    built: dict[str, release.Release],
    outcome: hosts.Outcome,
    steps: Steps,
) -> Switched:
    ids = {one.id for one in built.values()}
    return Switched(
        federation=federation.name,
        before=before,
        release=built[known.coordinator.python].id,
        hosts_changed={name: count for name, count in outcome.changed.items() if count},
        need_a_kit=sorted(name for name, site in joining.approved(federation).items() if site.release not in ids),
        warnings=list(outcome.warnings),
        seconds=dict(steps.seconds),
    )


def _refuse_in_a_run(federation: FederationFolder, steps: Steps, wait: int | None) -> None:
    if wait is not None:
        return
    try:
        with control.open_way(federation) as way, runs.control(way.connection) as api:
            going = [run.run_id for run in api.runs() if not run.is_finished]
    except WorkFailed as error:  # a SuperLink that does not work is a reason to go on: it may be the release's fault
        steps.say(f"no run is waited for: {error}")
        return
    if going:
        raise WorkFailed(
            f"{federation.name} is in the middle of {len(going)} runs ({', '.join(going[:3])}): they are "
            f"waited for with --wait {WAIT_SECONDS}"
        )


def _active(federation: FederationFolder, known: inventory.Hosts) -> dict[str, str]:
    """The release of each host, by its name; WorkFailed where one does not answer or has none."""
    every = [known.coordinator, *known.sites.values()]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = list(pool.map(lambda host: _ask(federation, host), every))
    for host, ident in zip(every, found, strict=True):
        if not ident:
            raise WorkFailed(
                f"{host.name} has no release: bring the federation up with `flowerbed up {federation.name}`"
            )
    return {host.name: ident for host, ident in zip(every, found, strict=True)}


def _ask(federation: FederationFolder, host: inventory.Host) -> str:
    """A host's release; empty where it has none."""
    said = ssh.Shell(federation, host).run(["sh", "-c", f"readlink {_CURRENT} || echo {_NO_RELEASE}"]).strip()
    return "" if said == _NO_RELEASE else said.rpartition("/")[2]


def _all_have(known: inventory.Hosts, active: dict[str, str], built: dict[str, release.Release]) -> bool:
    return all(active[host.name] == built[host.python].id for host in (known.coordinator, *known.sites.values()))


def _hold(federation: FederationFolder, known: inventory.Hosts) -> None:
    """Keep the locks of what runs now, as the hosts themselves have them; complete or not there."""
    new = federation.held.with_name(".held.new")
    _forget(new)
    new.mkdir(parents=True, mode=0o700)
    for python in known.pythons:
        host = next(one for one in (known.coordinator, *known.sites.values()) if one.python == python)
        lock = ssh.Shell(federation, host).run(["cat", f"{_CURRENT}/release.lock"])
        (new / federation.lock_for(python).name).write_text(lock, encoding="utf-8")
    _forget(federation.held)
    new.rename(federation.held)


def _held(federation: FederationFolder, known: inventory.Hosts) -> dict[str, release.Release]:
    """The releases of the held locks; made again where this machine does not have them any more."""
    return {python: release.of(federation, python=python) for python in known.pythons}


def _set_out(federation: FederationFolder, goal: str) -> None:
    """Note that hosts are between two releases."""
    inventory.replace_file(federation.switch_file, json.dumps({"to": goal}) + "\n")


def _settle(federation: FederationFolder, known: inventory.Hosts, built: dict[str, release.Release]) -> None:
    """The hosts have the release of the lock: what was held is what a rollback goes back to."""
    if federation.held.exists():
        if _held(federation, known) != built:
            _forget(federation.release_before)
            federation.held.rename(federation.release_before)
        _forget(federation.held)
    federation.switch_file.unlink(missing_ok=True)


def _link_all(federation: FederationFolder, built: dict[str, release.Release]) -> None:
    for python, one in built.items():
        link(federation, python, one.archive)


def _forget(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
