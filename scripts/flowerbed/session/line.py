"""One line to a session's bridge: a process whose standard streams are the bridge's socket."""

import subprocess
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any, Protocol

from flwr.app import RecordDict

from flowerbed.runs.connection import Remote
from flowerbed.session import relay, wire

_GOODBYE_SECONDS = 5.0
_BROKE = "the line to the coordinator broke"


class Coordinator(Remote, Protocol):
    """The coordinator as a session needs it."""

    def pipe(self, command: Sequence[str], errors: IO[bytes]) -> "subprocess.Popen[bytes]":
        """Start a command on the coordinator, as whoever reads the runs' results there, with its standard streams.

        What it says on standard error goes to the file `errors`.
        """
        ...


class Broken(Exception):
    """The line ended, or never stood; the text says why."""


class Nobody(Broken):
    """The coordinator answered, and no bridge listens there."""


class Line:
    """An open line. Any thread may send; one receives."""

    def __init__(self, coordinator: Coordinator, folder: str, name: str, key: str, seconds: float) -> None:
        """Open it: to the socket `name` in `folder`, for which the relay waits `seconds` at most.

        Raises Nobody or Broken when it does not come to stand.
        """
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the line
        self._sending = threading.Lock()
        program = Path(relay.__file__).read_text(encoding="utf-8")
        self._process = coordinator.pipe(["python3", "-c", program, folder, name, str(seconds)], self._errors)
        assert self._process.stdin is not None and self._process.stdout is not None  # noqa: S101 - they are pipes
        self._in, self._out = self._process.stdin, self._process.stdout
        try:
            with suppress(Broken):  # what it says before it ends tells more
                self.send({"do": "hello", "key": key})
            if self._out.read(len(wire.MAGIC)) != wire.MAGIC or self.receive().header.get("is") != "open":
                raise Broken("what answers is no session")
        except (Broken, wire.Hostile) as error:
            told = Broken(f"the coordinator sent {error}") if isinstance(error, wire.Hostile) else error
            raise self.end(told) from None
        except BaseException:
            self.cut()
            self.end()
            raise

    def send(self, header: dict[str, Any], records: Sequence[RecordDict] = ()) -> None:
        """Send a frame; Broken when the line is. An interruption ends it, for half a frame was sent."""
        with self._sending:
            try:
                wire.write(self._in, header, records)
            except OSError:
                raise Broken(_BROKE) from None
            except ValueError as error:
                if self._in.closed:
                    raise Broken(_BROKE) from None
                raise error
            except BaseException:
                self._process.kill()
                raise

    def receive(self) -> wire.Frame:
        """Wait for the next frame; Broken when there will be none, wire.Hostile for what is none."""
        try:
            frame = wire.read(self._out)
        except (EOFError, OSError):
            frame = None
        if frame is None:
            raise Broken(_BROKE)
        return frame

    def cut(self) -> None:
        """End the process; who waits for a frame is told."""
        self._process.kill()

    def end(self, told: Broken | None = None) -> Broken:
        """Close everything, and say why the line ended: what ssh complained of, or else `told`."""
        if self._sending.acquire(blocking=False):  # who sends now would be waited for, and is told by the end below
            with suppress(OSError):
                self._in.close()
            self._sending.release()
        try:
            self._process.wait(_GOODBYE_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        with self._sending, suppress(OSError):
            self._in.close()
        self._out.close()
        self._errors.seek(0)
        said = " ".join(self._errors.read(1 << 16).decode(errors="replace").split())[-300:]
        self._errors.close()
        if self._process.returncode == relay.NOBODY:
            return Nobody(said)
        return Broken(said) if said else told or Broken(_BROKE)
