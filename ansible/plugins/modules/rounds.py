# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Holds the runs of a federation between two rounds, while something is changed that a round would not survive."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rounds
short_description: Hold the runs of a federation between two rounds
version_added: "0.2.0"
description:
  - A SuperNode that is started anew loses the message that it works on, and with another key it is another node.
    While runs are held, no site has work, so that SuperNodes may change without a failed round.
  - A ServerApp asks which nodes there are before it sends them work. V(held) lets the gateway answer that question with
    "later" (Flower asks again by itself), waits until every reply of every run was taken and every ServerApp that
    runs has asked that question. V(released) ends it.
  - A SuperLink refuses ServerApps of another Flower (another major or minor version). V(drained) is for a change of
    that. No ServerApp begins from now on, those that run are waited for to their end, and runs that are submitted
    meanwhile wait until V(released).
  - Runs on the coordinator. A hold ends by itself after O(limit) seconds, also when nobody releases it.
options:
  state:
    description: V(held) returns when no site has work, V(drained) when no run is under way; V(released) ends both.
    type: str
    choices: [held, drained, released]
    required: true
  wait:
    description:
      - Seconds to wait for the end of the rounds that are under way, with V(drained) of the runs; then runs go on and
        the task fails.
    type: int
    default: 600
  notes:
    description:
      - The folder in which the ServerApps' Grids note what they send, see the role's C(replies.py). A message that an
        app gave up, since no reply came in time, is not waited for.
    type: path
    default: /var/lib/flower/results/.flowerbed
  limit:
    description: Seconds after which a hold ends by itself, counted from the moment at which it is reached.
    type: int
    default: 300
  folder:
    description: The gateway's folder below C(/run), in which it looks for the sign that runs are held.
    type: path
    default: /run/flower-gateway
  database:
    description: The SuperLink's SQLite file; it is only read.
    type: path
    default: /var/lib/flower/superlink/superlink.db
attributes:
  check_mode:
    support: full
    description: Holds nothing.
author:
  - The Flowerbed authors (@flowerbed)
"""

EXAMPLES = r"""
- name: Let no round begin
  flowerbed.federation.rounds:
    state: held
"""

RETURN = r"""
runs:
  description: How many runs were held.
  type: int
  returned: when O(state) is not V(released)
seconds:
  description: How long they were waited for.
  type: float
  returned: when O(state) is not V(released)
"""

import contextlib
import json
import os
import sqlite3
import stat
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

_NOTES_NAME = "replies.jsonl"
_TIMER = "flower-hold-end"
# It starts ServerApps; those that it started outlast it.
_STARTER = "flower-superexec-serverapp.service"
# Runs whose ServerApp was started and has not ended.
_ACTIVE = """
SELECT count(*) FROM run JOIN task ON task.task_id = run.primary_task_id
WHERE task.finished_at IS NULL AND task.starting_at IS NOT NULL
"""
# Messages of such runs that are with a site, or whose reply the ServerApp has not taken; taken ones are deleted.
_OPEN = """
SELECT message_ins.run_id, message_ins.message_id FROM message_ins JOIN run ON run.run_id = message_ins.run_id
JOIN task ON task.task_id = run.primary_task_id WHERE task.finished_at IS NULL
"""


class Hold:
    """The sign that the gateway looks for, and what the SuperLink's database says of the runs."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.sign = Path(module.params["folder"]) / "hold"
        self.asked = Path(module.params["folder"]) / "held.log"
        self.database = Path(module.params["database"])

    def begin(self) -> tuple[int, float]:
        """Hold the runs; returns how many, and how many seconds that took."""
        self._need_the_gateway()
        began = time.monotonic()
        with self.asked.open("w"):
            self.sign.touch()
        self._end_in(self.module.params["wait"] + self.module.params["limit"])
        while True:
            active, unanswered = self._active(), self._unanswered()
            if active == 0 or (unanswered == 0 and self._waiting() >= active):
                self._end_in(self.module.params["limit"])
                return active, time.monotonic() - began
            if time.monotonic() - began > self.module.params["wait"]:
                self.end()
                self.module.fail_json(
                    msg=f"{active} runs came to no pause within {self.module.params['wait']} s ({unanswered} replies "
                    "are missing): wait for their end, or give them longer with --wait"
                )
            time.sleep(0.3)

    def drain(self) -> float:
        """Let no run begin, and wait for the end of those under way; returns how many seconds that took."""
        self._need_the_gateway()
        began = time.monotonic()
        self.module.run_command(["systemctl", "stop", _STARTER])
        self._end_in(self.module.params["wait"] + self.module.params["limit"])
        while active := self._active():
            if time.monotonic() - began > self.module.params["wait"]:
                self.end()
                self.module.fail_json(
                    msg=f"{active} runs have not ended within {self.module.params['wait']} s: stop them with "
                    "`flowerbed stop`, or give them longer with --wait"
                )
            time.sleep(1)
        # The first that begin afterwards find sites that are not ready yet.
        self.sign.touch()
        self._end_in(self.module.params["limit"])
        return time.monotonic() - began

    def end(self) -> bool:
        """Let the runs go on; returns whether they were held."""
        held = self.sign.exists()
        self.sign.unlink(missing_ok=True)
        self.module.run_command(["systemctl", "stop", f"{_TIMER}.timer"])
        if self._starter_is_off():
            self.module.run_command(["systemctl", "start", _STARTER])
        return held

    def _need_the_gateway(self) -> None:
        if not self.sign.parent.is_dir():
            self.module.fail_json(msg="the gateway does not run: `systemctl status flower-gateway` says why")

    def _starter_is_off(self) -> bool:
        """Whether drain() stopped it: a host without it never has it enabled."""
        enabled, _, _ = self.module.run_command(["systemctl", "is-enabled", "--quiet", _STARTER])
        active, _, _ = self.module.run_command(["systemctl", "is-active", "--quiet", _STARTER])
        return enabled == 0 and active != 0

    def _end_in(self, seconds: int) -> None:
        """Whatever becomes of the caller, the runs go on after so many seconds."""
        self.module.run_command(["systemctl", "stop", f"{_TIMER}.timer"])
        command = ["systemd-run", "--quiet", "--collect", f"--unit={_TIMER}", f"--on-active={seconds}"]
        ending = f'rm -f "$0"; ! systemctl is-enabled --quiet {_STARTER} || systemctl start {_STARTER}'
        self.module.run_command([*command, "/bin/sh", "-c", ending, str(self.sign)], check_rc=True)

    def _waiting(self) -> int:
        """How many ServerApps were told to ask again: each has a connection of its own."""
        return len(set(self.asked.read_text().split()))

    def _active(self) -> int:
        return int(self._ask(_ACTIVE)[0][0])

    def _unanswered(self) -> int:
        """How many replies the runs still wait for: what a site never answered, an app gives up after a time."""
        messages: dict[int, set[str]] = {}
        for run, message in self._ask(_OPEN):
            messages.setdefault(int(run), set()).add(str(message))
        notes = Path(self.module.params["notes"])
        # SQLite has signed numbers alone.
        files = {run: notes / str(run % 2**64) / _NOTES_NAME for run in messages}
        return sum(len(ids - given_up(_lines(files[run]))) for run, ids in messages.items())

    def _ask(self, question: str) -> list[tuple[Any, ...]]:
        address = f"{self.database.resolve().as_uri()}?mode=ro"
        try:
            with contextlib.closing(sqlite3.connect(address, uri=True, timeout=10)) as database:
                return database.execute(question).fetchall()
        except sqlite3.Error as error:
            self.end()
            self.module.fail_json(msg=f"{self.database}: {error}: `systemctl status flower-superlink` says more")
            raise  # for type checkers: fail_json does not return


def given_up(lines: Iterable[bytes]) -> set[str]:
    """The messages that a ServerApp waits for no more, from the `lines` that its Grid noted (replies.py)."""
    messages: set[str] = set()
    for line in lines:
        # The app itself could have written there, whatever it likes: that ends its own pause alone.
        with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
            entry = json.loads(line)
            if entry["event"] == "given up":
                messages.update(str(message) for message in entry["messages"])
    return messages


def _lines(file: Path) -> Iterator[bytes]:
    """The lines of a file that an app's user could put something else in place of; none where it did."""
    with contextlib.suppress(OSError):
        handle = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as stream:
            if stat.S_ISREG(os.fstat(handle).st_mode):
                yield from stream


def main() -> None:
    """Hold the runs, or let them go on."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["held", "drained", "released"], "required": True},
            "wait": {"type": "int", "default": 600},
            "limit": {"type": "int", "default": 300},
            "folder": {"type": "path", "default": "/run/flower-gateway"},
            "database": {"type": "path", "default": "/var/lib/flower/superlink/superlink.db"},
            "notes": {"type": "path", "default": "/var/lib/flower/results/.flowerbed"},
        },
        supports_check_mode=True,
    )
    hold = Hold(module)
    if module.check_mode:
        module.exit_json(changed=False, runs=0, seconds=0.0)
    if module.params["state"] == "released":
        hold.end()
        module.exit_json(changed=False)
    runs, seconds = (0, hold.drain()) if module.params["state"] == "drained" else hold.begin()
    module.exit_json(changed=False, runs=runs, seconds=round(seconds, 1))


if __name__ == "__main__":
    main()
