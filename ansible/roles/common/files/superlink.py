# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Runs Flower's SuperLink, whose database waits longer until it is its turn to write, and which tells of each new run.

One writes at a time. Where many sites hand over large models, or the disk is busy with something else, that takes more
than the five seconds after which Flower's gives up, and a reply is lost for it. SuperExec hears of a run at once and
need not ask every second (see polls.py). And it keeps an unused connection for longer than the gateway does: its web
server closed it after five seconds, and a request that the gateway sent in that moment was answered by nobody for half
a minute. Where this version of Flower has another shape, all is as it would be without this.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import polls

sys.path.pop(0)

PROGRAM = ("flwr.superlink.cli", "flower_superlink")
# The module that opens the database, and the settings that it does that with: pairs of text.
PLACE, SETTINGS = "flwr.supercore.sql_mixin", "SQLITE_PRAGMAS"
# What notes a run, and gives its id.
STATE, NOTER, BEGIN = "flwr.server.superlink.linkstate.sql_linkstate", "SqlLinkState", "create_run"
_WAIT, _MILLISECONDS = "busy_timeout", "60000"
# Its web server, and how that calls the seconds for which it keeps an unused connection; the gateway does for 60.
SERVER, _KEEPS, _KEEPS_SECONDS = "uvicorn", "timeout_keep_alive", 120


def wait_longer(place: Any) -> None:
    """Let the database of `place` wait for a minute."""
    settings = dict(getattr(place, SETTINGS))
    setattr(place, SETTINGS, tuple((settings | {_WAIT: _MILLISECONDS}).items()))


def tell_of_runs(noter: Any, bell: polls.Bell) -> None:
    """Ring for each run that `noter` has noted, and once before: whoever waits for them listens from then on."""
    polls.follow(noter, (BEGIN,), polls.Pace({}, tells=bell))
    bell.ring()


def keep_connections(run: Any) -> None:
    """Let the web server that `run` starts keep an unused connection for two minutes."""
    defaults = run.__kwdefaults__
    run.__kwdefaults__ = {**defaults, _KEEPS: max(_KEEPS_SECONDS, defaults[_KEEPS])}


def main() -> None:
    """Put it in and run Flower's program, which reads its arguments itself."""
    sys.argv[0] = "flower-superlink"
    try:
        wait_longer(importlib.import_module(PLACE))
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        print(f"the database waits no longer than Flower's own: {error}", flush=True)
    try:
        tell_of_runs(getattr(importlib.import_module(STATE), NOTER), polls.bell())
    except (ImportError, AttributeError) as error:
        print(f"SuperExec hears of a run when it asks: {error}", flush=True)
    try:
        keep_connections(importlib.import_module(SERVER).run)
    except (ImportError, AttributeError, TypeError, KeyError) as error:
        print(f"connections are kept for as long as Flower's own: {error}", flush=True)
    commands, command = PROGRAM
    sys.exit(getattr(importlib.import_module(commands), command)())


if __name__ == "__main__":
    main()
