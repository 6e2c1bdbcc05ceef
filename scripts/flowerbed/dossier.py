"""What a hospital's IT signs: one page of facts about a federation's hosts, made from what the roles would do.

The playbook itself runs with every module replaced by one that writes down its arguments (`ansible/describe/`), so
that no host is touched and a default that changes changes the page. The rest comes from the hosts file, the release
and the CA's certificate.
"""

import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import jinja2
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cyclonedx.model import HashAlgorithm, HashType
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from flowerbed import __version__, inventory, joining, release
from flowerbed.errors import UsageError, WorkFailed
from flowerbed.federation import DEFAULT_PYTHON, FederationFolder
from flowerbed.paths import ANSIBLE

APP_USER = "flower-app"
"""Who runs the code that the federation sends."""
_PLUGINS = ANSIBLE / "describe"
_UNITS = "/etc/systemd/system/"
_UNIT_KINDS = (".service", ".socket", ".timer")
_LIMITS = re.compile(r"(Memory(Max|High|SwapMax)|CPUQuota|TasksMax|Limit[A-Z]+|RuntimeMaxSec|IO\w+Max)")
_LISTEN = re.compile(r"^\s*listen ([^\s;]+)", re.MULTILINE)
_ARGUMENTS = re.compile(r"--host (\S+) --port (\d+)")
_ACCEPT = re.compile(r"^\s*(.*\S)\s+accept$", re.MULTILINE)
_SET = re.compile(r"^\s*set (\w+) \{.*elements = \{ (.*?) \};", re.MULTILINE)
_WHEEL = re.compile(r"wheels/(?P<file>([^-]+)-([^-]+)-.+\.whl)")


@dataclass(frozen=True)
class Stop:
    """Something that pushed code cannot do, what hinders it, and the test that tries it."""

    what: str
    directives: tuple[str, ...]
    test: str
    at_sites: bool = False
    """Whether it concerns a hospital's data, which the coordinator has none of."""


_COVERS = "/opt/flower/covers/"
_TESTS = "tests/e2e/test_3_sandbox.py::test_"
STOPS = (
    Stop(
        "become root or gain a privilege",
        ("User", "NoNewPrivileges", "CapabilityBoundingSet", "PrivateUsers", "SystemCallFilter"),
        f"{_TESTS}an_app_has_no_privilege_and_gains_none",
    ),
    Stop(
        "reach any address but the one port on the machine's own loopback that serves it",
        ("IPAddressDeny", "IPAddressAllow", "PrivateNetwork"),
        f"{_TESTS}a_clientapp_reaches_the_supernodes_port_and_nothing_else",
    ),
    Stop(
        "change the site's data",
        ("BindReadOnlyPaths",),
        f"{_TESTS}an_app_reads_its_sites_data_and_cannot_change_it",
        at_sites=True,
    ),
    Stop(
        "see other data where data is kept",
        ("TemporaryFileSystem", "ProtectHome", "BindReadOnlyPaths"),
        f"{_TESTS}an_app_cannot_see_another_sites_data_on_the_same_host",
        at_sites=True,
    ),
    Stop(
        "read a key, or the state of the service that holds it",
        ("User", "StateDirectoryMode", "UMask"),
        f"{_TESTS}an_app_cannot_read_keys_secrets_or_the_supernodes_state",
    ),
    Stop(
        "write anywhere but into a folder of its own",
        ("ProtectSystem", "StateDirectory", "ReadWritePaths"),
        f"{_TESTS}an_app_writes_into_its_own_state_folder_alone",
    ),
    Stop(
        "leave files in /tmp for others, or read theirs",
        ("PrivateTmp", "PrivateIPC"),
        f"{_TESTS}what_an_app_writes_to_tmp_nobody_else_sees",
    ),
    Stop("see the processes of others", ("ProtectProc",), f"{_TESTS}an_app_sees_no_process_of_another_user"),
    Stop("trace or end other processes", ("SystemCallFilter",), f"{_TESTS}an_app_traces_and_signals_no_process"),
    Stop("fork without end", ("TasksMax", "LimitNPROC"), f"{_TESTS}an_app_that_forks_without_end_is_stopped_early"),
    Stop(
        "fill the disk or the memory",
        ("TemporaryFileSystem", "MemoryMax", "LimitFSIZE"),
        f"{_TESTS}an_app_that_fills_the_disk_fills_its_own_memory_to_the_limit",
    ),
    Stop(
        "outlive its run, or leave anything behind for the next",
        ("KillMode", "RuntimeDirectory", "StandardInput"),
        f"{_TESTS}after_the_run_no_process_and_no_file_of_an_app_is_left_but_its_results",
    ),
    Stop(
        "open sockets of other kinds, such as to the kernel",
        ("RestrictAddressFamilies",),
        f"{_TESTS}an_app_opens_no_foreign_socket_families",
    ),
)


@dataclass(frozen=True)
class Unit:
    """A unit of systemd, with the directives that every unit of Flower's shares."""

    name: str
    description: str
    user: str
    directives: dict[str, list[str]]

    @property
    def limits(self) -> list[str]:
        """What it may use of the machine."""
        return [
            f"{name}={value}" for name, values in self.directives.items() for value in values if _LIMITS.match(name)
        ]

    def reads(self, path: str) -> bool:
        """Whether systemd hands it the file."""
        given = self.directives.get("LoadCredential", []) + self.directives.get("EnvironmentFile", [])
        # The gateway takes a renewed key by a reload, so that each copies it for the service.
        copied = any(path in one.split() for one in self.directives.get("ExecReload", []))
        return copied or any(one.partition(":")[2] == path or one.lstrip("-") == path for one in given)

    @property
    def read_only(self) -> list[str]:
        """What of the host is read and never written; an empty folder put over what is not to be seen is none of it."""
        bound = self.directives.get("BindReadOnlyPaths", [])
        return [one for one in bound if not one.strip('"').startswith(_COVERS)]

    def shows(self, names: Iterable[str]) -> list[str]:
        """These directives as they stand in the unit."""
        return [f"{name}={value}" for name in names for value in self.directives.get(name, [])]


@dataclass(frozen=True)
class Place:
    """A file or folder on a host."""

    path: str
    kind: str
    owner: str
    mode: str
    role: str


@dataclass(frozen=True)
class Key:
    """Something secret: which, where, who may read it, and how long it is valid."""

    what: str
    path: str
    made: str
    readers: list[str]
    valid: str


@dataclass(frozen=True)
class Port:
    """Where a service listens."""

    unit: str
    address: str
    port: int

    @property
    def is_open(self) -> bool:
        """Whether the network reaches it."""
        return not self.address.startswith("127.") and self.address not in ("localhost", "::1", "[::1]")


@dataclass(frozen=True)
class Setting:
    """A variable of a role, and its value on the host."""

    name: str
    value: str
    default: str
    description: str


@dataclass(frozen=True)
class Package:
    """A file of the release."""

    name: str
    version: str
    file: str
    sha256: str


@dataclass
class Machine:
    """One host."""

    name: str
    role: str
    address: str
    ssh: str
    release: str
    users: dict[str, list[str]] = field(default_factory=dict)
    """User to the groups that it also belongs to."""
    places: list[Place] = field(default_factory=list)
    units: list[Unit] = field(default_factory=list)
    ports: list[Port] = field(default_factory=list)
    outgoing: dict[str, list[str]] = field(default_factory=dict)
    """Name of a rule set to what it lets out."""
    rules: dict[str, str] = field(default_factory=dict)
    """Files of firewall rules and their text."""
    keys: list[Key] = field(default_factory=list)
    settings: list[Setting] = field(default_factory=list)
    programs: list[str] = field(default_factory=list)
    """Packages of the distribution that must be there."""
    uninstall: list[str] = field(default_factory=list)

    @property
    def app_units(self) -> list[Unit]:
        """The units that run pushed code."""
        return [unit for unit in self.units if unit.user == APP_USER]

    @property
    def allowed(self) -> list[Setting]:
        """What the machine says of which programs may run."""
        return [one for one in self.settings if one.name.endswith("_apps")]

    @property
    def stops(self) -> list[Stop]:
        """What pushed code cannot do here."""
        return [stop for stop in STOPS if self.role == "site" or not stop.at_sites]


@dataclass(frozen=True)
class Authority:
    """The CA, whose key stays on the operator's machine."""

    subject: str
    until: str
    sha256: str
    vouches_for: list[str]


@dataclass(frozen=True)
class Dossier:
    """All facts."""

    federation: str
    made: str
    version: str
    authority: Authority
    machines: list[Machine]
    releases: dict[str, list[Package]]

    def to_json(self) -> dict[str, Any]:
        """One JSON document."""
        return asdict(self)

    def to_html(self) -> str:
        """One page that needs nothing else."""
        loader = jinja2.PackageLoader("flowerbed", ".")
        environment = jinja2.Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
        return environment.get_template("dossier.html.j2").render(dossier=self)

    def to_cyclonedx(self) -> str:
        """The packages as a CycloneDX 1.6 bill of materials, in JSON."""
        bom = Bom()
        bom.metadata.component = Component(
            name=f"flowerbed-{self.federation}", version=", ".join(self.releases), type=ComponentType.APPLICATION
        )
        packages = {package for packages in self.releases.values() for package in packages}
        for package in sorted(packages, key=lambda one: one.file):
            one = Component(
                type=ComponentType.LIBRARY,
                name=package.name,
                version=package.version,
                bom_ref=package.file,
                purl=PackageURL("pypi", None, package.name, package.version, {"file_name": package.file}),
                hashes=[HashType(alg=HashAlgorithm.SHA_256, content=package.sha256)],
            )
            bom.components.add(one)
            bom.register_dependency(bom.metadata.component, [one])
        return str(JsonV1Dot6(bom).output_as_string(indent=2)) + "\n"


def collect(federation: FederationFolder, site: str | None = None) -> Dossier:
    """Collect the facts of all hosts, or of one site; touches no host.

    A site that joined without SSH, and is in no hosts file, is described from the group's variables. Raises UsageError
    for a federation that was never brought up or a site that is unknown, WorkFailed where a role cannot be described.
    """
    known = inventory.read(federation)
    if not federation.ca_certificate.exists():
        raise UsageError(f"{federation.ca_certificate} is missing: bring the federation up, which makes the CA")
    hosts = {known.coordinator.name: known.coordinator, **known.sites}
    # The sites that joined by a kit, which the consortium has no way into.
    joined = sorted(joining.approved(federation))
    if site is not None and site not in known.sites and site not in joined:
        names = ", ".join(sorted({*known.sites, *joined})) or "none"
        raise UsageError(f"site '{site}' is unknown: there are {names}")
    records = _describe(federation, [name for name in joined if name not in hosts])
    wanted = [site] if site else [*hosts, *(name for name in joined if name not in hosts)]
    manifests = {python: _manifest(federation, python) for python in known.pythons or [DEFAULT_PYTHON]}
    machines = []
    for name in wanted:
        host = hosts.get(name)
        manifest = manifests[host.python if host else DEFAULT_PYTHON]
        machine = Machine(
            name=name,
            role="coordinator" if name == known.coordinator.name else "site",
            address=host.address if host else "",
            ssh=f"{host.user}, port {host.port}" if host else "",
            release=manifest["id"],
        )
        _fill(machine, [record for record in records if record["host"] == name])
        machines.append(machine)
    used = {machine.release for machine in machines}
    return Dossier(
        federation=federation.name,
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        version=__version__,
        authority=_authority(federation),
        machines=machines,
        releases={one["id"]: _packages(one) for one in manifests.values() if one["id"] in used},
    )


def _describe(federation: FederationFolder, more: list[str]) -> list[dict[str, Any]]:
    """What every module would be asked to do on every host."""
    with tempfile.TemporaryDirectory(prefix="flowerbed-dossier-") as folder:
        described = Path(folder) / "described"
        described.touch(mode=0o600)
        command = [str(Path(sys.executable).with_name("ansible-playbook")), "--check"]
        command += ["--inventory", str(federation.hosts_file)]
        if more:
            joined = Path(folder) / "joined.yml"
            sites: dict[str, Any] = {"hosts": {name: {} for name in more}}
            joined.write_text(yaml.safe_dump({"all": {"children": {"supernode": sites}}}))
            command += ["--inventory", str(joined)]
        # Nothing is connected to, installed or signed; so no passphrase is needed either.
        nothing = {"ansible_connection": "nowhere", "_common_release": "", "inventory_dir": str(federation.path)}
        nothing |= {f"{name}_passphrase": "not needed here" for name in ("authority", "superlink_ca", "gateway_ca")}
        collection = _without_actions(Path(folder))
        command += ["--extra-vars", json.dumps(nothing), str(collection / "playbooks" / "site.yml")]
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(ANSIBLE / "ansible.cfg"),
            "ANSIBLE_COLLECTIONS_PATH": folder,
            "ANSIBLE_ACTION_PLUGINS": str(_PLUGINS / "action"),
            "ANSIBLE_CONNECTION_PLUGINS": str(_PLUGINS / "connection"),
            "ANSIBLE_NOCOLOR": "1",
            "FLOWERBED_DESCRIBED": str(described),
        }
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            said = re.findall(r"(?:ERROR|fatal).*", done.stderr + done.stdout) or [done.stderr[-400:]]
            raise WorkFailed(f"the roles cannot be described: {' '.join(said[0].split())}")
        return [json.loads(line) for line in described.read_text().splitlines()]


def _without_actions(folder: Path) -> Path:
    """The collection, but for the actions that go before a module on the operator's machine: they want the host."""
    collection = folder / "ansible_collections" / "flowerbed" / "federation"
    (collection / "plugins").mkdir(parents=True)
    for part in ("galaxy.yml", "meta", "roles", "playbooks"):
        (collection / part).symlink_to(ANSIBLE / part)
    for kind in (ANSIBLE / "plugins").iterdir():
        if kind.name != "action":
            (collection / "plugins" / kind.name).symlink_to(kind)
    return collection


def _fill(machine: Machine, records: list[dict[str, Any]]) -> None:
    """Sort what the modules would do on a host into what one asks about it."""
    texts: dict[str, str] = {}
    absent: set[str] = set()
    started: list[str] = []
    for record in records:
        asked, role = record["arguments"], record["role"]
        if record["module"] == "layout":
            machine.users |= {one["name"]: one.get("groups", []) for one in asked.get("users", [])}
            machine.places += _places(asked, role)
            absent |= set(asked.get("absent", []))
            texts |= {one["path"]: one["content"] for one in asked.get("files", []) if "content" in one}
            machine.settings += _settings(role, record["settings"])
        elif record["module"] == "units":
            started += [one["name"] for one in asked["units"] if one["name"] not in started]
        elif record["module"] == "preflight":
            machine.programs += [one for one in asked.get("programs", {}).values() if one not in machine.programs]
        elif record["module"] == "firewall" and asked["state"] == "present":
            started.append("flower-egress@firewall.service")
            machine.places.append(Place("/etc/flower/egress/firewall.nft", "file", "root", "0644", role))
        elif record["module"] in ("node_key", "certificate_request"):
            machine.places += _key_places(asked, role)
    machine.places = sorted({one.path: one for one in machine.places if one.path not in absent}.values(), key=_by_path)
    machine.units = list(_units(texts))
    machine.ports = list(_ports(texts, machine.units))
    machine.rules = {path: text for path, text in texts.items() if path.endswith(".nft")}
    machine.outgoing = {path: _outgoing(text) for path, text in machine.rules.items()}
    machine.keys = _keys(records, machine.units)
    machine.uninstall = _uninstall(machine, started)


def _outgoing(rules: str) -> list[str]:
    """What the rules let out, with what their sets hold in the place of the sets' names."""
    text = _without_comments(rules)
    sets = dict(_SET.findall(text))
    found = []
    for line in _ACCEPT.findall(text):
        name = re.search(r"@(\w+)", line)
        held = sets.get(name[1], "") if name else ""
        found += [line] if not name else [line.replace(name[0], held)] if held else []
    return found


def _by_path(place: Place) -> str:
    return place.path


def _places(asked: Mapping[str, Any], role: str) -> list[Place]:
    folders = [
        Place(one["path"], "folder", one.get("owner", "root"), one.get("mode", "0755"), role)
        for one in asked.get("directories", [])
    ]
    secrets = [Place(one["path"], "secret", "root", "0600", role) for one in asked.get("secrets", [])]
    files = [
        Place(
            one["path"],
            "secret" if one.get("sensitive") else "file",
            one.get("owner", "root"),
            one.get("mode", "0644"),
            role,
        )
        for one in asked.get("files", [])
    ]
    return folders + secrets + files


def _key_places(asked: Mapping[str, Any], role: str) -> list[Place]:
    if "path" in asked:
        public = Place(f"{asked['path']}.pub", "file", "root", "0644", role)
        return [Place(asked["path"], "key", "root", "0600", role), public]
    found = [Place(asked["key_path"], "key", asked.get("owner", "root"), asked.get("mode", "0600"), role)]
    if "self_signed_path" in asked:
        found.append(Place(asked["self_signed_path"], "file", "root", "0644", role))
    return found


def _settings(role: str, values: Mapping[str, Any]) -> list[Setting]:
    """The role's variables, as its argument spec explains them."""
    file = ANSIBLE / "roles" / role / "meta" / "argument_specs.yml"
    if not file.exists():
        return []
    options = yaml.safe_load(file.read_text())["argument_specs"]["main"]["options"]
    found = []
    for name, spec in options.items():
        if name in values:
            secret = isinstance(values[name], bool) and spec.get("type") != "bool"
            shown = ("set" if values[name] else "not set") if secret else _shown(values[name])
            description = spec["description"] if isinstance(spec["description"], str) else " ".join(spec["description"])
            found.append(Setting(name, shown, _shown(spec.get("default", "")), description))
    return found


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _units(texts: Mapping[str, str]) -> Iterator[Unit]:
    """The units, each with what the drop-ins beside them add."""
    shared: dict[str, dict[str, list[str]]] = {}
    for path, text in texts.items():
        if path.startswith(_UNITS) and ".service.d/" in path:
            shared[path.removeprefix(_UNITS).split(".service.d/")[0]] = _directives(text)
    for path, text in texts.items():
        name = path.removeprefix(_UNITS)
        if not path.startswith(_UNITS) or "/" in name or not name.endswith(_UNIT_KINDS):
            continue
        directives: dict[str, list[str]] = {}
        parts = [one for prefix, one in shared.items() if name.endswith(".service") and name.startswith(prefix)]
        for part in [*parts, _directives(text)]:
            for key, values in part.items():
                # An allow-list that the unit repeats is replaced; what can be said more than once is added.
                directives[key] = directives.get(key, []) + values
        user = directives.get("User", ["a passing user" if "DynamicUser" in directives else "root"])[-1]
        yield Unit(name, directives.get("Description", [name])[-1], user, directives)


def _directives(text: str) -> dict[str, list[str]]:
    """The directives of a unit file, each with all of its values; the environment of apps is left out."""
    found: dict[str, list[str]] = {}
    for line in _without_comments(text).replace("\\\n", " ").splitlines():
        name, sign, value = line.partition("=")
        if sign and name.strip() != "Environment":
            found.setdefault(name.strip(), []).append(" ".join(value.split()))
    return found


def _without_comments(text: str) -> str:
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith(("#", ";")))


def _ports(texts: Mapping[str, str], units: Iterable[Unit]) -> Iterator[Port]:
    for unit in units:
        started = " ".join(unit.directives.get("ExecStart", []))
        for address, number in _ARGUMENTS.findall(started):
            yield Port(unit.name, address, int(number))
        for path, text in texts.items():
            for listen in _LISTEN.findall(_without_comments(text)) if path in started else []:
                address, _, number = listen.rpartition(":")
                yield Port(unit.name, address or "0.0.0.0", int(number))  # noqa: S104 - it says what nginx does


def _keys(records: list[dict[str, Any]], units: list[Unit]) -> list[Key]:
    """What is secret on a host, in the order in which it is made."""
    found = []
    days = [record["arguments"]["days"] for record in records if record["module"] == "certificate"]
    for record in records:
        asked = record["arguments"]
        if record["module"] == "node_key":
            found.append(_key("the node's key, by which the coordinator knows this site", asked["path"], units))
        if record["module"] == "certificate_request":
            own = "self_signed_path" in asked
            lasts = asked.get("days", 3650) if own else (days.pop(0) if days else "")
            what = (
                "key of the loopback's certificate"
                if own
                else f"key of the {Path(asked['key_path']).parent.name}'s certificate"
            )
            names = ", ".join([*asked.get("dns_names", []), *asked.get("ip_addresses", [])])
            found.append(_key(f"{what} for {names}", asked["key_path"], units, valid=f"{lasts} days, then made anew"))
        if record["module"] == "layout":
            for one in asked.get("secrets", []):
                what = "what the services of this host know each other by"
                found.append(_key(what, one["path"], units))
            for one in asked.get("files", []):
                if one.get("sensitive"):
                    found.append(_key("given by the operator", one["path"], units, made="elsewhere, and brought here"))
    return found


def _key(what: str, path: str, units: list[Unit], *, made: str = "", valid: str = "until it is replaced") -> Key:
    readers = sorted({unit.user for unit in units if unit.reads(path)})
    return Key(what, path, made or "on this host; it never leaves it", ["root", *readers], valid)


def _uninstall(machine: Machine, started: list[str]) -> list[str]:
    """The commands that take everything away, as root."""
    units = [name for name in started if name.startswith("flower-")]
    states = {one.split("/")[0] for unit in machine.units for one in unit.directives.get("StateDirectory", [])}
    roots = {
        re.sub(r"^(/etc/[^/]+).*", r"\1", one.path) for one in machine.places if one.path.startswith("/etc/flower")
    }
    other = [one.path for one in machine.places if one.kind == "file" and not one.path.startswith("/etc/flower")]
    drop_ins = {str(Path(one).parent) for one in other if ".service.d/" in one}
    folders = sorted({*roots, *(f"/var/lib/{one}" for one in states), *drop_ins, "/opt/flower"})
    alone = [one for one in other if not any(one.startswith(f"{folder}/") for folder in folders)]
    return [
        f"systemctl disable --now {' '.join(reversed(units))}",
        f"rm -r {' '.join(folders)}",
        f"rm {' '.join(alone)}",
        "systemctl daemon-reload",
        *(f"userdel {user}" for user in machine.users),
    ]


def _authority(federation: FederationFolder) -> Authority:
    certificate = x509.load_pem_x509_certificate(federation.ca_certificate.read_bytes())
    try:
        limits = certificate.extensions.get_extension_for_class(x509.NameConstraints).value.permitted_subtrees or []
    except x509.ExtensionNotFound:
        limits = []
    return Authority(
        subject=certificate.subject.rfc4514_string(),
        until=f"{certificate.not_valid_after_utc:%Y-%m-%d}",
        sha256=certificate.fingerprint(hashes.SHA256()).hex(),
        vouches_for=[str(one.value) for one in limits],
    )


def _manifest(federation: FederationFolder, python: str) -> dict[str, Any]:
    """What the release for hosts with this Python holds: its first member says."""
    archive = federation.release_for(python)
    if not archive.exists():
        archive = release.of(federation, python=python).archive
    with tarfile.open(archive, "r:") as tar:
        first = tar.next()
        content = tar.extractfile(first) if first else None
        if content is None:
            raise UsageError(f"{archive} is no release: `flowerbed release build {federation.name}` makes it")
        manifest: dict[str, Any] = json.loads(content.read())
    return manifest


def _packages(manifest: Mapping[str, Any]) -> list[Package]:
    found = []
    for name, sha256 in manifest["files"].items():
        wheel = _WHEEL.fullmatch(name)
        if wheel:
            found.append(Package(wheel[2].replace("_", "-").lower(), wheel[3], wheel["file"], sha256))
    return found
