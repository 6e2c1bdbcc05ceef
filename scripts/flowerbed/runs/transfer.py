"""Brings a folder over a command's standard output in one stream, checked file by file."""

import hashlib
import shutil
import subprocess
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from flowerbed.errors import WorkFailed

# First the sums, then the files, in one go: each costs a round trip to a coordinator that may be far away.
_SEND = 'cd "$1" 2>/dev/null || exit 0; find . -type f -exec sha256sum -b {} + && echo && tar -cf - .'


def send_command(path: str) -> list[str]:
    """The command for the far side: writes the sha256 sums, an empty line, and a tar of the folder `path`."""
    return ["sh", "-c", _SEND, "send", path]


def receive(command: Sequence[str], path: str, into: Path) -> None:
    """Copy what is in the far folder `path` into the existing folder `into`.

    `command` runs here and carries `send_command(path)` there: over SSH that is `ssh … HOST` and its
    `shlex.join`. A folder that does not exist gives nothing. Raises WorkFailed when the command fails or a file
    arrives otherwise than it was sent; `into` then holds nothing.
    """
    with subprocess.Popen(
        list(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None and process.stderr is not None  # noqa: S101
        try:
            sums = unpack(process.stdout, into)
        except (tarfile.TarError, ValueError) as error:
            process.kill()
            clear(into)
            raise WorkFailed(f"cannot fetch {path}: {error}") from None
        message = process.stderr.read().decode(errors="replace").strip()
    if process.returncode != 0:
        clear(into)
        raise WorkFailed(f"cannot fetch {path}: {message or f'exit code {process.returncode}'}")
    verify(into, sums, path)


def unpack(stream: IO[bytes], into: Path) -> dict[str, str]:
    """Read sums and tar from the stream into the folder; give the sums by relative path."""
    sums: dict[str, str] = {}
    while (line := stream.readline()) not in (b"", b"\n"):
        digest, _, name = line.decode().rstrip("\n").partition(" *./")
        if not name:
            raise ValueError(f"'{line.decode(errors='replace').strip()}' is no checksum")
        sums[name] = digest
    if line == b"\n":
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            archive.extractall(into, filter="data")
        stream.read()
    return sums


def verify(folder: Path, sums: dict[str, str], path: str) -> None:
    """Compare the files with their sums; WorkFailed, and an empty folder, when one differs or lacks."""
    for name, expected in sums.items():
        file = folder / name
        actual = hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else "nothing"
        if actual != expected:
            clear(folder)
            raise WorkFailed(f"cannot fetch {path}: {name} arrived damaged, try again")


def clear(folder: Path) -> None:
    """Empty a folder."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()
