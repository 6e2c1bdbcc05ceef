"""Where an app comes from: a folder, a git reference, or one file for the server and one for the clients."""

import os
import shutil
import subprocess
import tempfile
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit, urlunsplit

import tomli_w

from flowerbed.errors import EnvironmentLacks, UsageError
from flowerbed.runs.app import check_module
from flowerbed.runs.flwr import ConfigValue

_GIT = "git+"


@dataclass(frozen=True)
class Source:
    """An app's folder and where it came from, for the run's record."""

    folder: Path
    origin: str
    """A path, or a git reference with the commit that it stood for."""


@contextmanager
def opened(reference: str) -> Iterator[Source]:
    """Give the app that `reference` means, for as long as the context lasts.

    `reference` is a folder, or a git repository as pip writes it: `git+https://host/repo.git@REF#subdirectory=PATH`,
    where REF is a branch, a tag or a whole commit. Raises UsageError when git cannot fetch it.
    """
    if not reference.startswith(_GIT):
        folder = Path(reference)
        yield Source(folder, str(folder.expanduser().resolve()))
        return
    url, ref, subdirectory = _parse(reference)
    with tempfile.TemporaryDirectory(prefix="flowerbed-app-") as scratch:
        commit = _clone(url, ref, Path(scratch), reference)
        folder = (Path(scratch) / subdirectory).resolve()
        if not folder.is_relative_to(Path(scratch).resolve()) or not folder.is_dir():
            raise UsageError(f"{reference}: the repository has no folder '{subdirectory}'")
        place = f"#subdirectory={subdirectory}" if subdirectory else ""
        yield Source(folder, f"{_GIT}{url}@{commit}{place}")


@contextmanager
def inline(server: Path, client: Path, config: Mapping[str, ConfigValue]) -> Iterator[Source]:
    """Give an app made of two files, each with an `app` (a ServerApp, a ClientApp), for as long as the context lasts.

    `config` becomes the app's run config (`values` reads it from `key=value`). Raises UsageError when a file is
    missing, does not compile or has no `app`.
    """
    for file in (server, client):
        if not file.is_file() or file.suffix != ".py":
            raise UsageError(f"{file} is not a Python file: give one with an `app` in it")
        check_module(file, "app")
    if server.name == client.name:
        raise UsageError(f"{server} and {client} have the same name: rename one")
    with tempfile.TemporaryDirectory(prefix="flowerbed-app-") as scratch:
        folder = Path(scratch)
        for file in (server, client):
            shutil.copyfile(file, folder / file.name)
        app = {
            "publisher": "flowerbed",
            "components": {"serverapp": f"{server.stem}:app", "clientapp": f"{client.stem}:app"},
            "config": dict(config),
        }
        document = {"project": {"name": "inline", "version": "0.0.0"}, "tool": {"flwr": {"app": app}}}
        (folder / "pyproject.toml").write_text(tomli_w.dumps(document), encoding="utf-8")
        yield Source(folder, f"{server.resolve()} {client.resolve()}")


def values(items: Iterable[str]) -> dict[str, ConfigValue]:
    """Read `key=value` texts for an inline app: what TOML does not know as a boolean or a number is a string."""
    found: dict[str, ConfigValue] = {}
    for item in items:
        key, sign, text = item.partition("=")
        if not sign or not key.strip():
            raise UsageError(f"-c {item}: write it as key=value")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except (tomllib.TOMLDecodeError, KeyError):
            value = text
        found[key.strip()] = value if isinstance(value, bool | int | float | str) else text
    return found


def _parse(reference: str) -> tuple[str, str, str]:
    """Take a reference apart: the repository's URL, the ref (empty: its default branch), the folder in it."""
    parts = urlsplit(reference.removeprefix(_GIT))
    path, _, ref = parts.path.partition("@")
    if not parts.scheme or not path.strip("/"):
        raise UsageError(f"{reference}: write it as git+https://host/repo.git@REF#subdirectory=PATH")
    subdirectory = parse_qs(parts.fragment).get("subdirectory", [""])[0]
    return urlunsplit((parts.scheme, parts.netloc, path, parts.query, "")), ref, subdirectory


def _clone(url: str, ref: str, into: Path, reference: str) -> str:
    """Fetch one commit and give its id; a server that gives no single commits is asked for all of them."""
    _git(into, reference, "init", "--quiet")
    try:
        _git(into, reference, "fetch", "--quiet", "--depth=1", "--", url, ref or "HEAD")
        _git(into, reference, "checkout", "--quiet", "FETCH_HEAD")
    except UsageError:
        if not ref:
            raise
        everything = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
        _git(into, reference, "fetch", "--quiet", "--update-head-ok", "--", url, *everything)
        _git(into, reference, "checkout", "--quiet", "--detach", ref)
    return _git(into, reference, "rev-parse", "HEAD")


def _git(folder: Path, reference: str, *arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env=os.environ | {"GIT_TERMINAL_PROMPT": "0"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        raise EnvironmentLacks(
            "git is not installed: an app from a git reference needs it (apt-get install git)"
        ) from None
    if done.returncode != 0:
        said = " ".join(done.stderr.split()) or f"git {arguments[0]} failed"
        raise UsageError(f"{reference}: {said[:300]}")
    return done.stdout.strip()
