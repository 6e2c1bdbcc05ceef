# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Runs Flower's SuperExec, which asks for its next task sooner while tasks come, and when it is told (see polls.py).

At a site it lets the SuperNode come online first, which has work for it only then.

Where this version of Flower has another shape, it asks every second as it would without this.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
import entry
import polls

sys.path.pop(0)

PROGRAM = ("flwr.supercore.cli", "flower_superexec")
# The module that waits, and what of it begins a task.
PLACE, PLUGIN, BEGIN = "flwr.supercore.superexec.run_superexec", "AutoExecPlugin", "launch_task"


def ask_sooner(pace: polls.Pace) -> None:
    """Put in what stands for time, and have the pace hear of each task."""
    place = importlib.import_module(PLACE)
    polls.follow(getattr(place, PLUGIN), (BEGIN,), pace)
    polls.stand_in(place, pace)


def main() -> None:
    """Put it in and run Flower's program, which reads its arguments itself."""
    sys.argv[0] = "flower-superexec"
    polls.let_go_first(os.environ.get(polls.ONLINE, ""))
    if polls.wanted():
        try:
            ask_sooner(polls.Pace(polls.SUPEREXEC, told_by=polls.bell()))
        except (ImportError, AttributeError) as error:
            print(f"tasks are asked for every second: {error}", flush=True)
    entry.program(*PROGRAM)()


if __name__ == "__main__":
    main()
