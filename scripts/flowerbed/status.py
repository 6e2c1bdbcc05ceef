"""What a federation is like right now: units, nodes, certificates, runs."""

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from flowerbed import control, inventory, joining, runs, ssh
from flowerbed.errors import WorkFailed
from flowerbed.federation import FederationFolder

_LATEST_RUNS = 5
_AT_ONCE = 16
WARN_DAYS = 30
ALARM_DAYS = 7


@dataclass(frozen=True)
class HostStatus:
    """One host."""

    name: str
    role: str
    """`coordinator` or `site`."""
    address: str
    units: dict[str, str] = field(default_factory=dict)
    """Flower's units on the host and their state, as systemd names it."""
    node: str = ""
    """A site's node as the SuperLink sees it: online, offline, registered, or unregistered."""
    certificate_days: int | None = None
    """Days until the first certificate on the host expires."""
    problem: str = ""
    warning: str = ""
    """What is no problem yet: a certificate that ends soon."""
    by_kit: bool = False
    """The site joined by kit: nobody but its hospital logs in there, so only its node is known."""

    @property
    def healthy(self) -> bool:
        """Whether the host answers and all its units run."""
        return not self.problem


@dataclass(frozen=True)
class Status:
    """A federation."""

    federation: str
    gateway: str
    """The endpoint that SuperNodes connect to, as address:port; empty where there is no gateway."""
    release: str
    hosts: list[HostStatus]
    runs: list[runs.RunInfo]

    @property
    def healthy(self) -> bool:
        """Whether every host is healthy and every site online."""
        return all(host.healthy and (host.role != "site" or host.node == "online") for host in self.hosts)

    def to_json(self) -> dict[str, Any]:
        """One JSON document."""
        return {**dataclasses.asdict(self), "healthy": self.healthy}


def look(federation: FederationFolder) -> Status:
    """Ask every host at once, and the SuperLink for nodes and runs.

    Raises WorkFailed when the coordinator does not answer; a site that does not is part of the answer.
    """
    hosts = inventory.read(federation)
    shells = [ssh.Shell(federation, host) for host in (hosts.coordinator, *hosts.sites.values())]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        answers = pool.map(_ask, shells)
        with control.open_way(federation) as way, runs.control(way.connection) as api:
            nodes = {node.node_id: node.status for node in api.nodes()}
            latest = api.runs(_LATEST_RUNS)
        found = list(answers)
    registered = way.deployed.sites
    statuses = [_host_status(shells[0].host, "coordinator", found[0], "")]
    for shell, answer in zip(shells[1:], found[1:], strict=True):
        node = nodes.get(registered.get(shell.host.name, ""), "unregistered")
        statuses.append(_host_status(shell.host, "site", answer, node))
    for name in joining.approved(federation):
        node = nodes.get(registered.get(name, ""), "unregistered")
        statuses.append(HostStatus(name=name, role="site", address="", node=node, by_kit=True))
    return Status(
        federation=federation.name,
        gateway=f"{hosts.coordinator.address}:{port}" if (port := found[0].get("gateway")) else "",
        release=way.deployed.release or "",
        hosts=statuses,
        runs=latest,
    )


def _ask(shell: ssh.Shell) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = json.loads(shell.run(["python3", "-c", _LOOK]))
    except WorkFailed as error:
        return {"problem": str(error)}
    except json.JSONDecodeError:
        return {"problem": "its answer cannot be read"}
    return answer


def _host_status(host: inventory.Host, role: str, answer: dict[str, Any], node: str) -> HostStatus:
    units: dict[str, str] = answer.get("units", {})
    broken = [f"{name} is {state}" for name, state in units.items() if state != "active"]
    problem = answer.get("problem") or ", ".join(broken) or ("" if units else "Flower is not installed")
    return HostStatus(
        name=host.name,
        role=role,
        address=host.address,
        units=units,
        node=node,
        certificate_days=answer.get("certificate_days"),
        problem=problem,
        warning=_warning(answer.get("certificate_days")),
    )


def _warning(days: int | None) -> str:
    if days is None or days > WARN_DAYS:
        return ""
    return "a certificate " + (f"ends in {days} days" if days > 0 else "has expired")


# Runs on a host with its own Python; prints one JSON document.
_LOOK = r"""
import json, pathlib, re, subprocess, time
units = {}
for path in sorted(pathlib.Path("/etc/systemd/system").glob("flower-*.*")):
    if "@" not in path.name and path.suffix in (".service", ".socket") and "[Install]" in path.read_text():
        state = subprocess.run(["systemctl", "is-active", path.name], capture_output=True, text=True).stdout.strip()
        units[path.name.removesuffix(".service")] = state
days = []
for path in pathlib.Path("/etc/flower").rglob("*.crt"):
    said = subprocess.run(["openssl", "x509", "-noout", "-enddate", "-in", str(path)], capture_output=True, text=True)
    found = re.search(r"notAfter=(.*) GMT", said.stdout)
    if found:
        end = time.mktime(time.strptime(found.group(1), "%b %d %H:%M:%S %Y")) - time.timezone
        days.append(int((end - time.time()) // 86400))
conf = pathlib.Path("/etc/flower/gateway/nginx.conf")
port = re.search(r"listen (\d+)", conf.read_text()) if conf.exists() else None
print(json.dumps({
    "units": units,
    "certificate_days": min(days) if days else None,
    "gateway": port.group(1) if port else "",
}))
"""
