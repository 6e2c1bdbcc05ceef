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
  - Fails with every problem at once that stands in the way of a change; each names the thing, the variable and the
    remedy. A problem that the change itself may mend, or that keeps nobody from it, is a warning.
options:
  report:
    description: Return what was found instead of failing, so that the caller can go on looking.
    type: bool
    default: false
  python:
    description: The minor version that the host's release is made for, as V(3.11); empty where there is none.
    type: str
    default: ""
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
  memory_gb:
    description: How much memory must be available, in gigabytes; with less than a quarter of it nothing would start.
    type: float
    default: 0.5
  shm_mb:
    description: The least size of C(/dev/shm), which Python needs between processes, in megabytes.
    type: int
    default: 16
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
  devices:
    description: Device files that apps use; each must exist.
    type: list
    elements: str
    default: []
  gateway:
    description: What answers where SuperNodes connect to, tried from this host with TLS; without it nothing is tried.
    type: dict
    suboptions:
      address:
        description: Name or address, and port, as C(host:port).
        type: str
        required: true
      ca:
        description: The authority's certificate as text; empty where there is none yet, or no TLS.
        type: str
        default: ""
      proxy:
        description: The proxy on the way, as C(http://[user:password@]host:port).
        type: str
        default: ""
      names:
        description: Names and addresses that the gateway's certificate has or will have; empty where nobody knows.
        type: list
        elements: str
        default: []
      certificate:
        description: sha256 of the certificate that the gateway itself has; empty where nobody knows.
        type: str
        default: ""
      serving:
        description: Whether the gateway listens there now; before its first start nobody answers, which is no problem.
        type: bool
        default: false
  certificate:
    description: A certificate of this host; its sha256 is returned.
    type: path
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
findings:
  description: Everything that was looked at.
  type: list
  elements: dict
  returned: always
  contains:
    check:
      description: What was looked at, in one word.
      type: str
    level:
      description: V(ok), V(note) for what one should know, or V(problem).
      type: str
    blocks:
      description: Whether a problem stands in the way of any change.
      type: bool
    what:
      description: What was found.
      type: str
    remedy:
      description: What mends it.
      type: str
problems:
  description: The findings that stand in the way, as texts with their remedies.
  type: list
  elements: str
  returned: always
serving:
  description: Whether all of I(ports) are held by their units.
  type: bool
  returned: always
certificate:
  description: sha256 of I(certificate) in hexadecimal; empty where there is none.
  type: str
  returned: always
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
import ipaddress
import os
import pwd
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flowerbed.federation.plugins.module_utils import look

_PYTHON = (3, 11)
_SYSTEMD = 252
_CONNECT_SECONDS = 5
_SHM = Path("/dev/shm")  # noqa: S108 - it is only measured
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


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    check: str
    level: str
    """`ok`, `note` for what one should know, or `problem`."""
    what: str
    remedy: str = ""
    blocks: bool = False
    """Whether a problem stands in the way of any change."""

    def told(self) -> str:
        """One line with the remedy."""
        return f"{self.what}: {self.remedy}" if self.remedy else self.what


def ok(check: str, what: str) -> Finding:
    """Nothing is to be done."""
    return Finding(check, "ok", what)


def note(check: str, what: str, remedy: str = "") -> Finding:
    """Something that one should know."""
    return Finding(check, "note", what, remedy)


def problem(check: str, what: str, remedy: str, *, blocks: bool = True) -> Finding:
    """Something that must be mended."""
    return Finding(check, "problem", what, remedy, blocks)


def system(python: str) -> Iterator[Finding]:
    """Systemd and Python are recent enough, and the module runs as root."""
    if os.geteuid() != 0:
        yield problem("root", "not root", "set ansible_user=root or ansible_become=true for this host")
    if not Path("/run/systemd/system").is_dir():
        remedy = "Flowerbed needs a machine with systemd as its first process"
        yield problem("systemd", "systemd does not run here", remedy)
    else:
        first = subprocess.run(["systemctl", "--version"], capture_output=True, text=True, check=False).stdout
        version = int(first.split()[1].split(".")[0]) if first else 0
        if version < _SYSTEMD:
            yield problem("systemd", f"systemd {version} is too old", "install Debian 12, Ubuntu 24.04 or later")
        else:
            yield ok("systemd", f"systemd {version}")
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if sys.version_info < _PYTHON:
        remedy = "Flower needs 3.11 or later, set ansible_python_interpreter to one"
        yield problem("python", f"python3 is {here}", remedy)
    elif python and not shutil.which(f"python{python}", path=_PROGRAM_FOLDERS):
        remedy = f"set flowerbed_python to '{here}' for this host, or install python{python}"
        yield problem("python", f"python{python} is not installed, for which this host's release is made", remedy)
    else:
        yield ok("python", f"python3 is {here}")


def clock(reference: float | None, tolerance: float) -> Iterator[Finding]:
    """The host's clock agrees with the controller's."""
    if reference is None:
        return
    off = time.time() - reference
    if abs(off) <= tolerance:
        yield ok("clock", f"within {tolerance:.0f} s of the operator's")
    else:
        what = f"the clock is {off:+.0f} s off the operator's"
        yield problem("clock", what, "set the time and enable systemd-timesyncd")


def disk(needed_gb: float) -> Iterator[Finding]:
    """There is room for a release and its state."""
    for folder in ("/opt", "/var/lib"):
        free = shutil.disk_usage(folder).free / 1e9
        if free < needed_gb:
            yield problem("disk", f"{folder} has {free:.1f} GB free and needs {needed_gb:g} GB", "make room")
        else:
            yield ok("disk", f"{folder} has {free:.1f} GB free")


def memory(needed_gb: float) -> Iterator[Finding]:
    """There is memory for the services."""
    found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    free = int(found[1]) * 1024 / 1e9 if found else 0.0
    what = f"{free:.1f} GB of memory are available"
    if free < needed_gb:
        remedy = "end other programs, or give the machine more memory"
        what += f", the services need {needed_gb:g} GB"
        yield problem("memory", what, remedy, blocks=free < needed_gb / 4)
    else:
        yield ok("memory", what)


def shared_memory(needed_mb: int) -> Iterator[Finding]:
    """The folder for shared memory is there and large enough."""
    size = os.statvfs(_SHM).f_blocks * os.statvfs(_SHM).f_frsize / 1e6 if _SHM.is_dir() else 0.0
    if size < needed_mb:
        remedy = f"`mount -o remount,size={max(needed_mb, 64)}M {_SHM}`, and the same in /etc/fstab"
        yield problem("shm", f"{_SHM} has {size:.0f} MB and Python needs {needed_mb} MB there", remedy)
    else:
        yield ok("shm", f"{_SHM} has {size:.0f} MB")


def confinement() -> Iterator[Finding]:
    """SELinux and AppArmor may refuse what permissions allow."""
    enforce = Path("/sys/fs/selinux/enforce")
    if enforce.exists() and enforce.read_text().strip() == "1":
        remedy = "`restorecon -R /opt/flower /etc/flower /var/lib/flower`, and `ausearch -m avc` names what is denied"
        yield note("confinement", "SELinux enforces its policy on the services", remedy)
    profiles = Path("/sys/kernel/security/apparmor/profiles")
    try:
        enforced = [line for line in profiles.read_text().splitlines() if line.endswith("(enforce)")]
    except OSError:
        enforced = []
    confined = [line.split(" ")[0] for line in enforced if "nginx" in line or "python" in line or "flower" in line]
    if confined:
        remedy = "let these profiles read /etc/flower and write /run/flower-gateway, or `aa-complain` them"
        yield note("confinement", f"AppArmor confines {', '.join(confined)}", remedy)
    elif not enforce.exists():
        yield ok("confinement", "nothing but systemd confines the services")


def ports(wanted: list[dict[str, Any]]) -> Iterator[Finding]:
    """Each port is free, or held by the service that it is for."""
    for entry in wanted:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("0.0.0.0", entry["port"]))  # noqa: S104 - bound for a moment, never listened on
            except OSError:
                if _held_by(entry["port"], entry["unit"]):
                    yield ok("port", f"port {entry['port']} is held by {entry['unit']}")
                    continue
                what = f"port {entry['port']} is in use by another program"
                yield problem("port", what, f"stop that program or set {entry['variable']}")
                continue
        yield ok("port", f"port {entry['port']} is free")


def serving(wanted: list[dict[str, Any]]) -> bool:
    """Whether each port is held by its service."""
    return bool(wanted) and all(_held_by(entry["port"], entry["unit"]) for entry in wanted)


def folders(wanted: list[dict[str, Any]]) -> Iterator[Finding]:
    """Each folder exists and a service can read it and everything directly in it."""
    for entry in wanted:
        path = Path(entry["path"])
        if not path.is_dir():
            yield problem("data", f"{path} does not exist", f"make it or correct {entry['variable']}")
            continue
        unreadable = _unreadable(path, entry["group"])
        if unreadable:
            how = f"group '{entry['group']}'" if entry["group"] else "everybody"
            other = entry["group_variable"]
            other = f" or set {other} to the group that may read it" if other else ""
            yield problem("data", f"{unreadable} by {how}", f"change its permissions{other}")
        elif not any(path.iterdir()):
            yield note("data", f"{path} is empty", "is its disk mounted?")
        else:
            yield ok("data", f"{path} can be read")


def devices(wanted: list[str]) -> Iterator[Finding]:
    """Each device file is there."""
    for device in wanted:
        wrong = look.device_problem(device, "flower-app")
        # The user comes with the role, and its groups with the user.
        if wrong:
            remedy = "load its driver, or correct supernode_devices"
            yield problem("devices", f"{device} {wrong}", remedy, blocks=not Path(device).exists())
        else:
            yield ok("devices", f"{device} is there")


def resolve(name: str) -> list[str]:
    """The addresses of a name; none when the host cannot resolve it."""
    if not name:
        return []
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:
        return []
    return sorted({str(entry[4][0]) for entry in found})


def connections(targets: list[dict[str, Any]]) -> Iterator[Finding]:
    """Each address answers; a name that cannot be resolved is told of elsewhere."""
    for entry in targets:
        host, _, port = entry["address"].rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_SECONDS).close()
        except socket.gaierror:
            continue
        except OSError as error:
            what = f"{entry['address']} does not answer from here ({error.strerror or error})"
            yield problem("route", what, f"open the way to it or correct {entry['variable']}")
        else:
            yield ok("route", f"{entry['address']} answers")


def names(gateway: dict[str, Any]) -> Iterator[Finding]:
    """The gateway's certificate has the name by which this host calls it."""
    host = gateway["address"].rpartition(":")[0].strip("[]")
    if not any(_covers(name, host) for name in gateway["names"]):
        known = ", ".join(gateway["names"])
        remedy = "add it to gateway_dns_names, or to gateway_ip_addresses if it is an address"
        yield problem("names", f"the gateway's certificate is for {known} and not for {host}", remedy)
    else:
        yield ok("names", f"the gateway's certificate is for {host}")


def _covers(name: str, host: str) -> bool:
    """Whether a certificate with this name, which may be an address or begin with `*.`, is for the host."""
    try:
        return ipaddress.ip_address(name) == ipaddress.ip_address(host)
    except ValueError:
        name, host = name.lower(), host.lower()
        return name == host or (name.startswith("*.") and host.partition(".")[2] == name[2:])


def way(gateway: dict[str, Any]) -> Iterator[Finding]:
    """What answers where SuperNodes connect to: the gateway itself, nobody, or somebody on the way."""
    address = gateway["address"]
    seen = look.handshake(address, gateway["ca"], proxy=gateway["proxy"])
    if seen.ok:
        yield ok("route", f"{address} answers")
        yield ok("tls", f"the gateway itself answers at {address}")
    elif seen.kind == "untrusted" and seen.certificate != gateway["certificate"]:
        remedy = "have the gateway exempted from TLS inspection, or see who else has this address"
        yield problem("tls", seen.told, remedy)
    elif seen.kind in ("untrusted", "name", "expired", "tls"):
        yield problem("tls", seen.told, "`flowerbed up` renews it, if the clocks are right", blocks=False)
    elif seen.kind == "proxy":
        remedy = "have the proxy pass it on, or correct supernode_proxy, its user and password"
        yield problem("proxy", seen.told, remedy, blocks=False)
    elif seen.kind == "resolve":
        return  # told of elsewhere
    elif not gateway["serving"]:
        yield note("route", f"{seen.told}; the gateway does not run yet")
    else:
        remedy = "open the way to it in the firewalls between" + _proxy_hint(gateway["proxy"])
        yield problem("route", seen.told, remedy, blocks=False)


def _proxy_hint(proxy: str) -> str:
    """A proxy that this host uses for other things, where SuperNode does not know of it."""
    files = [Path("/etc/environment"), *Path("/etc/systemd/system.conf.d").glob("*.conf")]
    text = "\n".join(file.read_text(errors="replace") for file in files if file.is_file())
    found = re.search(r"https_proxy=[\"']?(?:http://)?(?:[^@\s\"']*@)?([^\s\"'/]+)", text, re.IGNORECASE)
    return f", or set supernode_proxy: this host uses the proxy {found[1]}" if found and not proxy else ""


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
    """Try as another user, since the one who will read it may not exist yet."""
    nobody = pwd.getpwnam("nobody")
    try:
        groups = [grp.getgrnam(group).gr_gid] if group else []
    except KeyError:
        return f"{folder} (group '{group}' does not exist)"
    found = look.as_user(nobody, groups, lambda: look.unreadable(folder))
    return f"{folder} does not answer and is not readable" if found is None else str(found)


def main() -> None:
    """Look, and name everything that is wrong."""
    module = AnsibleModule(
        argument_spec={
            "report": {"type": "bool", "default": False},
            "python": {"type": "str", "default": ""},
            "clock": {"type": "float"},
            "clock_tolerance": {"type": "float", "default": 120},
            "disk_gb": {"type": "float", "default": 2},
            "memory_gb": {"type": "float", "default": 0.5},
            "shm_mb": {"type": "int", "default": 16},
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
            "devices": {"type": "list", "elements": "str", "default": []},
            "gateway": {
                "type": "dict",
                "options": {
                    "address": {"type": "str", "required": True},
                    "ca": {"type": "str", "default": ""},
                    "proxy": {"type": "str", "default": "", "no_log": True},
                    "names": {"type": "list", "elements": "str", "default": []},
                    "certificate": {"type": "str", "default": ""},
                    "serving": {"type": "bool", "default": False},
                },
            },
            "certificate": {"type": "path"},
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
    gateway = wanted["gateway"]
    addresses = resolve(wanted["resolve"])
    findings = [
        *system(wanted["python"]),
        *clock(wanted["clock"], wanted["clock_tolerance"]),
        *disk(wanted["disk_gb"]),
        *memory(wanted["memory_gb"]),
        *shared_memory(wanted["shm_mb"]),
        *confinement(),
        *ports(wanted["ports"]),
        *folders(wanted["folders"]),
        *devices(wanted["devices"]),
        *connections(wanted["connect"]),
        *(names(gateway) if gateway and gateway["names"] else []),
        *(way(gateway) if gateway and gateway["ca"] else []),
    ]
    if wanted["resolve"] and not addresses:
        remedy = "mend the host's DNS or name its addresses"
        findings.append(problem("dns", f"{wanted['resolve']} cannot be resolved here", remedy))
    elif wanted["resolve"]:
        findings.append(ok("dns", f"{wanted['resolve']} is {', '.join(addresses)}"))
    problems = [one.told() for one in findings if one.blocks]
    broken = unenforced() if wanted["limits"] and not problems else []
    if broken:
        what = f"this host does not enforce {', '.join(broken)}: an app can use up what the machine has"
        findings.append(note("limits", what, "give it cgroup controllers, or a machine of its own"))
        module.warn(f"{what}. Give it cgroup controllers, or a machine of its own")
    elif wanted["limits"] and not problems:
        findings.append(ok("limits", "memory, processors and processes of apps are limited"))
    for one in findings:
        if one.level == "problem" and not one.blocks:
            module.warn(one.told())
    certificate = Path(wanted["certificate"]) if wanted["certificate"] else None
    found = {
        "findings": [asdict(one) for one in findings],
        "problems": problems,
        "packages": sorted({p for name, p in wanted["programs"].items() if not _installed(name)}),
        "addresses": addresses,
        "unenforced": broken,
        "limit_bytes": in_bytes(wanted["limits"]),
        "serving": serving(wanted["ports"]),
        "certificate": look.sha256_of(certificate) if certificate and certificate.is_file() else "",
    }
    if problems and not wanted["report"]:
        module.fail_json(msg="; ".join(problems), **found)
    module.exit_json(changed=False, **found)


def _installed(program: str) -> bool:
    return shutil.which(program, path=_PROGRAM_FOLDERS) is not None


if __name__ == "__main__":
    main()
