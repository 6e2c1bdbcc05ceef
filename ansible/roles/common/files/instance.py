# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Runs one message's app inside the sandbox, if the site allows that app.

systemd starts it with a connection from relay.py, which describes the conversation, as standard input. It is Flower's
own program for the message, with one step put in between: when the app's bytes have come and before any of them is
loaded, their hash is told to the relay and, where the site keeps a list, compared with it.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import importlib.util
import io
import json
import os
import signal
import socket
import sys
import threading
import time
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Flower's program by its package and its name, and the module in which it installs the app that it was sent.
PROGRAMS = {
    "flwr-clientapp": ("flwr.supernode.cli", "flwr_clientapp", "flwr.supernode.runtime.run_clientapp"),
    "flwr-serverapp": (
        "flwr.superlink.cli",
        "flwr_serverapp",
        "flwr.superlink.runtime.run_serverapp",
    ),
}
# By these names that module calls what unpacks the app, and, at a site, what loads it.
_INSTALL, _LOAD = "install_from_fab", "get_load_client_app_fn"
# And by this one what speaks with the sites, with these functions.
_GRID = "HttpGrid"
_SEND, _FETCH = "push_messages", "pull_messages"
_REQUEST_LIMIT = 1 << 16
_GRACE_SECONDS = 5.0
_MANIFEST_LIMIT = 1 << 20


class AppRefused(Exception):
    """The site does not allow the app; the text reaches the operator in the reply's error."""


class AppEnded(Exception):
    """The app is not wanted any more; Flower makes a reply of it, by which the SuperNode is free for other work."""


class Relay:
    """The other end: sends the request, hears what becomes of it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection

    def request(self) -> list[str]:
        """The program's arguments; ValueError when they did not come."""
        text = b""
        while not text.endswith(b"\n") and len(text) < _REQUEST_LIMIT:
            part = self._connection.recv(_REQUEST_LIMIT - len(text))
            if not part:
                break
            text += part
        argv = json.loads(text)["argv"]
        if not isinstance(argv, list) or not all(isinstance(word, str) for word in argv):
            raise ValueError("argv is no list of words")
        return argv

    def tell(self, **values: object) -> None:
        """Send one line."""
        with contextlib.suppress(OSError):  # it is gone, and this process ends for it
            self._connection.sendall(json.dumps(values).encode() + b"\n")

    def end_with_it(self, number: signal.Signals) -> None:
        """End this process when the other end is gone or says no more: by the signal, then without asking."""

        def watch() -> None:
            while self._connection.recv(1):
                pass
            os.kill(os.getpid(), number)
            time.sleep(_GRACE_SECONDS)
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()


class Gate:
    """Decides whether an app may run."""

    def __init__(self, mode: str, site: str, approved: Callable[[], set[str]], tell: Callable[..., None]) -> None:
        self.mode = mode
        self.site = site
        self._approved = approved
        self._tell = tell
        self._installed: Path | None = None

    def stand_in(self, module: Any, run_id: Callable[[], str]) -> None:
        """Put the check where `module` takes the app's bytes.

        Raises AppRefused where the site keeps a list and this Flower has no such place: then nothing may run.
        """
        missing = [name for name in (_INSTALL, _LOAD) if not callable(getattr(module, name, None))]
        if missing and self.mode == "enforce":
            raise AppRefused(
                f"{self.site} allows no app: this version of Flower has no {module.__name__}.{missing[0]}, where the "
                "app's hash is to be compared"
            )
        if _INSTALL in missing:
            return
        install = getattr(module, _INSTALL)

        def checked(fab: Any, *words: Any, **options: Any) -> Any:
            self.check(fab, run_id())
            self._installed = install(fab, *words, **options)
            return self._installed

        setattr(module, _INSTALL, checked)
        if _LOAD not in missing:
            prepare = getattr(module, _LOAD)
            setattr(module, _LOAD, lambda *words, **options: self._only_after(prepare(*words, **options)))

    def check(self, fab: Any, run: str) -> None:
        """Say which app came, and refuse one that is not on the site's list; AppRefused."""
        digest = hashlib.sha256(fab).hexdigest() if isinstance(fab, bytes) else ""
        app = {"run": run, "app": name_of(fab), "hash": digest}
        if self.mode == "off" or digest in self._approved():
            self._tell(event="started", **app)
        elif self.mode == "warn":
            print(f"{self.site} has not approved app {digest} ({app['app']}) and runs it all the same", flush=True)
            self._tell(event="started", **app)
        else:
            reason = f"{self.site} does not allow app {digest}: approve it there, or run one that is approved"
            self._tell(event="refused", reason=reason, **app)
            raise AppRefused(reason)

    def _only_after(self, load: Callable[..., Any]) -> Callable[..., Any]:
        """Load only what was checked: not what lies elsewhere, and nothing where Flower takes another way."""

        def loaded(*words: Any, **options: Any) -> Any:
            if self.mode == "enforce":
                folder = importlib.import_module("flwr.common.config").get_project_dir(*words, **options)
                if self._installed is None or folder.resolve() != self._installed.resolve():
                    raise AppRefused(f"{self.site} allows no app: Flower would load one whose hash was not compared")
            return load(*words, **options)

        return loaded


def approved(files: list[str]) -> set[str]:
    """The hashes in the files, one a line, with a comment behind a #; a file that is missing holds none."""
    found = set()
    for file in files:
        try:
            lines = Path(file).read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            continue
        found |= {line.partition("#")[0].strip().lower() for line in lines}
    return found - {""}


def name_of(fab: Any) -> str:
    """The app's publisher and name as it gives them itself; empty where it gives none."""
    try:
        with zipfile.ZipFile(io.BytesIO(fab)) as archive, archive.open("pyproject.toml") as file:
            document = tomllib.loads(file.read(_MANIFEST_LIMIT).decode())
        return f"{document['tool']['flwr']['app']['publisher']}/{document['project']['name']}"
    except Exception:  # it was sent by somebody else, and can be anything
        return ""


def run_of_this_task() -> str:
    """The run's id, as Flower learned it with the message."""
    try:
        return str(importlib.import_module("flwr.supercore.task_identity").TaskIdentity.run_id)
    except (ImportError, AttributeError, RuntimeError):
        return ""


def record_replies(module: Any) -> None:
    """Have the run's messages noted beside its results, where it has a place for them; never a reason to fail."""
    results = os.environ.get("FLOWERBED_RESULTS")
    if not results:
        return
    try:
        beside("replies").stand_in(module, _GRID, Path(results))
    except Exception as error:  # whatever it is, the run itself can do without
        print(f"the sites' replies are not recorded: {error}", flush=True)


def ask_sooner(module: Any) -> None:
    """Let a ServerApp ask for its replies sooner, where the unit says so; never a reason to fail."""
    try:
        polls = beside("polls")
        if polls.wanted():
            grid = getattr(module, _GRID)
            pace = polls.Pace(polls.SERVERAPP)
            polls.follow(grid, (_SEND, _FETCH), pace)
            polls.stand_in(importlib.import_module(grid.__module__), pace)
    except Exception as error:  # as above
        print(f"replies are asked for at Flower's own pace: {error}", flush=True)


def fetch_sooner() -> None:
    """Let the parts of a message be fetched sooner, where the unit says so; never a reason to fail."""
    try:
        polls = beside("polls")
        if polls.wanted():
            polls.fetch_sooner(importlib.import_module(polls.PARTS))
    except Exception as error:  # as above
        print(f"the parts of a message are fetched at Flower's own pace: {error}", flush=True)


def beside(name: str) -> Any:
    """The program of that name in this one's folder, which is not among those from which apps import."""
    spec = importlib.util.spec_from_file_location(f"flowerbed_{name}", Path(__file__).with_name(f"{name}.py"))
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def work_in_results(module: Any, run_id: Callable[[], str]) -> None:
    """Let a ServerApp start in its run's folder for results: what an app saves beside itself then comes home, too."""
    results, install = os.environ.get("FLOWERBED_RESULTS"), getattr(module, _INSTALL, None)
    if not results or not callable(install):
        return

    def installed(*words: Any, **options: Any) -> Any:
        done = install(*words, **options)
        folder = Path(results) / run_id()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            os.chdir(folder)
        except OSError as error:  # an app that saves nothing can do without
            print(f"the run's folder for results cannot be used: {error}", flush=True)
        return done

    setattr(module, _INSTALL, installed)


def prepare_end(program: str) -> signal.Signals:
    """The signal by which the program is ended.

    A ServerApp ends as Flower ends one that is stopped. A ClientApp must not: it would end without a reply, and the
    SuperNode, which does one thing at a time, would wait for that until it is started anew.
    """
    if program == "flwr-serverapp":
        return signal.SIGTERM

    def end(*_: object) -> None:
        raise AppEnded("the app was ended: its run is over, or the site's services were stopped")

    signal.signal(signal.SIGUSR1, end)
    return signal.SIGUSR1


def arguments() -> argparse.ArgumentParser:
    """What this program is told about the site."""
    parser = argparse.ArgumentParser()
    parser.add_argument("program", choices=PROGRAMS)
    parser.add_argument("--site", default="")
    parser.add_argument("--apps", choices=("off", "warn", "enforce"), default="off")
    parser.add_argument("--approved", action="append", default=[])
    return parser


def main() -> int:
    """Take the connection that systemd hands over, and do what it asks for."""
    options = arguments().parse_args()
    return work(options, Relay(adopt_connection()))


def work(options: argparse.Namespace, relay: Relay) -> int:
    """Read the request, run Flower's program behind the gate, and say how it ended."""
    try:
        sys.argv = [options.program, *relay.request()]
    except ValueError:
        return 1  # nobody is there any more
    relay.end_with_it(prepare_end(options.program))
    commands, command, place = PROGRAMS[options.program]
    gate = Gate(options.apps, options.site, lambda: approved(options.approved), relay.tell)
    try:
        gate.stand_in(importlib.import_module(place), run_of_this_task)
        fetch_sooner()
        if options.program == "flwr-serverapp":
            ask_sooner(importlib.import_module(place))
            record_replies(importlib.import_module(place))
            work_in_results(importlib.import_module(place), run_of_this_task)
        beside("entry").program(commands, command)()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except AppRefused as refusal:
        print(refusal, flush=True)
        relay.tell(event="refused", reason=str(refusal))
        code = 1
    except AppEnded as ended:
        print(ended, flush=True)
        code = 1
    relay.tell(exit=code)
    return code


def adopt_connection() -> socket.socket:
    """Take the connection from standard input, so that no child inherits it."""
    connection = socket.socket(fileno=os.dup(0))
    with open(os.devnull) as nothing:  # noqa: PTH123 - the number is wanted, not the file
        os.dup2(nothing.fileno(), 0)
    if os.environ.pop("LISTEN_PID", None) == str(os.getpid()):
        os.closerange(3, 3 + int(os.environ.pop("LISTEN_FDS", "0")))
    os.environ.pop("LISTEN_FDNAMES", None)
    return connection


if __name__ == "__main__":
    sys.exit(main())
