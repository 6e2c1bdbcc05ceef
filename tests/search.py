"""Looks on one machine for values that must not be there; with the standard library alone, so that a host can run it.

Reads {"values": {name: [hex, ...]}, "roots": [...], "skip": [...], "since": seconds} from standard input and prints
where it found which: in files, in processes' command lines and environments, in the journal.
"""

import base64
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Found = dict[str, Any]
_WINDOW = 16  # characters of base64, 12 bytes: a line that is broken within a key leaves one of two windows whole
_CHUNK = 1 << 24


def forms(value: bytes) -> list[bytes]:
    """A value as it may appear: itself, in hex, and in base64, wherever in the encoded text it begins."""
    found = [value, value.hex().encode()]
    for offset in range(3):
        # The characters at the ends depend on what surrounds the value.
        encoded = base64.b64encode(bytes(offset) + value).rstrip(b"=")[4 if offset else 0 : -1]
        found += [encoded[:_WINDOW], encoded[-_WINDOW:]] if len(encoded) > 2 * _WINDOW else [encoded]
    return found


def look(values: dict[str, list[bytes]], roots: list[str], skip: list[str], since: float) -> Iterator[Found]:
    """Look everywhere; files older than `since` cannot hold what did not exist."""
    for source in (_files(roots, skip, since), _processes(), _journal()):
        for where, owner, mode, content in source:
            for name, wanted in values.items():
                if any(form in content for form in wanted):
                    yield {"value": name, "where": where, "owner": owner, "mode": mode}


Source = Iterator[tuple[str, int, int, bytes]]


def _files(roots: list[str], skip: list[str], since: float) -> Source:
    seen = set()
    for root in roots:
        for folder, below, names in os.walk(root):
            below[:] = [name for name in below if os.path.join(folder, name) not in skip]  # noqa: PTH118 - a Path for each of all files of a host costs minutes
            for name in names:
                path = Path(folder, name)
                try:
                    known = path.lstat()
                    if (
                        not stat.S_ISREG(known.st_mode)
                        or known.st_mtime < since
                        or (known.st_dev, known.st_ino) in seen
                    ):
                        continue
                    seen.add((known.st_dev, known.st_ino))
                    content = path.read_bytes()
                except OSError:
                    continue  # it is gone
                yield str(path), known.st_uid, stat.S_IMODE(known.st_mode), content


def _processes() -> Source:
    for folder in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ"):
            try:
                yield f"{name} of a process", folder.stat().st_uid, 0, (folder / name).read_bytes()
            except OSError:
                continue  # it has ended


def _journal() -> Source:
    command = ["journalctl", "--output=export", "--all", "--no-pager"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        before = b""
        while chunk := process.stdout.read(_CHUNK):
            yield "journal", 0, 0, before + chunk
            before = chunk[-1024:]  # a value across the border of two chunks


def on(command: Callable[[list[str]], list[str]], values: dict[str, bytes], **limits: Any) -> list[Found]:
    """Look on the machine that `command` leads to; the values go there on standard input, and into no command line."""
    known = {name: [form.hex() for form in forms(value)] for name, value in values.items()}
    words = command(["python3", "-c", Path(__file__).read_text()])
    done = subprocess.run(
        words, input=json.dumps({"values": known, **limits}), capture_output=True, text=True, check=True
    )
    found: list[Found] = json.loads(done.stdout)
    return found


if __name__ == "__main__":
    asked = json.load(sys.stdin)
    wanted = {name: [bytes.fromhex(form) for form in shapes] for name, shapes in asked["values"].items()}
    print(json.dumps(list(look(wanted, asked["roots"], asked["skip"], asked["since"]))))
