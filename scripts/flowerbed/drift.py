"""Drift: what has come to differ from what was declared, in machines, on hosts and in registrations."""

import difflib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

from flowerbed import control, hosts, inventory, joining, machines, revocation, runs, ssh
from flowerbed.console import Steps
from flowerbed.errors import WorkFailed
from flowerbed.federation import FederationFolder

_AT_ONCE = 16
_GONE = ("unregistered", "deleted")
_KEY = "/etc/flower/supernode/node_key.pub"


@dataclass(frozen=True)
class Difference:
    """One thing that is otherwise than declared."""

    name: str
    """Of the machine, the host, or the site."""
    what: str
    lines: tuple[str, ...] = ()
    """What is there and what should be, as a unified diff; never a secret."""


@dataclass
class Drift:
    """All that differs."""

    federation: str
    machines: list[Difference] = field(default_factory=list)
    hosts: list[Difference] = field(default_factory=list)
    registrations: list[Difference] = field(default_factory=list)
    unknown: dict[str, str] = field(default_factory=dict)
    """What could not be looked at, and why: a host's name, or `registrations`."""

    @property
    def clean(self) -> bool:
        """Whether everything was looked at and nothing differs."""
        return not (self.machines or self.hosts or self.registrations or self.unknown)

    def to_json(self) -> dict[str, Any]:
        """One JSON document."""
        return {**asdict(self), "clean": self.clean}


def look(federation: FederationFolder, steps: Steps) -> Drift:
    """Compare machines with Terraform, hosts with the roles, and registrations with the inventory; changes nothing.

    A host that does not answer is part of the answer, as unknown. Raises UsageError for a federation that was never
    brought up, and FlowerbedError where Terraform or Ansible cannot be run.
    """
    known = inventory.read(federation)
    drift = Drift(federation.name)
    with steps.step("machines") as step:
        drift.machines = [Difference(name, what) for name, what in machines.drift(federation)]
        step.result = _count(drift.machines)
    with steps.step("hosts") as step:
        keys = _reach(federation, known, drift)
        _compare_hosts(federation, known, drift, step.now)
        step.result = _count(drift.hosts)
    with steps.step("registrations") as step:
        if known.coordinator.name in drift.unknown:
            drift.unknown["registrations"] = f"{known.coordinator.name} was not looked at"
        else:
            _compare_registrations(federation, known, keys, drift)
        step.result = _count(drift.registrations)
    return drift


def _count(found: list[Difference]) -> str:
    return f"{len(found)} differences" if len(found) != 1 else "1 difference"


def _reach(federation: FederationFolder, known: inventory.Hosts, drift: Drift) -> dict[str, str]:
    """Note who does not answer; returns the public key of each site that does."""

    def ask(host: inventory.Host) -> tuple[str, str, str]:
        try:
            said = ssh.Shell(federation, host).run(["sh", "-c", f"cat {_KEY} 2>/dev/null || true"])
        except WorkFailed as error:
            return host.name, "", str(error)
        return host.name, " ".join(said.split()[:2]), ""

    keys = {}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for name, key, silence in pool.map(ask, (known.coordinator, *known.sites.values())):
            if silence:
                drift.unknown[name] = silence
            else:
                keys[name] = key
    return keys


def _compare_hosts(
    federation: FederationFolder, known: inventory.Hosts, drift: Drift, on_step: Callable[[str], None]
) -> None:
    """Let the roles say what they would change; a host on which they fail is told, and the others are asked again."""
    names = [known.coordinator.name, *known.sites]
    while reached := [name for name in names if name not in drift.unknown]:
        outcome = hosts.play(
            federation,
            "site.yml",
            check=True,
            limit=reached,
            variables={"_common_verify": True},
            skip=["registration"],
            tolerate=True,
            on_step=on_step,
        )
        # One host that fails may end the play for all: the others are asked again, without it.
        drift.unknown |= outcome.failures
        found = _differences(outcome)
        drift.hosts += [one for one in found if not outcome.failures or one.name in outcome.failures]
        if not outcome.failures:
            drift.hosts.sort(key=lambda one: (one.name, one.what))
            return


def _differences(outcome: hosts.Outcome) -> list[Difference]:
    found = []
    for change in outcome.changes:
        lines = tuple(line for one in change["diff"] for line in _lines(one))
        found.append(Difference(change["host"], change["task"].rpartition(" : ")[2], lines))
    return found


def _lines(diff: dict[str, Any]) -> list[str]:
    if diff.get("prepared"):
        return str(diff["prepared"]).splitlines()
    name = str(diff.get("after_header") or diff.get("before_header") or "")
    before, after = (str(diff.get(side) or "").splitlines() for side in ("before", "after"))
    return list(difflib.unified_diff(before, after, name, name, lineterm=""))


def _compare_registrations(
    federation: FederationFolder, known: inventory.Hosts, keys: dict[str, str], drift: Drift
) -> None:
    try:
        with control.open_way(federation) as way, runs.control(way.connection) as api:
            listed = {node.node_id for node in api.nodes() if node.status not in _GONE}
        record = control.record(federation)
    except WorkFailed as error:
        drift.unknown["registrations"] = str(error)
        return
    drift.registrations = compare_registrations(
        listed,
        record,
        {name: keys.get(name, "") for name in known.sites}
        | {name: one.public_key for name, one in joining.approved(federation).items()},
        {one.public_key: one.name for one in revocation.read(federation)},
    )


def compare_registrations(
    listed: set[str], record: dict[str, Any], sites: dict[str, str], revoked: dict[str, str]
) -> list[Difference]:
    """What differs between the SuperLink and the inventory.

    `listed` are the ids of the SuperLink's nodes; `record` is the coordinator's, by the sites' names; `sites` the
    public key of each site that belongs to the federation, empty where it is not known; `revoked` the names by their
    revoked keys.
    """
    found = []
    nodes_of = {name: [entry, *entry.get("others", [])] for name, entry in record.items()}
    for name, key in sites.items():
        nodes = [one for one in nodes_of.get(name, []) if str(one["node_id"]) in listed]
        out = not nodes and (key in revoked or (not key and name in revoked.values()))
        if not nodes and not out:
            found.append(Difference(name, "it is not registered"))
        elif nodes and key and key not in [one["public_key"] for one in nodes]:
            found.append(Difference(name, "another key is registered than it has"))
    for name, nodes in nodes_of.items():
        there = [one for one in nodes if str(one["node_id"]) in listed]
        if there and name not in sites:
            found.append(Difference(name, "it is registered and belongs to no entry of the inventory"))
        found += [Difference(name, "a revoked key is registered") for one in there if one["public_key"] in revoked]
    named = {str(one["node_id"]) for nodes in nodes_of.values() for one in nodes}
    found += [Difference(f"node {node}", "it is registered and nobody knows it") for node in sorted(listed - named)]
    return found
