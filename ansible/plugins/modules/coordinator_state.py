# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Brings the state of a coordinator back from a backup that was opened on the operator's machine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: coordinator_state
short_description: Bring a coordinator's state back from an opened backup
version_added: "0.3.0"
description:
  - Stops the coordinator's services and puts the SuperLink's database, the record of the sites, keys, certificates and
    results where the backup had them. The role's other tasks start the services again.
  - While it is at it, V(/var/lib/flower/restoring) stands on the host, and no SuperLink starts beside it; a call that
    was interrupted is continued by the same call.
  - A database that was there stays beside the other as V(superlink.db.replaced).
  - An action plugin of the same name asks the host first and sends the archive only where it is needed.
options:
  archive:
    description: The opened backup, a compressed tar, on the machine that runs Ansible.
    type: path
  overwrite:
    description: Replace a state that is newer than the backup's, and one that was brought back from this backup before.
    type: bool
    default: false
  id:
    description: The backup's identifier; the action plugin fills it in.
    type: str
  made_at:
    description: When the backup was made, in seconds since the epoch; the action plugin fills it in.
    type: int
attributes:
  check_mode:
    support: full
    description: Says whether the state would be replaced.
author:
  - The Flowerbed authors (@flowerbed)
"""

EXAMPLES = r"""
- name: Bring the state back
  flowerbed.federation.coordinator_state:
    archive: "{{ inventory_dir }}/.state/restore/state.tar.gz"
"""

RETURN = r"""
files:
  description: The files that were brought back.
  type: list
  elements: str
  returned: success
  sample: [/var/lib/flower/superlink/superlink.db]
"""

import contextlib
import hashlib
import json
import os
import pwd
import tarfile
import tempfile
import time
from pathlib import Path, PurePosixPath
from typing import IO, Any

from ansible.module_utils.basic import AnsibleModule

STATE = Path("/var/lib/flower")
PLACES = ("/var/lib/flower/", "/etc/flower/")
# In the order in which they end: who takes work first, who keeps it last.
UNITS = (
    "flower-backup.timer",
    "flower-backup.service",
    "flower-gateway.service",
    "flower-superexec-serverapp.service",
    "flower-serverapp.socket",
    "flower-serverapp-warm.socket",
    "flower-serverapp-warm.service",
    "flower-superlink.service",
)
_SIDES = ("", "-wal", "-shm", "-journal")


class StateError(Exception):
    """One line that names what is wrong and what mends it."""


class State:
    """The coordinator's state on its disk; `root` stands for the disk."""

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root
        self.folder = root / STATE.relative_to("/")
        self.marker = self.folder / "restoring"
        self.note = self.folder / "restored.json"
        self.database = self.folder / "superlink" / "superlink.db"

    def has(self, ident: str) -> bool:
        """Whether the state that is there was brought back from this backup, wholly."""
        return not self.marker.exists() and self.database.exists() and _read(self.note).get("id") == ident

    def newer_than(self, made_at: int) -> str:
        """What is newer here than the backup, in words; empty where nothing is."""
        files = [Path(f"{self.database}{side}") for side in _SIDES]
        times = [file.stat().st_mtime for file in files if file.exists()]
        if self.marker.exists() or not times or max(times) <= made_at:
            return ""
        return f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(max(times)))}Z"

    def set_aside(self) -> None:
        """Keep the database that was there under another name, with what belongs to it."""
        for side in _SIDES:
            file = Path(f"{self.database}{side}")
            if file.exists():
                file.replace(f"{self.database}.replaced{side}")

    def bring_back(self, archive: Path, ident: str) -> list[str]:
        """Replace the state; returns the files. Safe to repeat after an interruption at any point."""
        with tarfile.open(archive, "r:gz") as tar:
            listed = check(tar)
        self.folder.mkdir(parents=True, exist_ok=True)
        if not _read(self.marker).get("set_aside"):
            _write(self.marker, {"id": ident, "set_aside": False})
            self.set_aside()
            _write(self.marker, {"id": ident, "set_aside": True})
        with tarfile.open(archive, "r:gz") as tar:
            for member in tar:
                name = member.name.removeprefix("files")
                content = tar.extractfile(member)
                if content is not None and name in listed:
                    self._place(name, content, listed[name])
        os.sync()
        _write(self.note, {"id": ident, "restored_at": int(time.time())})
        self.marker.unlink()
        _sync(self.folder)
        return sorted(listed)

    def _place(self, name: str, content: IO[bytes], entry: dict[str, str]) -> None:
        target = self.root / name.lstrip("/")
        owner = _ids(entry["owner"]) if self.root == Path("/") else None
        missing = [one for one in target.parents if not one.exists()]
        for folder in reversed(missing):
            folder.mkdir(mode=0o755 if name.startswith("/etc/") else 0o700)
            if owner:
                os.chown(folder, *owner)
        handle, unfinished = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "wb") as stream:
                while block := content.read(1 << 20):
                    stream.write(block)
                stream.flush()
                os.fsync(stream.fileno())
            if owner:
                os.chown(unfinished, *owner)
            Path(unfinished).chmod(int(entry["mode"], 8))
            Path(unfinished).replace(target)
        finally:
            Path(unfinished).unlink(missing_ok=True)


def check(tar: tarfile.TarFile) -> dict[str, dict[str, str]]:
    """The files of an opened backup, each as its manifest says; raises StateError before anything is touched."""
    first = tar.next()
    stream = tar.extractfile(first) if first and first.name == "manifest.json" else None
    if stream is None:
        raise StateError("the archive does not begin with manifest.json: it is no opened backup")
    listed: dict[str, dict[str, str]] = json.loads(stream.read())["files"]
    strange = [name for name in listed if not name.startswith(PLACES) or ".." in PurePosixPath(name).parts]
    if strange:
        raise StateError(f"the archive holds {strange[0]}, which is no state of Flower's: it is none of Flowerbed's")
    found = {}
    for member in tar:
        content = tar.extractfile(member)
        if content is not None:
            found[member.name.removeprefix("files")] = hashlib.file_digest(content, "sha256").hexdigest()
    wrong = [name for name, entry in listed.items() if found.get(name) != entry["sha256"]]
    if wrong:
        raise StateError(f"{wrong[0]} did not arrive as it was sent: run the same command again")
    return listed


def _ids(owner: str) -> tuple[int, int]:
    try:
        entry = pwd.getpwnam(owner)
    except KeyError:
        return 0, 0
    return entry.pw_uid, entry.pw_gid


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(file: Path, document: dict[str, Any]) -> None:
    unfinished = file.with_name(f".{file.name}")
    with unfinished.open("w") as stream:
        stream.write(json.dumps(document) + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    unfinished.chmod(0o644)
    unfinished.replace(file)
    _sync(file.parent)


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def stop(module: AnsibleModule) -> None:
    """Stop every service that has the state open; those that are not installed are no error."""
    there = [unit for unit in UNITS if Path("/etc/systemd/system", unit).exists()]
    for unit in [*there, "flower-serverapp@*.service"]:
        module.run_command(["systemctl", "stop", unit])
    _, state, _ = module.run_command(["systemctl", "is-active", "flower-superlink.service"])
    if state.strip() in ("active", "deactivating", "reloading"):
        raise StateError("flower-superlink does not stop: look at `systemctl status flower-superlink` on this host")


def main() -> None:
    """Decide, stop, bring back."""
    module = AnsibleModule(
        argument_spec={
            "archive": {"type": "path"},
            "overwrite": {"type": "bool", "default": False},
            "id": {"type": "str"},
            "made_at": {"type": "int"},
        },
        supports_check_mode=True,
    )
    params, state = module.params, State()
    if not params["overwrite"]:
        if state.has(params["id"]):
            module.exit_json(changed=False, files=[])
        newer = state.newer_than(params["made_at"])
        if newer:
            module.fail_json(
                msg=f"this coordinator has newer state, of {newer}, which the backup does not hold: `--overwrite` "
                "replaces it all the same, and keeps it beside as superlink.db.replaced"
            )
    if module.check_mode or not params["archive"]:
        module.exit_json(changed=True, files=[], needs_archive=True)
    try:
        stop(module)
        files = state.bring_back(Path(params["archive"]), params["id"])
    except StateError as error:
        module.fail_json(msg=str(error))
    except (tarfile.TarError, KeyError, ValueError) as error:
        module.fail_json(msg=f"the archive is no opened backup: {error}")
    except OSError as error:
        module.fail_json(
            msg=f"{error.filename} cannot be written ({error.strerror}): the same command goes on from here"
        )
    with contextlib.suppress(OSError):
        Path(params["archive"]).unlink()
    module.exit_json(changed=True, files=files)


if __name__ == "__main__":
    main()
