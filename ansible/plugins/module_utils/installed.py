# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Compares a release as it lies on a host with what was installed: every package's own list of files, with hashes.

Byte code is not compared: it stands in no package's list.
"""

from __future__ import annotations

import base64
import csv
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_WHEEL = re.compile(r"wheels/([^-]+)-([^-]+)-.+\.whl")
# What a virtual environment has without any package.
_OF_THE_ENVIRONMENT = {"_virtualenv.py", "_virtualenv.pth"}
_CODE = {".py", ".so", ".pth"}


def differences(release: Path, manifest: dict[str, Any]) -> Iterator[str]:
    """What is otherwise than installed, a line each; `manifest` names the packages' wheels.

    Whatever makes the release unusable is a difference, never an error.
    """
    folder = next(iter(sorted(release.glob("lib/python3.*/site-packages"))), None)
    if folder is None:
        yield "lib/python3/site-packages is missing"
        return
    for name in ("bin/python", "release.lock"):
        if not (release / name).exists():
            yield f"{name} is missing"
    there = {_normal(entry.name.removesuffix(".dist-info")): entry for entry in folder.glob("*.dist-info")}
    wheels = [name for name in manifest["files"] if name != manifest.get("uv")]
    wanted = {_normal(f"{found[1]}-{found[2]}") for name in wheels if (found := _WHEEL.fullmatch(name))}
    for package in sorted(wanted - there.keys()):
        yield f"the package {package} is missing"
    listed: set[Path] = set()
    for package, entry in sorted(there.items()):
        if package not in wanted and entry.name.split("-")[0] != "uv":
            yield f"the package {package} was added"
        yield from _files(folder, entry, listed)
    for file in sorted(folder.rglob("*")):
        if file.suffix in _CODE and file not in listed and file.name not in _OF_THE_ENVIRONMENT and file.is_file():
            yield f"{file.relative_to(release)} was added"


def _files(folder: Path, package: Path, listed: set[Path]) -> Iterator[str]:
    """The differences of one package's files, which are added to `listed`."""
    try:
        rows = list(csv.reader((package / "RECORD").read_text(encoding="utf-8").splitlines()))
    except OSError:
        yield f"{package.name}/RECORD is missing"
        return
    for row in rows:
        file = Path(folder, row[0])
        listed.add(file)
        kind, _, digest = row[1].partition("=") if len(row) > 1 else ("", "", "")
        if file.suffix == ".pyc":
            continue
        if not file.exists():
            yield f"{row[0]} is missing"
        elif kind == "sha256" and digest != _digest(file):
            yield f"{row[0]} was changed"


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        digest = hashlib.sha256()
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
    return base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()


def _normal(text: str) -> str:
    """A package's name and version as one spelling."""
    name, _, version = text.rpartition("-")
    return f"{re.sub(r'[-_.]+', '-', name).lower()} {version}"
