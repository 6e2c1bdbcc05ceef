"""A federation comes back from a backup, on a coordinator that may be a new machine at another address."""

import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from flowerbed import backups, control, deploy, inventory, joining, journal, revocation, runs, ssh
from flowerbed.console import Steps
from flowerbed.errors import WorkFailed
from flowerbed.federation import FederationFolder

WAIT_SECONDS = 120


@dataclass
class Restored:
    """What came back."""

    federation: str
    file: str
    made_at: int
    """When the backup was made, in seconds since the epoch; what happened since is lost."""
    changed: bool
    """False where this backup was brought back before."""
    runs: int
    """How many runs the federation remembers."""
    ended: dict[str, str] = field(default_factory=dict)
    """The runs that were under way then, and what the SuperLink says of them now."""
    online: list[str] = field(default_factory=list)
    offline: list[str] = field(default_factory=list)
    unregistered: list[str] = field(default_factory=list)
    """Sites whose key is not the one of the backup: they joined, or changed it, later."""
    seconds: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """For the command line's --json."""
        return asdict(self)


def restore(
    federation: FederationFolder,
    steps: Steps,
    *,
    file: Path | None = None,
    overwrite: bool = False,
    wait: int = WAIT_SECONDS,
) -> Restored:
    """Bring the coordinator back as a backup has it, and see the sites come back by themselves.

    `file` is the newest backup in the federation's folder unless given; `overwrite` replaces a state that is newer
    than the backup; `wait` is how many seconds sites have to come online, and interrupted runs to end. Safe to repeat:
    a call that was interrupted is continued by the same call. No site's machine is touched.
    Raises UsageError for a backup that cannot be used, before anything changes; WorkFailed when the coordinator has
    newer state, or when a step fails.
    """
    file = file or backups.newest(federation)
    with ExitStack() as stack:
        with steps.step("backup") as step:
            step.now("opened and checked")
            backup = stack.enter_context(backups.opened(federation, file))
            step.result = f"of {backup.backup.made_at:%Y-%m-%d %H:%M:%S}Z, {backup.runs} runs, whole"
        raised = deploy.up(federation, steps, restore=deploy.Restore(backup.archive, backup.backup, overwrite))
    coordinator = inventory.read(federation).coordinator
    restored = Restored(
        federation=federation.name,
        file=str(file),
        made_at=int(backup.backup.made_at.timestamp()),
        changed=raised.machines_changed + sum(raised.hosts_changed.values()) > 0,
        runs=backup.runs,
    )
    with steps.step("sites") as step:
        _wait(federation, restored, backup.runs_under_way, wait)
        step.result = f"{len(restored.online)} of {len(restored.online) + len(restored.offline)} online"
    _record(federation, coordinator, restored, steps)
    restored.seconds = dict(steps.seconds)
    return restored


def _wait(federation: FederationFolder, restored: Restored, under_way: list[str], seconds: int) -> None:
    """Wait until every registered site is online and every interrupted run has ended, and note how it stands."""
    deadline = time.monotonic() + seconds
    with control.open_way(federation) as way, runs.control(way.connection) as api:
        registered = way.deployed.sites
        while True:
            states = {node.node_id: node.status for node in api.nodes()}
            listed = {run.run_id: run for run in api.runs()}
            restored.online = sorted(name for name, node in registered.items() if states.get(node) == "online")
            restored.offline = sorted(set(registered) - set(restored.online))
            restored.ended = {run: listed[run].status for run in under_way if run in listed}
            going = [run for run in restored.ended if not listed[run].is_finished]
            if not (restored.offline or going) or time.monotonic() > deadline:
                break
            time.sleep(1)
    restored.runs = len(listed)
    belong = {*inventory.read(federation).sites, *joining.approved(federation)}
    revoked = {one.name for one in revocation.read(federation)}
    restored.unregistered = sorted(belong - set(registered) - revoked)


def _record(federation: FederationFolder, coordinator: inventory.Host, restored: Restored, steps: Steps) -> None:
    """Leave an entry in the coordinator's audit trail; a federation that is back does not fail for it."""
    fields = {"federation": federation.name, "by": journal.operator(), "detail": Path(restored.file).name}
    try:
        ssh.Shell(federation, coordinator).record("state.restored", f"{federation.name} was brought back", fields)
    except WorkFailed as error:
        steps.say(f"the audit trail has no entry of this: {error}")
