# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Runs Flower's SuperNode, which also learns here that a run is over while its message is being worked on.

Flower asks for a run once, before its first message. The ClientApp of a run that is stopped later would go on, and
nothing else would be done at the site until it ends by itself. So the SuperLink is asked again while a message is
being worked on, and a run that is over is noted as an empty file that bears its id. relay.py looks for it, and ends
the ClientApp; the SuperNode then has a reply, which nobody wants any more, and takes new work.

A ClientApp that ends without a reply, as when it is told to end before it has fetched its message, would be waited for
as well, for ever. Flower makes a reply in the name of one that was killed; here it does in the name of every one. And a
reply whose rest nobody brings any more, since its app was killed meanwhile, is given up.

It also asks for its next message sooner while messages come and go, where the unit says so (see polls.py).

Where this version of Flower has another shape, nothing is noted and the SuperNode runs as it would without this.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import polls

sys.path.pop(0)

PROGRAM = ("flwr.supernode.cli", "flower_supernode")
# By this name that module calls what connects to the SuperLink; it gives these functions, in this order.
PLACE, CONNECT = "flwr.supernode.start_client_internal", "http_request_response"
_RECEIVE, _SEND, _GET_RUN = 1, 2, 3
_FUNCTIONS = 8
# What Flower raises for a run that is not running.
OVER = ("flwr.supercore.run", "RunNotRunningException")
# Flower's own state of a SuperNode, what it replies in the name of an app, and what it has for that.
STATE = ("flwr.supernode.nodestate.in_memory_nodestate", "InMemoryNodeState", "CLIENT_APP_CRASHED_ERROR")
STATE_NEEDS = ("finish_task", "get_tasks", "_store_error_replies", "record_message_processing_start")
CLIENT_APP, UNFINISHED = "flwr-clientapp", ("pending", "starting", "running")
# How Flower waits for its app's reply, and for the rest of it.
REPLY_SECONDS = 0.5
_ABANDONED_SECONDS, _IN_A_ROW_SECONDS = 30.0, 5.0
_SECONDS = 10.0
# A SuperLink that is just starting, or a gateway, may refuse once what it would not refuse again.
_TIMES = 2


class Watch:
    """Asks for the run whose message is being worked on, until the reply is sent."""

    def __init__(self, get_run: Callable[[int], Any], over: type[BaseException], folder: Path) -> None:
        self._get_run = get_run
        self._over = over
        self._folder = folder
        self._run: int | None = None

    def begin(self, run: int) -> None:
        """A message of this run has come."""
        with contextlib.suppress(OSError):
            (self._folder / str(run)).unlink(missing_ok=True)
        self._run = run

    def end(self) -> None:
        """Its reply is about to be sent."""
        self._run = None

    def look(self) -> bool:
        """Ask once; returns whether the run is over."""
        run = self._run
        if run is None:
            return False
        try:
            self._get_run(run)
        except self._over:
            return self._run == run
        except Exception:  # whatever it is, Flower meets it as well and says so
            return False
        return False

    def note(self) -> None:
        """Leave the file for the relay."""
        run, self._run = self._run, None
        if run is None:
            return
        print(f"run {run} is over: its ClientApp is ended", flush=True)
        with contextlib.suppress(OSError):
            self._folder.mkdir(exist_ok=True)
            self._folder.chmod(0o755)
            (self._folder / str(run)).touch()

    def keep_looking(self, seconds: float = _SECONDS) -> None:
        """Look for ever."""
        times = 0
        while True:
            time.sleep(seconds)
            times = times + 1 if self.look() else 0
            if times == _TIMES:
                self.note()
                times = 0


def stand_in(module: Any, over: type[BaseException], folder: Path, pace: polls.Pace, seconds: float = _SECONDS) -> None:
    """Put the watch where `module` connects to the SuperLink; the pace hears of what comes and goes."""
    connect = getattr(module, CONNECT, None)
    if not callable(connect):
        print(f"this version of Flower has no {module.__name__}.{CONNECT}: runs that are stopped are not noticed here")
        return

    @contextlib.contextmanager
    def connected(*words: Any, **options: Any) -> Iterator[Any]:
        with connect(*words, **options) as functions:
            yield functions if len(functions) != _FUNCTIONS else watched(functions, over, folder, pace, seconds)

    setattr(module, CONNECT, connected)


def watched(
    functions: tuple[Any, ...], over: type[BaseException], folder: Path, pace: polls.Pace, seconds: float
) -> tuple[Any, ...]:
    """The same functions; what comes and goes through them is watched."""
    receive, send = functions[_RECEIVE], functions[_SEND]
    watch = Watch(functions[_GET_RUN], over, folder)

    def received() -> Any:
        found = receive()
        if found is not None:
            pace.happened()
            watch.begin(found[0].metadata.run_id)
        return found

    def sent(*words: Any) -> Any:
        watch.end()
        done = send(*words)
        pace.happened()
        return done

    threading.Thread(target=watch.keep_looking, args=(seconds,), daemon=True).start()
    changed = list(functions)
    changed[_RECEIVE], changed[_SEND] = received, sent
    return tuple(changed)


def answer_for_all(state: Any, error: Any) -> None:
    """Let the SuperNode's `state` reply with `error` in the name of each ClientApp that has finished without a reply.

    Each message has a task of its own. So where a run has no task left that is not finished, nobody will reply to what
    is there of it still.
    """
    missing = [name for name in STATE_NEEDS if not callable(getattr(state, name, None))]
    if missing:
        print(f"this version of Flower has no {state.__name__}.{missing[0]}: an app may be waited for in vain")
        return
    finish = state.finish_task

    def finished(self: Any, task_id: int, *words: Any, **options: Any) -> Any:
        done = finish(self, task_id, *words, **options)
        for task in self.get_tasks(task_ids=[task_id]) if done else []:
            if task.type == CLIENT_APP and not self.get_tasks(run_ids=[task.run_id], statuses=UNFINISHED):
                take_for_fetched(self, task.run_id)
                self._store_error_replies({task.run_id}, error)
        return done

    state.finish_task = finished


class Abandoned(Exception):
    """Nobody brings what is waited for; Flower drops the reply for it, and goes on."""


class Workers:
    """Knows whether somebody still works on a message."""

    def __init__(self, seconds: float = _ABANDONED_SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._state: Any = None
        self._looked = self._since = float("-inf")

    def follow(self, state: Any) -> None:
        """Hear of the SuperNode's `state` when it makes a task."""
        create = state.create_task

        def created(itself: Any, *words: Any, **options: Any) -> Any:
            self._state = itself
            return create(itself, *words, **options)

        state.create_task = created

    def guard(self, sleep: Callable[[float], None]) -> Callable[[float], None]:
        """The same wait; Abandoned where nobody has worked for long while a reply was waited for."""

        def slept(seconds: float) -> None:
            if seconds == REPLY_SECONDS:
                self._look()
            sleep(seconds)

        return slept

    def _look(self) -> None:
        now = self._clock()
        at_work = self._state is None or self._state.get_tasks(statuses=UNFINISHED)
        if at_work or now - self._looked > _IN_A_ROW_SECONDS:
            self._since = now
        self._looked = now
        if now - self._since > self._seconds:
            raise Abandoned(f"its ClientApp ended {self._seconds:.0f} s ago without the rest of it")


def take_for_fetched(state: Any, run: int) -> None:
    """Mark the run's messages as fetched: an app may have ended before it fetched its own."""
    with state.lock_msg_store:
        for entry in state.msg_store.values():
            metadata = entry.message.metadata
            if metadata.run_id == run and not metadata.reply_to_message_id and not entry.is_retrieved:
                entry.is_retrieved = True
                state.record_message_processing_start(metadata.message_id)


def notice_stopped_runs(pace: polls.Pace) -> None:
    """Put the watch in, where the unit has a folder for what it finds."""
    folder = os.environ.get("RUNTIME_DIRECTORY")
    place, name = OVER
    if folder:
        over = getattr(importlib.import_module(place), name)
        stand_in(importlib.import_module(PLACE), over, Path(folder) / "over", pace)


def wait_for_nobody_who_ended(pace: polls.Pace) -> None:
    """Put in what stands for time where Flower waits, and what knows for whom it waits."""
    internals, module = importlib.import_module(PLACE), importlib.import_module(STATE[0])
    if not polls.stand_in(internals, pace):
        return
    state, error = (getattr(module, name) for name in STATE[1:])
    answer_for_all(state, error)
    workers = Workers()
    workers.follow(state)
    internals.time.sleep = workers.guard(internals.time.sleep)


def main() -> None:
    """Put all of it in and run Flower's program, which reads its arguments itself."""
    sys.argv[0] = "flower-supernode"
    pace = polls.Pace(polls.SUPERNODE if polls.wanted() else {})
    for put_in, without in (
        (notice_stopped_runs, "runs that are stopped are not noticed here"),
        (wait_for_nobody_who_ended, "an app that ends without a reply may be waited for in vain here"),
    ):
        try:
            put_in(pace)
        except (ImportError, AttributeError) as error:
            print(f"{without}: {error}", flush=True)
    commands, command = PROGRAM
    getattr(importlib.import_module(commands), command)()


if __name__ == "__main__":
    main()
