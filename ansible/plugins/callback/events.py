# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Prints what a playbook does as one JSON document per line, for programs that show it in their own way."""

from __future__ import annotations

DOCUMENTATION = r"""
name: events
type: stdout
short_description: One JSON document per event
version_added: "0.1.0"
description:
  - Prints one JSON document per line for each play, task, changed result, failure, and the final counts.
  - The command line `flowerbed` reads it; results of tasks with C(no_log) never appear.
"""

import contextlib
import ctypes
import json
import os
import signal
from typing import Any

from ansible.executor.stats import AggregateStats
from ansible.executor.task_result import CallbackTaskResult
from ansible.playbook import Playbook
from ansible.playbook.play import Play
from ansible.playbook.task import Task
from ansible.plugins.callback import CallbackBase

_DIE_WITH_PARENT = 1


class CallbackModule(CallbackBase):
    """Turn Ansible's events into JSON lines."""

    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "flowerbed.federation.events"

    def v2_playbook_on_start(self, playbook: Playbook) -> None:
        """Name the playbook, and let none of its processes outlive it."""
        with contextlib.suppress(OSError, AttributeError):  # elsewhere than on Linux there is no such call
            end_with_parent = ctypes.CDLL(None).prctl
            os.register_at_fork(after_in_child=_EndWith(os.getpid(), end_with_parent))
        self._emit("playbook", name=playbook._file_name)

    def v2_playbook_on_play_start(self, play: Play) -> None:
        """Name the play."""
        self._emit("play", name=play.get_name().strip())

    def v2_playbook_on_task_start(self, task: Task, is_conditional: bool) -> None:
        """Name the task."""
        self._emit("task", name=task.get_name().strip())

    def v2_runner_on_ok(self, result: CallbackTaskResult) -> None:
        """Report what a module changed, with differences where the caller asked for them, found, or warns of."""
        self._emit_findings(result)
        for warning in result.result.get("warnings") or []:
            self._emit("warning", host=result.host.get_name(), message=str(warning))
        if result.result.get("changed"):
            self._emit("changed", host=result.host.get_name(), task=result.task_name, diff=_diff(result.result))

    def v2_runner_on_failed(self, result: CallbackTaskResult, ignore_errors: bool = False) -> None:
        """Report the failure in one line, and what a module found."""
        self._emit_findings(result)
        if not ignore_errors:
            self._emit("failed", host=result.host.get_name(), task=result.task_name, message=_message(result.result))

    def v2_runner_on_unreachable(self, result: CallbackTaskResult) -> None:
        """Report that the host does not answer."""
        self._emit("unreachable", host=result.host.get_name(), message=_message(result.result))

    def v2_playbook_on_stats(self, stats: AggregateStats) -> None:
        """Report the counts per host."""
        self._emit("stats", hosts={host: stats.summarize(host) for host in sorted(stats.processed)})

    def _emit_findings(self, result: CallbackTaskResult) -> None:
        if result.result.get("findings"):
            self._emit("findings", host=result.host.get_name(), findings=result.result["findings"])

    def _emit(self, event: str, **values: Any) -> None:
        self._display.display(json.dumps({"event": event, **values}, default=str))


class _EndWith:
    """Ends a worker with the process that forked it, in the middle of whatever it does.

    Ansible ends the workers that it knows of, and not one that it is just starting. That one would go on with its task,
    and for ever where nobody takes the result from it.
    """

    def __init__(self, parent: int, call: Any) -> None:
        self._parent = parent
        self._call = call
        self._is_worker = False

    def __call__(self) -> None:
        if self._is_worker:  # what that forks is its own business
            return
        self._is_worker = True
        self._call(_DIE_WITH_PARENT, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != self._parent:  # it has ended already
            os._exit(1)


def _message(result: dict[str, Any]) -> str:
    if result.get("results"):
        failed = [item for item in result["results"] if item.get("failed")]
        if failed:
            return _message(failed[0])
    message = result.get("msg") or result.get("stderr") or result.get("censored") or "no reason was given"
    return " ".join(str(message).split())


def _diff(result: dict[str, Any]) -> list[dict[str, Any]]:
    diff = result.get("diff") or []
    return diff if isinstance(diff, list) else [diff]
