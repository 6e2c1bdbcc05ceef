"""The one way to a host: SSH with pinned host keys, for commands, files and the Control API."""

import shlex
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flowerbed.errors import EnvironmentLacks, WorkFailed
from flowerbed.federation import Federation
from flowerbed.inventory import Host
from flowerbed.runs import transfer

_UNREACHABLE = 255  # ssh's own exit code, as opposed to the remote command's


@dataclass(frozen=True)
class Shell:
    """Runs commands on one host; satisfies the driver's `Remote`."""

    federation: Federation
    host: Host
    timeout: float = 10.0

    def options(self) -> list[str]:
        """ssh's options: no questions, no unknown host."""
        options = ["-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes"]
        options += ["-o", f"ConnectTimeout={self.timeout:.0f}", "-o", "ServerAliveInterval=15"]
        if self.federation.known_hosts.exists():
            options += ["-o", f"UserKnownHostsFile={self.federation.known_hosts}"]
        if self.federation.ssh_key.exists():
            options += ["-i", str(self.federation.ssh_key), "-o", "IdentitiesOnly=yes"]
        return [*options, "-p", str(self.host.port)]

    def command(self, words: Sequence[str]) -> list[str]:
        """The ssh command line that runs `words` on the host."""
        return ["ssh", *self.options(), f"{self.host.user}@{self.host.address}", shlex.join(words)]

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

    def _failure(self, code: int, message: str, what: str) -> str:
        said = " ".join(message.split()) or f"exit code {code}"
        if code == _UNREACHABLE:
            return (
                f"{self.host.name} ({self.host.address}:{self.host.port}) does not answer by SSH: {said}; "
                f"if it is down, `flowerbed up {self.federation.name}` brings it back"
            )
        return f"{what} failed on {self.host.name}: {said}"


@contextmanager
def forward(shell: Shell, port: int, patience: float = 15.0) -> Iterator[int]:
    """Forward a free local port to a port of the host's loopback while the context lasts.

    Yields the local port. Raises WorkFailed when the host does not answer within `patience` seconds.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        local = int(probe.getsockname()[1])
    target = f"{shell.host.user}@{shell.host.address}"
    command = ["ssh", *shell.options(), "-o", "ExitOnForwardFailure=yes", "-N"]
    command += ["-L", f"127.0.0.1:{local}:127.0.0.1:{port}", target]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        try:
            _wait_for_port(process, local, patience, shell)
            yield local
        finally:
            process.terminate()


def _wait_for_port(process: subprocess.Popen[bytes], port: int, patience: float, shell: Shell) -> None:
    deadline = time.monotonic() + patience
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None or time.monotonic() > deadline:
            process.terminate()
            said = process.stderr.read().decode(errors="replace") if process.stderr else ""
            raise WorkFailed(
                f"the coordinator {shell.host.name} ({shell.host.address}:{shell.host.port}) does not answer "
                f"by SSH: {' '.join(said.split()) or 'no answer'}; "
                f"if it is down, `flowerbed up {shell.federation.name}` brings it back"
            )
        time.sleep(0.05)


def _ssh(command: list[str]) -> subprocess.CompletedProcess[bytes]:
    try:
        return subprocess.run(command, input=b"", capture_output=True, check=False)
    except FileNotFoundError:
        raise EnvironmentLacks("ssh is not installed: apt-get install openssh-client") from None
