"""Everything that is wrong in a federation's inventory, with file, line and key, before anything is changed.

`hosts.yml` and `hosts.json` are checked against contract 1, the variables in them and in `group_vars` and
`host_vars` against the roles' argument specs. Values with a template are Ansible's to judge, and stand in
`group_vars` and `host_vars` only.
"""

import difflib
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml

from flowerbed import custody, inventory, joining, kit, machines, ssh_options, variables
from flowerbed.errors import UsageError
from flowerbed.federation import FederationFolder
from flowerbed.inventory import HOST_NAME, TEMPLATE_MARKERS

GROUPS = ("superlink", "gateway", "backup", "supernode", "monitoring")
_RESERVED = {"all", "ungrouped", "localhost", *GROUPS}


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong; `line` is 0 where it is the file as a whole."""

    file: str
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        """One line, in the form that editors follow."""
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"

    def to_json(self) -> dict[str, Any]:
        """For the command line's --json."""
        return asdict(self)


def examine(federation: FederationFolder) -> list[Finding]:
    """Find everything that is wrong in a federation's inventory; changes nothing.

    Raises:
        UsageError: a federation without a platform has no hosts file.
        EnvironmentLacks: the federation has a platform, and there is no `terraform`.
        WorkFailed: Terraform could not look.
    """
    findings = []
    if federation.platform_file:
        try:
            machines.validate(federation)
        except UsageError as error:
            findings.append(_of_terraform(federation.platform_file, str(error)))
    elif not federation.hosts_file.exists():
        inventory.read(federation)
    return findings + examine_files(federation)


def examine_files(federation: FederationFolder) -> list[Finding]:
    """Find what is wrong in the files that Ansible reads."""
    hosts = _HostsFile(federation.hosts_file)
    remedy = f"is in git: {custody.remedy(federation)}"
    findings = [Finding(str(federation.path / secret), 0, "", remedy) for secret in custody.tracked(federation)]
    if federation.hosts_file.exists():
        findings += hosts.findings()
        if federation.platform_file is None:
            findings += _unpinned(federation, hosts)
    # Sites that join by kit may have variables too.
    by_kit = {one.site for one in kit.known(federation).values()} | set(joining.approved(federation))
    # A platform's new hosts are in no file yet, and hosts.yml may be no YAML.
    names = set(hosts.machines) | by_kit if federation.platform_file is None and hosts.machines else None
    findings += _variable_files(federation.path / "group_vars", {"all", *GROUPS})
    findings += _variable_files(federation.path / "host_vars", names)
    return findings


def _of_terraform(file: Path, message: str) -> Finding:
    """Terraform's message begins with the file and the line, where it knows them, and with the key."""
    place = re.match(rf"(?:{re.escape(str(file))}|{re.escape(file.name)}):(?:([0-9]+):)? ", message)
    rest = message[place.end() :] if place else message
    line = int(place[1]) if place and place[1] else 0
    return Finding(str(file), line, "", rest)


# YAML with its lines ---------------------------------------------------------------------------------------


def _compose(file: Path) -> tuple[yaml.Node | None, list[Finding]]:
    """The document's nodes, which know their lines; or what makes it no YAML."""
    loader = inventory.Loader(file.read_text())
    try:
        return loader.get_single_node(), []
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        return None, [Finding(str(file), line, "", f"it is no YAML: {error.problem or error}")]
    except yaml.YAMLError as error:
        return None, [Finding(str(file), 0, "", f"it is no YAML: {' '.join(str(error).split())}")]
    finally:
        loader.dispose()


def _value(node: yaml.Node) -> Any:
    """A node as a Python value; a tag that is neither YAML's nor Ansible's counts as text."""
    loader = inventory.Loader("")
    try:
        return loader.construct_document(node)
    except yaml.YAMLError:
        return str(node.value)
    finally:
        loader.dispose()


def _line(node: yaml.Node) -> int:
    return int(node.start_mark.line) + 1


def _is_empty(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:null"


@dataclass
class _Reader:
    """Reads one file, and collects what is wrong in it."""

    file: Path
    found: list[Finding] = field(default_factory=list)

    def say(self, node: yaml.Node, key: str, message: str) -> None:
        """Note something that is wrong at a node."""
        self.found.append(Finding(str(self.file), _line(node), key, message))

    def items(self, node: yaml.Node, key: str) -> Iterator[tuple[str, yaml.Node, yaml.Node]]:
        """The entries of a mapping: name, and the nodes of name and value. A name that comes twice is wrong."""
        if _is_empty(node):
            return
        if not isinstance(node, yaml.MappingNode):
            self.say(node, key, "must be a mapping, one `name: value` a line")
            return
        seen: dict[str, int] = {}
        for name_node, value in node.value:
            name = str(name_node.value)
            where = f"{key}.{name}" if key else name
            if name in seen:
                self.say(name_node, where, f"is there twice, the first in line {seen[name]}: remove one")
                continue
            seen[name] = _line(name_node)
            yield name, name_node, value

    def variables(self, node: yaml.Node, key: str, *, templates: bool) -> dict[str, tuple[yaml.Node, Any]]:
        """Check a mapping of variables; gives their nodes and values by name."""
        found = {}
        for name, name_node, value_node in self.items(node, key):
            where = f"{key}.{name}" if key else name
            value = _value(value_node)
            found[name] = (value_node, value)
            spec = variables.known().get(name)
            if spec is None and (why := variables.strange(name)):
                self.say(name_node, where, why)
            marked = _marked(value_node)
            if marked is not None:
                if not templates:
                    self.say(marked, where, "holds a template marker: templates belong into group_vars or host_vars")
                continue
            if spec is not None and value is not None:
                for inner, message in variables.mistakes(name, value, spec):
                    self.say(value_node, where + inner, message)
        return found


def _marked(node: yaml.Node) -> yaml.Node | None:
    """The first node below that holds a template marker."""
    if isinstance(node, yaml.ScalarNode):
        return node if any(marker in node.value for marker in TEMPLATE_MARKERS) else None
    if isinstance(node, yaml.MappingNode):
        inner: Iterable[yaml.Node] = [one for pair in node.value for one in pair]
    else:
        inner = node.value
    return next((found for one in inner if (found := _marked(one)) is not None), None)


# The hosts file against the contract -----------------------------------------------------------------------


@dataclass
class _Machine:
    """A host of the file: where it stands, its groups, and its variables with those of its groups."""

    node: yaml.Node
    groups: list[str] = field(default_factory=list)
    variables: dict[str, tuple[yaml.Node, Any]] = field(default_factory=dict)

    def text(self, name: str, default: str = "") -> str:
        """A variable as text."""
        value = self.variables[name][1] if name in self.variables else None
        return default if value is None else str(value)


class _HostsFile(_Reader):
    """hosts.yml or hosts.json."""

    def __init__(self, file: Path) -> None:
        super().__init__(file)
        self.machines: dict[str, _Machine] = {}
        if file.exists():
            self._read()

    def findings(self) -> list[Finding]:
        """What is wrong, in the order of the file."""
        return sorted(self.found, key=lambda one: one.line)

    def _read(self) -> None:
        root, self.found = _compose(self.file)
        if root is None:
            if not self.found:
                self.found.append(Finding(str(self.file), 0, "", "it is empty: name the machines in it"))
            return
        groups: dict[str, yaml.Node] = {}
        shared: dict[str, tuple[yaml.Node, Any]] = {}
        everything = None
        for name, node, value in self.items(root, ""):
            if name == "all":
                everything = value
            else:
                self.say(node, name, "is unknown here: everything stands under `all`")
        for name, node, value in self.items(everything, "all") if everything is not None else ():
            if name == "vars":
                shared = self.variables(value, "all.vars", templates=False)
            elif name == "children":
                members = self.items(value, "all.children")
                groups = {group: inner for group, at, inner in members if self._is_group(group, at)}
            elif name == "hosts":
                self.say(node, "all.hosts", f"put each host into its group under all.children: {', '.join(GROUPS)}")
            else:
                self.say(node, f"all.{name}", "is unknown: there are vars and children")
        for group, node in groups.items():
            self._read_group(group, node, shared)
        self._check_groups(everything or root)
        self._check_machines()

    def _is_group(self, name: str, node: yaml.Node) -> bool:
        if name in GROUPS:
            return True
        close = difflib.get_close_matches(name, GROUPS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(GROUPS)}"
        self.say(node, f"all.children.{name}", f"is no group of a federation: {hint}")
        return False

    def _read_group(self, group: str, node: yaml.Node, shared: dict[str, tuple[yaml.Node, Any]]) -> None:
        key = f"all.children.{group}"
        hosts: yaml.Node | None = None
        of_group = dict(shared)
        for name, at, value in self.items(node, key):
            if name == "vars":
                of_group |= self.variables(value, f"{key}.vars", templates=False)
            elif name == "hosts":
                hosts = value
            else:
                self.say(at, f"{key}.{name}", "is unknown: there are hosts and vars")
        for name, at, value in self.items(hosts, f"{key}.hosts") if hosts is not None else ():
            machine = self.machines.setdefault(name, _Machine(at))
            machine.groups.append(group)
            own = self.variables(value, name, templates=False)
            machine.variables = {**of_group, **machine.variables, **own}
            if not HOST_NAME.fullmatch(name):
                self.say(at, name, "is no host name: use lower-case letters, digits and dashes, 32 at most")
            elif name in _RESERVED:
                self.say(at, name, "is reserved: give the host another name")

    def _check_groups(self, root: yaml.Node) -> None:
        members = {group: [name for name, one in self.machines.items() if group in one.groups] for group in GROUPS}
        for group in () if self._is_a_hospitals_own() else ("superlink", "gateway"):
            if len(members[group]) != 1:
                count = f"has {len(members[group])} hosts" if members[group] else "is missing or empty"
                self.say(root, f"all.children.{group}", f"{count}: it needs exactly one, the coordinator")
        if members["superlink"] and members["gateway"] and members["superlink"] != members["gateway"]:
            node = self.machines[members["gateway"][0]].node
            self.say(node, members["gateway"][0], f"is another host than the SuperLink's, {members['superlink'][0]}")
        for name in set(members["backup"]) - set(members["superlink"]):
            self.say(
                self.machines[name].node, name, "is not the SuperLink's host, whose state the group backup is about"
            )
        for name in members["supernode"]:
            if {"superlink", "gateway"} & set(self.machines[name].groups):
                self.say(self.machines[name].node, name, "is the coordinator: a site is a machine of its own")
        for name in members["monitoring"]:
            if self.machines[name].groups == ["monitoring"]:
                self.say(self.machines[name].node, name, "is monitored alone: it is no host of this federation")

    def _is_a_hospitals_own(self) -> bool:
        """Whether a platform of one hospital wrote it: the coordinator is another organisation's."""
        sites = self.machines.values()
        return self.file.suffix == ".json" and bool(sites) and all(site.text("supernode_gateway") for site in sites)

    def _check_machines(self) -> None:
        owners: dict[str, str] = {}
        for name, machine in self.machines.items():
            address = machine.text("ansible_host")
            if not address:
                self.say(machine.node, f"{name}.ansible_host", "is missing: name the machine's address")
            elif address in owners:
                node = machine.variables["ansible_host"][0]
                self.say(node, f"{name}.ansible_host", f"is the address of {owners[address]} too: give each its own")
            else:
                owners[address] = name


def _unpinned(federation: FederationFolder, hosts: _HostsFile) -> Iterator[Finding]:
    """Hosts, and hosts on the way to them, whose SSH key nobody has compared."""
    wanted: dict[tuple[str, int], str] = {}
    for name, machine in hosts.machines.items():
        port = machine.text("ansible_port", "22")
        if machine.text("ansible_host") and port.isdecimal():
            wanted.setdefault((machine.text("ansible_host"), int(port)), name)
        try:
            jump = ssh_options.parse_jump(machine.text("flowerbed_jump"))
        except UsageError:
            continue
        wanted.setdefault((jump.host, jump.port), f"{name}.flowerbed_jump")
    file = federation.known_hosts
    for (address, number), key in wanted.items():
        known = ssh_options.known_as(address, number)
        command = ["ssh-keygen", "-F", known, "-f", str(file)]
        try:
            done = subprocess.run(command, capture_output=True, check=False)
        except FileNotFoundError:
            return
        if not file.exists() or done.returncode:
            yield Finding(
                str(file), 0, key, f"no SSH host key of {known}: `ssh-keyscan -p {number} {address}`, and compare it"
            )


def _variable_files(folder: Path, names: set[str] | None) -> Iterator[Finding]:
    """group_vars or host_vars: files named after a group or a host, with variables that exist."""
    for file in sorted(folder.rglob("*")) if folder.is_dir() else ():
        if not file.is_file() or file.suffix not in ("", ".yml", ".yaml", ".json") or file.name.startswith("."):
            continue
        first = file.relative_to(folder).parts[0]
        owner = first.removesuffix(file.suffix) if first == file.name else first
        if names is not None and owner not in names:
            close = difflib.get_close_matches(owner, names, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(sorted(names))}"
            yield Finding(str(file), 0, owner, f"no host or group has this name: {hint}")
        if file.read_text().startswith("$ANSIBLE_VAULT;"):
            continue
        root, wrong = _compose(file)
        yield from wrong
        if root is None:
            continue
        reader = _Reader(file)
        given = reader.variables(root, "", templates=True)
        for name in sorted(variables.WAY.keys() & given.keys()):
            reader.say(given[name][0], name, "belongs into the hosts file: the driver reads it there")
        yield from reader.found
