"""The one way to a host: SSH with pinned host keys, for commands, files and the Control API."""

import shlex
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from flowerbed import journal, ssh_options
from flowerbed.errors import EnvironmentLacks, WorkFailed
from flowerbed.federation import FederationFolder
from flowerbed.inventory import Host
from flowerbed.runs import transfer

_UNREACHABLE = 255  # ssh's own exit code, as opposed to the remote command's
_NO_SSH = "ssh is not installed: apt-get install openssh-client"
_REOPEN_SECONDS = 1.0


@dataclass(frozen=True)
class Shell:
    """Runs commands on one host; satisfies the driver's `Remote`."""

    federation: FederationFolder
    host: Host
    timeout: float = 10.0
    shared: Path | None = None
    """The socket of a connection that `forward` keeps open: commands go through it while it is there."""

    def options(self) -> list[str]:
        """ssh's options: no questions, no unknown host."""
        own = ["-o", "BatchMode=yes", "-o", f"ConnectTimeout={self.timeout:.0f}", "-o", "ServerAliveInterval=15"]
        session = self.host.session.model_dump() if self.host.session else None
        shared = ssh_options.options(self.federation.known_hosts, self.federation.ssh_key, self.host.jump, session)
        return [*own, *shared, "-p", str(self.host.port)]

    def command(self, words: Sequence[str]) -> list[str]:
        """The ssh command line that runs `words` on the host as root."""
        become = [] if self.host.user == "root" else ["sudo", "-n", "--"]
        through = [] if self.shared is None else ["-o", "ControlMaster=no", "-o", f"ControlPath={self.shared}"]
        return [
            "ssh",
            *self.options(),
            *through,
            f"{self.host.user}@{self.host.address}",
            shlex.join([*become, *words]),
        ]

    def run(self, command: list[str]) -> str:
        """Run a command on the host and return what it printed.

        Raises WorkFailed when the host does not answer or the command fails.
        """
        done = _ssh(self.command(command))
        if done.returncode:
            raise WorkFailed(self._failure(done.returncode, done.stderr.decode(errors="replace"), command[0]))
        return done.stdout.decode(errors="replace")

    def fetch(self, path: str, into: Path) -> None:
        """Bring what is in a folder of the host home, checked file by file; a missing folder brings nothing.

        Raises WorkFailed when the transfer breaks; `into` then holds nothing.
        """
        transfer.receive(self.command(transfer.send_command(path)), path, into)

    def pipe(self, command: Sequence[str], errors: IO[bytes]) -> "subprocess.Popen[bytes]":
        """Start a command on the host with its standard streams; what ssh and the command complain of goes to `errors`.

        Raises EnvironmentLacks where there is no ssh.
        """
        try:
            return subprocess.Popen(
                replace(self, shared=None).command(command),  # it outlives a line that drops
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,  # Ctrl-C is for us to handle
            )
        except FileNotFoundError:
            raise EnvironmentLacks(_NO_SSH) from None

    def record(self, event: str, message: str, fields: Mapping[str, str]) -> None:
        """Append an entry to the host's audit trail; WorkFailed as for `run`."""
        self.run(journal.write_command(event, message, fields))

    def unreachable(self, said: str) -> str:
        """One line for a host that does not answer, with the remedy."""
        remedy = f"if it is down, `flowerbed up {self.federation.name}` brings it back"
        if self.federation.platform_file is None:
            remedy = f"see that it is on, that it lets {self.host.user} in, and that its key is in known_hosts"
        return (
            f"{self.host.name} ({self.host.address}:{self.host.port}) does not answer by SSH: "
            f"{' '.join(said.split()) or 'no answer'}; {remedy}"
        )

    def _failure(self, code: int, message: str, what: str) -> str:
        if code == _UNREACHABLE:
            return self.unreachable(message)
        if message.startswith("sudo: "):
            return (
                f"{self.host.user} may not become root on {self.host.name} ({' '.join(message.split())}): "
                "allow it sudo without a password"
            )
        return f"{what} failed on {self.host.name}: {' '.join(message.split()) or f'exit code {code}'}"


@contextmanager
def forward(shell: Shell, port: int, patience: float = 15.0) -> Iterator[int]:
    """Forward a free local port to a port of the host's loopback while the context lasts.

    A line that drops is opened again on the same local port, so who talks through it can retry. Where the shell names
    a socket to share, the line offers it to the shell's commands. Yields the local port. Raises WorkFailed when the
    host does not answer within `patience` seconds at first.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        local = int(probe.getsockname()[1])
    command = ["ssh", *shell.options(), "-o", "ExitOnForwardFailure=yes"]
    if shell.shared is not None:
        command += ["-o", "ControlMaster=yes", "-o", f"ControlPath={shell.shared}"]
    command += ["-L", f"127.0.0.1:{local}:127.0.0.1:{port}", f"{shell.host.user}@{shell.host.address}", "cat"]
    line = _Line(command)
    try:
        _wait_for_port(line, local, patience, shell)
        line.keep()
        yield local
    finally:
        line.close()


class _Line:
    """An ssh process that is started again when it ends."""

    def __init__(self, command: list[str]) -> None:
        self._command = command
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the line
        self._closed = threading.Event()
        self._keeper = threading.Thread(target=self._keep, daemon=True)
        self.process = self._open()

    def _open(self) -> "subprocess.Popen[bytes]":
        try:
            return subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,  # it ends with this process, also when that is killed
                stdout=subprocess.DEVNULL,
                stderr=self._said,
                start_new_session=True,  # Ctrl-C is for us to handle
            )
        except FileNotFoundError:
            raise EnvironmentLacks(_NO_SSH) from None

    def keep(self) -> None:
        """From now on, open the line again whenever it drops."""
        self._keeper.start()

    def _keep(self) -> None:
        while not self._closed.is_set():
            self.process.wait()
            if self._closed.wait(_REOPEN_SECONDS):
                return
            self.process = self._open()

    def close(self) -> None:
        """End the process and open none again."""
        self._closed.set()
        self.process.terminate()
        if self._keeper.is_alive():
            self._keeper.join()
            self.process.terminate()
        self.process.wait()
        self._said.close()

    def last_words(self) -> str:
        """End the process; what ssh said."""
        self.process.terminate()
        self.process.wait()
        self._said.seek(0)
        return self._said.read().decode(errors="replace")


def _wait_for_port(line: _Line, port: int, patience: float, shell: Shell) -> None:
    deadline = time.monotonic() + patience
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if line.process.poll() is not None or time.monotonic() > deadline:
            raise WorkFailed(shell.unreachable(line.last_words()))
        time.sleep(0.05)


def _ssh(command: list[str]) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(command, input=b"", capture_output=True, check=False)
    except FileNotFoundError:
        raise EnvironmentLacks(_NO_SSH) from None
