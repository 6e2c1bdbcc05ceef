"""Contract 1: what a platform says about its machines, and the inventory that Ansible reads."""

import json
import os
import re
import tomllib
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from flowerbed import ssh_options
from flowerbed.errors import UsageError
from flowerbed.federation import DEFAULT_PYTHON, FederationFolder

SCHEMA = 1
Value = bool | int | float | str
HOST_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
TEMPLATE_MARKERS = ("{{", "{%", "{#")


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Instance(_Strict):
    """A machine's name in a cloud account."""

    id: str
    region: str


class Machine(_Strict):
    """A machine that Ansible can reach."""

    address: str = Field(min_length=1)
    port: int = Field(default=22, ge=1, le=65535)
    user: str = "root"
    host_key: str = ""
    instance: Instance | None = None
    session_manager: bool = False
    """The way in is the cloud's session manager: no port of the machine is open."""
    jump: str = ""
    """The host on the way, as [user@]host[:port]; empty where the machine answers directly."""
    python: str = Field(default=DEFAULT_PYTHON, pattern=r"^3\.\d+$")
    """The minor version of the machine's own Python, which its release is made for."""

    @field_validator("jump")
    @classmethod
    def _jump(cls, text: str) -> str:
        try:
            if text:
                ssh_options.parse_jump(text)
        except UsageError as error:
            raise ValueError(str(error)) from None
        return text


class Coordinator(Machine):
    """The machine with the SuperLink and the gateway."""

    name: str = "coordinator"


class Site(Machine):
    """A hospital's machine."""

    labels: dict[str, str] = {}
    node_config: dict[str, Value] = {}
    data_path: str = ""

    @field_validator("node_config")
    @classmethod
    def _typed(cls, values: dict[str, Value]) -> dict[str, Value]:
        return {key: _toml_value(value) for key, value in values.items()}


_M = TypeVar("_M", bound=Machine)


class Gateway(_Strict):
    """The federation's gateway, where the coordinator is another organisation's."""

    address: str = Field(min_length=1)
    port: int = Field(default=443, ge=1, le=65535)


class Inventory(_Strict):
    """A federation's machines, as Terraform's output `inventory` describes them.

    A hospital with a platform of its own has one site, and the gateway instead of the coordinator.
    """

    schema_version: int = Field(alias="schema")
    coordinator: Coordinator | None = None
    gateway: Gateway | None = None
    sites: dict[str, Site] = {}
    monitoring: list[str] = []
    """The names of the machines that are monitored."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.coordinator is None) == (self.gateway is None):
            raise ValueError("needs either the coordinator or the gateway")
        return self

    @property
    def machines(self) -> dict[str, Machine]:
        """Every machine by its name."""
        coordinator = {self.coordinator.name: self.coordinator} if self.coordinator else {}
        return {**coordinator, **self.sites}

    def with_host_keys(self, keys: Mapping[str, str]) -> "Inventory":
        """Return the inventory with these host keys, by the machines' names."""
        changes: dict[str, Any] = {
            "sites": {name: _with_key(site, keys.get(name)) for name, site in self.sites.items()}
        }
        if self.coordinator:
            changes["coordinator"] = _with_key(self.coordinator, keys.get(self.coordinator.name))
        return self.model_copy(update=changes)


def _with_key(machine: _M, key: str | None) -> _M:
    return machine.model_copy(update={"host_key": key}) if key else machine


def parse(output: Mapping[str, Any], source: str) -> Inventory:
    """Check a platform's output against the contract.

    `source` names where it came from, for the message. Raises UsageError with the key that is wrong.
    """
    marked = _find_marker(dict(output), source)
    if marked:
        raise UsageError(f"{marked} holds a template marker, which Ansible would run: remove it")
    try:
        inventory = Inventory.model_validate(output)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{source}: {key}: {first['msg'].lower()}") from None
    if inventory.schema_version != SCHEMA:
        raise UsageError(
            f"{source}: schema {inventory.schema_version} is not {SCHEMA}: use the platform of this version"
        )
    _check_names_and_addresses(inventory, source)
    return inventory


def ansible_form(inventory: Inventory, federation: str, removed: Collection[str] = ()) -> dict[str, Any]:
    """The inventory as Ansible reads it: groups are named after roles; sites in `removed` have no role any more."""
    coordinator, gateway = inventory.coordinator, inventory.gateway
    everyone = {name: _site_variables(site) for name, site in inventory.sites.items()}
    groups: dict[str, Any] = {"supernode": {"hosts": {n: one for n, one in everyone.items() if n not in removed}}}
    if out := {name: one for name, one in everyone.items() if name in removed}:
        groups["removed"] = {"hosts": out}
    if coordinator:
        groups["superlink"] = {"hosts": {coordinator.name: _machine_variables(coordinator)}}
        groups["gateway"] = {"hosts": {coordinator.name: {}}}
        groups["backup"] = {"hosts": {coordinator.name: {}}}
    if monitored := [name for name in inventory.monitoring if name not in removed]:
        groups["monitoring"] = {"hosts": {name: {} for name in monitored}}
    if gateway:
        groups["supernode"]["vars"] = {"supernode_gateway": f"{gateway.address}:{gateway.port}"}
    shared = {"flowerbed_schema": SCHEMA, "flowerbed_federation": federation}
    return {"all": {"vars": shared, "children": groups}}


def write(inventory: Inventory, federation: FederationFolder, removed: Collection[str] = ()) -> bool:
    """Write hosts.json and the pinned host keys, each as a whole; returns whether either changed.

    `removed` names sites that were removed while the platform still has their machines.
    """
    hosts = json.dumps(ansible_form(inventory, federation.name, removed), indent=2, sort_keys=True) + "\n"
    pinned = [machine for machine in inventory.machines.values() if machine.host_key]
    keys = "".join(f"{ssh_options.known_as(one.address, one.port)} {one.host_key}\n" for one in pinned)
    changed = replace_file(federation.hosts_file, hosts)
    if keys:
        changed = replace_file(federation.known_hosts, keys) or changed
    return changed


def replace_file(path: Path, content: str) -> bool:
    """Write a file as a whole or not at all; returns whether its content changed."""
    if path.exists() and path.read_text() == content:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f".{path.name}.{os.getpid()}")
    new.write_text(content)
    new.replace(path)
    return True


class Host(_Strict):
    """A host as the inventory file names it."""

    name: str
    address: str
    port: int = 22
    user: str = "root"
    jump: str = ""
    session: Instance | None = None
    """The instance that the cloud's session manager opens; without it the address answers."""
    python: str = DEFAULT_PYTHON
    labels: dict[str, str] = {}
    """A site's labels, where the inventory file itself has them."""


class Hosts(_Strict):
    """The hosts of a federation, read from its inventory file."""

    coordinator: Host
    sites: dict[str, Host]
    removed: dict[str, Host] = {}
    """Sites that were removed while the platform still has their machines."""
    monitoring: list[str] = []
    """The names of the hosts that are monitored."""

    @property
    def monitored(self) -> list[Host]:
        """The hosts that are monitored."""
        return [host for host in (self.coordinator, *self.sites.values()) if host.name in self.monitoring]

    @property
    def pythons(self) -> list[str]:
        """The Python versions of all hosts, the coordinator's first: each needs a release of its own."""
        return list(dict.fromkeys(host.python for host in (self.coordinator, *self.sites.values())))


def read(federation: FederationFolder) -> Hosts:
    """Read hosts.json or hosts.yml.

    Raises UsageError when the file is missing or does not have the groups of the contract.
    """
    file = federation.hosts_file
    if not file.exists():
        remedy = f"bring the federation up with `flowerbed up {federation.name}`"
        if federation.platform_file is None:
            remedy = "name the machines there, as inventories/existing/hosts.yml does"
        raise UsageError(f"{file} does not exist: {remedy}")
    try:
        everything = load(file.read_text())["all"]
        groups = everything["children"]
        ((coordinator, variables),) = groups["superlink"]["hosts"].items()
        supernode = groups.get("supernode") or {}
        sites = supernode.get("hosts") or {}
        shared = everything.get("vars") or {}
        of_superlink = shared | (groups["superlink"].get("vars") or {})
        of_sites = shared | (supernode.get("vars") or {})
        removed = (groups.get("removed") or {}).get("hosts") or {}
        return Hosts(
            coordinator=_host(coordinator, of_superlink | (variables or {})),
            sites={name: _host(name, of_sites | (values or {})) for name, values in sites.items()},
            removed={name: _host(name, of_sites | (values or {})) for name, values in removed.items()},
            monitoring=list((groups.get("monitoring") or {}).get("hosts") or {}),
        )
    except (yaml.YAMLError, KeyError, TypeError, ValueError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise UsageError(
            f"{file}: needs the groups superlink (one host) and supernode under all.children ({reason})"
        ) from None


def load(text: str) -> Any:
    """Read YAML as Ansible writes it: a value that is encrypted or not to be templated counts as text."""
    return yaml.load(text, Loader=Loader)  # noqa: S506 - a safe loader


class Loader(yaml.SafeLoader):
    """YAML's safe loader, with Ansible's own tags."""


for _tag in ("!vault", "!vault-encrypted", "!unsafe"):
    Loader.add_constructor(_tag, lambda loader, node: str(node.value))


def _host(name: str, variables: dict[str, Any]) -> Host:
    return Host(
        name=name,
        address=str(variables.get("ansible_host", name)),
        port=int(variables.get("ansible_port", 22)),
        user=str(variables.get("ansible_user", "root")),
        jump=str(variables.get("flowerbed_jump", "")),
        session=variables.get("flowerbed_session"),
        python=str(variables.get("flowerbed_python", DEFAULT_PYTHON)),
        labels={str(key): str(value) for key, value in (variables.get("supernode_labels") or {}).items()},
    )


def _toml_value(value: Value) -> Value:
    """Terraform's maps hold strings only: a string that is a TOML number or boolean becomes one."""
    if not isinstance(value, str):
        return value
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return value
    return parsed if isinstance(parsed, bool | int | float) else value


def _find_marker(value: Any, where: str) -> str:
    if isinstance(value, str):
        return where if any(marker in value for marker in TEMPLATE_MARKERS) else ""
    if isinstance(value, dict):
        for key, inner in value.items():
            found = _find_marker(str(key), f"{where}.{key}") or _find_marker(inner, f"{where}.{key}")
            if found:
                return found
    if isinstance(value, list):
        for index, inner in enumerate(value):
            found = _find_marker(inner, f"{where}[{index}]")
            if found:
                return found
    return ""


def _check_names_and_addresses(inventory: Inventory, source: str) -> None:
    machines = inventory.machines
    if inventory.coordinator and inventory.coordinator.name in inventory.sites:
        raise UsageError(f"{source}: the site '{inventory.coordinator.name}' bears the coordinator's name")
    for name in machines:
        if not HOST_NAME.fullmatch(name):
            raise UsageError(
                f"{source}: '{name}' is no host name: use lower-case letters, digits and dashes, 32 at most"
            )
    for name in inventory.monitoring:
        if name not in machines:
            raise UsageError(
                f"{source}: monitoring names '{name}', which is no machine: there are {', '.join(machines)}"
            )
    ways = Counter((machine.address, machine.port) for machine in machines.values())
    for (address, port), count in ways.items():
        if count > 1:
            names = " and ".join(sorted(n for n, m in machines.items() if (m.address, m.port) == (address, port)))
            raise UsageError(f"{source}: {names} have one address, {address}: give each its own")


def _machine_variables(machine: Machine) -> dict[str, Any]:
    variables: dict[str, Any] = {
        "ansible_host": machine.address,
        "ansible_port": machine.port,
        "ansible_user": machine.user,
    }
    if machine.jump:
        variables["flowerbed_jump"] = machine.jump
    if machine.session_manager and machine.instance:
        variables["flowerbed_session"] = machine.instance.model_dump()
    if machine.python != DEFAULT_PYTHON:
        variables["flowerbed_python"] = machine.python
    return variables


def _site_variables(site: Site) -> dict[str, Any]:
    variables = _machine_variables(site)
    variables["supernode_labels"] = site.labels
    variables["supernode_node_config"] = site.node_config
    if site.data_path:
        variables["supernode_data_path"] = site.data_path
    return variables
