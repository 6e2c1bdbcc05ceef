# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Keeps a SuperNode from waiting for a ClientApp that has ended.

A SuperNode does one thing at a time. It waits for ever for the reply of a ClientApp that ended in order but without
one, as when that was told to end before it had fetched its message. Flower replies in the name of a ClientApp of which
it heard no more; with this it does in the name of every one. A reply whose rest nobody brings any more, since its app
was killed meanwhile, is given up. And the other way round: where the SuperNode drops a message, since its run is over,
the ClientApp that was begun for it would ask for it for ever; its task is ended, and it is refused.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable
from typing import Any

# Flower's own state of a SuperNode, what it replies in the name of an app, and what it has for that.
STATE = ("flwr.supernode.nodestate.in_memory_nodestate", "InMemoryNodeState", "CLIENT_APP_CRASHED_ERROR")
_NEEDED = ("finish_task", "get_tasks", "_store_error_replies", "record_message_processing_start")
_CLIENT_APP, _UNFINISHED, _FAILED = "flwr-clientapp", ("pending", "starting", "running"), "failed"
# How Flower waits for its app's reply, and for the rest of it.
REPLY_SECONDS = 0.5
_ABANDONED_SECONDS, _IN_A_ROW_SECONDS = 30.0, 5.0


def stand_in(internals: Any, workers: Workers) -> None:
    """Put it in where `internals`, Flower's module of a SuperNode, waits by a clock that was put in before."""
    module = importlib.import_module(STATE[0])
    state, error = (getattr(module, name) for name in STATE[1:])
    answer_for_all(state, error)
    workers.follow(state)
    internals.time.sleep = workers.guard(internals.time.sleep)


def answer_for_all(state: Any, error: Any) -> None:
    """Let the SuperNode's `state` reply with `error` in the name of each ClientApp that has finished without a reply.

    Each message has a task of its own. So where a run has no task left that is not finished, nobody will reply to what
    is there of it still.
    """
    missing = [name for name in _NEEDED if not callable(getattr(state, name, None))]
    if missing:
        print(f"this version of Flower has no {state.__name__}.{missing[0]}: an app may be waited for in vain")
        return
    finish = state.finish_task

    def finished(self: Any, task_id: int, *words: Any, **options: Any) -> Any:
        done = finish(self, task_id, *words, **options)
        for task in self.get_tasks(task_ids=[task_id]) if done else []:
            if task.type == _CLIENT_APP and not self.get_tasks(run_ids=[task.run_id], statuses=_UNFINISHED):
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
        self._task: Any = None
        self._looked = self._since = float("-inf")

    def follow(self, state: Any) -> None:
        """Hear of the SuperNode's `state` when it makes a task."""
        create = state.create_task

        def created(itself: Any, *words: Any, **options: Any) -> Any:
            self._state = itself
            self._task = create(itself, *words, **options)
            return self._task

        state.create_task = created

    def drop(self, message: str) -> None:
        """End the task that was made last: the SuperNode has dropped its message, of this id.

        Its app may have replied by then, as when the SuperLink knows nothing of the run any more. A reply that stayed
        would be sent instead of that to the next message, and each later one would be late by a message.
        """
        state = self._state
        if state is None or self._task is None:
            return
        state.delete_messages(message_ids=[message])
        state.finish_task(self._task, _FAILED, "its message was dropped")
        with state.lock_msg_store:
            there = {key: entry.message.metadata.reply_to_message_id for key, entry in state.msg_store.items()}
        replies = [key for key, replied_to in there.items() if replied_to == message]
        state.delete_messages(message_ids=replies)
        for reply in replies:
            state.object_store.delete(reply)

    def guard(self, sleep: Callable[[float], None]) -> Callable[[float], None]:
        """The same wait; Abandoned where nobody has worked for long while a reply was waited for."""

        def slept(seconds: float) -> None:
            if seconds == REPLY_SECONDS:
                self._look()
            sleep(seconds)

        return slept

    def _look(self) -> None:
        now = self._clock()
        at_work = self._state is None or self._state.get_tasks(statuses=_UNFINISHED)
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
