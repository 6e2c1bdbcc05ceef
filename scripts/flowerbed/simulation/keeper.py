"""Runs a simulation's SuperLink, and ends everything that came of it when its starter is gone, however that ended.

    keeper.py FOLDER MARK PROGRAM ARGUMENT ...

The starter holds our standard input. Once that is closed, or the program ends by itself, no process stays that has MARK
in its environment: the simulation's engine puts its processes beyond the program's own group. After the starter FOLDER
goes, too. A program of its own, of Python's library alone, so that it starts at once and outlives its starter.
"""

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

_LOOK_SECONDS = 0.2
_END_SECONDS = 5.0


def main() -> int:
    """Keep the program until it or the starter ends; give its exit code."""
    folder, mark, *words = sys.argv[1:]
    process = subprocess.Popen(words, stdin=subprocess.DEVNULL, start_new_session=True)
    while process.poll() is None:
        if select.select([sys.stdin], [], [], _LOOK_SECONDS)[0]:  # nobody writes: it is closed
            _end(process, mark)
            shutil.rmtree(folder, ignore_errors=True)
            return 0
    _end(process, mark)
    return process.returncode or 1


def _end(process: "subprocess.Popen[bytes]", mark: str) -> None:
    if process.poll() is None:
        process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(_END_SECONDS)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + _END_SECONDS
    while (left := _marked(mark)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def _marked(mark: str) -> list[int]:
    """The processes that have our mark in their environment, but for ourselves; zombies have none."""
    wanted = mark.encode()
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(entry.name) != os.getpid() and wanted in (entry / "environ").read_bytes().split(b"\0"):
                found.append(int(entry.name))
    return found


if __name__ == "__main__":
    sys.exit(main())
