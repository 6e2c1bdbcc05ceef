"""Runs on a host, as root, with Python's standard library alone: one hash over all that the roles would look at there.

Sent as text, so that nothing has to be installed for it. It changes nothing. Prints one JSON document: `fingerprint`,
and `sites`, which on a coordinator says of each registered site whether the SuperLink sees it online (null elsewhere,
and where sites prove no key).
"""

import contextlib
import grp
import hashlib
import json
import pwd
import re
import shlex
import shutil
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

CONFIGURATION = Path("/etc/flower")
PROGRAMS = Path("/opt/flower")
STATE = Path("/var/lib/flower")
UNITS = Path("/etc/systemd/system")
DATABASE = STATE / "superlink" / "superlink.db"
# Of what is in the folder of the state: all else comes and goes with the work.
_OF_THE_STATE = ("made.json", "nodes.json", "firewall.table")
_BIND = re.compile(r"^Bind(?:ReadOnly)?Paths=(.*)$", re.MULTILINE)
_DEVICE = re.compile(r"^DeviceAllow=(/\S+)", re.MULTILINE)
_PACKAGES = ("nft", "nginx", "openssl", "prometheus", "prometheus-node-exporter", "prometheus-blackbox-exporter")
_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
_ENOUGH_BYTES = 2e9
_LOOPBACK = re.compile(r"^(127\.|\[?::1\]?$)")


def main() -> None:
    """Print what there is."""
    digest = hashlib.sha256()
    for part in (files, users, units, tables, listeners, programs, registered):
        for line in part():
            digest.update(line.encode(errors="surrogateescape") + b"\n")
    print(json.dumps({"fingerprint": digest.hexdigest(), "sites": sites()}))


def files() -> Iterator[str]:
    """Each file and folder that was described, with its owner, mode and content, and what an app may read."""
    made = json.loads((STATE / "made.json").read_text())
    own = {*UNITS.glob("flower-*"), *UNITS.glob("flower-*.d/*")}
    for path in sorted({*(Path(path) for kind in ("files", "replaced", "directories") for path in made[kind]), *own}):
        yield _of(path)
    for tree in (CONFIGURATION, PROGRAMS):
        yield from _tree(tree)
    yield from (_of(path) for path in sorted(STATE.glob("*")) if path.is_dir() or path.name in _OF_THE_STATE)
    for release in sorted(path for path in PROGRAMS.glob("releases/*") if path.is_dir()):
        yield from (_owner(path) for path in sorted(release.iterdir()))
        for folder in (release / "bin", *release.glob("lib/python*/site-packages")):
            yield f"{folder} {sorted(path.name for path in folder.glob('*'))}"
        for path in (release / "release.lock", release / "release.json"):
            yield _of(path)
    texts = [path.read_text(errors="replace") for path in sorted(own) if path.is_file()]
    for path in sorted({Path(name) for text in texts for name in (*_bound(text), *_DEVICE.findall(text))}):
        yield from (_owner(each) for each in (path, *path.parents))
        # Of what is in it only of what kinds: data comes and goes.
        yield f"{sorted({_owner(each).partition(' ')[2] for each in path.glob('*') if not each.is_symlink()})}"
    yield f"{[shutil.disk_usage(place).free < _ENOUGH_BYTES for place in (PROGRAMS, STATE)]}"


def _bound(unit: str) -> Iterator[str]:
    """The hospital's folders that a unit's text names."""
    for line in _BIND.findall(unit):
        yield from (word.lstrip("-").split(":")[0] for word in shlex.split(line))


def _tree(folder: Path) -> Iterator[str]:
    for path in sorted(folder.glob("*")):
        yield _of(path)
        if path.is_dir() and not path.is_symlink() and path.name != "__pycache__" and path != PROGRAMS / "releases":
            yield from _tree(path)


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
    try:
        content = hashlib.sha256(path.read_bytes()).hexdigest()
        # A file that was changed and changed back may be read otherwise by what runs.
        return f"{_owner(path)} {path.stat().st_mtime_ns} {content}"
    except OSError as error:
        return f"{path} {error.errno}"


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
    listed = _run(["nft", "list", "tables"])
    for line in sorted(line for line in listed.splitlines() if "flower" in line):
        yield _run(["nft", "--stateless", "list", *line.split()])


def listeners() -> Iterator[str]:
    """What the host serves to others: the firewall's rules follow it, and a new service is to be told."""
    first_own = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found = set()
    for line in _run(["ss", "-H", "--listening", "--numeric", "--processes", "--tcp", "--udp"]).splitlines():
        kind, address = line.split()[0], line.split()[4]
        host, _, port = address.rpartition(":")
        if _LOOPBACK.match(host.split("%")[0]) or (kind == "udp" and int(port) >= first_own):
            continue
        program = re.search(r'\(\("([^"]+)"', line)
        found.add(f"{kind} {port} {program[1] if program else ''}")
    yield from sorted(found)
    yield _run(["systemctl", "show", "--property=ActiveState,Listen", "ssh.socket"])


def programs() -> Iterator[str]:
    """Which of the programs are there that the roles bring."""
    yield f"{[name for name in _PACKAGES if shutil.which(name, path=_PATH)]}"


def _run(command: list[str]) -> str:
    program = shutil.which(command[0], path=_PATH)
    if program is None:
        return ""
    environment = {"PATH": _PATH, "LC_ALL": "C"}
    done = subprocess.run([program, *command[1:]], env=environment, capture_output=True, text=True, check=False)
    return done.stdout


def registered() -> Iterator[str]:
    """The nodes that the SuperLink lets in, where this is the coordinator."""
    yield f"{sorted(node for node, _, status in _nodes() if status not in ('unregistered', 'deleted'))}"


def sites() -> "dict[str, bool] | None":
    """The sites of the record, and whether each is online."""
    unit = UNITS / "flower-superlink.service"
    if not unit.is_file() or "--enable-supernode-auth" not in unit.read_text():
        return None
    record, now = STATE / "nodes.json", time.time()
    known = json.loads(record.read_text()) if record.is_file() else {}
    online = {str(node % 2**64) for node, until, status in _nodes() if status == "online" and (until or 0) > now}
    return {name: str(node["node_id"]) in online for name, node in known.items()}


def _nodes() -> "list[tuple[int, float | None, str]]":
    if not DATABASE.is_file():
        return []
    with contextlib.closing(sqlite3.connect(f"{DATABASE.as_uri()}?mode=ro", uri=True, timeout=10)) as database:
        return database.execute("SELECT node_id, online_until, status FROM node").fetchall()


if __name__ == "__main__":
    main()
