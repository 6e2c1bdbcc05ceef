"""Brings a folder over a command's standard output in one stream, checked file by file."""

import hashlib
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

from flowerbed.errors import WorkFailed

# First the sums, then the files, in one go: each costs a round trip to a coordinator that may be far away. Entries end
# with a zero byte, since a file's name may hold a line's end.
_SEND = (
    'cd "$1" 2>/dev/null || exit 0; '
    "find . -type f -exec sha256sum -bz {} + && printf '\\0' && exec tar --blocking-factor=512 -cf - ."
)
_DIGEST = re.compile("[0-9a-f]{64}")
_NAME_LIMIT = 1 << 16


def send_command(path: str) -> list[str]:
    """The command for the far side: writes the sha256 sums, an empty entry, and a tar of the folder `path`."""
    return ["sh", "-c", _SEND, "send", path]


def receive(command: Sequence[str], path: str, into: Path) -> None:
    """Copy what is in the far folder `path` into the existing folder `into`, however large its files are.

    `command` runs here and carries `send_command(path)` there: over SSH that is `ssh … HOST` and its
    `shlex.join`. A folder that does not exist gives nothing. Raises WorkFailed when the command fails, when there is
    no room here, or when a file arrives otherwise than it was sent; `into` then holds nothing.
    """
    with (
        tempfile.TemporaryFile() as said,  # a pipe that nobody reads would stop who writes much into it
        subprocess.Popen(list(command), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=said) as process,
    ):
        assert process.stdout is not None  # noqa: S101 - it was opened with a pipe
        try:
            sums = unpack(process.stdout, into)
        except (tarfile.TarError, ValueError, OSError) as error:
            process.kill()
            clear(into)
            raise WorkFailed(f"cannot fetch {path}: {error}") from None
        process.wait()
        said.seek(0)
        message = " ".join(said.read().decode(errors="replace").split())
    if process.returncode != 0:
        clear(into)
        raise WorkFailed(f"cannot fetch {path}: {message or f'exit code {process.returncode}'}")
    verify(into, sums, path)


def unpack(stream: IO[bytes], into: Path) -> dict[str, str]:
    """Read sums and tar from the stream into the folder; give the sums by relative path."""
    sums: dict[str, str] = {}
    ended = False
    for entry in _entries(stream):
        ended = not entry
        if ended:
            break
        digest, _, name = entry.decode(errors="surrogateescape").partition(" *./")
        if not name or not _DIGEST.fullmatch(digest):
            raise ValueError(f"'{_first_line(entry)}' is no checksum")
        sums[name] = digest
    if ended:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            archive.extractall(into, filter="data")
        while stream.read(1 << 20):
            pass
    return sums


def verify(folder: Path, sums: dict[str, str], path: str) -> None:
    """Compare the files with their sums; WorkFailed, and an empty folder, when one differs, lacks or is too many."""
    there = {
        file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file() and not file.is_symlink()
    }
    for name in sorted(there | sums.keys()):
        if name not in there or name not in sums or _sha256(folder / name) != sums[name]:
            clear(folder)
            shown = name.encode(errors="replace").decode()
            raise WorkFailed(f"cannot fetch {path}: {shown!r} arrived damaged, or changed meanwhile: try again")


def clear(folder: Path) -> None:
    """Empty a folder."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _entries(stream: IO[bytes]) -> Iterator[bytes]:
    """What stands between zero bytes; reads not one byte further, for behind them comes something else."""
    entry = bytearray()
    while byte := stream.read(1):
        if byte != b"\0":
            entry += byte
            if len(entry) > _NAME_LIMIT:
                raise ValueError("what came is no list of checksums")
            continue
        yield bytes(entry)
        entry.clear()
    if entry:
        raise ValueError(f"'{_first_line(entry)}' is no checksum")


def _first_line(entry: bytes | bytearray) -> str:
    return entry.decode(errors="replace").strip().partition("\n")[0][:200]


def _sha256(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
