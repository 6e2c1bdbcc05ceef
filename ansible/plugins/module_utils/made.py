# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""What Flowerbed made on a host: noted by what makes it, before it is made, and taken away again by the same record.

Only what was not there before is noted, so that what is taken away is Flowerbed's and nothing else: a user, a folder
or a package that the host had already stays. A folder whose name begins with "flower" goes with all that is in it
(keys, releases and state are made there by others); of other folders only the noted files go, and the folder itself
when it is empty then. It needs Python's standard library alone: a hospital runs it without Ansible, too.
"""

from __future__ import annotations

import base64
import contextlib
import grp
import json
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

RECORD = Path("/var/lib/flower/made.json")
UNITS = "/etc/systemd/system"
SCHEMA = 1
_CURRENT = Path("/opt/flower/current")
# Where the hospital finds the program that leaves.
_PROGRAM = "/opt/flower/libexec"
# Empty folders: units put them over what they are not to see.
_COVERS = "/opt/flower/covers/"
# Where systemd notes when a timer last ran.
_STAMPS = Path("/var/lib/systemd/timers")
# Gone with the next boot at the latest.
_PASSING = ("/tmp/", "/run/", "/var/tmp/", "/dev/shm/")  # noqa: S108 - nothing is written there
# Timers that modules start for a while.
_TRANSIENT = ("flower-firewall-rollback.timer", "flower-hold-end.timer")
_RUNTIME = re.compile(r"^RuntimeDirectory=(\S+)$", re.MULTILINE)
_LISTEN = re.compile(r"^ListenStream=(/run/\S+)$", re.MULTILINE)
_TABLE = re.compile(r"^table (\w+ \w+)$", re.MULTILINE)
_BIND = re.compile(r"^Bind(?:ReadOnly)?Paths=(.*)$", re.MULTILINE)


class LeaveError(Exception):
    """One line that says why nothing was taken away, with the remedy."""


@dataclass
class Made:
    """The record. All paths are absolute."""

    complete: bool = True
    """False where a version that kept no record had been here before."""
    users: list[str] = field(default_factory=list)
    memberships: list[str] = field(default_factory=list)
    """Of users that the host had: `user:group`."""
    directories: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    replaced: dict[str, str] = field(default_factory=dict)
    """Files of the host's whose content was replaced: mode, user and group as numbers, and the content in base64."""
    packages: list[str] = field(default_factory=list)

    @property
    def trees(self) -> list[str]:
        """The folders that go with all that is in them, the topmost alone."""
        own = [path for path in self.directories if Path(path).name.startswith("flower")]
        return sorted(path for path in own if not any(path.startswith(f"{other}/") for other in own))

    def covers(self, path: str) -> bool:
        """Whether the path goes with one of the trees."""
        return any(path == tree or path.startswith(f"{tree}/") for tree in self.trees)


def read(record: Path = RECORD) -> Made | None:
    """The record; None where there is none. Raises LeaveError where it is damaged."""
    try:
        document = json.loads(record.read_text())
        document.pop("schema")
        return Made(**document)
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError, AttributeError):
        raise LeaveError(f"{record} is damaged: bring it back from a backup of this host") from None


def _write(made: Made, record: Path) -> None:
    handle, name = tempfile.mkstemp(dir=record.parent, prefix=f".{record.name}.")
    with os.fdopen(handle, "w") as stream:
        json.dump({"schema": SCHEMA, **asdict(made)}, stream, indent=1)
    Path(name).chmod(0o644)
    Path(name).replace(record)


def note(kind: str, *names: str, record: Path = RECORD) -> None:
    """Note what is about to be made; `kind` is a list of the record: users, memberships, directories, files, packages.

    What is noted already, and what is gone with the next boot anyway, changes nothing.
    """
    _change(kind, {name: "" for name in names if not name.startswith(_PASSING)}, record)


def note_folders(path: Path, record: Path = RECORD) -> None:
    """Note the folder and those above it that are missing and about to be made."""
    missing = []
    while not path.exists():
        missing.append(str(path))
        path = path.parent
    note("directories", *reversed(missing), record=record)


def note_file(path: Path, record: Path = RECORD) -> None:
    """Note a file that is about to be written: that it is new, or what it was before it was first replaced."""
    name = str(path)
    if name.startswith(_PASSING):
        return
    note_folders(path.parent, record)
    if path.suffix == ".timer":
        note_folders(_STAMPS, record)
    if not path.exists():
        note("files", name, record=record)
        return
    known = read(record) or _begin()
    if known.complete and name not in known.files and not known.covers(name):
        stat, content = path.stat(), base64.b64encode(path.read_bytes()).decode()
        _change("replaced", {name: f"{stat.st_mode & 0o7777:o} {stat.st_uid} {stat.st_gid} {content}"}, record)


def _begin() -> Made:
    return Made(complete=not _CURRENT.exists())


def _change(kind: str, names: dict[str, str], record: Path) -> None:
    made = read(record) or _begin()
    noted = getattr(made, kind)
    new = {name: value for name, value in names.items() if name not in noted}
    if not new:
        return
    if isinstance(noted, dict):
        noted.update(new)
    else:
        noted.extend(new)
    folder = record.parent
    while not folder.exists():
        if str(folder) not in made.directories:
            made.directories.append(str(folder))
        folder = folder.parent
    record.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    _write(made, record)


# Leaving -------------------------------------------------------------------------------------------------------


@dataclass
class Left:
    """What was done, or would be."""

    stopped: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    """What was made and stays: it holds what others put there, or it masks the service of a package that stays."""
    packages: list[str] = field(default_factory=list)
    """Packages of the distribution that were installed for Flowerbed; they stay."""

    @property
    def changed(self) -> bool:
        """Whether anything was done."""
        return bool(self.stopped or self.removed)


def leave(*, purge: bool, check: bool = False, record: Path = RECORD) -> Left:
    """Stop and disable all units that were made here; with `purge` take away everything that was made, too.

    `check` says what would be done and does nothing. An interrupted call is continued by the same call. Raises
    LeaveError before anything is changed where it cannot be told what was made, or where something of somebody else's
    lies in it.
    """
    made = read(record)
    if made is None:
        if _CURRENT.exists():
            raise LeaveError(_unknown(record))
        return Left()
    if purge:
        _refuse(made, record)
    left = Left(packages=[one for one in made.packages if _installed(one)])
    _stop(made, left, check)
    if purge:
        _take_away(made, left, check, record)
    return left


def _unknown(record: Path) -> str:
    return (
        f"{record} does not say all that was made on this host, since an earlier version was here before: take it away "
        "by the commands that `flowerbed dossier` lists"
    )


def _refuse(made: Made, record: Path) -> None:
    if not made.complete:
        raise LeaveError(_unknown(record))
    for mount in _mounts():
        if made.covers(mount):
            raise LeaveError(f"{mount} is a mount, below what would be removed: unmount it and run again")
    for path in _unit_files(made):
        for value in _BIND.findall(path.read_text()):
            source = value.strip('"-').split(":")[0].strip('"')
            if source.startswith(_COVERS):
                continue
            if made.covers(str(Path(source).resolve())):
                raise LeaveError(f"{source} holds data, below what would be removed: move it away and run again")


def forget_ansible(home: Path) -> None:
    """Remove the folders that Ansible leaves empty in the home of the user as whom it came."""
    for folder in (*(home / ".ansible/tmp").glob("*"), home / ".ansible/tmp", home / ".ansible"):
        with contextlib.suppress(OSError):  # it is not there, or somebody uses it
            folder.rmdir()


def _mounts() -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split()[4].encode().decode("unicode_escape") for line in lines]


def _unit_files(made: Made) -> list[Path]:
    """The unit files that were made, without their drop-ins."""
    found = [Path(path) for path in made.files if Path(path).parent == Path(UNITS)]
    return [path for path in found if path.exists()]


def _units(made: Made) -> list[str]:
    """The units of these files, instances included, and timers that run for a while."""
    names: list[str] = []
    for path in _unit_files(made):
        stem, at, suffix = path.name.partition("@")
        if not at:
            names.append(path.name)
            continue
        loaded = _run("systemctl", "list-units", "--all", "--plain", "--no-legend", "--full", f"{stem}@*{suffix}")
        names += [line.split()[0] for line in loaded.splitlines() if line.strip()]
        names += [link.name for link in Path(UNITS).glob(f"*.wants/{stem}@*{suffix}")]
    return [*dict.fromkeys(names), *(name for name in _TRANSIENT if _state(name) == "active")]


def _state(name: str) -> str:
    return _run("systemctl", "is-active", name, check=False).strip()


def _stop(made: Made, left: Left, check: bool) -> None:
    names = _units(made)
    for name in names:
        enabled = _run("systemctl", "is-enabled", name, check=False).strip()
        if _state(name) not in ("inactive", "failed", "unknown") or enabled == "enabled":
            left.stopped.append(name)
    if left.stopped and not check:
        lasting = [name for name in left.stopped if name not in _TRANSIENT and "@" not in name]
        instances = [name for name in left.stopped if "@" in name]
        _run("systemctl", "stop", *left.stopped)
        _run("systemctl", "disable", "--quiet", *lasting, *(one for one in instances if _wanted(one)))
    if names and not check:
        _run("systemctl", "reset-failed", *names, check=False)


def _wanted(name: str) -> bool:
    return any(Path(UNITS).glob(f"*.wants/{name}"))


def _take_away(made: Made, left: Left, check: bool, record: Path) -> None:
    for table in _tables(made):
        left.removed.append(f"nft table {table}")
        _do(check, "nft", "delete", "table", *table.split())
    stamps = [f"{_STAMPS}/stamp-{path.name}" for path in _unit_files(made) if path.suffix == ".timer"]
    # Last the program that does this and the record: until then the same call goes on where this one was interrupted.
    last = [tree for tree in made.trees if _PROGRAM.startswith(f"{tree}/")]
    last += [tree for tree in made.trees if record.is_relative_to(tree)] or [str(record)]
    gone = [*_passing(made), *made.files, *stamps, *made.trees]
    _take_paths([path for path in gone if path not in last], made, left, check)
    for path, content in made.replaced.items():
        left.removed.append(f"what was changed in {path}")
        if not check and Path(path).exists():
            _restore(Path(path), content)
    _forget_users(made, left, check)
    for path in sorted(made.directories, key=len, reverse=True):
        if os.path.lexists(path) and not made.covers(path):
            _remove_empty(Path(path), left, check)
    if not check:
        _run("systemctl", "daemon-reload")
    for path in last:
        left.removed.append(path)
        if not check and os.path.lexists(path):
            _remove(Path(path))


def _take_paths(paths: list[str], made: Made, left: Left, check: bool) -> None:
    for path in paths:
        if Path(path).is_relative_to(_PROGRAM) or not os.path.lexists(path):
            continue
        if left.packages and os.path.realpath(path) == os.devnull:
            left.kept.append(path)
            continue
        if not made.covers(str(Path(path).parent)):
            left.removed.append(path)
        if not check:
            _remove(Path(path))


def _restore(path: Path, noted: str) -> None:
    mode, user, group, content = noted.split(" ")
    path.write_bytes(base64.b64decode(content))
    os.chown(path, int(user), int(group))
    path.chmod(int(mode, 8))


def _tables(made: Made) -> list[str]:
    """The tables of nftables that these files load, as far as they are loaded."""
    found = []
    for path in (Path(path) for path in made.files if path.endswith(".nft")):
        table = _TABLE.search(path.read_text()) if path.exists() else None
        loaded = table and shutil.which("nft", path="/usr/sbin:/sbin")
        if table and loaded and _run("nft", "list", "table", *table[1].split(), check=False):
            found.append(table[1])
    return found


def _passing(made: Made) -> list[str]:
    """The folders below /run that the units have systemd make, and the firewall's own."""
    found = ["/run/flower-firewall"]
    for path in _unit_files(made):
        text = path.read_text()
        found += [f"/run/{name}" for name in _RUNTIME.findall(text)]
        found += [str(Path(socket).parent) for socket in _LISTEN.findall(text)]
    return sorted({path for path in found if re.fullmatch(r"/run/flower(-[a-z-]+)?", path)})


def _remove(path: Path) -> None:
    """Remove a file or a folder, of a folder's content the program that does this last."""
    if not path.is_dir() or path.is_symlink():
        path.unlink()
        return
    for inner in sorted(path.iterdir(), key=lambda one: str(one) == _PROGRAM):
        if inner.is_dir() and not inner.is_symlink():
            shutil.rmtree(inner)
        else:
            inner.unlink()
    path.rmdir()


def _remove_empty(path: Path, left: Left, check: bool) -> None:
    made_by_others = [one for one in path.iterdir() if str(one) not in left.removed]
    if made_by_others:
        left.kept.append(str(path))
        return
    left.removed.append(str(path))
    if not check:
        path.rmdir()


def _forget_users(made: Made, left: Left, check: bool) -> None:
    for entry in made.memberships:
        user, _, group = entry.partition(":")
        with contextlib.suppress(KeyError):
            if user in grp.getgrnam(group).gr_mem and user not in made.users:
                left.removed.append(f"{user} from the group {group}")
                _do(check, "gpasswd", "--delete", user, group)
    for name in made.users:
        if _is_user(name):
            left.removed.append(f"user {name}")
            _do(check, "userdel", name)
        with contextlib.suppress(KeyError):
            if not check and grp.getgrnam(name):
                _do(check, "groupdel", name)


def _is_user(name: str) -> bool:
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(name) is not None
    return False


def _installed(package: str) -> bool:
    for command in (["dpkg-query", "--show", "--showformat=${db:Status-Status}", package], ["rpm", "--query", package]):
        if shutil.which(command[0]):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            return done.returncode == 0 and "not-installed" not in done.stdout
    return False


def _do(check: bool, *command: str) -> None:
    if not check:
        _run(*command)


def _run(*command: str, check: bool = True) -> str:
    environment = {**os.environ, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if check and done.returncode:
        raise LeaveError(f"'{' '.join(command[:3])}' failed: {' '.join(done.stderr.split())}: run again")
    return done.stdout


def lines(left: Left) -> Iterator[str]:
    """What was done, a line each."""
    yield from (f"stop {name}" for name in left.stopped)
    yield from (f"remove {name}" for name in left.removed)
    masks = {name for name in left.kept if os.path.realpath(name) == os.devnull}
    yield from (f"keep {name}: it holds what others put there" for name in left.kept if name not in masks)
    yield from (f"keep {name}: without it the package's own service would start" for name in sorted(masks))
    if left.packages:
        yield f"keep the packages {', '.join(left.packages)}, which were installed for Flowerbed"
