"""What a site is asked to run: an app's hash and files, for the people who approve it."""

import hashlib
import io
import tomllib
import unicodedata
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowerbed.errors import UsageError
from flowerbed.runs.app import FAB_LIMIT, check
from flowerbed.runs.source import opened

_UNPACKED_LIMIT = 20 * FAB_LIMIT


@dataclass(frozen=True)
class PackedFile:
    """A file of an app."""

    path: str
    bytes: int
    sha256: str
    text: str
    """Its content; what a terminal would act upon or hide is written as an escape."""


@dataclass(frozen=True)
class Packed:
    """An app as it travels."""

    app: str
    """Its publisher and name."""
    version: str
    hash: str
    """The FAB's sha256, which is what a site approves."""
    bytes: int
    files: list[PackedFile]


def read(reference: str) -> Packed:
    """Read the app that `reference` means: a folder, a git reference as `source.opened` takes it, or a .fab file.

    A folder is packed as a run would pack it. Raises UsageError for what is no app.
    """
    if reference.endswith(".fab"):
        file = Path(reference).expanduser()
        if not file.is_file():
            raise UsageError(f"{reference} is no file: give a .fab, an app's folder or a git reference")
        return unpack(file.read_bytes(), reference)
    with opened(reference) as source:
        return unpack(check(source.folder).fab(), reference)


def unpack(fab: bytes, reference: str) -> Packed:
    """Read a FAB; UsageError, which names `reference`, when it is none."""
    try:
        with zipfile.ZipFile(io.BytesIO(fab)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if len(fab) > FAB_LIMIT or sum(entry.file_size for entry in entries) > _UNPACKED_LIMIT:
                raise UsageError(f"{reference}: it is larger than Flower takes")
            contents = {entry.filename: archive.read(entry) for entry in entries}
        document: dict[str, Any] = tomllib.loads(contents["pyproject.toml"].decode())
        project, publisher = document["project"], document["tool"]["flwr"]["app"]["publisher"]
        return Packed(
            app=f"{publisher}/{project['name']}",
            version=str(project["version"]),
            hash=hashlib.sha256(fab).hexdigest(),
            bytes=len(fab),
            files=[
                PackedFile(path, len(content), hashlib.sha256(content).hexdigest(), visible(content))
                for path, content in contents.items()
            ],
        )
    # zipfile's own words for a kind of compression that it does not know is NotImplementedError.
    except (zipfile.BadZipFile, NotImplementedError, KeyError, TypeError, ValueError) as error:
        raise UsageError(f"{reference}: it is no FAB: {error}") from None


def visible(content: bytes) -> str:
    """A file's text with nothing hidden: control and direction characters, and what is no text, as escapes."""
    text = content.decode(errors="backslashreplace")
    return "".join(
        char if char in "\n\t" or unicodedata.category(char)[0] != "C" else char.encode("unicode_escape").decode()
        for char in text
    )
