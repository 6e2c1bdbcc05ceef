# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Lets Flower ask sooner for what it waits for, while something is going on.

A SuperNode asks for its next message, and a ServerApp for its replies, every three seconds. With this the wait is a
tenth of the time since a message last came or went, never shorter than a fifth of a second and never longer than
Flower's own. So what takes long costs a tenth more at most, and where nothing happens nobody is asked more often.

The two modules of Flower's wait by `time.sleep(3)`. In each of them, and nowhere else, the name `time` is made to mean
a clock that waits so instead; whatever else they ask of it, Python's own answers. Where a version of Flower has another
shape, it waits as it always did.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

SWITCH = "FLOWERBED_QUICK_POLLS"
FLOWERS_SECONDS = 3
_SHORTEST_SECONDS = 0.2
_SHARE = 0.1
_NAME = "time"


class Pace:
    """How long to wait before asking again."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, wait: Callable[[float], None] = time.sleep) -> None:
        self._clock = clock
        self._wait = wait
        self._last = float("-inf")

    def happened(self) -> None:
        """A message came or went."""
        self._last = self._clock()

    def seconds(self) -> float:
        """The wait that is due now."""
        return min(FLOWERS_SECONDS, max(_SHORTEST_SECONDS, _SHARE * (self._clock() - self._last)))

    def sleep(self, seconds: float) -> None:
        """What stands for time.sleep."""
        self._wait(self.seconds() if seconds == FLOWERS_SECONDS else seconds)


class _Clock:
    """What stands for the module time."""

    def __init__(self, pace: Pace) -> None:
        self.sleep = pace.sleep

    def __getattr__(self, name: str) -> Any:
        return getattr(time, name)


def wanted() -> bool:
    """Whether the unit asks for it."""
    return os.environ.get(SWITCH) == "1"


def stand_in(module: Any, pace: Pace) -> None:
    """Let `module` wait at this pace."""
    if getattr(module, _NAME, None) is not time:
        print(f"this version of Flower has no {module.__name__}.{_NAME}: it asks at its own pace", flush=True)
        return
    setattr(module, _NAME, _Clock(pace))


def follow(owner: Any, names: tuple[str, ...], pace: Pace) -> None:
    """Have the pace hear when one of `owner`'s functions of these names has given something."""
    for name in names:
        setattr(owner, name, heard(getattr(owner, name), pace))


def heard(function: Callable[..., Any], pace: Pace) -> Callable[..., Any]:
    """The same function; the pace hears when it has given something."""

    def called(*words: Any, **options: Any) -> Any:
        found = function(*words, **options)
        if found:
            pace.happened()
        return found

    return called
