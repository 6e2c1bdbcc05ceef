"""Which hosts were monitored before, so that one that is taken out of the group is watched no more."""

import json
from pathlib import Path

from flowerbed import inventory
from flowerbed.federation import FederationFolder


def no_longer(federation: FederationFolder, hosts: inventory.Hosts) -> list[str]:
    """The hosts that were monitored when `remember` was last called, and are not any more."""
    file = _file(federation)
    before = json.loads(file.read_text()) if file.exists() else []
    there = {hosts.coordinator.name, *hosts.sites}
    return [name for name in before if name in there and name not in hosts.monitoring]


def remember(federation: FederationFolder, hosts: inventory.Hosts) -> None:
    """Note which hosts are monitored now."""
    if hosts.monitoring or _file(federation).exists():
        inventory.replace_file(_file(federation), json.dumps(hosts.monitoring) + "\n")


def _file(federation: FederationFolder) -> Path:
    return federation.state / "monitored.json"
