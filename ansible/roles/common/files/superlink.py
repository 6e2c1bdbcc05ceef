# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Runs Flower's SuperLink, whose database waits longer until it is its turn to write.

One writes at a time. Where many sites hand over large models, or the disk is busy with something else, that takes more
than the five seconds after which Flower's gives up, and a reply is lost for it. Where this version of Flower has
another shape, it waits as it would without this.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

PROGRAM = ("flwr.superlink.cli", "flower_superlink")
# The module that opens the database, and the settings that it does that with: pairs of text.
PLACE, SETTINGS = "flwr.supercore.sql_mixin", "SQLITE_PRAGMAS"
_WAIT, _MILLISECONDS = "busy_timeout", "60000"


def wait_longer(place: Any) -> None:
    """Let the database of `place` wait for a minute."""
    settings = dict(getattr(place, SETTINGS))
    setattr(place, SETTINGS, tuple((settings | {_WAIT: _MILLISECONDS}).items()))


def main() -> None:
    """Put it in and run Flower's program, which reads its arguments itself."""
    sys.argv[0] = "flower-superlink"
    try:
        wait_longer(importlib.import_module(PLACE))
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        print(f"the database waits no longer than Flower's own: {error}", flush=True)
    commands, command = PROGRAM
    sys.exit(getattr(importlib.import_module(commands), command)())


if __name__ == "__main__":
    main()
