"""Where an app comes from: a folder, a git reference, a FAB, or one file for the server and one for the clients."""

import hashlib
import os
import re
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
from flowerbed.runs import fab, settings
from flowerbed.runs.app import check, check_module
from flowerbed.runs.flwr import ConfigValue
from flowerbed.runs.settings import Override

_GIT = "git+"
_NAME_LIMIT = 23
"""Characters of an app's name, of which Flower takes 32, before its hash."""
_HASH = 8


@dataclass(frozen=True)
class Source:
    """An app's folder and where it came from, for the run's record."""

    folder: Path
    origin: str
    """A path, or a git reference with the commit that it stood for."""


@contextmanager
def opened(reference: str) -> Iterator[Source]:
    """Give the app that `reference` means, for as long as the context lasts.

    `reference` is a folder, a .fab file, or a git repository as pip writes it:
    `git+https://host/repo.git@REF#subdirectory=PATH`, where REF is a branch, a tag or a whole commit. Raises
    UsageError when git cannot fetch it, and for a .fab that packs to another hash than its own.
    """
    if reference.startswith(_GIT):
        with _scratch(reference) as folder:
            yield _of_git(reference, folder)
    elif reference.endswith(".fab"):
        with _scratch(reference) as folder:
            yield _of_fab(reference, folder)
    else:
        folder = Path(reference).expanduser()
        yield Source(folder, str(folder.resolve()))


@contextmanager
def inline(server: Path, client: Path, config: Mapping[str, ConfigValue]) -> Iterator[Source]:
    """Give an app made of two files, each with an `app` (a ServerApp, a ClientApp), for as long as the context lasts.

    Its name is made from the files' names and what is in them. `config` becomes the app's run config
    (`settings.loose` reads it). Raises UsageError when a file is missing, does not compile or has no `app`.
    """
    for file in (server, client):
        if not file.is_file() or file.suffix != ".py":
            raise UsageError(f"{file} is not a Python file: give one with an `app` in it")
        check_module(file, "app")
    if server.name == client.name:
        raise UsageError(f"{server} and {client} have the same name: rename one")
    with _scratch(f"{server.parent}") as folder:
        for file in (server, client):
            shutil.copyfile(file, folder / file.name)
        app = {
            "publisher": "flowerbed",
            "components": {"serverapp": f"{server.stem}:app", "clientapp": f"{client.stem}:app"},
            "config": dict(config),
        }
        document = {"project": {"name": name_of(server, client), "version": "0.0.0"}, "tool": {"flwr": {"app": app}}}
        (folder / "pyproject.toml").write_text(tomli_w.dumps(document), encoding="utf-8")
        yield Source(folder, f"{server.resolve()} {client.resolve()}")


def has_connections(app: Path) -> bool:
    """Whether the app in this folder names connections of its own, as apps for an older Flower do."""
    try:
        document = tomllib.loads((app / "pyproject.toml").read_text(encoding="utf-8"))
        return bool(document["tool"]["flwr"]["federations"])
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError, TypeError):
        return False


def name_of(*files: Path) -> str:
    """A name for an app of these files, the same for the same content: `server-client-1a2b3c4d`."""
    digest = hashlib.sha256(b"\0".join(file.read_bytes() for file in files)).hexdigest()[:_HASH]
    words = re.sub(r"[^A-Za-z0-9]+", "-", "-".join(file.stem for file in files)).strip("-")
    words = words if words[:1].isalpha() else f"app-{words}"
    return f"{words[:_NAME_LIMIT].rstrip('-')}-{digest}"


@contextmanager
def configured(
    app: str | Path | None,
    server: Path | None,
    client: Path | None,
    config: Override | Iterable[Override] = (),
    profile: str | None = None,
) -> Iterator[tuple[Source, dict[str, ConfigValue]]]:
    """Give an app, or one made of two files, and what overrides its run config.

    Raises UsageError as `opened`, `inline` and `Settings.overrides` do.
    """
    items = [config] if isinstance(config, str | Path | Mapping) else list(config)
    if app is not None and server is None and client is None:
        with opened(str(app)) as source:
            yield source, check(source.folder).settings.overrides(items, profile)
    elif app is None and server is not None and client is not None:
        if profile is not None:
            raise UsageError(f"profile {profile}: two files have none; write the values into a .toml file for -c")
        with inline(server, client, settings.loose(items)) as source:
            yield source, {}
    else:
        raise UsageError("name what to run: an APP, or both --server-code and --client-code")


@contextmanager
def _scratch(shown: str) -> Iterator[Path]:
    """A folder for the app; a message about a file in it names `shown` instead, which the user knows."""
    with tempfile.TemporaryDirectory(prefix="flowerbed-app-") as made:
        folder = Path(made).resolve()
        try:
            yield folder
        except UsageError as error:
            raise UsageError(str(error).replace(str(folder), shown)) from None


def _of_fab(reference: str, folder: Path) -> Source:
    packed = fab.read(reference)
    fab.unpack(fab.contents(packed, reference), folder, reference)
    # Sites approve a hash: a run of another app than the one that they were shown would be refused there.
    if check(folder).fab_hash != hashlib.sha256(packed).hexdigest():
        raise UsageError(
            f"{reference}: this version of Flower packs it to another hash: build it again with `flwr build`, or run "
            "the app's folder"
        )
    return Source(folder, str(Path(reference).expanduser().resolve()))


def _of_git(reference: str, scratch: Path) -> Source:
    url, ref, subdirectory = _parse(reference)
    commit = _clone(url, ref, scratch, reference)
    folder = (scratch / subdirectory).resolve()
    if not folder.is_relative_to(scratch) or not folder.is_dir():
        raise UsageError(f"{reference}: the repository has no folder '{subdirectory}'")
    place = f"#subdirectory={subdirectory}" if subdirectory else ""
    return Source(folder, f"{_GIT}{url}@{commit}{place}")


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
