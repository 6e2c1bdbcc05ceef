"""The sites of a simulation: the federation's own, with the node config that the role makes, or as many as asked."""

import json
import secrets
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from flowerbed import hosts, inventory
from flowerbed.errors import UsageError
from flowerbed.federation import FederationFolder
from flowerbed.lab import spec
from flowerbed.runs.flwr import ConfigValue

_DATA = "data-path"
_LABEL = "label-"


@dataclass(frozen=True)
class Site:
    """One simulated SuperNode."""

    name: str
    node_id: str
    """Made up; a simulated SuperNode lives as long as its run."""
    node_config: Mapping[str, ConfigValue]

    @property
    def labels(self) -> dict[str, str]:
        """Its labels, which the node config holds as `label-<key>`."""
        return {
            key.removeprefix(_LABEL): str(value) for key, value in self.node_config.items() if key.startswith(_LABEL)
        }


def of(federation: FederationFolder, data: Path | None) -> list[Site]:
    """The federation's sites, each with its node config and its data on this machine.

    A site's data are in the folder of its name under `data`; without `data`, where a lab's sites have theirs.
    Raises UsageError when there is no inventory yet, and for a site whose data are not here.
    """
    if not inventory.read(federation).sites:
        raise UsageError(f"{federation.hosts_file} has no sites: name some there, or ask for a number with --sites")
    return [_site(name, _with_data(federation, name, told, data)) for name, told in _told(federation).items()]


def made(federation: FederationFolder, count: int, data: Path | None) -> list[Site]:
    """As many sites as asked, site-1 and so on, by `partition-id` and `num-partitions`.

    The folders under `data`, or those of the lab's sites, are dealt out in turn; where there are none, no site has
    a `data-path`. Raises UsageError for fewer than one site, and a `data` without folders.
    """
    if count < 1:
        raise UsageError(f"--sites {count}: a simulation has one site or more")
    root = data or federation.data
    folders = sorted(folder.resolve() for folder in root.glob("*") if folder.is_dir())
    if data is not None and not folders:
        raise UsageError(f"--data {data} holds no folders: it needs one for each site")
    sites = []
    for index in range(count):
        name = f"site-{index + 1}"
        config: dict[str, ConfigValue] = {"site": name, "partition-id": index, "num-partitions": count}
        if folders:
            config[_DATA] = str(folders[index % len(folders)])
        sites.append(_site(name, config))
    return sites


def _site(name: str, config: Mapping[str, ConfigValue]) -> Site:
    return Site(name, str(secrets.randbits(62) + 2), config)  # 0 and 1 are Flower's own


def _told(federation: FederationFolder) -> dict[str, dict[str, ConfigValue]]:
    """What the role supernode tells each site's apps: the role itself says it."""
    with tempfile.TemporaryDirectory(prefix="flowerbed-sites-") as folder:
        out = Path(folder) / "node_config.json"
        hosts.play(federation, "node_config.yml", variables={"node_config_out": str(out)})
        told: dict[str, dict[str, ConfigValue]] = json.loads(out.read_text(encoding="utf-8"))
    return told


def _with_data(
    federation: FederationFolder, name: str, told: Mapping[str, ConfigValue], data: Path | None
) -> dict[str, ConfigValue]:
    """The node config with the site's folder of data as it is called on this machine."""
    if not told.get(_DATA):
        return dict(told)
    folder = data / name if data is not None else _lab_data(federation, name)
    if not folder.is_dir():
        remedy = "give --data with one folder for each site, by the site's name" if data is None else "make it"
        raise UsageError(f"{folder} does not exist, and {name} has data: {remedy}")
    return {**told, _DATA: str(folder.resolve())}


def _lab_data(federation: FederationFolder, name: str) -> Path:
    """Where a lab's site has its data: its host's spec says so while there is one."""
    platform = federation.platform_file
    there = spec.read(federation.name, name) if platform is not None and platform.stem == "lab" else None
    return Path(there.data) if there is not None and there.data else federation.data / name
