"""The operator's end of a session."""

import atexit
import hashlib
import itertools
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from flwr.app import RecordDict

from flowerbed.errors import FlowerbedError, UsageError, WorkFailed
from flowerbed.runs.connection import Connection, Deployed
from flowerbed.runs.drive import RunResult, follow, submit_and_follow
from flowerbed.runs.events import OnEvent
from flowerbed.runs.flwr import control
from flowerbed.runs.follow import ReplyError, reason
from flowerbed.runs.settings import Override
from flowerbed.runs.verdict import RUNNING
from flowerbed.session import bridge, pack, wire
from flowerbed.session.line import Broken, Coordinator, Line, Nobody
from flowerbed.session.records import Records, for_sites
from flowerbed.session.replies import Replies, Reply

_START_SECONDS = 120.0
_LOOK_SECONDS = 15.0
_RETRY_SECONDS = 2.0
_ALIVE_SECONDS = 15.0
_CLOSE_SECONDS = 20.0
_TASK = re.compile(r"(train|evaluate|query)(\.[^\W\d]\w*)?")
_CLOSED = "the session is closed: open another one"
_NO_HANDLER = re.compile(r"No \w+ function registered with name '\w+'")


def open_session(
    connection: Connection,
    coordinator: Coordinator,
    client_code: str | Path,
    *,
    deployed: Deployed,
    config: Override | Iterable[Override] = (),
    patience: float = pack.PATIENCE,
    into: Path = Path("runs"),
    on_event: OnEvent | None = None,
    on_close: Callable[[], None] | None = None,
) -> "Session":
    """Ship the client code and give a session when it stands, which takes some seconds.

    Args:
        connection: the way to the Control API; it must stay open as long as the session.
        coordinator: the way to the coordinator's files and programs; the same.
        client_code: a Python file with a ClientApp `app`; or an app's folder, or a git reference to one, whose
            ClientApp is taken.
        deployed: what is known of the federation.
        config: overrides of the run config, as for a run.
        patience: seconds for which the session goes on when this process is gone or cannot reach it, and for which
            calls that are waiting then wait.
        into: where the run's folder goes when the session ends.
        on_event: told what happens to the run, as by `runs.submit_and_follow`.
        on_close: called when the session has ended, in whatever way.

    Raises:
        UsageError: the client code or its config is wrong.
        WorkFailed: the federation did not take the run, or the session did not come to stand.
    """
    key = secrets.token_urlsafe(32)
    with pack.packed(client_code, config) as (app, overrides):
        submitted = submit_and_follow(
            connection,
            coordinator,
            app.folder,
            {**overrides, pack.KEY: hashlib.sha256(key.encode()).hexdigest(), pack.LASTS: float(patience)},
            deployed=deployed,
            detach=True,
            origin=app.origin,
            repeatable=False,
            on_event=on_event,
            into=into,
        )
    session = Session(connection, coordinator, submitted.run_id, key, deployed, patience, into, on_event, on_close)
    try:
        session._start()
    except BaseException:
        session._give_up()
        raise
    return session


@dataclass
class _Call:
    """A call that is waiting for its replies."""

    header: dict[str, object]
    records: list[RecordDict]
    sites: dict[str, str]
    """Node id to site."""
    replies: dict[str, Reply] = field(default_factory=dict)
    """Node id to what came."""
    online: list[str] | None = None
    done: threading.Event = field(default_factory=threading.Event)


class Session:
    """An open session with the sites of a federation; `open_session` makes it.

    A context manager that closes it. Calls may be made from several threads; a site does one task after the other.
    """

    def __init__(
        self,
        connection: Connection,
        coordinator: Coordinator,
        run_id: str,
        key: str,
        deployed: Deployed,
        patience: float,
        into: Path,
        on_event: OnEvent | None,
        on_close: Callable[[], None] | None,
    ) -> None:
        self.run_id = run_id
        """The run that this session is."""
        self.result: RunResult | None = None
        """What became of the run, when the session is closed."""
        self._connection = connection
        self._coordinator = coordinator
        self._key = key
        self._deployed = deployed
        self._patience = patience
        self._into = into
        self._on_event = on_event
        self._on_close = on_close
        self._lock = threading.Lock()
        self._calls: dict[int, _Call] = {}
        self._numbers, self._looks = itertools.count(1), itertools.count(-1, -1)
        self._line: Line | None = None
        self._over: FlowerbedError | None = None
        self._closing = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close()
        except FlowerbedError as failure:
            if error is None:
                raise
            error.add_note(f"and the session did not close: {failure}")

    def __repr__(self) -> str:
        state = "closed" if self._closing.is_set() else "ended" if self._over else "open"
        return f"<session with {self._deployed.name}, run {self.run_id}, {state}>"

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that are online now; WorkFailed when the session has ended."""
        call = _Call({"do": "nodes"}, [], {})
        self._wait(call)
        return tuple(site for site, node in self._deployed.sites.items() if node in (call.online or ()))

    def broadcast_and_wait(
        self,
        task: str,
        records: Records | None = None,
        *,
        sites: Iterable[str] | None = None,
        timeout: float | None = None,
    ) -> Replies:
        """Have the sites do a task, and give what became of it at each.

        Args:
            task: whose handler in the client code it is: `train`, `evaluate` or `query`, or one that is registered
                with a name, as `query.count` is by `@app.query("count")`.
            records: what the handler finds as the message's content: a RecordDict, or a mapping of names to Flower's
                records, arrays (an ArrayRecord there) or mappings (a ConfigRecord). By the names of sites instead:
                for each its own. With the number `server-round` in a mapping, the run's report knows the round.
            sites: whom to ask; None: all of the federation.
            timeout: seconds to wait for replies; None: until all have replied, failed or gone offline, 12 h at most.

        Returns:
            One reply for each site asked: its records, its error, or why it is absent. What comes later than
            `timeout` is never part of another call.

        Raises:
            UsageError: no such site, no such task, or records that cannot travel.
            WorkFailed: the session has ended, or could not be reached for `patience` seconds.
        """
        if not _TASK.fullmatch(task):
            raise UsageError(
                f"'{task}' is no task: write train, evaluate or query, or a handler's name behind it as in query.count"
            )
        if timeout is not None and not timeout > 0:
            raise UsageError(f"timeout={timeout}: give seconds, or None to wait for all")
        given = for_sites(records, sites, self._deployed.sites)
        parts = list({id(one): one for one in given.values()}.values())
        places = {id(one): index for index, one in enumerate(parts)}
        to = {self._deployed.sites[site]: places[id(one)] for site, one in given.items()}
        call = _Call(
            {"do": "call", "task": task, "timeout": timeout, "to": to},
            parts,
            {self._deployed.sites[site]: site for site in given},
        )
        self._wait(call)
        replies = {site: call.replies[node] for node, site in call.sites.items()}
        if all(reply.error and _NO_HANDLER.search(reply.error) for reply in replies.values()):
            category, _, action = task.partition(".")
            named = f'"{action}"' if action else ""
            raise UsageError(f"the client code has no handler for '{task}': write one below @app.{category}({named})")
        return Replies(task, replies)

    def close(self) -> RunResult:
        """End the session's run and bring its folder home; what the run is then, also when called again.

        Raises WorkFailed when the coordinator cannot be reached: the run ends by itself after `patience` seconds.
        """
        if self.result is not None:
            return self.result
        try:
            self._hang_up()
            result = self._follow()
            if result.verdict.status == RUNNING:
                with control(self._connection) as api:
                    api.stop(self.run_id)
                result = self._follow()
            self.result = result
        finally:
            self._ended()
        return self.result

    def _follow(self) -> RunResult:
        return follow(
            self._connection,
            self._coordinator,
            self.run_id,
            deployed=self._deployed,
            timeout=_CLOSE_SECONDS,
            on_event=self._on_event,
            into=self._into,
        )

    def _start(self) -> None:
        """Wait until the bridge is there; WorkFailed when its run ends instead, or does not begin."""
        give_up = time.monotonic() + _START_SECONDS
        while self._line is None:
            try:
                self._line = self._open(_LOOK_SECONDS)
            except Broken as error:
                if ended := self._ended_run():
                    raise WorkFailed(ended) from None
                if time.monotonic() > give_up:
                    raise WorkFailed(
                        f"the session's ServerApp did not begin within {_START_SECONDS:.0f} s ({error}): "
                        f"`flowerbed status {self._deployed.name}` says what the coordinator does"
                    ) from None
        self._keeper.start()
        threading.Thread(target=self._stay, daemon=True).start()
        atexit.register(self._hang_up)

    def _open(self, seconds: float) -> Line:
        folder = f"{self._deployed.results}/{self.run_id}"
        return Line(self._coordinator, folder, bridge.SOCKET, self._key, seconds)

    def _ended_run(self) -> str | None:
        """How the run ended; None: it did not. WorkFailed when the SuperLink cannot be asked."""
        with control(self._connection) as api:
            run = api.run(self.run_id)
        if not run.is_finished:
            return None
        why = f" ({run.details})" if run.details else ""
        return (
            f"the session has ended, its run is {run.status.removeprefix('finished:')}{why}: "
            f"`flowerbed logs {self.run_id} --federation {self._deployed.name}` says more"
        )

    def _wait(self, call: _Call) -> None:
        """Send a call and wait for its replies; what comes of it later is not wanted."""
        with self._lock:
            self._check_open()
            number = next(self._numbers if call.sites else self._looks)
            call.header["id"] = number
            self._calls[number] = call
        try:
            self._send(call.header, call.records)
            call.done.wait()
        finally:
            with self._lock:
                self._calls.pop(number, None)
            self._send({"do": "drop", "id": number})
        if self._over is not None and not self._complete(call):
            raise WorkFailed(str(self._over))

    def _check_open(self) -> None:
        if self._closing.is_set():
            raise WorkFailed(_CLOSED)
        if self._over is not None:
            raise WorkFailed(str(self._over))

    def _send(self, header: Mapping[str, object], content: list[RecordDict] | None = None) -> None:
        """Send if there is a line; when there is one again, all that waits is asked for."""
        line = self._line
        if line is not None:
            with suppress(Broken):
                try:
                    line.send(dict(header), content or ())
                except ValueError as error:
                    raise UsageError(f"this cannot travel: {error}") from None

    def _keep(self) -> None:
        """Receive what comes, and open the line again when it breaks."""
        while not self._closing.is_set():
            try:
                line = self._line or self._again()
                self._line = line
                self._converse(line)
            except FlowerbedError as error:
                self._release(error)
                return

    def _release(self, error: FlowerbedError) -> None:
        """Nothing more will come: say so to all who wait."""
        with self._lock:
            self._over = self._over or error
            for call in self._calls.values():
                call.done.set()

    def _converse(self, line: Line) -> None:
        why: str | None = None
        try:
            with self._lock:
                waiting = list(self._calls.items())
            for number, call in waiting:
                line.send({"do": "again", "id": number, "have": list(call.replies)})
            while True:
                self._take(line, line.receive())
        except Broken:
            pass
        except wire.Hostile as error:
            why = f"the coordinator sent {error}"
            line.cut()
        finally:
            self._line = None
            line.end()
        if why is not None:
            raise WorkFailed(f"{why}: the session is given up")

    def _again(self) -> Line:
        """Open the line again; WorkFailed when the session is over, or patience is."""
        give_up = time.monotonic() + self._patience
        while True:
            if self._closing.is_set():
                raise WorkFailed(_CLOSED)
            try:
                return self._open(0)
            except Broken as error:
                ended = None
                if isinstance(error, Nobody):
                    with suppress(WorkFailed):  # it may be out of reach as well
                        ended = self._ended_run()
                if ended is not None:
                    raise WorkFailed(ended) from None
                if time.monotonic() > give_up:
                    raise WorkFailed(
                        f"the session was out of reach for {self._patience:.0f} s and is given up: {error}"
                    ) from None
                self._closing.wait(_RETRY_SECONDS)

    def _take(self, line: Line, frame: wire.Frame) -> None:
        """Take one frame; one about a call that nobody waits for says nothing."""
        kind = frame.header.get("is")
        if kind == "closed":
            return
        number = frame.number("id")
        with self._lock:
            call = self._calls.get(int(number))
        if call is None:
            return
        if kind == "unknown":
            # Elsewhere than in the thread that receives: both ends may have much to say.
            threading.Thread(target=self._send, args=(call.header, call.records), daemon=True).start()
        elif kind == "nodes":
            nodes = frame.header.get("nodes")
            call.online = [str(node) for node in nodes] if isinstance(nodes, list) else []
        elif kind == "reply":
            node = frame.text("node")
            if node not in call.sites:
                raise wire.Hostile(f"a reply of node {_shown(node)}, which was not asked")
            call.replies.setdefault(node, _reply(call.sites[node], frame))
        if self._complete(call):
            call.done.set()

    @staticmethod
    def _complete(call: _Call) -> bool:
        return call.online is not None or (bool(call.sites) and len(call.replies) == len(call.sites))

    def _stay(self) -> None:
        """Let the bridge know that its operator is there."""
        while not self._closing.wait(_ALIVE_SECONDS):
            self._send({"do": "alive"})

    def _hang_up(self) -> None:
        """Let the bridge end, and end the line."""
        line = self._line
        self._closing.set()
        if line is not None:
            with suppress(Broken):
                line.send({"do": "close"})
        if self._keeper.is_alive():
            self._keeper.join(_CLOSE_SECONDS)
            if line is not None and self._keeper.is_alive():
                line.cut()
                self._keeper.join(_CLOSE_SECONDS)
        self._release(WorkFailed(_CLOSED))

    def _give_up(self) -> None:
        """Stop the run of a session that never stood."""
        self._hang_up()
        with suppress(FlowerbedError), control(self._connection) as api:
            api.stop(self.run_id)
        self._ended()

    def _ended(self) -> None:
        atexit.unregister(self._hang_up)
        on_close, self._on_close = self._on_close, None
        if on_close is not None:
            on_close()


def _reply(site: str, frame: wire.Frame) -> Reply:
    """Read one site's reply."""
    error, absent = frame.header.get("error"), frame.header.get("absent")
    sent = frame.records[0] if frame.records and error is None and absent is None else None
    if error is None and absent is None and sent is None:
        raise wire.Hostile("a reply without records")
    told = None
    if error is not None:
        failure = ReplyError("", reason(_shown(error)))
        told = failure.told("").strip().removeprefix("failed with ")
    return Reply(site, sent, told, None if absent is None else _shown(absent), frame.number("seconds"))


def _shown(text: object) -> str:
    """One line that a terminal only prints."""
    return " ".join("".join(each if each.isprintable() else " " for each in str(text)).split())[:1000]
