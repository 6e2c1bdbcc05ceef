# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Runs Flower's SuperNode, which also learns here that a run is over while its message is being worked on.

Flower asks for a run once, before its first message. The ClientApp of a run that is stopped later would go on, and
nothing else would be done at the site until it ends by itself. So the SuperLink is asked again while a message is
being worked on, and a run that is over is noted as an empty file that bears its id. relay.py looks for it, and ends
the ClientApp; the SuperNode then has a reply, which nobody wants any more, and takes new work.

Other programs of the site begin when it is connected, so that it is soon; a file tells them (see polls.py). Two more
things are put in: a ClientApp that ended without a reply is not waited for (see unanswered.py), and the next
message is asked for sooner while messages come and go, and SuperExec is told of it, where the unit says so (see
polls.py).

Where this version of Flower has another shape, nothing is noted and the SuperNode runs as it would without this.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).parent))
import polls
import unanswered

sys.path.pop(0)

PROGRAM = ("flwr.supernode.cli", "flower_supernode")
# By this name that module calls what connects to the SuperLink; it gives these functions, in this order.
PLACE, CONNECT = "flwr.supernode.start_client_internal", "http_request_response"
_RECEIVE, _SEND, _GET_RUN = 1, 2, 3
_FUNCTIONS = 8
# What Flower raises for a run that is not running.
OVER = ("flwr.supercore.run", "RunNotRunningException")
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


def stand_in(
    module: Any,
    over: type[BaseException],
    folder: Path,
    pace: polls.Pace,
    drop: Callable[[str], None],
    seconds: float = _SECONDS,
    online: polls.Bell | None = None,
) -> None:
    """Put the watch where `module` connects to the SuperLink; the pace hears of what comes and goes.

    `drop` hears the id of a message that Flower has dropped: it asks for the next one, and has sent no reply.
    `online` is rung once the SuperNode is connected.
    """
    connect = getattr(module, CONNECT, None)
    if not callable(connect):
        print(f"this version of Flower has no {module.__name__}.{CONNECT}: runs that are stopped are not noticed here")
        return

    @contextlib.contextmanager
    def connected(*words: Any, **options: Any) -> Iterator[Any]:
        with connect(*words, **options) as functions:
            (online or polls.Bell(None)).ring()
            yield functions if len(functions) != _FUNCTIONS else watched(functions, over, folder, pace, drop, seconds)

    setattr(module, CONNECT, connected)


def watched(
    functions: tuple[Any, ...],
    over: type[BaseException],
    folder: Path,
    pace: polls.Pace,
    drop: Callable[[str], None],
    seconds: float,
) -> tuple[Any, ...]:
    """The same functions; what comes and goes through them is watched."""
    receive, send = functions[_RECEIVE], functions[_SEND]
    watch = Watch(functions[_GET_RUN], over, folder)

    unanswered_yet: list[str] = []

    def received() -> Any:
        while unanswered_yet:
            drop(unanswered_yet.pop())
        begin = time.monotonic()
        found = receive()
        if found is None:
            pace.answered(time.monotonic() - begin)
        else:
            pace.happened()
            watch.begin(found[0].metadata.run_id)
            unanswered_yet.append(found[0].metadata.message_id)
        return found

    def sent(*words: Any) -> Any:
        watch.end()
        unanswered_yet.clear()
        done = send(*words)
        pace.happened()
        return done

    threading.Thread(target=watch.keep_looking, args=(seconds,), daemon=True).start()
    changed = list(functions)
    changed[_RECEIVE], changed[_SEND] = received, sent
    return tuple(changed)


def notice_stopped_runs(pace: polls.Pace, workers: unanswered.Workers) -> None:
    """Put the watch in, where the unit has a folder for what it finds."""
    folder = os.environ.get("RUNTIME_DIRECTORY")
    place, name = OVER
    if folder:
        over = getattr(importlib.import_module(place), name)
        online = polls.bell(polls.ONLINE)
        stand_in(importlib.import_module(PLACE), over, Path(folder) / "over", pace, workers.drop, online=online)


def fetch_sooner(_pace: polls.Pace, _workers: unanswered.Workers) -> None:
    """Let the parts of a message be fetched sooner, where the unit says so."""
    if polls.wanted():
        polls.fetch_sooner(importlib.import_module(polls.PARTS))


def wait_for_nobody_who_ended(pace: polls.Pace, workers: unanswered.Workers) -> None:
    """Put in what stands for time where Flower waits, and what knows for whom it waits."""
    internals = importlib.import_module(PLACE)
    if polls.stand_in(internals, pace):
        unanswered.stand_in(internals, workers)


def main() -> None:
    """Put all of it in and run Flower's program, which reads its arguments itself."""
    sys.argv[0] = "flower-supernode"
    bell = polls.bell()
    bell.ring()  # from now on SuperExec listens
    pace, workers = polls.Pace(polls.SUPERNODE if polls.wanted() else {}, tells=bell), unanswered.Workers()
    for put_in, without in (
        (notice_stopped_runs, "runs that are stopped are not noticed here"),
        (fetch_sooner, "the parts of a message are fetched at Flower's own pace"),
        (wait_for_nobody_who_ended, "an app that ends without a reply may be waited for in vain here"),
    ):
        try:
            put_in(pace, workers)
        except (ImportError, AttributeError) as error:
            print(f"{without}: {error}", flush=True)
    commands, command = PROGRAM
    end_with(getattr(importlib.import_module(commands), command))


def end_with(program: Callable[[], object]) -> NoReturn:
    """End this process with Flower's program, for systemd to start it anew.

    Flower's server for ClientApps is a thread that Python would wait for: after an error the process would stay, and do
    nothing any more.
    """
    code = 0
    try:
        program()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:  # whatever it is, nothing goes on here
        traceback.print_exc()
        code = 1
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
