# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Lets Flower ask sooner for what it waits for, while something is going on.

A SuperNode asks the SuperLink for its next message, and a ServerApp for its replies, every three seconds; a SuperNode
asks itself every half a second whether its app has replied, and a SuperExec every second whether there is a task. With
this the wait is a tenth of the time since something last came or went, never longer than Flower's own. So what takes
long costs a tenth more at most, and where nothing happens nobody is asked more often. A SuperNode waits five times as
long as it was waiting for its last answer, too: sites ask the less often the more a SuperLink has to do.

A SuperExec that waits asks every three seconds only, because a file tells it when to ask at once: whoever has received
what becomes a task touches it (see Bell). Looking at it costs a hundredth of what asking does.

The modules of Flower's wait by `time.sleep` of such a number. In each of them, and nowhere else, the name `time` is
made to mean a clock that waits so instead; whatever else they ask of it, Python's own answers. Who asks that soon also
hears of a message before all parts of it are there. Flower asks for such a part again after a second, and then after
twice as long each time; with this it begins with a tenth of a second. Where a version of Flower has another shape, it
waits as it always did.
"""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

SWITCH = "FLOWERBED_QUICK_POLLS"
# The path of the file that is the bell; the units of both sides name it.
BELL = "FLOWERBED_BELL"
# And of one that the SuperNode makes when it has come online: before that, a site's other programs have nothing to do.
ONLINE = "FLOWERBED_ONLINE"
# Each of Flower's waits, in seconds, to the shortest that it becomes.
SUPERNODE = {3: 0.1, 0.5: 0.1}
SERVERAPP = {3: 0.2}
SUPEREXEC = {1: 0.1}
# And to the longest, where a bell says when something has come.
_WITH_A_BELL = {1: 3.0}
# What fetches the parts of a message, in which functions, and how they call their first wait for what is not there yet.
PARTS, FETCH, FIRST_WAIT = (
    "flwr.supercore.inflatable.inflatable_utils",
    ("pull_objects", "pull_and_inflate_object_from_tree"),
    "initial_backoff",
)
_FIRST_WAIT_SECONDS = 0.1
_LOOK_SECONDS = 0.2
_GOES_FIRST_SECONDS = 30.0
_SHARE = 0.1
_TIMES = 5
_NAME = "time"


class Bell:
    """A file that one process touches when something has come, and that another looks at while it waits."""

    def __init__(self, path: Path | None) -> None:
        """Without a path, nobody hears it."""
        self._path = path

    def ring(self) -> None:
        """Something has come."""
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.touch(mode=0o600)

    def rung(self) -> int | None:
        """When it was rung last, in nanoseconds; None while there is none, as before its owner has started."""
        try:
            return None if self._path is None else os.stat(self._path).st_mtime_ns  # noqa: PTH116 - five times a second, for half
        except OSError:
            return None


def bell(name: str = BELL) -> Bell:
    """The one that the unit names."""
    path = os.environ.get(name)
    return Bell(Path(path) if path else None)


class Pace:
    """How long to wait before asking again."""

    def __init__(
        self,
        shortest: Mapping[float, float],
        clock: Callable[[], float] = time.monotonic,
        wait: Callable[[float], None] = time.sleep,
        told_by: Bell | None = None,
        tells: Bell | None = None,
    ) -> None:
        """`shortest` gives for each of Flower's waits, in seconds, what it becomes.

        `told_by` ends a wait, and `tells` is rung for whoever waits for what comes here.
        """
        self._shortest = shortest
        self._clock = clock
        self._wait = wait
        self._bell = told_by or Bell(None)
        self._tells = tells or Bell(None)
        self._rung: int | None = None
        self._last = float("-inf")
        self._answered_in = self._answered_before_in = 0.0

    def happened(self) -> None:
        """A message came or went."""
        self._last = self._clock()
        self._tells.ring()

    def answered(self, seconds: float) -> None:
        """Somebody was asked in vain, and took so long to say so; the quicker of the last two answers counts."""
        self._answered_in, self._answered_before_in = min(seconds, self._answered_before_in), seconds

    def sleep(self, seconds: float) -> None:
        """What stands for time.sleep."""
        if self._has_rung():  # since this was asked last
            self.happened()
        shortest = max(self._shortest.get(seconds, seconds), _TIMES * self._answered_in)
        longest = seconds if self._rung is None else _WITH_A_BELL.get(seconds, seconds)
        wait = min(longest, max(shortest, _SHARE * (self._clock() - self._last)))
        if self._rung is None:
            self._wait(wait)
            return
        until = self._clock() + wait
        while (left := until - self._clock()) > 0 and not self._has_rung(keep=True):
            self._wait(min(left, _LOOK_SECONDS))

    def _has_rung(self, *, keep: bool = False) -> bool:
        """Whether the bell was rung since this was asked last; `keep` leaves it so for the next time."""
        rung = self._bell.rung()
        found = rung is not None and rung != self._rung
        if not keep:
            self._rung = rung
        return found


class _Clock:
    """What stands for the module time."""

    def __init__(self, pace: Pace) -> None:
        self.sleep = pace.sleep

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def let_go_first(path: str, seconds: float = _GOES_FIRST_SECONDS) -> None:
    """Wait until the file is there, so long at most: whoever makes it has the processors for itself until then."""
    until = time.monotonic() + seconds
    while path and not Path(path).exists() and time.monotonic() < until:
        time.sleep(_LOOK_SECONDS)


def wanted() -> bool:
    """Whether the unit asks for it."""
    return os.environ.get(SWITCH) == "1"


def stand_in(module: Any, pace: Pace) -> bool:
    """Let `module` wait at this pace; returns whether it does."""
    if getattr(module, _NAME, None) is not time:
        print(f"this version of Flower has no {module.__name__}.{_NAME}: it asks at its own pace", flush=True)
        return False
    setattr(module, _NAME, _Clock(pace))
    return True


def fetch_sooner(place: Any) -> bool:
    """Let `place` ask sooner for a part of a message that is not there yet; returns whether it does."""
    functions = [getattr(place, name, None) for name in FETCH]
    if not all(FIRST_WAIT in (getattr(function, "__kwdefaults__", None) or {}) for function in functions):
        print(f"this version of Flower has no {FIRST_WAIT} in {place.__name__}: it fetches at its own pace", flush=True)
        return False
    for function in functions:
        function.__kwdefaults__ = {**function.__kwdefaults__, FIRST_WAIT: _FIRST_WAIT_SECONDS}
    return True


def follow(owner: Any, names: tuple[str, ...], pace: Pace) -> None:
    """Have the pace hear when one of `owner`'s functions of these names has given something."""
    for name in names:
        setattr(owner, name, heard(getattr(owner, name), pace))


def heard(function: Callable[..., Any], pace: Pace) -> Callable[..., Any]:
    """The same function; the pace hears when it has given something."""

    @functools.wraps(function)
    def called(*words: Any, **options: Any) -> Any:
        found = function(*words, **options)
        if found:
            pace.happened()
        return found

    return called
