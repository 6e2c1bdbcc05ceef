"""Submits an app to a standing federation, follows the run, judges it, and brings it home."""

import importlib.metadata
import tempfile
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from flowerbed import __version__, journal
from flowerbed.errors import WorkFailed
from flowerbed.runs import app as apps
from flowerbed.runs import replies, results
from flowerbed.runs.connection import SUPERLINK_NODE, Connection, Deployed, Remote
from flowerbed.runs.events import (
    Event,
    FederationReached,
    LogLine,
    NotRecorded,
    OnEvent,
    Reconnecting,
    RunEnded,
    RunLeft,
    RunSubmitted,
    SitesMissing,
)
from flowerbed.runs.flwr import Control, Line, RunInfo, control
from flowerbed.runs.follow import Follower, LogEvent, Round, Waiting, plain
from flowerbed.runs.trail import Trail
from flowerbed.runs.verdict import RUNNING, Verdict, decide

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells have it; the run goes on."""
NODE_TIMEOUT = 600.0
"""Seconds for which a run waits for nodes that are not online, unless somebody says otherwise."""
_PATIENCE = 120.0
_RETRY = 5.0


@dataclass(frozen=True)
class RunResult:
    """What became of a run."""

    run_id: str
    verdict: Verdict
    folder: Path | None = None
    """runs/<date>/<time>/; None while the run goes on."""
    rounds: tuple[Round, ...] = ()
    record: Mapping[str, Any] = field(default_factory=dict)
    """What run.json holds; empty while the run goes on."""
    unrecorded: str = ""
    """Why the coordinator's audit trail lacks an entry about the run; empty where it has them."""

    @property
    def exit_code(self) -> int:
        """0 if the run kept its promise, or was to be left going."""
        return self.verdict.exit_code

    def raise_for_status(self) -> None:
        """Raise WorkFailed unless the run kept its promise, or was to be left going."""
        if self.exit_code:
            raise WorkFailed(f"run {self.run_id} {self.verdict.status}: {self.verdict.reason}")

    def to_json(self) -> dict[str, Any]:
        """One JSON document for `--json`."""
        known = {
            "run_id": self.run_id,
            "status": self.verdict.status,
            "reason": self.verdict.reason,
            "exit_code": self.verdict.exit_code,
            "audit_error": self.unrecorded or None,
        }
        return {**self.record, **known, "folder": str(self.folder) if self.folder else None}


def submit_and_follow(
    connection: Connection,
    remote: Remote,
    app: Path,
    config: Mapping[str, object],
    *,
    deployed: Deployed,
    expected_sites: int | None = None,
    timeout: float | None = None,
    node_timeout: float | None = NODE_TIMEOUT,
    detach: bool = False,
    origin: str | None = None,
    retry_of: str | None = None,
    repeatable: bool = True,
    on_event: OnEvent | None = None,
    into: Path = Path("runs"),
) -> RunResult:
    """Check the app, run it on the federation, and bring its results to a dated folder under `into`.

    `config` overrides the app's run config (App.settings reads it from profiles, files and texts). `expected_sites`
    is how many sites ought to be online in every phase (None: any number). `timeout` is in seconds from now; a run
    that has not ended by then is stopped, and so is one that waits for nodes for longer than `node_timeout` seconds
    (None: for ever). `detach` returns as soon as the SuperLink has the run. `origin` is where the
    app came from, for the record (None: the folder itself), and `retry_of` the run that this one does again;
    `repeatable` says whether it can be done again itself. Ctrl-C leaves the run going.

    Raises UsageError before anything is sent when the app or its config is wrong, WorkFailed when the SuperLink
    refuses or cannot be reached; whatever becomes of the run after that is in the result.
    """
    deadline = None if timeout is None else time.monotonic() + timeout
    tell = on_event or _ignore
    tell(FederationReached(deployed.name, deployed.sites))
    checked = apps.check(app)
    overrides = checked.settings.checked(config, "-c ")
    if deployed.packages is not None:
        checked.check_release(deployed.name, deployed.release, deployed.packages, deployed.modules)
    trail = Trail(remote, deployed)
    with control(connection) as api:
        with tempfile.TemporaryDirectory(dir=api.home) as folder:
            run_id = api.submit(checked.copy(Path(folder)), overrides)
        trail.submitted(run_id, checked)
        results.remember(
            into,
            results.Submission(
                run_id=run_id,
                origin=origin or str(checked.path),
                config={**checked.settings.defaults, **overrides},
                overrides=overrides,
                release=deployed.release,
                flower=importlib.metadata.version("flwr"),
                sites=dict(deployed.sites),
                requirements=_versions(checked, deployed),
                by=journal.operator(),
                flowerbed=__version__,
                retry_of=retry_of,
                repeatable=repeatable,
            ),
        )
        tell(RunSubmitted(run_id, checked.name, deployed.name, tuple(checked.left_out)))
        if detach:
            verdict = Verdict(RUNNING, f"submitted; {_way_back(run_id, deployed)}", 0)
            return _recorded(_left(run_id, verdict, (), tell), trail, tell)
        limits = _Limits(deadline, node_timeout, stop=True)
        watch = _Watch(api, remote, deployed, run_id, expected_sites, limits, tell, into, trail)
        return _recorded(watch.to_the_end(live=True), trail, tell)


def follow(
    connection: Connection,
    remote: Remote,
    run_id: str,
    *,
    deployed: Deployed,
    expected_sites: int | None = None,
    timeout: float | None = None,
    on_event: OnEvent | None = None,
    into: Path = Path("runs"),
) -> RunResult:
    """Follow a run that was submitted before, from its first line, and bring it home if it is not there yet.

    Parameters as for submit_and_follow, but that a run which has not ended after `timeout` is left going. A run that
    has ended is judged from its log alone. Raises UsageError when the federation has no such run.
    """
    tell = on_event or _ignore
    tell(FederationReached(deployed.name, deployed.sites))
    folder = results.find(into, run_id)
    if folder is not None:
        return _replay(folder, run_id, tell)
    deadline = None if timeout is None else time.monotonic() + timeout
    with control(connection) as api:
        trail = Trail(remote, deployed)
        limits = _Limits(deadline, None, stop=False)
        watch = _Watch(api, remote, deployed, run_id, expected_sites, limits, tell, into, trail)
        return _recorded(watch.to_the_end(live=False), trail, tell)


def _replay(folder: Path, run_id: str, tell: OnEvent) -> RunResult:
    """Tell again what is home already; that needs no coordinator."""
    follower = Follower()
    for line in results.log_of(folder):
        tell(LogLine(line))
        for event in follower.feed(line):
            tell(event)
    for event in follower.finish():
        tell(event)
    return _ended(folder, run_id, tuple(replies.merge(follower.rounds, replies.read(folder / replies.NAME))), tell)


def _ended(folder: Path, run_id: str, rounds: tuple[Round, ...], tell: OnEvent) -> RunResult:
    verdict = results.verdict_of(folder)
    tell(RunEnded(verdict, folder, rounds, results.sites_of(folder)))
    return RunResult(run_id, verdict, folder, rounds, results.read(folder))


def _recorded(result: RunResult, trail: Trail, tell: OnEvent) -> RunResult:
    """Wait for the audit trail, and say what it lacks: that is no reason to lose a run."""
    unrecorded = trail.close()
    if unrecorded:
        tell(NotRecorded(unrecorded))
    return replace(result, unrecorded=unrecorded)


def _left(run_id: str, verdict: Verdict, rounds: tuple[Round, ...], tell: OnEvent) -> RunResult:
    tell(RunLeft(verdict))
    return RunResult(run_id, verdict, rounds=rounds)


@dataclass(frozen=True)
class _Limits:
    """How long a run may take while it is watched."""

    deadline: float | None
    """Of the monotonic clock."""
    node_timeout: float | None
    """Seconds of waiting for nodes."""
    stop: bool
    """Whether a run whose time is over is stopped, or left going."""

    def at(self, waiting_since: float | None) -> float | None:
        """When the time is over, given since when the run waits for nodes (None: it does not)."""
        if waiting_since is None or self.node_timeout is None:
            return self.deadline
        enough = waiting_since + self.node_timeout
        return enough if self.deadline is None else min(enough, self.deadline)


@dataclass
class _Watch:
    """One run being followed."""

    _api: Control
    _remote: Remote
    _deployed: Deployed
    _run_id: str
    _expected_sites: int | None
    _limits: _Limits
    _tell: OnEvent
    _into: Path
    _trail: Trail
    _began: float = field(default_factory=time.monotonic)
    _follower: Follower = field(default_factory=Follower)
    _log: list[str] = field(default_factory=list)
    _run: RunInfo | None = None
    _waiting_since: float | None = None
    _notes: replies.Recording | None = None

    def to_the_end(self, *, live: bool) -> RunResult:
        timed_out = None
        try:
            try:
                for line in self._lines(live):
                    text = plain(line.text)
                    self._log.append(text)
                    self._tell(LogLine(text))
                    self._digest(self._follower.feed(line.text, line.at))
            except TimeoutError:
                if not self._limits.stop:
                    verdict = Verdict(RUNNING, f"it has not ended yet; {_way_back(self._run_id, self._deployed)}", 1)
                    return _left(self._run_id, verdict, tuple(self._follower.rounds), self._tell)
                timed_out = self._stop()
            self._digest(self._follower.finish())
            self._run = self._run or self._api.run(self._run_id)
            return self._bring_home(self._run, timed_out)
        except KeyboardInterrupt:
            left = "left going" if self._run is None else "not brought home"
            verdict = Verdict(RUNNING, f"{left}; {_way_back(self._run_id, self._deployed)}", INTERRUPTED)
            return _left(self._run_id, verdict, tuple(self._follower.rounds), self._tell)

    def _lines(self, live: bool) -> Iterator[Line]:
        """The log to the run's end, through as many streams as it takes."""
        seen = 0
        while self._run is None:
            with self._api.log(self._run_id, live=live and not seen) as stream:
                before = seen
                for index, line in enumerate(stream.lines(self._deadline)):
                    if index >= seen:  # a stream begins at the log's start again
                        seen = index + 1
                        yield line
                failure = stream.failure
            # A server that is shut down closes its streams in order, too: only the run's status tells the end.
            with ThreadPoolExecutor(1) as pool:  # both at a time: each is a round trip to a coordinator far away
                notes = pool.submit(self._fetch_notes)
                run = self._reach()
            if run.is_finished:
                self._run = run
                self._notes = notes.result() if failure is None else None  # the run may have ended only since
            else:
                self._tell(Reconnecting(failure or "the SuperLink closed the log"))
                if seen == before:
                    time.sleep(_RETRY)

    def _fetch_notes(self) -> replies.Recording:
        return replies.fetch(self._remote, self._deployed, self._run_id)

    def _deadline(self) -> float | None:
        if self._follower.waiting is None:
            self._waiting_since = None
        elif self._waiting_since is None:
            self._waiting_since = time.monotonic()
        return self._limits.at(self._waiting_since)

    def _reach(self) -> RunInfo:
        """Ask for the run's status, and keep asking for a while if the SuperLink does not answer."""
        give_up = time.monotonic() + _PATIENCE
        while True:
            try:
                return self._api.run(self._run_id)
            except WorkFailed as error:
                now = time.monotonic()
                if (deadline := self._deadline()) is not None and now >= deadline:
                    raise TimeoutError from None
                if now >= give_up:
                    raise WorkFailed(f"{error}; the run may go on: {_way_back(self._run_id, self._deployed)}") from None
                self._tell(Reconnecting(str(error)))
                time.sleep(_RETRY)

    def _digest(self, events: Iterator[LogEvent]) -> None:
        for event in events:
            self._tell(event)
            if isinstance(event, Waiting) and (missing := self._missing()):
                self._tell(SitesMissing(missing))

    def _missing(self) -> tuple[str, ...]:
        """Which of the known sites are not online now."""
        if not self._deployed.sites:
            return ()
        try:
            online = {node.node_id for node in self._api.nodes() if node.status == "online"}
        except WorkFailed:
            return ()  # a name less is no reason to lose the run
        return tuple(name for name, node_id in self._deployed.sites.items() if node_id not in online)

    def _stop(self) -> str:
        """Stop the run, whose time is over, and say why it took so long."""
        since = self._began if self._waiting_since is None else self._waiting_since
        waited = f"stopped after {time.monotonic() - since:.0f} s"
        waiting = self._follower.waiting
        if waiting is not None:
            missing = self._missing()
            names = f": {', '.join(missing)} not online" if missing else ""
            waited += f" of waiting for nodes, {waiting.online} of {waiting.needed} online{names}"
        try:
            self._api.stop(self._run_id)
        except WorkFailed:
            if not self._api.run(self._run_id).is_finished:
                raise
        return waited

    def _say_who_is_lost(self, verdict: Verdict, rounds: tuple[Round, ...]) -> Verdict:
        """Add which sites are offline, when the SuperLink replied in the name of one."""
        errors = [error for round_ in rounds for phase in round_.phases for error in phase.errors]
        if not any(error.node_id == SUPERLINK_NODE for error in errors):
            return verdict
        missing = self._missing()
        return replace(verdict, reason=f"{verdict.reason}; offline now: {', '.join(missing)}") if missing else verdict

    def _know(self, node_ids: set[str]) -> None:
        """Learn the names of sites that had other keys meanwhile; without them a run is home as well."""
        with suppress(WorkFailed):
            self._deployed = self._deployed.knowing(node_ids)

    def _bring_home(self, run: RunInfo, timed_out: str | None) -> RunResult:
        recording = self._notes or self._fetch_notes()
        rounds = tuple(replies.merge(self._follower.rounds, recording))
        self._know({exchange.node_id for exchange in recording.exchanges})
        folder = results.find(self._into, self._run_id)  # somebody else may have followed it, too
        if folder is None:
            verdict = decide(
                run.status,
                run.details,
                rounds,
                planned=self._follower.planned,
                error=self._follower.error,
                expected_sites=self._expected_sites,
                nodes=self._deployed.sites.values(),
                timed_out=timed_out,
                name_of=self._deployed.site,
            )
            submission = results.recall(self._into, self._run_id)
            if verdict.lost and submission and submission.repeatable and not self._deployed.simulated:
                again = f"`flowerbed run --retry {self._run_id} --federation {self._deployed.name}`"
                verdict = replace(verdict, reason=f"{verdict.reason}; {again} submits it again")
            folder = results.write(
                self._into,
                run,
                self._say_who_is_lost(verdict, rounds),
                rounds,
                self._log,
                deployed=self._deployed,
                submission=submission,
                fetch=lambda into: self._remote.fetch(f"{self._deployed.results}/{self._run_id}", into),
                recording=recording,
            )
            self._trail.finished(run, results.verdict_of(folder), rounds)
        return _ended(folder, self._run_id, rounds, self._tell)


def _versions(app: apps.App, deployed: Deployed) -> dict[str, str | None]:
    """The packages that the app asks for, to their versions in the hosts' release."""
    there = {canonicalize_name(name): version for name, version in (deployed.packages or {}).items()}
    return {requirement.name: there.get(canonicalize_name(requirement.name)) for requirement in app.requirements}


def _way_back(run_id: str, deployed: Deployed) -> str:
    where = f"{run_id} --federation {deployed.name}"
    return f"`flowerbed wait {where}` follows it, `flowerbed stop {where}` stops it"


def _ignore(_: Event) -> None:
    """Without a listener events go nowhere."""
