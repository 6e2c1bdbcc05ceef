"""Runs on a host, as root and with Python's standard library alone: one hash over all that Flowerbed described there.

Sent as text, so that nothing has to be installed for it. It changes nothing. Prints one JSON document: `fingerprint`,
and `offline`, the sites that the coordinator's SuperLink does not see online.
"""

import contextlib
import grp
import hashlib
import json
import pwd
import re
import shlex
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

CONFIGURATION = Path("/etc/flower")
PROGRAMS = Path("/opt/flower")
STATE = Path("/var/lib/flower")
UNITS = Path("/etc/systemd/system")
# What comes and goes with the work: only whose it is counts, and what each release holds at its top.
_SHALLOW = ("releases", "backups", "results", "superlink", "supernode")
_OF_THE_STATE = ("made.json", "nodes.json", "firewall.table")
_BIND = re.compile(r"^Bind(?:ReadOnly)?Paths=(.*)$", re.MULTILINE)


def main() -> None:
    """Print what there is."""
    digest = hashlib.sha256()
    for line in (*files(), *users(), *units(), *tables()):
        digest.update(line.encode(errors="surrogateescape") + b"\n")
    print(json.dumps({"fingerprint": digest.hexdigest(), "offline": offline()}))


def files() -> Iterator[str]:
    """Each file and folder that was described, with its owner, mode and content."""
    record = STATE / "made.json"
    made = json.loads(record.read_text())
    single = {Path(path) for path in (*made["files"], *made["replaced"])}
    units = {path for path in single if path.is_relative_to(UNITS)}
    bound = {Path(path) for unit in units if unit.is_file() for path in _bound(unit.read_text())}
    for path in sorted({*single, *(Path(path) for path in made["directories"])}):
        yield _of(path)
    for path in sorted(bound):
        yield _owner(path)
    for tree in (CONFIGURATION, PROGRAMS, STATE):
        yield from _tree(tree)
    for release in sorted(path for path in PROGRAMS.glob("releases/*") if path.is_dir()):
        yield from (_owner(path) for path in sorted(release.iterdir()))
        for folder in (release / "bin", *release.glob("lib/python*/site-packages")):
            yield f"{folder} {sorted(path.name for path in folder.glob('*'))}"
        for path in (release / "release.lock", release / "release.json"):
            yield _of(path)


def _bound(unit: str) -> Iterator[str]:
    """The hospital's folders that a unit's text names."""
    for line in _BIND.findall(unit):
        yield from (word.lstrip("-").split(":")[0] for word in shlex.split(line))


def _tree(folder: Path) -> Iterator[str]:
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if path.is_dir() and not path.is_symlink():
            yield _owner(path)
            if path.name != "__pycache__" and not (path.name in _SHALLOW and path.parent in (PROGRAMS, STATE)):
                yield from _tree(path)
        elif folder != STATE or path.name in _OF_THE_STATE:
            yield _of(path)


def _owner(path: Path) -> str:
    try:
        stat = path.lstat()
    except OSError as error:
        return f"{path} {error.errno}"
    target = path.readlink() if path.is_symlink() else ""
    return f"{path} {stat.st_mode:o} {stat.st_uid} {stat.st_gid} {target}"


def _of(path: Path) -> str:
    if path.is_symlink() or not path.is_file():
        return _owner(path)
    # A file that was changed and changed back may be read otherwise by what runs.
    return f"{_owner(path)} {path.stat().st_mtime_ns} {hashlib.sha256(path.read_bytes()).hexdigest()}"


def users() -> Iterator[str]:
    """Flower's users and the groups that they are in."""
    for user in sorted(pwd.getpwall()):
        if user.pw_name.startswith("flower-"):
            groups = sorted(group.gr_name for group in grp.getgrall() if user.pw_name in group.gr_mem)
            yield f"{':'.join(map(str, user))} {groups}"


def units() -> Iterator[str]:
    """The units that are to run, and whether they do; of others only that they failed."""
    wanted = sorted({link.name for link in UNITS.glob("*.wants/flower-*")} | {"systemd-journald.service"})
    shown = ("ActiveState", "UnitFileState", "NeedDaemonReload", "DropInPaths")
    for block in _blocks([*wanted], ["Id", *shown]):
        active = "active" if block["ActiveState"] in ("active", "reloading") else block["ActiveState"]
        yield f"{block['Id']} {active} {block['UnitFileState']} {block['NeedDaemonReload']}"
        yield from (_of(Path(path)) for path in shlex.split(block["DropInPaths"]))
    loaded = _run(["systemctl", "list-units", "--all", "--plain", "--no-legend", "--state=failed", "flower-*"])
    # A message's own unit that failed is the run's business.
    yield from sorted(line.split()[0] for line in loaded.splitlines() if line.strip() and "@" not in line.split()[0])
    stale = _blocks(["flower-*"], ["Id", "NeedDaemonReload"])
    yield f"{any(block['NeedDaemonReload'] == 'yes' for block in stale)}"


def _blocks(names: list[str], properties: list[str]) -> list[dict[str, str]]:
    said = _run(["systemctl", "show", f"--property={','.join(properties)}", *names])
    blocks = [dict(line.split("=", 1) for line in block.splitlines() if "=" in line) for block in said.split("\n\n")]
    return [block for block in blocks if block]


def tables() -> Iterator[str]:
    """The firewall rules that the kernel has of Flowerbed's."""
    listed = _run(["nft", "list", "tables"]) if Path("/usr/sbin/nft").exists() else ""
    for line in sorted(line for line in listed.splitlines() if "flower" in line):
        yield _run(["nft", "--stateless", "list", *line.split()])


def _run(command: list[str]) -> str:
    path = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    return subprocess.run(command, env=path, capture_output=True, text=True, check=False).stdout


def offline() -> list[str]:
    """The registered sites that are not online, where this is the coordinator."""
    record, database = STATE / "nodes.json", STATE / "superlink" / "superlink.db"
    if not record.exists() or not database.exists():
        return []
    with contextlib.closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=10)) as open_database:
        online = {
            str(int(node) % 2**64)
            for node, until in open_database.execute("SELECT node_id, online_until FROM node WHERE status = 'online'")
            if (until or 0) > time.time()
        }
    nodes = json.loads(record.read_text())
    return sorted(name for name, node in nodes.items() if str(node["node_id"]) not in online)


if __name__ == "__main__":
    main()
