# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Keeps the SuperLink's database readable for the release that is to run next, without losing what it holds."""

from __future__ import annotations

DOCUMENTATION = r"""
module: superlink_database
short_description: Make the SuperLink's database one that another release reads
version_added: "0.2.0"
description:
  - A newer Flower migrates the SuperLink's SQLite file when it starts, and an older one then does not start on it.
  - V(tried) lets the release start on a copy of the file, in a network of its own, and looks whether it answers.
  - V(ready) stops the SuperLink where another release is active, copies the file, and takes back the newer release's
    migrations where the next release does not know them. Registrations and runs stay.
  - Where the newer release cannot take its migrations back, the copy that was made when the older one was left takes
    the file's place. What was written since is not in it; RV(lost) names the runs, and the newer file stays among the
    copies.
options:
  state:
    description: What is done.
    type: str
    choices: [tried, ready]
    required: true
  id:
    description: The release that is to run next, installed before.
    type: str
    required: true
  root:
    description: The folder of all releases.
    type: path
    default: /opt/flower
  path:
    description: The SuperLink's SQLite file.
    type: path
    default: /var/lib/flower/superlink/superlink.db
  copies:
    description: Folder for the copies, one for each release that was left; for root alone.
    type: path
    default: /var/lib/flower/copies
  unit:
    description: The SuperLink's unit.
    type: str
    default: flower-superlink.service
  timeout:
    description: Seconds that the release may take to start on the copy.
    type: int
    default: 180
attributes:
  check_mode:
    support: full
    description: Says whether the database would be changed.
author:
  - The Flowerbed authors (@flowerbed)
"""

EXAMPLES = r"""
- name: See whether the next release reads the database
  flowerbed.federation.superlink_database:
    state: tried
    id: 1.42.0-31c7270663

- name: Get the database ready for it
  flowerbed.federation.superlink_database:
    state: ready
    id: 1.42.0-31c7270663
"""

RETURN = r"""
copy:
  description: The copy that was made; empty where the release is active already.
  type: str
  returned: when O(state=ready)
taken_back:
  description: Whether migrations were taken back.
  type: bool
  returned: when O(state=ready)
lost:
  description: Runs that are in the copy of the newer file alone, since its migrations could not be taken back.
  type: list
  elements: str
  returned: when O(state=ready)
why_lost:
  description: Why the migrations could not be taken back.
  type: str
  returned: when O(state=ready)
"""

import contextlib
import json
import os
import shutil
import sqlite3
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

# These run with a release's own Python.
_KNOWN = r"""
import json, pathlib
from alembic.config import Config
from alembic.script import ScriptDirectory
import flwr.supercore.state.alembic as place
config = Config()
config.set_main_option("script_location", str(pathlib.Path(place.__file__).parent))
scripts = ScriptDirectory.from_config(config)
print(json.dumps({"heads": list(scripts.get_heads()), "known": [each.revision for each in scripts.walk_revisions()]}))
"""
_TAKE_BACK = r"""
import json, sys
from alembic import command
from sqlalchemy import create_engine
from flwr.supercore.state.alembic.utils import build_alembic_config
for head in json.loads(sys.argv[2]):
    command.downgrade(build_alembic_config(create_engine("sqlite:///" + sys.argv[1])), head)
"""
_START = r"""
import os, pathlib, signal, ssl, subprocess, sys, time, urllib.request
program, database, seconds = sys.argv[1], sys.argv[2], float(sys.argv[3])
folder = pathlib.Path(database).parent
(folder / "secret").write_bytes(os.urandom(32))
with (folder / "said").open("w") as said:
    superlink = subprocess.Popen(
        [program, "--insecure", "--host", "127.0.0.1", "--port", "8000", "--database", database,
         "--isolation", "process", "--superexec-auth-secret-file", str(folder / "secret"),
         "--disable-runtime-dependency-installation"], stdout=said, stderr=said, cwd=folder)
until, good = time.monotonic() + seconds, False
while not good and superlink.poll() is None and time.monotonic() < until:
    time.sleep(0.3)
    try:
        with urllib.request.urlopen("http://127.0.0.1:8000/health", timeout=5) as answer:
            good = answer.status == 200
    except OSError:
        pass
superlink.send_signal(signal.SIGTERM)
try:
    superlink.wait(10)
except subprocess.TimeoutExpired:
    superlink.kill()
if not good:
    words = [line.strip() for line in (folder / "said").read_text().splitlines() if line.strip()]
    sys.exit("it does not start: " + " | ".join(words[-4:]))
"""
_TABLES = ("run", "node")
_RUNS = "SELECT run_id FROM run"
_ABOVE_ALL_IDS = 1 << 64


class Failed(Exception):
    """The database or a release does not serve; the message says why."""


class Database:
    """The SuperLink's file, its copies, and the releases that read it."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.path = Path(module.params["path"])
        self.copies = Path(module.params["copies"])
        self.root = Path(module.params["root"])
        self.next = module.params["id"]
        link = self.root / "current"
        self.active = link.readlink().name if link.is_symlink() else ""

    def tried(self) -> None:
        """Let the next release start on a copy."""
        with self._beside() as copy:
            self._copy(self.path, copy)
            readable = self._migrations(self.next)
            if not set(self._migrated(copy)) <= set(readable["known"]):
                self._take_back(copy, readable["heads"])
            owner = self.path.stat()
            command = ["systemd-run", "--quiet", "--wait", "--collect", "--pipe", f"--uid={owner.st_uid}"]
            command += [f"--gid={owner.st_gid}", "-p", "PrivateNetwork=yes", "-p", "NoNewPrivileges=yes"]
            command += [f"--setenv={name}={value}" for name, value in _environment(copy.parent, self._bin()).items()]
            seconds = self.module.params["timeout"]
            command += [str(self._bin() / "python"), "-I", "-c", _START, str(self._bin() / "flower-superlink")]
            self._run([*command, str(copy), str(seconds)], seconds + 60)

    def ready(self) -> dict[str, Any]:
        """Make the file one that the next release reads; with the SuperLink stopped."""
        result: dict[str, Any] = {"copy": "", "taken_back": False, "lost": [], "why_lost": ""}
        if self.active == self.next or not self.path.exists():
            return result
        readable = self._migrations(self.next)
        back = not set(self._migrated()) <= set(readable["known"])
        if self.module.check_mode:
            return result | {"taken_back": back}
        self.module.run_command(["systemctl", "stop", self.module.params["unit"]], check_rc=True)
        self.copies.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = self.copies / f"{self.active or 'none'}.db"
        self._copy(self.path, kept)
        result["copy"] = str(kept)
        if back:
            with self._beside() as work:
                try:
                    self._copy(kept, work)
                    self._take_back(work, readable["heads"])
                    result["taken_back"] = True
                except Failed as error:
                    result["why_lost"] = str(error)
                    result["lost"] = self._fall_back(kept, work)
                self._put(work)
        return result

    def _take_back(self, work: Path, heads: list[str]) -> None:
        before = self._counts(work)
        owner = self.path.stat()
        command = [str(self._bin(self.active) / "python"), "-I", "-c", _TAKE_BACK, str(work), json.dumps(heads)]
        self._run(command, 600, user=owner.st_uid, group=owner.st_gid, extra_groups=[])
        if sorted(self._migrated(work)) != sorted(heads) or self._counts(work) != before:
            raise Failed(f"after taking back the migrations of {self.active} the file differs: {self._counts(work)}")

    def _fall_back(self, newer: Path, work: Path) -> list[str]:
        """Take the copy that was made when the next release was left; the runs that it does not have."""
        older = self.copies / f"{self.next}.db"
        if not older.exists():
            raise Failed(
                f"release {self.next} does not read the database, {self.active} cannot take its migrations back, and "
                f"there is no copy {older}"
            )
        self._copy(older, work)
        gone = {row[0] for row in _ask(newer, _RUNS)} - {row[0] for row in _ask(work, _RUNS)}
        return sorted(str(int(run) % _ABOVE_ALL_IDS) for run in gone)  # SQLite has them as signed numbers

    def _put(self, work: Path) -> None:
        """Let `work` take the file's place, atomically; what SQLite wrote beside the old one goes with it."""
        with contextlib.closing(sqlite3.connect(work)) as database:
            database.execute("PRAGMA journal_mode=DELETE")
        for suffix in ("-wal", "-shm"):
            self.path.with_name(self.path.name + suffix).unlink(missing_ok=True)
        work.replace(self.path)

    def _copy(self, source: Path, target: Path) -> None:
        """Copy as of one moment, whoever writes; the copy is whole or Failed is raised."""
        new = target.with_name(f".{target.name}.new")
        new.unlink(missing_ok=True)
        new.touch(mode=0o600)
        try:
            with (
                contextlib.closing(
                    sqlite3.connect(f"{source.resolve().as_uri()}?mode=rw", uri=True, timeout=30)
                ) as old,
                contextlib.closing(sqlite3.connect(new)) as copy,
            ):
                old.backup(copy)
                found = copy.execute("PRAGMA integrity_check").fetchone()[0]
        except sqlite3.Error as error:
            raise Failed(f"{source} cannot be copied: {error}") from None
        if found != "ok":
            raise Failed(f"{source} is damaged: {found}")
        owner = (self.path if target.parent != self.copies else self.copies).stat()
        os.chown(new, owner.st_uid, owner.st_gid)
        new.replace(target)

    @contextlib.contextmanager
    def _beside(self) -> Any:
        """A place on the file's own disk, for the SuperLink's user; gone afterwards."""
        owner = self.path.stat()
        with tempfile.TemporaryDirectory(prefix=".copy-", dir=self.path.parent) as folder:
            os.chown(folder, owner.st_uid, owner.st_gid)
            yield Path(folder) / "superlink.db"

    def _bin(self, ident: str = "") -> Path:
        return self.root / "releases" / (ident or self.next) / "bin"

    def _migrations(self, ident: str) -> dict[str, list[str]]:
        """The migrations that a release knows, and the latest of them."""
        nobody = {"user": "nobody", "group": "nogroup", "extra_groups": []}
        said = self._run([str(self._bin(ident) / "python"), "-I", "-c", _KNOWN], 300, **nobody)
        found: dict[str, list[str]] = json.loads(said.splitlines()[-1])
        return found

    def _migrated(self, path: Path | None = None) -> list[str]:
        return [str(row[0]) for row in _ask(path or self.path, "SELECT version_num FROM alembic_version")]

    @staticmethod
    def _counts(path: Path) -> dict[str, int]:
        return {table: int(_ask(path, f"SELECT count(*) FROM {table}")[0][0]) for table in _TABLES}  # noqa: S608 - ours

    def _run(self, command: list[str], seconds: float, **account: Any) -> str:
        environment = _environment(Path("/nonexistent"), self._bin())
        try:
            done = subprocess.run(
                command,
                check=False,
                capture_output=True,
                text=True,
                timeout=seconds,
                env=environment,
                cwd="/",
                **account,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Failed(f"{Path(command[0]).name}: {error}") from None
        if done.returncode:
            words = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
            raise Failed(" ".join(words[-3:])[-500:] or f"{Path(command[0]).name} ended with {done.returncode}")
        return done.stdout


def _environment(home: Path, programs: Path) -> dict[str, str]:
    return {
        "PATH": f"{programs}:/usr/bin:/bin",
        "HOME": str(home),
        "FLWR_HOME": str(home),
        "LANG": "C.UTF-8",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def _ask(path: Path, question: str) -> list[tuple[Any, ...]]:
    try:
        with contextlib.closing(
            sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=30)
        ) as database:
            return list(database.execute(question))
    except sqlite3.Error as error:
        raise Failed(f"{path}: {error}") from None


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["tried", "ready"], "required": True},
            "id": {"type": "str", "required": True},
            "root": {"type": "path", "default": "/opt/flower"},
            "path": {"type": "path", "default": "/var/lib/flower/superlink/superlink.db"},
            "copies": {"type": "path", "default": "/var/lib/flower/copies"},
            "unit": {"type": "str", "default": "flower-superlink.service"},
            "timeout": {"type": "int", "default": 180},
        },
        supports_check_mode=True,
    )
    database = Database(module)
    try:
        if module.params["state"] == "tried":
            if not module.check_mode and database.path.exists():
                database.tried()
            module.exit_json(changed=False)
        result = database.ready()
    except (Failed, OSError, shutil.Error) as error:
        module.fail_json(msg=f"the SuperLink's database and release {database.next}: {error}")
    if result["why_lost"]:
        module.warn(
            f"the database is the one of the time when {database.next} was left, since {database.active} could not "
            f"take back its migrations ({result['why_lost']}); {len(result['lost'])} runs are in {result['copy']} alone"
        )
    module.exit_json(changed=bool(result["taken_back"] or result["lost"] or result["why_lost"]), **result)


if __name__ == "__main__":
    main()
