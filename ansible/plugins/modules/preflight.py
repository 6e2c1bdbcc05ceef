# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Looks at a host before anything is changed on it, and names every problem with its remedy."""

from __future__ import annotations

DOCUMENTATION = r"""
module: preflight
short_description: Look at a host before anything is changed on it
version_added: "0.1.0"
description:
  - Checks what a role needs from a host and changes nothing.
  - Fails with every problem at once; each names the thing, the variable and the remedy.
options:
  clock:
    description:
      - The controller's time in seconds since the epoch.
      - Node authentication signs timestamps, so the clocks must agree within I(clock_tolerance).
    type: float
  clock_tolerance:
    description: How many seconds the clocks may differ.
    type: float
    default: 120
  disk_gb:
    description: How much must be free below C(/opt) and C(/var/lib), in gigabytes.
    type: float
    default: 2
  ports:
    description: TCP ports that the role's services will listen on; each must be free or held by its service.
    type: list
    elements: dict
    default: []
    suboptions:
      port:
        description: The port.
        type: int
        required: true
      unit:
        description: The unit that may hold it already.
        type: str
        required: true
      variable:
        description: The variable that chooses another port.
        type: str
        required: true
  programs:
    description: Programs that must exist, with the Debian package that brings each; reported in C(packages).
    type: dict
    default: {}
  folders:
    description: Folders that must exist and be readable by a service that is neither root nor their owner.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path.
        type: path
        required: true
      group:
        description: A group through which the service reads; empty for what everybody may read.
        type: str
        default: ""
      group_variable:
        description: The variable that names such a group; empty where there is none.
        type: str
        default: ""
      variable:
        description: The variable that names the folder.
        type: str
        required: true
  connect:
    description: Addresses that must accept a TCP connection from this host.
    type: list
    elements: dict
    default: []
    suboptions:
      address:
        description: Name or address, and port, as C(host:port).
        type: str
        required: true
      variable:
        description: The variable that names it.
        type: str
        required: true
  limits:
    description:
      - The most memory of the unit that runs apps, as systemd writes it (V(8G), V(80%)).
      - The module then tries whether this host enforces such limits, with a unit that breaks them, and warns where not.
    type: str
    default: ""
  resolve:
    description: A name that the host must be able to resolve, or an address; its addresses are returned.
    type: str
    default: ""
attributes:
  check_mode:
    support: full
    description: The module never changes anything.
author:
  - The Flowerbed authors (@flowerbed)
"""

EXAMPLES = r"""
- name: Look before anything is changed
  flowerbed.federation.preflight:
    clock: "{{ lookup('pipe', 'date +%s') }}"
    ports:
      - port: 9094
        unit: flower-supernode.service
        variable: supernode_port
    folders:
      - path: /srv/hospital
        variable: supernode_data_path
"""

RETURN = r"""
packages:
  description: The Debian packages whose programs the host lacks.
  type: list
  elements: str
  returned: always
  sample: [nftables]
addresses:
  description: The addresses of I(resolve).
  type: list
  elements: str
  returned: always
  sample: ["203.0.113.7"]
unenforced:
  description: The limits of units that have no effect on this host; empty where I(limits) is.
  type: list
  elements: str
  returned: always
  sample: [MemoryMax, TasksMax, CPUQuota]
limit_bytes:
  description: I(limits) in bytes.
  type: int
  returned: always
  sample: 8589934592
"""

import grp
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

_PYTHON = (3, 11)
_SYSTEMD = 252
_CONNECT_SECONDS = 5
_LIMITS = ("CPUQuota", "TasksMax", "MemoryMax")
# Breaks one limit after the other and says which did not stop it; memory comes last, since it ends the program.
_BREAK_LIMITS = r"""
import pathlib, threading, time
print("ran", flush=True)
while time.process_time() < 0.1:
    pass
group = next((line[3:] for line in pathlib.Path("/proc/self/cgroup").read_text().split() if line[:3] == "0::"), "")
stat = pathlib.Path("/sys/fs/cgroup" + group, "cpu.stat")
counted = stat.read_text().split() if stat.exists() else []
throttled = "nr_throttled" in counted and int(counted[counted.index("nr_throttled") + 1])
print("" if throttled else "CPUQuota", flush=True)
ended = threading.Event()
try:
    for _ in range(16):
        threading.Thread(target=ended.wait).start()
    print("TasksMax", flush=True)
except RuntimeError:
    pass
ended.set()
memory = b"x" * (128 << 20)
print("MemoryMax", flush=True)
"""
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_PROGRAM_FOLDERS = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def system_problems() -> list[str]:
    """Systemd and Python are recent enough, and the module runs as root."""
    problems = []
    if os.geteuid() != 0:
        problems.append("not root: set ansible_user=root or ansible_become=true for this host")
    if not Path("/run/systemd/system").is_dir():
        problems.append("systemd does not run here: Flowerbed needs a machine with systemd as its first process")
    else:
        first = subprocess.run(["systemctl", "--version"], capture_output=True, text=True, check=False).stdout
        version = int(first.split()[1].split(".")[0]) if first else 0
        if version < _SYSTEMD:
            problems.append(f"systemd {version} is too old: install Debian 12, Ubuntu 24.04 or later")
    if sys.version_info < _PYTHON:
        found = f"{sys.version_info[0]}.{sys.version_info[1]}"
        problems.append(f"python3 is {found}: Flower needs 3.11 or later, set ansible_python_interpreter to one")
    return problems


def clock_problems(reference: float | None, tolerance: float) -> list[str]:
    """The host's clock agrees with the controller's."""
    if reference is None:
        return []
    off = time.time() - reference
    if abs(off) <= tolerance:
        return []
    return [f"the clock is {off:+.0f} s off the operator's: set the time and enable systemd-timesyncd"]


def disk_problems(needed_gb: float) -> list[str]:
    """There is room for a release and its state."""
    problems = []
    for folder in ("/opt", "/var/lib"):
        free = shutil.disk_usage(folder).free / 1e9
        if free < needed_gb:
            problems.append(f"{folder} has {free:.1f} GB free and needs {needed_gb:g} GB: make room")
    return problems


def port_problems(ports: list[dict[str, Any]]) -> list[str]:
    """Each port is free, or held by the service that it is for."""
    problems = []
    for entry in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", entry["port"]))  # noqa: S104 - bound for a moment, never listened on
            except OSError:
                if _held_by(entry["port"], entry["unit"]):
                    continue
                problems.append(
                    f"port {entry['port']} is in use by another program: stop that program or set {entry['variable']}"
                )
    return problems


def folder_problems(folders: list[dict[str, Any]]) -> list[str]:
    """Each folder exists and a service can read it and everything directly in it."""
    problems = []
    for entry in folders:
        path = Path(entry["path"])
        if not path.is_dir():
            problems.append(f"{path} does not exist: make it or correct {entry['variable']}")
            continue
        unreadable = _unreadable(path, entry["group"])
        if unreadable:
            how = f"group '{entry['group']}'" if entry["group"] else "everybody"
            other = entry["group_variable"]
            other = f" or set {other} to the group that may read it" if other else ""
            problems.append(f"{unreadable} is not readable by {how}: change its permissions{other}")
    return problems


def resolve(name: str) -> list[str]:
    """The addresses of a name; none when the host cannot resolve it."""
    if not name:
        return []
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return sorted({str(entry[4][0]) for entry in found})


def connection_problems(targets: list[dict[str, Any]]) -> list[str]:
    """Each address answers; a name that cannot be resolved is told of elsewhere."""
    problems = []
    for entry in targets:
        host, _, port = entry["address"].rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
        except socket.gaierror:
            continue
        except OSError as error:
            problems.append(
                f"{entry['address']} does not answer from here ({error.strerror or error}): "
                f"open the way to it or correct {entry['variable']}"
            )
    return problems


def unenforced() -> list[str]:
    """The limits that a unit can break on this host, tried by one; all of them where none can be tried."""
    settings = ("CPUQuota=20%", "TasksMax=8", "MemoryMax=64M", "MemorySwapMax=0")
    command = ["systemd-run", "--quiet", "--wait", "--pipe", "--collect"]
    command += [word for setting in settings for word in ("--property", setting)]
    done = subprocess.run(
        [*command, sys.executable, "-I", "-S", "-c", _BREAK_LIMITS], capture_output=True, text=True, check=False
    )
    said = done.stdout.split()
    return [limit for limit in _LIMITS if limit in said or "ran" not in said]


def in_bytes(limit: str) -> int:
    """A limit of memory as systemd writes it, in bytes; 0 for what is none."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT%]?)", limit)
    if not found:
        return 0
    number = float(found[1])
    if found[2] == "%":
        return int(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") * number / 100)
    return int(number * _UNITS[found[2]])


def _held_by(port: int, unit: str) -> bool:
    """Whether one of the unit's own processes listens on the port."""
    command = ["ss", "--listening", "--tcp", "--numeric", "--processes", "--no-header", f"sport = :{port}"]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    for pid in re.findall(r"pid=(\d+)", listed):
        try:
            if f"/{unit}" in Path(f"/proc/{pid}/cgroup").read_text():
                return True
        except OSError:
            continue  # it ended meanwhile
    return False


def _unreadable(folder: Path, group: str) -> str:
    """Try as another user: permissions, ACLs and mounts all count, so only trying tells."""
    try:
        groups = [grp.getgrnam(group).gr_gid] if group else []
    except KeyError:
        return f"{folder} (group '{group}' does not exist)"
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        os.setgroups(groups)
        os.setgid(65534)
        os.setuid(65534)
        os.write(writer, _first_unreadable(folder).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        found = answer.read()
    os.waitpid(child, 0)
    return found


def _first_unreadable(folder: Path) -> str:
    if not os.access(folder, os.R_OK | os.X_OK):
        return str(folder)
    for entry in sorted(folder.iterdir()):
        needed = os.R_OK | os.X_OK if entry.is_dir() else os.R_OK
        if not os.access(entry, needed):
            return str(entry)
    return ""


def main() -> None:
    """Look, and name everything that is wrong."""
    module = AnsibleModule(
        argument_spec={
            "clock": {"type": "float"},
            "clock_tolerance": {"type": "float", "default": 120},
            "disk_gb": {"type": "float", "default": 2},
            "ports": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "port": {"type": "int", "required": True},
                    "unit": {"type": "str", "required": True},
                    "variable": {"type": "str", "required": True},
                },
            },
            "programs": {"type": "dict", "default": {}},
            "connect": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "address": {"type": "str", "required": True},
                    "variable": {"type": "str", "required": True},
                },
            },
            "resolve": {"type": "str", "default": ""},
            "limits": {"type": "str", "default": ""},
            "folders": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "options": {
                    "path": {"type": "path", "required": True},
                    "group": {"type": "str", "default": ""},
                    "group_variable": {"type": "str", "default": ""},
                    "variable": {"type": "str", "required": True},
                },
            },
        },
        supports_check_mode=True,
    )
    wanted = module.params
    addresses = resolve(wanted["resolve"])
    problems = [
        *system_problems(),
        *clock_problems(wanted["clock"], wanted["clock_tolerance"]),
        *disk_problems(wanted["disk_gb"]),
        *port_problems(wanted["ports"]),
        *folder_problems(wanted["folders"]),
        *connection_problems(wanted["connect"]),
    ]
    if wanted["resolve"] and not addresses:
        problems.append(f"{wanted['resolve']} cannot be resolved here: mend the host's DNS or name its addresses")
    if problems:
        module.fail_json(msg="; ".join(problems), problems=problems)
    missing = {
        package for program, package in wanted["programs"].items() if not shutil.which(program, path=_PROGRAM_FOLDERS)
    }
    broken = unenforced() if wanted["limits"] else []
    if broken:
        module.warn(
            f"this host does not enforce {', '.join(broken)}: an app can use up what the machine has. "
            "Give it cgroup controllers, or a machine of its own"
        )
    module.exit_json(
        changed=False,
        packages=sorted(missing),
        addresses=addresses,
        unenforced=broken,
        limit_bytes=in_bytes(wanted["limits"]),
    )


if __name__ == "__main__":
    main()
