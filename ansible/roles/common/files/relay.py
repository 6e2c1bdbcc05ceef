#!/opt/flower/current/bin/python -IS
# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Stands where SuperExec looks for Flower's programs, and lets each message's app run in a sandbox of its own.

SuperExec holds a secret and starts `flwr-clientapp` or `flwr-serverapp` by name for every message. What it finds is
this program: it hands the arguments over a Unix socket to systemd, which starts an instance of the sandboxed unit,
and it ends when that instance has ended. When it ends first, the connection closes and the instance ends; it also
ends when the SuperNode has noted that the run is over (see supernode.py), for then this program says no more.

The conversation: this program sends one line of JSON, {"argv": [...]}; the instance answers with lines of JSON,
{"event": "started" | "refused", "run": ..., "app": ..., "hash": ..., "reason": ...} and at last {"exit": code}.
Where warm.py has the libraries imported already it is asked first. It says an empty line before the request when it is
ready; where it does not, or says nothing of an app afterwards, the instance gets the request.
Only the first event counts: the instance sends it before it loads the pushed code, which might lie about itself.
Output does not come this way: it stands in the journal of the instance's own unit.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import IO

# First the one behind which the libraries are imported already, where the host has it.
SOCKETS = {
    "flwr-clientapp": ("/run/flower/clientapp-warm.sock", "/run/flower/clientapp.sock"),
    "flwr-serverapp": ("/run/flower/serverapp-warm.sock", "/run/flower/serverapp.sock"),
}
LIBRARY = "/opt/flower/libexec"
# Where the SuperNode notes which runs are over, an empty file for each.
OVER = "/run/flower-supernode/over"
_LOOK_SECONDS = 2.0
# How long that one may take to say that it takes a message. It imports first, which an instance would have to do, too:
# both at once take longer than one after the other.
_READY_SECONDS = 10.0
_LINE_LIMIT = 1 << 16
_SECRET = "--token"
# Of the process that started this one: an instance is tied to this program instead, by the connection.
_PARENT = "--parent-pid"
# proc(5): where in memory the command line begins, counted from the field behind the program's name.
_ARG_START = 45


def main(argv: list[str]) -> int:
    """Run one app; returns its exit code, or 1 where it could not run or did not say."""
    with contextlib.suppress(OSError, ValueError):  # the firewall closes the way that a token opens, too
        hide(argv)
    program = os.path.basename(argv[0])
    request = json.dumps({"argv": without(argv[1:], _PARENT)}).encode() + b"\n"
    try:
        for connection in connections(program):
            with connection, connection.makefile("rb") as answers:
                connection.sendall(request)
                end = end_when_over(connection) if program == "flwr-clientapp" else lambda run: None
                code = follow(answers, program, end)
            if code is not None:
                return code
    except OSError as error:
        print(f"{program} may not run here: {error.strerror or error}", file=sys.stderr)
    return 1


def hide(argv: list[str]) -> None:
    """Take the token out of this process's command line, which everybody on the host can read."""
    if _SECRET not in argv[:-1]:
        return
    token = argv[argv.index(_SECRET) + 1].encode()
    with open("/proc/self/cmdline", "rb") as file:
        at = file.read().find(token)
    with open("/proc/self/stat", "rb") as file:
        start = int(file.read().rpartition(b")")[2].split()[_ARG_START])
    with open("/proc/self/mem", "r+b", buffering=0) as memory:
        memory.seek(start + at)
        memory.write(b"*" * len(token))


def connections(program: str) -> Iterator[socket.socket]:
    """Open one way after the other to where the program runs; OSError where the host runs no such programs."""
    if program not in SOCKETS:
        raise OSError("this host runs ClientApps and ServerApps alone")
    *quick, plain = SOCKETS[program]
    for path in quick:
        with contextlib.suppress(OSError):  # it is switched off, or not ready yet
            connection = connect(path)
            connection.settimeout(_READY_SECONDS)
            ready = connection.recv(1)
            connection.settimeout(None)
            if ready:
                yield connection
    yield connect(plain)


def connect(path: str) -> socket.socket:
    """Connect to a Unix socket."""
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(path)
    except OSError:
        connection.close()
        raise
    return connection


def without(arguments: list[str], option: str) -> list[str]:
    """The arguments without an option and its value."""
    if option not in arguments:
        return arguments
    at = arguments.index(option)
    return arguments[:at] + arguments[at + 2 :]


def end_when_over(connection: socket.socket, seconds: float = _LOOK_SECONDS) -> Callable[[str], None]:
    """What is to be called with a run's id: from then on the instance ends once the SuperNode says it is over."""

    def look(run: str) -> None:
        while not is_over(run):
            time.sleep(seconds)
        with contextlib.suppress(OSError):  # it has ended by itself
            connection.shutdown(socket.SHUT_WR)

    return lambda run: threading.Thread(target=look, args=(run,), daemon=True).start()


def is_over(run: str) -> bool:
    """Whether the SuperNode has noted that the run is over."""
    return run.isdecimal() and os.path.exists(f"{OVER}/{run}")


def follow(answers: IO[bytes], program: str, on_start: Callable[[str], None] = lambda run: None) -> int | None:
    """Note in the audit trail what is said of the app, until it ends; returns the app's exit code.

    None: nothing was said of an app, so none was begun, and another may take the message.
    `on_start` hears the run's id.
    """
    app: dict[str, str] | None = None
    code = None
    while line := answers.readline(_LINE_LIMIT):
        try:
            answer = json.loads(line)
        except ValueError:
            continue  # pushed code can write here, too
        if not isinstance(answer, dict):
            continue
        if app is None and answer.get("event") in ("started", "refused"):
            app = {key: str(answer.get(key) or "")[:1000] for key in ("event", "run", "app", "hash", "reason")}
            note(app["event"], app, program)
            on_start(app["run"])
        elif type(answer.get("exit")) is int:
            code = answer["exit"]
    if app is not None and app["event"] == "started":
        result = {0: "done", None: "killed"}.get(code, "failed")
        note("finished", app, program, "ended" if code != 0 and is_over(app["run"]) else result)
    if code is None:
        return None if app is None else 1
    return code & 0xFF


def note(event: str, app: dict[str, str], program: str, result: str = "") -> None:
    """Append to the audit trail; a journal that does not take it is no reason to stop an app."""
    sys.path.insert(0, LIBRARY)
    import audit  # type: ignore[import-not-found]  # noqa: PLC0415 - long after the instance was started, for it costs time

    message = app["reason"] or f"{program} of run {app['run']}: {app['app']} {result or event}"
    try:
        audit.record(
            f"app.{event}",
            message,
            site=os.environ.get("FLOWERBED_SITE", ""),
            run=app["run"],
            app=app["app"],
            app_hash=app["hash"],
            result=result,
            detail=program,
        )
    except (OSError, ValueError) as error:
        print(f"{program}: the audit trail did not take app.{event}: {error}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
