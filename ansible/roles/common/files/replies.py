# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Notes in a file what a ServerApp sends to which node, and what comes back: times, sizes, numbers, errors; no array.

A ServerApp reaches the sites through Flower's Grid alone. `record` gives a Grid that notes each message as it passes,
one JSON document a line, written at once, so that a run that is stopped leaves what it had:

{"event": "begin", "schema": 1, "at": T, "run": ID, "flower": VERSION, "python": VERSION}
{"event": "sent", "at": T, "seconds": S, "push": N, "message": ID, "node": ID, "type": "train", "group": "",
 "round": R or null, "bytes": B, "taken": whether the SuperLink took it}
{"event": "reply", "at": T, "to": ID, "node": ID, "type": "train", "created": T, "bytes": B,
 "metrics": {RECORD: {NAME: NUMBER, or "nan", "inf", "-inf"}}, "left_out": N, "error": {"code": C, "reason": TEXT}}
{"event": "given up", "at": T, "messages": [ID, ...]}

T is in seconds since 1970 by this machine's clock; `created` is by the site's own. IDs are text. `push` counts the
calls that sent messages. `round` is what Flower's strategies put into the message's config. `bytes` is the size of the
arrays. Of metrics only single numbers are noted; `left_out` counts the others. A reply that came twice stands there
twice: the first counts. What is given up had no reply in the time that the app waits for one.

Nothing of this is a reason for a run to fail: what cannot be noted is said once in the run's log, and the run goes on.
"""

from __future__ import annotations

import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

SCHEMA = 1
FOLDER = ".flowerbed"
NAME = "replies.jsonl"
_NEEDED = ("push_messages", "pull_messages")
_ROUND = "server-round"
_METRICS_LIMIT = 500
_NAME_LIMIT = 200
_REASON_LIMIT = 2000


def stand_in(module: Any, name: str, results: Path) -> None:
    """Put a Grid that notes everything where `module` finds its own by `name`.

    The notes of a run are in `results`/.flowerbed/RUN ID/replies.jsonl: beside the run's own folder and not in it, so
    that an app which makes that folder itself finds none there.
    """
    grid = getattr(module, name, None)
    if grid is None:
        _say(f"this version of Flower has no {module.__name__}.{name}")
        return
    setattr(module, name, record(grid, lambda run_id: results / FOLDER / run_id / NAME))


def record(grid: type[Any], file_for_run: Callable[[str], Path]) -> type[Any]:
    """Make a subclass of a Grid that notes what passes, in the file that `file_for_run` gives for a run's id.

    The file's folder is made when the first message is sent. A Grid of another shape is given back as it is.
    """
    missing = [name for name in _NEEDED if not callable(getattr(grid, name, None))]
    if missing:
        _say(f"this version of Flower has no {grid.__name__}.{missing[0]}")
        return grid
    notes = _Notes(file_for_run)

    class Recording(grid):  # type: ignore[misc] - which class it is, only Flower knows
        """Flower's Grid, with notes."""

        def push_messages(self, messages: Iterable[Any]) -> Iterable[str]:
            """Send, and note what was sent."""
            messages = list(messages)
            began = time.time()
            ids = list(super().push_messages(messages))
            notes.take(lambda: _sent(messages, set(ids), began, notes.next_push()), lambda: str(self.run.run_id))
            return ids

        def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Any]:
            """Fetch, and note what came."""
            replies = list(super().pull_messages(message_ids))
            if replies:
                notes.take(lambda: [_reply(one) for one in replies], lambda: str(self.run.run_id))
            return replies

        def send_and_receive(self, messages: Iterable[Any], *words: Any, **options: Any) -> Iterable[Any]:
            """Send, fetch, and note what nobody waits for any more."""
            messages = list(messages)
            replies = list(super().send_and_receive(messages, *words, **options))
            answered = {one.metadata.reply_to_message_id for one in replies}
            if left := {one.metadata.message_id for one in messages} - answered - {""}:
                notes.take(lambda: [_given_up(left)], lambda: str(self.run.run_id))
            return replies

    for name in ("__name__", "__qualname__", "__module__", "__doc__"):
        setattr(Recording, name, getattr(grid, name))
    return Recording


class _Notes:
    """The file of one run; gives up for good at the first thing that goes wrong."""

    def __init__(self, file_for_run: Callable[[str], Path]) -> None:
        self._file_for_run = file_for_run
        self._descriptor: int | None = None
        self._broken = False
        self._pushes = 0

    def next_push(self) -> int:
        """The number of this call, from 1."""
        self._pushes += 1
        return self._pushes

    def take(self, entries: Callable[[], list[dict[str, Any]]], run_id: Callable[[], str]) -> None:
        """Append the entries."""
        if self._broken:
            return
        try:
            if self._descriptor is None:
                run = run_id()
                self._descriptor = self._open(run)
                _write(self._descriptor, [_begin(run)])
            _write(self._descriptor, entries())
        except Exception as error:  # it must not be a run's reason to fail, whatever it is
            self._broken = True
            _say(" ".join(str(error).split()) or type(error).__name__)

    def _open(self, run: str) -> int:
        file = self._file_for_run(run)
        file.parent.mkdir(parents=True, exist_ok=True)
        return os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)


def _write(descriptor: int, entries: list[dict[str, Any]]) -> None:
    rest = "".join(json.dumps(entry, allow_nan=False) + "\n" for entry in entries).encode()
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _begin(run: str) -> dict[str, Any]:
    from importlib.metadata import version  # noqa: PLC0415 - so late, it costs no start of a run

    entry = {"event": "begin", "schema": SCHEMA, "at": time.time(), "run": run}
    return entry | {"flower": version("flwr"), "python": platform.python_version()}


def _sent(messages: list[Any], taken: set[str], began: float, push: int) -> list[dict[str, Any]]:
    seconds = round(time.time() - began, 3)
    return [
        {
            "event": "sent",
            "at": began,
            "seconds": seconds,
            "push": push,
            "message": message.metadata.message_id,
            "node": str(message.metadata.dst_node_id),
            "type": message.metadata.message_type,
            "group": str(message.metadata.group_id)[:_NAME_LIMIT],
            "round": _round(message),
            "bytes": _bytes(message),
            "taken": message.metadata.message_id in taken,
        }
        for message in messages
    ]


def _given_up(messages: set[str]) -> dict[str, Any]:
    return {"event": "given up", "at": time.time(), "messages": sorted(messages)}


def _reply(message: Any) -> dict[str, Any]:
    entry = {
        "event": "reply",
        "at": time.time(),
        "to": message.metadata.reply_to_message_id,
        "node": str(message.metadata.src_node_id),
        "type": message.metadata.message_type,
        "created": message.metadata.created_at,
        "bytes": _bytes(message),
    }
    if message.has_error():
        error = {"code": message.error.code, "reason": str(message.error.reason or "")[:_REASON_LIMIT]}
        return entry | {"error": error}
    metrics, left_out = _metrics(message.content.metric_records)
    return entry | {"metrics": metrics, "left_out": left_out}


def _round(message: Any) -> int | None:
    """Which round the message belongs to, where its config says so."""
    if not message.has_content():
        return None
    for config in message.content.config_records.values():
        number = config.get(_ROUND)
        if isinstance(number, int) and not isinstance(number, bool):
            return number
    return None


def _bytes(message: Any) -> int:
    if not message.has_content():
        return 0
    return sum(len(array.data) for arrays in message.content.array_records.values() for array in arrays.values())


def _metrics(records: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, dict[str, Any]], int]:
    """The single numbers of a reply, and how many other values it has."""
    found: dict[str, dict[str, Any]] = {}
    left_out = taken = 0
    for record_name, values in records.items():
        kept = found.setdefault(str(record_name)[:_NAME_LIMIT], {})
        for name, value in values.items():
            if isinstance(value, int | float) and taken < _METRICS_LIMIT:
                kept[str(name)[:_NAME_LIMIT]] = value if math.isfinite(value) else str(float(value))
                taken += 1
            else:
                left_out += 1
    return found, left_out


def _say(why: str) -> None:
    print(f"the sites' replies are not recorded from here on: {why}", flush=True)
