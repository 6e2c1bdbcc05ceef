"""The coordinator where the coordinator is this machine: its files, its programs, and lines to it that can break."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from flowerbed.runs.transfer import receive, send_command


class Here:
    """Satisfies a session's `Coordinator`."""

    def __init__(self) -> None:
        self.lines: list[subprocess.Popen[bytes]] = []

    def fetch(self, path: str, into: Path) -> None:
        receive(send_command(path), path, into)

    def record(self, event: str, message: str, fields: Mapping[str, str]) -> None:
        """This machine may have no journal."""

    def pipe(self, command: Sequence[str], errors: IO[bytes]) -> "subprocess.Popen[bytes]":
        line = subprocess.Popen(
            list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, start_new_session=True
        )
        self.lines.append(line)
        return line

    def cut(self) -> None:
        """Break the line that stands now."""
        self.lines[-1].kill()
