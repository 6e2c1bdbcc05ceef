"""The operator's secrets stay the operator's: readable by one user, and never in git."""

import subprocess
from pathlib import Path

from flowerbed.errors import UsageError
from flowerbed.federation import FederationFolder
from flowerbed.inventory import replace_file

_OTHERS = 0o077
_PUBLIC = {".crt", ".pub"}
"""Certificates and public keys; the folder above them is closed all the same."""


def close(federation: FederationFolder) -> list[str]:
    """Close `secrets/`, where there is one, to everybody else; returns the paths that were open.

    Raises UsageError for what is open and cannot be closed, and for a secret that git has already.
    """
    _refuse_tracked(federation)
    closed = open_paths(federation)
    for path in closed:
        try:
            path.chmod(path.stat().st_mode & 0o7777 & ~_OTHERS)
        except OSError as error:
            raise UsageError(
                f"{path} is open to other users and cannot be closed ({error.strerror}): {_REMEDY}"
            ) from None
        if path.stat().st_mode & _OTHERS:
            raise UsageError(f"{path} stays open to other users: its file system keeps no modes; {_REMEDY}")
    return [str(path.relative_to(federation.path)) for path in closed]


def make(federation: FederationFolder) -> None:
    """Make `secrets/` and `.state/`, for their owner alone and unseen by git."""
    for folder in (federation.secrets, federation.state):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_file(folder / ".gitignore", "*\n")


_REMEDY = "move it to a folder of your own and put a link in its place"


def open_paths(federation: FederationFolder) -> list[Path]:
    """What in `secrets/` somebody else may open, the folder first."""
    folder = federation.secrets
    inside = sorted(folder.rglob("*")) if folder.is_dir() else []
    private = [path for path in inside if path.is_dir() or not _is_public(path)]
    everything = [folder, *private] if folder.is_dir() else []
    return [path for path in everything if path.exists() and path.stat().st_mode & _OTHERS]


def tracked(federation: FederationFolder) -> list[str]:
    """The secrets that git has, as paths in the federation's folder; empty where there is no repository."""
    command = [
        "git",
        "-C",
        str(federation.path),
        "ls-files",
        "-z",
        "--",
        federation.secrets.name,
        federation.state.name,
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return []
    return [name for name in done.stdout.split("\0") if name and not _is_public(Path(name))]


def remedy(federation: FederationFolder) -> str:
    """What to do about secrets that git has."""
    folder = f"{federation.secrets.name} {federation.state.name}"
    return (
        f"`git -C {federation.path} rm -r --cached --ignore-unmatch {folder}`, and replace what was in there: "
        "whoever has the repository has it"
    )


def _refuse_tracked(federation: FederationFolder) -> None:
    found = tracked(federation)
    if found:
        raise UsageError(f"{federation.path / found[0]} is in git: {remedy(federation)}")


def _is_public(path: Path) -> bool:
    return path.suffix in _PUBLIC or path.name == ".gitignore"
