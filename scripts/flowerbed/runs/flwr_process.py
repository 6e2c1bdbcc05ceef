"""Calls Flower's command line in forks of one process that has imported it already.

Importing `flwr` takes about a second, and a run needs it three times: so it is imported once, while SSH connects.
"""

import json
import os
import select
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from flowerbed.errors import EnvironmentLacks

_SERVER = Path(__file__).with_name("flwr_server.py")
_PIPES = 3


class Flwr:
    """The process; it ends with `close`, or when nobody holds this object any more."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Start it with the environment of all calls; it imports while the caller does something else."""
        self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", str(_SERVER)],  # not from its folder, where another `flwr` is
                stdin=theirs.fileno(),
                env=dict(environment),
                start_new_session=True,  # Ctrl-C is for us to handle, not for the child to die of
            )

    def start(self, arguments: Sequence[str], cwd: Path) -> "Call":
        """Call `flwr` with these arguments in a folder; EnvironmentLacks when it does not run."""
        pipes = [os.pipe() for _ in range(_PIPES)]
        request = json.dumps({"argv": ["flwr", *arguments], "cwd": str(cwd)})
        try:
            socket.send_fds(self._line, [request.encode()], [write for _, write in pipes])
        except OSError as error:
            for read, _ in pipes:
                os.close(read)
            raise EnvironmentLacks(f"flwr does not run ({error.strerror}): install flowerbed again (uv sync)") from None
        finally:
            for _, write in pipes:
                os.close(write)
        return Call(*(os.fdopen(read, "rb", buffering=0) for read, _ in pipes))

    def close(self) -> None:
        """End it; a call that goes on is left to end by itself."""
        self._line.close()
        self._process.wait()


class Call:
    """One call, as far as it is needed like a subprocess.Popen."""

    def __init__(self, stdout: IO[bytes], stderr: IO[bytes], told: IO[bytes]) -> None:
        """Take over the ends of its pipes; `told` brings its process id and its exit code, a line each."""
        self.stdout = stdout
        self.stderr = stderr
        self._told = told
        self._code: int | None = None
        self._pid = int(_line(told) or 0)

    def poll(self) -> int | None:
        """The exit code; None while it goes on."""
        if self._code is None and not select.select([self._told], [], [], 0)[0]:
            return None
        return self.wait()

    def wait(self) -> int:
        """Wait for its end; the exit code, or that of a killed process where it did not come to tell."""
        if self._code is None:
            line = _line(self._told)
            self._code = int(line) if line else -signal.SIGKILL
            self._told.close()
        return self._code

    def kill(self) -> None:
        """End it at once."""
        if self.poll() is None and self._pid:
            os.killpg(self._pid, signal.SIGKILL)  # a session of its own: what it started ends with it

    def output(self) -> tuple[str, str]:
        """Wait for its end; what it printed on either stream."""
        texts: dict[int, list[bytes]] = {}
        with self.stdout as out, self.stderr as err, selectors.DefaultSelector() as selector:
            for stream in (out, err):
                texts[stream.fileno()] = []
                selector.register(stream, selectors.EVENT_READ)
            while selector.get_map():
                for key, _ in selector.select():
                    texts[key.fd].append(os.read(key.fd, 1 << 16))
                    if not texts[key.fd][-1]:
                        selector.unregister(key.fileobj)
        self.wait()
        said, complained = (b"".join(parts).decode(errors="replace") for parts in texts.values())
        return said, complained


def _line(stream: IO[bytes]) -> str:
    text = b""
    while not text.endswith(b"\n") and (part := stream.read(1)):
        text += part
    return text.decode().strip()
