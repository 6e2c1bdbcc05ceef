# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Has Flower's program and the release's libraries imported already, and forks itself for each message.

systemd starts it with SuperExec, or later with a message, and hands it the socket. Its imports let the SuperNode come
online first. It runs nobody's code but the
release's: what a federation pushes runs in a fork alone. A fork is as closed off as an instance of the unit that stands
beside this one: it has processes, /tmp, /dev/shm and /proc of its own, and no capability. What it starts is killed with
it by the kernel, and nothing of it reaches the next one, since that is forked from here.

This program's one capability, to make such a place, counts in its own user namespace only, and a fork has lost it
before it reads its request. Where the host cannot do this, or the imports take long, the instance takes the message.

A fork sees the site's data as it lay when this program was started. So it ends when a disk was mounted there or
unmounted, at once, which lets go of it; and when the folder was moved or replaced, with the next message, which the
instance takes, as after a change of the release.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import re
import select
import selectors
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from types import FrameType
from typing import NoReturn

sys.path.insert(0, str(Path(__file__).parent))
import instance

sys.path.pop(0)  # apps import from elsewhere

_LISTEN = 3
"""The number at which systemd hands over a socket."""
_CURRENT = Path("/opt/flower/current")
_MOUNTS = Path("/proc/self/mountinfo")
_NEW_MOUNTS, _NEW_IPC, _NEW_PIDS = 0x00020000, 0x08000000, 0x20000000
_PRIVATE, _READ_ONLY, _NO_SUID, _NO_DEVICES, _NO_EXEC = 0x44000, 1, 2, 4, 8
_DIE_WITH_PARENT, _DUMPABLE, _AMBIENT, _CLEAR_ALL = 1, 4, 47, 4
_CAPABILITIES_VERSION = 0x20080522
_OWN_FOLDERS = ("/tmp", "/dev/shm")  # noqa: S108 - these are made here
# To relay.py, which goes another way where it hears nothing: a message is taken, or nobody is to take it.
_READY, _BUSY = b"\n", b'\n{"exit": 1}\n'
_AN_HOUR = 3600.0
_LOOK_SECONDS, _GOES_FIRST_SECONDS = 0.2, 30.0
_SIGNALS = 64
_REQUIREMENTS = "# requirements: "
_A_PACKAGES_INIT = 2
_LATE = "httpcore"
"""What Flower's web client imports with its first request."""
_ANEW = 75
"""The exit status by which the unit has systemd start it again."""
_LIBC = ctypes.CDLL(None, use_errno=True)


class CannotIsolate(Exception):
    """The host does not let a fork be closed off."""


class DoesNotFork(Exception):
    """A library's threads outlast a fork; the text is its name."""


def isolate(size: str) -> None:
    """Give this process, the first of its process namespace, folders and a view of its own; OSError when refused."""
    _call("unshare", _NEW_MOUNTS | _NEW_IPC)
    _call("mount", b"none", b"/", None, _PRIVATE, None)
    for folder in _OWN_FOLDERS:
        settings = f"mode=1777,size={size}".encode()
        _call("mount", b"tmpfs", folder.encode(), b"tmpfs", _NO_SUID | _NO_DEVICES, settings)
    _call("mount", b"proc", b"/proc", b"proc", _READ_ONLY | _NO_SUID | _NO_DEVICES | _NO_EXEC, None)
    _call("prctl", _AMBIENT, _CLEAR_ALL, 0, 0, 0)
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_VERSION, 0)
    _call("capset", header, (ctypes.c_uint32 * 6)())
    os.chdir(_OWN_FOLDERS[0])


def close_off(size: str) -> None:
    """Return in a process that nothing outlives which it starts; CannotIsolate where that cannot be made.

    Two processes more stand by, and never return. The one that this was called in waits for the other, which is the
    first of the namespace: it reaps, as the host's first process does, and all others end with it.
    """
    _call("prctl", _DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    try:
        _call("unshare", _NEW_PIDS)
    except OSError as error:
        raise CannotIsolate(str(error)) from None
    told, tell = os.pipe()
    first = os.fork()
    if first:
        os.close(tell)
        with os.fdopen(told) as stream:
            trouble = stream.read()
        os.waitpid(first, 0)
        if trouble:
            raise CannotIsolate(trouble)
        os._exit(0)
    os.close(told)
    _call("prctl", _DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    try:
        isolate(size)
    except OSError as error:
        os.write(tell, str(error).encode())
        os._exit(1)
    os.close(tell)
    worker = os.fork()
    while worker:  # from within, nobody can signal the first process, nor trace one that is not to be dumped
        if os.wait()[0] == worker:
            os._exit(0)
    _call("prctl", _DUMPABLE, 1, 0, 0, 0)


def of_the_release(prefix: Path) -> list[str]:
    """The modules of the packages that the release was asked for, beside Flower."""
    try:
        text = (prefix / "release.lock").read_text(encoding="utf-8")
    except OSError:
        return []
    asked = next((line for line in text.splitlines()[:5] if line.startswith(_REQUIREMENTS)), _REQUIREMENTS)
    names = [re.split(r"[^A-Za-z0-9._-]", one.strip(), maxsplit=1)[0] for one in asked[len(_REQUIREMENTS) :].split(",")]
    return [module for name in names if name for module in _modules_of(name)]


def _modules_of(package: str) -> list[str]:
    try:
        files = metadata.files(package) or []
    except metadata.PackageNotFoundError:
        return []
    tops = {file.parts[0] for file in files if file.suffix == ".py" and len(file.parts) == _A_PACKAGES_INIT}
    return sorted(top for top in tops if top.isidentifier())


def preload(modules: list[str]) -> list[str]:
    """Import what apps will ask for, and what each of it offers by itself; returns what was left out, and why."""
    left = []
    for name in modules:
        try:
            module = importlib.import_module(name)
        except Exception as error:  # an app that needs it will say so itself
            left.append(f"{name} ({type(error).__name__}: {error})")
            continue
        for part in getattr(module, "__all__", ()):
            if part not in vars(module):
                _try_import(f"{name}.{part}")
        if threads_after_a_fork() > 1:
            raise DoesNotFork(name)
    return left


def _try_import(name: str) -> None:
    try:
        importlib.import_module(name)
    except Exception:  # not every name is a module
        return


def threads_after_a_fork() -> int:
    """How many threads this process has; libraries that can be forked end theirs at a fork."""
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - nothing is done with the paths


def forget_chance() -> None:
    """Let no two messages have the same random numbers: the libraries took theirs before the fork."""
    numpy = sys.modules.get("numpy")
    if numpy is not None:
        numpy.random.seed()


def lie_of(places: Sequence[str]) -> list[object]:
    """What changes when something else lies at one of the places, on the host or in this process's view of it."""
    found: list[object] = []
    for place in places:
        try:
            state = Path(place).stat()
        except OSError as error:
            found.append(error.errno)
        else:
            found.append((state.st_dev, state.st_ino, state.st_nlink > 0))
    for line in _MOUNTS.read_text(errors="replace").splitlines():
        _, _, device, root, point, *_ = line.split(" ")
        point = point.encode().decode("unicode_escape").encode("latin-1").decode(errors="replace")
        if any(f"{point}/".startswith(f"{place}/") or f"{place}/".startswith(f"{point}/") for place in places):
            found.append((device, root, point))
    return found


def leave(code: int) -> NoReturn:
    """End as Python ends a program, but do not take the modules apart: a fork would copy all of their memory."""
    threading._shutdown()  # type: ignore[attr-defined]  # waits for the threads that Python waits for
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(code)


class Server:
    """Forks for each message, some at a time, and ends when there was none for a while or it is to start anew."""

    def __init__(self, *, size: str, at_once: int, idle: float, seconds: float, places: Sequence[str] = ()) -> None:
        """`size` is that of /tmp and /dev/shm; `seconds` is how long a message may take (0: as long as it likes).

        `places` are the folders of the host that a fork may find moved.
        """
        self._size = size
        self._at_once = at_once
        self._idle = idle
        self._seconds = seconds
        self._until: dict[int, tuple[int, float]] = {}
        self._places = places
        self._begun_with = self._surroundings()
        self.ending = False
        self._woken, self._wake = socket.socketpair()
        for end in (self._woken, self._wake):
            end.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno())  # waiting goes on after a signal, unless something can be read
        signal.signal(signal.SIGHUP, self._end_soon)

    def let_go_first(self, path: Path, listener: int = _LISTEN, seconds: float = _GOES_FIRST_SECONDS) -> None:
        """Wait until the file is there, so long at most, and not once a message comes or this is to end."""
        until = time.monotonic() + seconds
        while not (path.exists() or self.ending or time.monotonic() >= until):
            if select.select([listener, self._woken], [], [], _LOOK_SECONDS)[0]:
                return

    def serve(self, listener: socket.socket) -> socket.socket | None:
        """Take messages until there was none for a while, or another release or other data is there; gives None then.

        In a fork it returns, too: with the connection of the message that is this fork's.
        """
        with selectors.DefaultSelector() as selector, _MOUNTS.open() as mounts:
            selector.register(listener, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            selector.register(mounts, selectors.EVENT_WRITE)  # never: but a change of it is told as an error
            quiet = time.monotonic()
            while self._until or not (self.ending or time.monotonic() - quiet >= self._idle):
                for key, _ in selector.select(self._patience(quiet)):
                    if key.fileobj is mounts:
                        self.ending |= self._is_elsewhere()
                        continue
                    quiet = time.monotonic()
                    if key.fileobj is self._woken:
                        self._woken.recv(_SIGNALS)
                    elif key.fileobj is not listener:
                        self._reap(key.fd, key.data, selector)
                    elif message := self._take(listener, selector):
                        return message
                self._end_late_ones()
        return None

    def _patience(self, quiet: float) -> float:
        """Seconds until something is to be done though nothing happens."""
        ends = [until for _, until in self._until.values() if until]
        if not self._until:
            ends.append(0.0 if self.ending else quiet + self._idle)
        return max(0.0, min([*ends, time.monotonic() + _AN_HOUR]) - time.monotonic())

    def _take(self, listener: socket.socket, selector: selectors.BaseSelector) -> socket.socket | None:
        """Fork for a message; returns its connection in the fork, and None here."""
        connection, _ = listener.accept()
        with connection:
            self.ending |= self._is_elsewhere()
            if self.ending:
                return None
            busy = len(self._until) >= self._at_once
            with contextlib.suppress(OSError):  # it went another way already
                connection.sendall(_BUSY if busy else _READY)
            if busy:
                return None
            pid = os.fork()
            if pid == 0:
                return self._become_fork(socket.socket(fileno=connection.detach()))
        watch = os.pidfd_open(pid)
        self._until[pid] = (watch, time.monotonic() + self._seconds if self._seconds else 0.0)
        selector.register(watch, selectors.EVENT_READ, pid)
        return None

    def _is_elsewhere(self) -> bool:
        return self._surroundings() != self._begun_with

    def _surroundings(self) -> tuple[str, list[object]]:
        """The release, and what lies where the data is."""
        return os.path.realpath(_CURRENT), lie_of(self._places)

    def _become_fork(self, connection: socket.socket) -> socket.socket:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        self._woken.close()
        self._wake.close()
        for watch, _ in self._until.values():
            os.close(watch)
        try:
            close_off(self._size)
        except CannotIsolate as error:
            print(f"this host lets no fork be closed off ({error}): messages are started one by one", flush=True)
            os._exit(1)
        return connection

    def _reap(self, watch: int, pid: int, selector: selectors.BaseSelector) -> None:
        selector.unregister(watch)
        os.close(watch)
        os.waitpid(pid, 0)
        del self._until[pid]

    def _end_late_ones(self) -> None:
        now = time.monotonic()
        for pid, (_, until) in self._until.items():
            if until and now > until:
                print(f"a message took longer than {self._seconds:.0f} s and is ended", flush=True)
                os.kill(pid, signal.SIGKILL)

    def _end_soon(self, _number: int, _frame: FrameType | None) -> None:
        self.ending = True


def _call(name: str, *arguments: object) -> None:
    if getattr(_LIBC, name)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")


def main() -> int:
    """Import, then serve; in a fork, do its message."""
    parser = instance.arguments()
    parser.add_argument("--preload", default="[]", help="A JSON list of modules; empty: those of the release.")
    parser.add_argument("--at-once", type=int, default=2)
    parser.add_argument("--tmp", default="1G")
    parser.add_argument("--idle", type=float, default=600)
    parser.add_argument("--seconds", type=float, default=0)
    parser.add_argument("--place", action="append", default=[], help="A folder of the host's that forks see.")
    parser.add_argument("--after", type=Path, help="A file: who makes it goes first, for as long as half a minute.")
    options = parser.parse_args()
    _call("prctl", _DUMPABLE, 0, 0, 0, 0)
    server = Server(  # before the imports: it notes what is there now
        size=options.tmp,
        at_once=options.at_once,
        idle=options.idle,
        seconds=options.seconds,
        places=options.place,
    )
    if options.after:
        server.let_go_first(options.after)
    commands, command, place = instance.PROGRAMS[options.program]
    wanted = json.loads(options.preload) or of_the_release(Path(sys.prefix))
    try:
        instance.beside("entry").program(commands, command)
        left = preload([place, *wanted])
        _try_import(_LATE)
    except DoesNotFork as library:
        print(f"not imported beforehand: {library} (its threads outlast a fork)", flush=True)
        rest = json.dumps([name for name in wanted if name != str(library)] or [place])
        os.execv(sys.executable, [sys.executable, "-P", *sys.argv, "--preload", rest])  # noqa: S606 - this program again
    if left:
        print(f"not imported beforehand: {', '.join(left)}", flush=True)
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=_LISTEN) as listener:
        message = server.serve(listener)
    if message is None:
        return _ANEW if server.ending else 0
    forget_chance()
    try:
        code = instance.work(options, instance.Relay(message))
    except BaseException:  # whatever it is, nothing goes on here
        traceback.print_exc()
        code = 1
    leave(code)


if __name__ == "__main__":
    sys.exit(main())
