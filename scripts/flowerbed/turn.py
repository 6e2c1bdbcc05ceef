"""One change of a federation at a time: whoever comes second is told who is at it.

Two locks, both of which end with the process that holds them, however it ends: one in the federation's folder, and one
on the coordinator for operators at other machines, kept by an SSH session that lasts as long as the change.
"""

import fcntl
import json
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import IO

from flowerbed import control, journal, ssh
from flowerbed.errors import FlowerbedError, WorkFailed
from flowerbed.federation import FederationFolder

_PLACE = "/run/flowerbed.turn"
_ALIVE_SECONDS = 10.0
_GOODBYE_SECONDS = 2.0
_SILENT_SECONDS = 60
"""After so long without a sign of life the coordinator gives the turn to another: the line may be cut."""
_YOURS, _TAKEN = "yours", "taken"
_DAY = timedelta(days=1)


@contextmanager
def taken(federation: FederationFolder, what: str) -> Iterator[None]:
    """Be the only one who changes the federation while the context lasts; `what` is said to others who try.

    A coordinator that is not there yet, or does not answer, keeps nobody out: nothing can be changed on it either.
    Raises WorkFailed, which names who changes it and since when, where another does.
    """
    mine = json.dumps({"by": journal.operator(), "since": datetime.now(UTC).isoformat(), "what": what})
    lock = _lock(federation)
    if lock is None:
        yield
        return
    with lock as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _refusal(federation, (federation.state / "turn.lock").read_text(encoding="utf-8")) from None
        handle.truncate(0)
        handle.write(mine)
        handle.flush()
        session = _Session(federation, mine)
        try:
            session.open()
            yield
        finally:
            session.close()
            handle.truncate(0)


def _lock(federation: FederationFolder) -> IO[str] | None:
    """The lock's file; None in a folder that cannot be written, of which the change itself says what is wrong."""
    with suppress(OSError):
        federation.state.mkdir(parents=True, exist_ok=True, mode=0o700)
        return (federation.state / "turn.lock").open("a+", encoding="utf-8")
    return None


def _refusal(federation: FederationFolder, holder: str) -> WorkFailed:
    """Who is at it, as far as the lock's holder has said so."""
    try:
        known = json.loads(holder)
        since = datetime.fromisoformat(known["since"]).astimezone()
        form = "%H:%M" if datetime.now(UTC) - since < _DAY else "%Y-%m-%d %H:%M"
        who = f"{known['by']} since {since:{form}} ({known['what']})"
    except (ValueError, KeyError, TypeError):
        who = "somebody else"
    return WorkFailed(f"{federation.name} is being changed by {who}: run this again when that is done")


class _Session:
    """The SSH session that keeps the coordinator's lock; one that breaks is opened again."""

    def __init__(self, federation: FederationFolder, mine: str) -> None:
        self._federation = federation
        self._mine = mine
        self._closed = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self._process: subprocess.Popen[bytes] | None = None
        self._shell: ssh.Shell | None = None

    def open(self) -> None:
        """Take the coordinator's lock where there is a coordinator; WorkFailed where another has it."""
        try:
            self._shell = control.coordinator(self._federation)
        except FlowerbedError:
            return
        holder = self._take()
        if holder is not None:
            raise _refusal(self._federation, holder)
        self._keeper.start()

    def close(self) -> None:
        """Give the lock back."""
        self._closed.set()
        if self._keeper.is_alive():
            self._keeper.join()
        self._end()

    def _take(self) -> str | None:
        """Ask for the lock; gives what its holder says of itself, None where it is ours or nobody answers."""
        assert self._shell is not None  # noqa: S101 - `open` has set it
        command = ["python3", "-c", _HOLD, _PLACE, self._mine, str(_SILENT_SECONDS)]
        with tempfile.TemporaryFile() as said:
            self._process = self._shell.pipe(command, said)
        answer = _stream(self._process.stdout).readline().decode(errors="replace").strip()
        if answer == _YOURS:
            return None
        self._end()
        return answer.removeprefix(_TAKEN) if answer.startswith(_TAKEN) else None

    def _keep(self) -> None:
        """Give signs of life; where the session is gone, as after a restart of the coordinator, ask again."""
        while not self._closed.wait(_ALIVE_SECONDS):
            try:
                if self._process is None:
                    self._take()
                else:
                    _stream(self._process.stdin).write(b"\n")
                    _stream(self._process.stdin).flush()
            except OSError:
                self._end()

    def _end(self) -> None:
        if self._process is None:
            return
        with suppress(OSError):
            _stream(self._process.stdin).close()
        try:
            self._process.wait(_GOODBYE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        _stream(self._process.stdout).close()
        self._process = None


def _stream(stream: IO[bytes] | None) -> IO[bytes]:
    assert stream is not None  # noqa: S101 - a pipe was asked for
    return stream


# Runs on the coordinator with its own Python, as root.
_HOLD = """
import fcntl, os, select, sys
handle = os.open(sys.argv[1], os.O_RDWR | os.O_CREAT, 0o600)
try:
    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    print("taken", os.pread(handle, 4096, 0).decode(), flush=True)
    sys.exit()
os.ftruncate(handle, 0)
os.pwrite(handle, sys.argv[2].encode(), 0)
print("yours", flush=True)
while select.select([0], [], [], float(sys.argv[3]))[0] and os.read(0, 64):
    pass
os.ftruncate(handle, 0)
"""
