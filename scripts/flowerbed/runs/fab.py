"""The FAB format: which of an app's files are packed, and how; the bytes are those that `flwr build` would make."""

import hashlib
import io
import os
import tomllib
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import tomli_w
from pathspec import PathSpec
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from flowerbed.errors import UsageError

FAB_LIMIT = 10 * 1024 * 1024
"""Bytes of a FAB that a SuperLink takes at most."""

# What Flower packs and what it never packs; the lists are part of the FAB format.
_INCLUDED = (
    "**/*.py",
    "**/*.toml",
    "**/*.md",
    "**/*.yaml",
    "**/*.yml",
    "**/*.json",
    "**/*.jsonl",
    "/LICENSE",
)
_NEVER_PUBLISHED = (".flwr/**", ".venv/**", "**/__pycache__/**")
_NEVER_INCLUDED = (
    *(".flwr/**", "**/__pycache__/**", "pyproject.toml", "**/*_test.py", "**/test_*.py"),
    *("build/**", "eggs/**", ".eggs/**", "lib/**", "lib64/**", "parts/**", "*.egg"),
    *(".venv/**", "env/**", "venv/**", "ENV/**", "env.bak/**", "venv.bak/**"),
)
_DATE = (2024, 10, 1, 0, 0, 0)
_MAX_DEPTH = 10
_UNPACKED_LIMIT = 20 * FAB_LIMIT


def published(path: Path, there: list[str]) -> list[str]:
    """What Flower chooses the FAB's files from: some kinds of files, and never what is ignored or hidden.

    `there` are the files of the app's folder `path`. Raises UsageError for what Flower cannot pack.
    """
    here, kinds, never = ignored(path), _spec(_INCLUDED), _spec(_NEVER_PUBLISHED)
    chosen = [
        file for file in there if kinds.match_file(file) and not never.match_file(file) and not here.match_file(file)
    ]
    if "pyproject.toml" not in chosen:
        raise UsageError(f"{path / '.gitignore'} ignores pyproject.toml: without it there is no app")
    for file in chosen:
        if file.count("/") > _MAX_DEPTH:
            raise UsageError(
                f"{path / file}: lies deeper than {_MAX_DEPTH} folders; move it up, or add it to .gitignore"
            )
    return chosen


def packed(chosen: list[str], section: Mapping[str, Any], toml: Path) -> list[str]:
    """What goes into the FAB beside pyproject.toml, in the FAB's order.

    `chosen` is what `published` gave, `section` the table [tool.flwr.app]. Raises UsageError for its patterns.
    """
    never = _spec(_NEVER_INCLUDED)
    files = chosen
    for key, keep in (("fab-include", True), ("fab-exclude", False)):
        if key in section:
            patterns = _patterns(section[key], key, chosen, toml)
            files = [file for file in files if patterns.match_file(file) is keep]
    return sorted(file for file in files if not never.match_file(file))


def _patterns(patterns: object, key: str, chosen: list[str], toml: Path) -> "PathSpec[Any]":
    if not isinstance(patterns, list) or not patterns or not all(isinstance(text, str) for text in patterns):
        raise UsageError(f"{toml}: {key} in [tool.flwr.app] must be a list of patterns, not empty")
    for pattern in patterns:
        if not any(_spec([pattern]).match_file(file) for file in chosen):
            raise UsageError(f"{toml}: {key} pattern '{pattern}' matches no file that Flower packs")
    return _spec(patterns)


def pack(path: Path, document: dict[str, Any], files: list[str]) -> bytes:
    """Make the FAB of `document`, the pyproject.toml's content, and `files`; UsageError above FAB_LIMIT."""
    contents = {"pyproject.toml": tomli_w.dumps(without_federations(document)).encode()}
    contents |= {file: (path / file).read_bytes() for file in files}
    manifest = "\n".join(
        f"{file},{hashlib.sha256(content).hexdigest()},{len(content) * 8}" for file, content in contents.items()
    )
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, content in (contents | {".info/CONTENT": manifest.encode()}).items():
            archive.writestr(zipfile.ZipInfo(file, _DATE), content)
    fab = buffer.getvalue()
    if len(fab) > FAB_LIMIT:
        largest = max(contents, key=lambda file: len(contents[file]))
        raise UsageError(
            f"{path}: the app packs to {len(fab) / 1e6:.1f} MB, Flower takes {FAB_LIMIT / 1e6:.1f}; "
            f"the largest file is {largest}: leave it out with fab-exclude in [tool.flwr.app]"
        )
    return fab


def walk(path: Path) -> list[str]:
    """Every file in the app's folder, as paths relative to it; no links."""
    found = []
    for folder, _, names in os.walk(path):
        for name in names:
            file = Path(folder) / name
            if not file.is_symlink():
                found.append(file.relative_to(path).as_posix())
    return sorted(found)


def ignored(path: Path) -> "PathSpec[Any]":
    """What the .gitignore in the app's folder matches."""
    try:
        return _spec((path / ".gitignore").read_text(encoding="utf-8").splitlines())
    except (OSError, UnicodeDecodeError):
        return _spec([])


def _spec(patterns: Iterable[str]) -> "PathSpec[Any]":
    kept = [line.strip() for line in patterns if line.strip() and not line.strip().startswith("#")]
    return PathSpec.from_lines(GitIgnoreSpecPattern, kept)


def without_federations(document: dict[str, Any]) -> dict[str, Any]:
    """The content of a pyproject.toml without its connections, which are no part of a FAB."""
    flwr = {key: value for key, value in document["tool"]["flwr"].items() if key != "federations"}
    return document | {"tool": document["tool"] | {"flwr": flwr}}


def contents(fab: bytes, reference: str) -> dict[str, bytes]:
    """Unpack a FAB in memory: path to content; UsageError, which names `reference`, when it is none."""
    try:
        with zipfile.ZipFile(io.BytesIO(fab)) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if len(fab) > FAB_LIMIT or sum(entry.file_size for entry in entries) > _UNPACKED_LIMIT:
                raise UsageError(f"{reference}: it is larger than Flower takes")
            found = {entry.filename: archive.read(entry) for entry in entries}
        tomllib.loads(found["pyproject.toml"].decode())
    # zipfile's own words for a kind of compression that it does not know is NotImplementedError.
    except (zipfile.BadZipFile, NotImplementedError, KeyError, ValueError) as error:
        raise UsageError(f"{reference}: it is no FAB: {error}") from None
    return found


def read(reference: str) -> bytes:
    """The bytes of a .fab file; UsageError when there is no such file."""
    file = Path(reference).expanduser()
    if not file.is_file():
        raise UsageError(f"{reference} is no file: give a .fab, an app's folder or a git reference")
    return file.read_bytes()


def unpack(found: Mapping[str, bytes], into: Path, reference: str) -> None:
    """Write what `contents` gave into the folder `into`, but for the FAB's own list; UsageError for a path outside."""
    for name, content in found.items():
        file = (into / name).resolve()
        if not file.is_relative_to(into.resolve()):
            raise UsageError(f"{reference}: it is no FAB: '{name}' leads out of it")
        if not name.startswith(".info/"):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(content)
