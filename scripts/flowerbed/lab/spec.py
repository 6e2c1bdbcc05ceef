"""What a lab host is, and where on this machine its parts are."""

import ipaddress
import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flowerbed.errors import UsageError
from flowerbed.lab import network
from flowerbed.lab.system import DISKS, RUN

_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_MOST_WEIGHT = 10000
_PUBLIC_KEY = re.compile(r"(ssh-|ecdsa-|sk-)\S+ \S+( .*)?")


@dataclass(frozen=True)
class HostSpec:
    """What a lab host is.

    Attributes:
        federation: the federation's name; the hosts of one federation share a network.
        name: the host's name: lowercase letters, digits and inner hyphens, 32 characters at most.
        address: its IPv4 address, inside `network`.
        network: the federation's network as a CIDR.
        ssh_key: the public key that may log in as root, one line.
        keys_dir: folder of this machine that receives `<name>.pub`, the public half of the host's SSH key.
        data: folder of this machine that the host sees as /srv/hospital, or "" for an empty one.
        make_data: make that folder if it is missing, and remove it with the host if it is empty then.
        suite: the Debian suite.
        cpu_weight: its part of the processors beside others of its federation, 1 to 10000; a site has 100.
    """

    federation: str
    name: str
    address: str
    network: str
    ssh_key: str
    keys_dir: str
    data: str = ""
    make_data: bool = False
    suite: str = "bookworm"
    cpu_weight: int = 100

    @property
    def cidr(self) -> ipaddress.IPv4Network:
        """The federation's network."""
        return ipaddress.IPv4Network(self.network)

    @property
    def published_key(self) -> Path:
        """The file that tells this machine the host's SSH key."""
        return Path(self.keys_dir) / f"{self.name}.pub"


@dataclass(frozen=True)
class Places:
    """Where the parts of one host are; its disk outlives a reboot of this machine, the rest does not."""

    federation: str
    name: str

    def __post_init__(self) -> None:
        check_name("federation", self.federation)
        check_name("name", self.name)

    @property
    def disk(self) -> Path:
        """The host's disk and its spec."""
        return DISKS / self.federation / self.name

    @property
    def image(self) -> Path:
        """The file that the disk is in."""
        return self.disk / "disk.img"

    @property
    def files(self) -> Path:
        """The disk, mounted."""
        return self.disk / "files"

    @property
    def spec_file(self) -> Path:
        """The host's spec and its base image, as JSON."""
        return self.disk / "host.json"

    @property
    def running(self) -> Path:
        """What exists only while the host is on: its root file system, its console's log, its process id."""
        return RUN / self.federation / "hosts" / self.name

    @property
    def machine(self) -> str:
        """A name that is unique on this machine and short enough for nspawn's interface `vb-<machine>`."""
        return f"{self.name[:6].strip('-')}-{network.digest(f'{self.federation}/{self.name}', 5)}"

    @property
    def interface(self) -> str:
        """The host's interface on the federation's bridge."""
        return f"vb-{self.machine}"

    @property
    def unit(self) -> str:
        """The systemd unit that holds the host where this machine's PID 1 is systemd."""
        return f"flowerbed-lab-{self.machine}.service"


def check_name(key: str, value: str) -> None:
    """Raise UsageError if a value is no host name: names become parts of paths that are removed."""
    if not _NAME.fullmatch(value):
        raise UsageError(f"{key} {value!r} is no host name: lowercase letters, digits and inner hyphens, 32 at most")


def check(spec: HostSpec) -> None:
    """Raise UsageError, naming the key and the value, if a host cannot be made from the spec."""
    check_name("federation", spec.federation)
    check_name("name", spec.name)
    try:
        cidr = spec.cidr
    except ValueError as error:
        raise UsageError(f"network {spec.network!r} is no IPv4 network: {error}") from None
    try:
        address = ipaddress.IPv4Address(spec.address)
    except ValueError:
        raise UsageError(f"address {spec.address!r} of host {spec.name} is no IPv4 address") from None
    reserved = (cidr.network_address, network.gateway_address(cidr), cidr.broadcast_address)
    if address not in cidr or address in reserved:
        raise UsageError(f"address {address} of host {spec.name} is no free host address of network {cidr}")
    data = Path(spec.data)
    if spec.data and not (data.is_absolute() and (data.is_dir() or (spec.make_data and not data.exists()))):
        raise UsageError(f"data {spec.data!r} of host {spec.name} is no folder (give an absolute path)")
    if not _PUBLIC_KEY.fullmatch(spec.ssh_key):
        raise UsageError(f"the SSH key of host {spec.name} is no public key line")
    if not 1 <= spec.cpu_weight <= _MOST_WEIGHT:
        raise UsageError(f"cpu_weight {spec.cpu_weight} of host {spec.name} is not from 1 to {_MOST_WEIGHT}")
    for name in names(spec.federation):
        other = read(spec.federation, name)
        if other is not None and name != spec.name and other.address == spec.address:
            raise UsageError(f"address {spec.address} of host {spec.name} is taken by host {name}")


def names(federation: str) -> list[str]:
    """Return the names of the federation's hosts, on or off, sorted."""
    check_name("federation", federation)
    return sorted(path.name for path in (DISKS / federation).glob("*") if path.is_dir())


def write(spec: HostSpec, image: Path) -> None:
    """Note the spec and the base image beside the host's disk."""
    places = Places(spec.federation, spec.name)
    places.disk.mkdir(parents=True, mode=0o700)
    places.spec_file.write_text(json.dumps(asdict(spec) | {"image": str(image)}))


def read(federation: str, name: str) -> HostSpec | None:
    """Return a host's spec, or None if there is no such host."""
    values = _read(federation, name)
    values.pop("image", None)
    return HostSpec(**values) if values else None


def image_of(federation: str, name: str) -> Path:
    """Return the base image that a host's disk lies on."""
    return Path(_read(federation, name)["image"])


def known(federation: str, name: str) -> HostSpec:
    """Return a host's spec, or raise UsageError with the names that exist."""
    spec = read(federation, name)
    if spec is None:
        there = ", ".join(names(federation)) or "none"
        raise UsageError(f"federation {federation} has no lab host {name} (hosts: {there})")
    return spec


def _read(federation: str, name: str) -> dict[str, Any]:
    try:
        values: dict[str, Any] = json.loads(Places(federation, name).spec_file.read_text())
    except (
        FileNotFoundError,
        json.JSONDecodeError,
    ):  # a creation that was killed leaves a host without a spec
        return {}
    return values
