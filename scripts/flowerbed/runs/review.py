"""What a site is asked to run: an app's hash and files, for the people who approve it."""

import hashlib
import tomllib
import unicodedata
from dataclasses import dataclass
from typing import Any

from flowerbed.errors import UsageError
from flowerbed.runs import fab
from flowerbed.runs.app import check
from flowerbed.runs.source import opened


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
        return unpack(fab.read(reference), reference)
    with opened(reference) as source:
        return unpack(check(source.folder).fab(), reference)


def unpack(packed: bytes, reference: str) -> Packed:
    """Read a FAB; UsageError, which names `reference`, when it is none."""
    contents = fab.contents(packed, reference)
    document: dict[str, Any] = tomllib.loads(contents["pyproject.toml"].decode())
    try:
        project, publisher = document["project"], document["tool"]["flwr"]["app"]["publisher"]
        app, version = f"{publisher}/{project['name']}", str(project["version"])
    except (KeyError, TypeError) as error:
        raise UsageError(f"{reference}: it is no FAB: {error}") from None
    return Packed(
        app=app,
        version=version,
        hash=hashlib.sha256(packed).hexdigest(),
        bytes=len(packed),
        files=[
            PackedFile(path, len(content), hashlib.sha256(content).hexdigest(), visible(content))
            for path, content in contents.items()
        ],
    )


def visible(content: bytes) -> str:
    """A file's text with nothing hidden: control and direction characters, and what is no text, as escapes."""
    text = content.decode(errors="backslashreplace")
    return "".join(
        char if char in "\n\t" or unicodedata.category(char)[0] != "C" else char.encode("unicode_escape").decode()
        for char in text
    )
