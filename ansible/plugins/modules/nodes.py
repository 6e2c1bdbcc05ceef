# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Registers the SuperNodes of a federation at its SuperLink, and unregisters those that left."""

from __future__ import annotations

DOCUMENTATION = r"""
module: nodes
short_description: Register a federation's SuperNodes at its SuperLink
version_added: "0.1.0"
description:
  - Brings the SuperLink's registrations in line with the sites of the federation, through the Control API and the
    C(flwr) command of the release.
  - Runs on the coordinator with the release's Python; all commands of a call share one process, since loading
    Flower costs more than all of them.
  - Flower lists node ids without names, so the module keeps a record of which site has which node id.
  - Flower never takes a public key again that was unregistered once. The module therefore unregisters a node only
    when its site left or has a new key, and never for a site whose key is not known at the moment.
  - A site that announces its next key has two registered nodes until it uses that key; the old one is unregistered
    when the new one is online, so that there is no moment without a key that works.
requirements:
  - flwr and cryptography, which every release carries
options:
  nodes:
    description: All sites of the federation.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: The site's name.
        type: str
        required: true
      public_key:
        description:
          - The public key as one OpenSSH line, on a NIST curve; a comment at its end is ignored.
          - Empty for a site that belongs to the federation and was not reached; its registration stays as it is.
        type: str
        default: ""
      next_key:
        description: The key that the site will use next, as one OpenSSH line; it is registered beside the other.
        type: str
        default: ""
  revoked:
    description:
      - Public keys that are never let in again, as OpenSSH lines; a site that has one is unregistered and passed over.
    type: list
    elements: str
    default: []
  superlink:
    description: Address of the SuperLink, host and port.
    type: str
    default: 127.0.0.1:8000
  root_certificates:
    description: Path of the authority's certificate; needed unless O(insecure).
    type: path
  insecure:
    description: Talk to the SuperLink without TLS.
    type: bool
    default: false
  purge:
    description: Unregister sites of the record, and nodes that nobody knows, that are not in O(nodes).
    type: bool
    default: true
  gone:
    description: Sites of the record that are unregistered, whatever else is asked for; unknown names change nothing.
    type: list
    elements: str
    default: []
  home:
    description: Folder for C(flwr) (its C(FLWR_HOME)), made with mode 0700; the module writes its C(config.toml).
    type: path
    default: /var/lib/flower/operator
  record:
    description: File in which the module keeps node id, public key and time of registration of each site.
    type: path
    default: /var/lib/flower/nodes.json
  database:
    description:
      - The SuperLink's SQLite file. It is only read, and only when a key must be registered, to find a node that the
        SuperLink knows by that key and the record does not, as after the record was lost.
    type: path
    default: /var/lib/flower/superlink/superlink.db
  wait:
    description: Seconds to wait until every site with a key in O(nodes) is online; 0 does not wait.
    type: int
    default: 0
attributes:
  check_mode:
    support: full
    description: Asks the SuperLink and says what would change.
  diff_mode:
    support: full
    description: Shows the sites and the fingerprints of their keys before and after.
author:
  - The Flowerbed authors (@flowerbed)
"""

EXAMPLES = r"""
- name: Register the SuperNodes of the federation
  flowerbed.federation.nodes:
    nodes:
      - name: hospital-a
        public_key: ecdsa-sha2-nistp384 AAAAE2VjZHNh...
      - name: hospital-b # not reached in this run, stays registered
        public_key: ""
    root_certificates: /etc/flower/ca.crt
  vars:
    ansible_python_interpreter: /opt/flower/current/bin/python
"""

RETURN = r"""
nodes:
  description: Node id (a text, it exceeds 2^53), status and public key of each site that is registered.
  type: dict
  returned: success
  sample: {"hospital-a": {"node_id": "7774703967109082257", "status": "online", "public_key": "ecdsa-sha2-nistp384 AA"}}
registered:
  description: Sites that were registered, or would be in check mode.
  type: list
  elements: str
  returned: success
adopted:
  description: Sites whose key the SuperLink knew already and that were taken into the record.
  type: list
  elements: str
  returned: success
unregistered:
  description: Sites, or node ids that no site has, that were unregistered, or would be in check mode.
  type: list
  elements: str
  returned: success
revoked:
  description: Sites that were passed over since their key is revoked.
  type: list
  elements: str
  returned: success
pending:
  description: Sites without a registration that cannot get one now, since their key is not known.
  type: list
  elements: str
  returned: success
"""

import base64
import contextlib
import hashlib
import json
import os
import socket
import sqlite3
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.flowerbed.federation.plugins.module_utils import pki

if not pki.CRYPTOGRAPHY_MISSING:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

_CONNECTION = "flowerbed"
_FORMER = 20
_GONE = ("unregistered", "deleted")
_UNREACHABLE = "Connection to the SuperLink is unavailable"
_KEY_IN_USE = "[code: 23]"
_NODE_NOT_FOUND = "[code: 24]"
_ONCE_UNREGISTERED = "was unregistered once, and a SuperLink never takes such a key again"
_SQLITE_SIGN = 1 << 63  # SQLite's integers are signed, node ids are not


class NodesError(Exception):
    """One line that names what is wrong and what mends it."""


class Refused(Exception):
    """What Flower said when it refused a command."""


@dataclass(frozen=True)
class Site:
    """A site as the inventory has it; the key is empty when it is not known."""

    name: str
    key: str
    pem: bytes
    follower: Site | None = None
    """The same site with its next key, where it has announced one."""


@dataclass
class Entry:
    """A site as the record has it."""

    node_id: str
    public_key: str
    registered_at: str
    others: list[Entry] = field(default_factory=list)
    """Nodes of the same site with its next key, or with the one before until the new one is seen online."""
    former: list[str] = field(default_factory=list)
    """Its node ids of before, the latest last: a run that goes on while keys change has replies of those, too."""


@dataclass
class Outcome:
    """What changed, in the order of the module's result."""

    registered: list[str] = field(default_factory=list)
    adopted: list[str] = field(default_factory=list)
    unregistered: list[str] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)
    revoked: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    @property
    def changed(self) -> bool:
        """Whether anything did."""
        return bool(self.registered or self.adopted or self.unregistered)


# What is wanted, and what is recorded --------------------------------------------------------------------


def read_sites(items: list[dict[str, str]]) -> list[Site]:
    """The sites of the federation; raises NodesError for a key that no SuperLink takes, or that two sites have."""
    sites = [read_site(item["name"], item["public_key"].strip(), item.get("next_key", "").strip()) for item in items]
    seen: dict[str, str] = {}
    names: set[str] = set()
    for site in sites:
        if site.name in names:
            raise NodesError(f"the site '{site.name}' stands twice in nodes: remove one")
        names.add(site.name)
        other = seen.setdefault(site.key, site.name) if site.key else site.name
        if other != site.name:
            raise NodesError(
                f"the sites '{other}' and '{site.name}' have the same key, as a copied machine does: "
                "move /etc/flower/supernode/node_key away on one of them and run again"
            )
    return sites


def read_site(name: str, line: str, next_line: str = "") -> Site:
    """One site; raises NodesError when its key is none that Flower takes."""
    if not line:
        return Site(name, "", b"")
    try:
        key = serialization.load_ssh_public_key(line.encode())
    except ValueError:
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise NodesError(
            f"the key of '{name}' is no ECDSA key in OpenSSH form, the only kind that Flower takes: "
            "make it with node_key, or with `ssh-keygen -t ecdsa -b 384`"
        )
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return Site(name, " ".join(line.split()[:2]), pem, read_site(name, next_line) if next_line else None)


def read_record(path: Path) -> dict[str, Entry]:
    """Which site has which node id; raises NodesError when the file is damaged."""
    if not path.exists():
        return {}
    try:
        document = json.loads(path.read_text())
        return {name: _entry(item) for name, item in document.items()}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise NodesError(
            f"{path} is damaged: move it away and run again, it is made anew from the SuperLink's database"
        ) from None


def _entry(item: dict[str, Any]) -> Entry:
    others = [_entry(other) for other in item.get("others", [])]
    former = [str(node_id) for node_id in item.get("former", [])]
    return Entry(str(item["node_id"]), item["public_key"], item["registered_at"], others, former)


def write_record(path: Path, record: dict[str, Entry]) -> None:
    """Write the record as a whole; it holds nothing secret and other programs read it."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    before = read_record(path)
    for name, entry in record.items():
        known = before.get(name, entry)
        now = {entry.node_id, *(other.node_id for other in entry.others)}
        past = [*known.former, *(other.node_id for other in known.others), known.node_id]
        entry.former = list(dict.fromkeys(node_id for node_id in past if node_id not in now))[-_FORMER:]
    document = {name: asdict(entry) for name, entry in sorted(record.items())}
    pki.replace_file(path, (json.dumps(document, indent=2) + "\n").encode(), 0o644)


def find_in_database(path: Path, pem: bytes) -> tuple[str, bool] | None:
    """Node id of a key and whether it is still registered; None when the SuperLink never saw the key.

    The `flwr` command lists no keys, so this is the only way back from a key to its node. Raises NodesError when
    the file cannot tell.
    """
    try:
        with contextlib.closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
            row = database.execute("SELECT node_id, status FROM node WHERE public_key = ?", (pem,)).fetchone()
    except sqlite3.Error as error:
        raise NodesError(f"{path}: {error}") from None
    if row is None:
        return None
    return str(int(row[0]) % (2 * _SQLITE_SIGN)), row[1] not in _GONE


# The flwr command ----------------------------------------------------------------------------------------


class Flwr:
    """The `flwr` command with a private home, loaded once for all calls."""

    def __init__(self, home: Path, superlink: str, root_certificates: str | None) -> None:
        self.home = home
        lines = ["[superlink]", f'default = "{_CONNECTION}"', "", f"[superlink.{_CONNECTION}]"]
        lines += [f"address = {json.dumps(superlink)}"]
        if root_certificates:
            lines += [f"root-certificates = {json.dumps(str(Path(root_certificates).absolute()))}"]
        else:
            lines += ["insecure = true"]
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        home.chmod(0o700)
        config = home / "config.toml"
        content = "\n".join(lines) + "\n"
        if not config.exists() or config.read_text() != content:
            pki.replace_file(config, content.encode(), 0o600)
        os.environ.update(
            FLWR_HOME=str(home),
            FLWR_TELEMETRY_ENABLED="0",
            FLWR_DISABLE_UPDATE_CHECK="1",
            # A proxy of the host's environment must not stand between it and its own loopback.
            NO_PROXY="*",
            no_proxy="*",
        )
        self._call = self._load()

    def nodes(self) -> dict[str, dict[str, str]]:
        """The SuperLink's nodes by id, those that were unregistered included."""
        return {str(node["node-id"]): node for node in self.run("list", _CONNECTION)["nodes"]}

    def register(self, site: Site) -> str:
        """Register the site's key; returns the node id."""
        file = self.home / "key.pub"
        file.write_text(f"{site.key}\n")
        try:
            return str(self.run("register", str(file), _CONNECTION, "--name", site.name)["node-id"])
        finally:
            file.unlink()

    def unregister(self, node_id: str) -> None:
        """Unregister a node; one that is gone already is no error."""
        try:
            self.run("unregister", node_id, _CONNECTION)
        except Refused as error:
            if _NODE_NOT_FOUND not in str(error):
                raise

    def run(self, *words: str) -> dict[str, Any]:
        """Run `flwr supernode ...`; raises Refused with Flower's own words unless it says success."""
        # In its own folder: Flower looks for an app in the current one.
        with contextlib.chdir(self.home):
            text = self._call(["supernode", *words, "--format", "json"])
        start = text.find("{")
        try:
            answer = json.JSONDecoder().raw_decode(text[start:])[0] if start >= 0 else {}
        except ValueError:
            answer = {}
        if not answer.get("success"):
            raise Refused(" ".join(str(answer.get("error-message") or text).split()))
        return dict(answer)

    def _load(self) -> Callable[[list[str]], str]:
        # Only the console script's name is relied on, as a shell would.
        for script in entry_points(group="console_scripts", name="flwr"):
            program = script.load()
            # A typer application or a click command; anything else is run as a process of its own.
            if hasattr(program, "registered_commands") or hasattr(program, "main"):
                return partial(_captured, program)
        command = Path(sys.executable).parent / "flwr"
        if not command.exists():
            raise NodesError(f"{command} is missing: install the release, and run with its Python")
        return lambda words: _output_of([str(command), *words])


def _output_of(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    return done.stdout or done.stderr


def _captured(program: Callable[..., object], words: list[str]) -> str:
    """What the program writes to standard output, by whatever way; an error's text if it raises one instead."""
    said = ""
    with tempfile.TemporaryFile() as file:
        with _standard_output(file.fileno()):
            try:
                program(args=words, standalone_mode=False)
            except (Exception, SystemExit) as error:
                said = getattr(error, "message", "") or str(error)
        file.seek(0)
        return file.read().decode(errors="replace") or said


@contextlib.contextmanager
def _standard_output(target: int) -> Iterator[None]:
    # Flower writes its JSON past sys.stdout, so the descriptors are changed and not the objects.
    saved = [os.dup(1), os.dup(2)]
    _flush()
    os.dup2(target, 1)
    os.dup2(target, 2)
    try:
        yield
    finally:
        _flush()
        for descriptor, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, descriptor)
            os.close(copy)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
        if stream is not None:
            stream.flush()


def why_unreachable(superlink: str, root_certificates: str | None) -> str:
    """What is wrong with the way to the SuperLink; Flower says the same for all causes."""
    remedy = "look at `systemctl status flower-superlink` and `journalctl -u flower-superlink` on this host"
    host, _, port = superlink.rpartition(":")
    host = host.strip("[]")
    try:
        with socket.create_connection((host, int(port)), timeout=5) as plain:
            if root_certificates:
                context = ssl.create_default_context(cafile=root_certificates)
                context.wrap_socket(plain, server_hostname=host).close()
    except ssl.SSLCertVerificationError as error:
        return (
            f"the SuperLink at {superlink} shows a certificate that {root_certificates} does not vouch for "
            f"({error.verify_message}): run the role superlink, which renews it, or correct root_certificates"
        )
    except ssl.SSLError:
        return f"the SuperLink at {superlink} does not speak TLS: set insecure, or {remedy}"
    except (OSError, ValueError) as error:
        return f"no SuperLink at {superlink} ({error}): {remedy}"
    return f"the SuperLink at {superlink} accepts connections and gives no answer: {remedy}"


# Comparing and mending -----------------------------------------------------------------------------------


class Registry:
    """Brings the SuperLink's registrations in line with the sites."""

    def __init__(self, flwr: Flwr, params: dict[str, Any], check_mode: bool) -> None:
        self.flwr = flwr
        self.params = params
        self.check_mode = check_mode
        self.path = Path(params["record"])
        self.record = read_record(self.path)
        self.listed: dict[str, dict[str, str]] = {}
        self.node_of_key = {one.public_key: one.node_id for one in self._recorded()}
        self.wanted_keys: set[str] = set()
        self.outcome = Outcome()
        # Ids may only be called unknown while every site's own id could be found out.
        self.unknown_is_certain = True

    def _recorded(self) -> list[Entry]:
        """Every node that the record knows, whichever of its site's keys it has."""
        return [one for entry in self.record.values() for one in (entry, *entry.others)]

    def look(self) -> None:
        """Ask the SuperLink which nodes are registered."""
        nodes = self.flwr.nodes()
        self.listed = {node_id: node for node_id, node in nodes.items() if node["status"] not in _GONE}

    def is_registered(self, name: str) -> bool:
        """Whether the record's node of the site is one that the SuperLink has."""
        return name in self.record and self.record[name].node_id in self.listed

    def keep(self, sites: list[Site]) -> None:
        """Register, adopt and unregister as needed; what fails for one site does not stop the others."""
        sites = self._without_revoked(sites)
        self.wanted_keys = {one.key for site in sites for one in (site, site.follower) if one}
        for site in sites:
            if not site.key:
                self._keep_unreached(site)
                continue
            self._use_next(site)
            if not (self.is_registered(site.name) and self.record[site.name].public_key == site.key):
                self._take(site)
            if site.follower:
                self._announce(site.follower)
        self.drop_replaced()
        for name in [name for name in self.params["gone"] if name in self.record]:
            self._drop(name)
        self._forget_gone(sites)
        if self.params["purge"]:
            self._purge(sites)

    def _without_revoked(self, sites: list[Site]) -> list[Site]:
        """Unregister what has a revoked key, and return the other sites."""
        revoked = {" ".join(line.split()[:2]) for line in self.params["revoked"]}
        for name, entry in list(self.record.items()):
            for other in [other for other in entry.others if other.public_key in revoked]:
                self._unregister(other.node_id, f"{name} (revoked key)")
                self._note(None, name, replace(entry, others=[one for one in entry.others if one is not other]))
        for name in [name for name, entry in self.record.items() if entry.public_key in revoked]:
            entry = self.record[name]
            if entry.node_id in self.listed:
                self._unregister(entry.node_id, f"{name} (revoked key)")
            # A next key that is not revoked itself is the way back in.
            self._note(None, name, entry.others[0] if entry.others else None)
        self.outcome.revoked = [site.name for site in sites if site.key in revoked]
        kept = [site.follower if site.key in revoked and site.follower else site for site in sites]
        return [site for site in kept if site.key not in revoked]

    def _use_next(self, site: Site) -> None:
        """The site uses the key that it had announced: its node is the site's from now on."""
        entry = self.record.get(site.name)
        if entry is None or entry.public_key == site.key:
            return
        for other in [one for one in entry.others if one.public_key == site.key and one.node_id in self.listed]:
            left = [one for one in entry.others if one is not other]
            old = replace(entry, others=[])
            self._note(self.outcome.adopted, site.name, replace(other, others=[old, *left]))

    def _announce(self, follower: Site) -> None:
        """Register the site's next key beside the one in use."""
        entry = self.record.get(follower.name)
        if entry is None or any(one.public_key == follower.key for one in entry.others):
            return
        found = self._look_up(follower)
        if found is not None and not found[1]:
            self._refuse(follower, _ONCE_UNREGISTERED, "node_key.next")
            return
        node_id = found[0] if found else "" if self.check_mode else self.flwr.register(follower)
        self.listed.setdefault(node_id, {"status": "registered"})
        other = Entry(node_id, follower.key, _now())
        self._note(self.outcome.registered, follower.name, replace(entry, others=[*entry.others, other]), " (next key)")

    def drop_replaced(self) -> None:
        """Unregister a site's former node as soon as the new one is seen online."""
        for name, entry in list(self.record.items()):
            former = [one for one in entry.others if one.public_key not in self.wanted_keys]
            if former and self.status(name) == "online":
                for one in former:
                    if one.node_id in self.listed:
                        self._unregister(one.node_id, f"{name} (old key)")
                self._note(None, name, replace(entry, others=[one for one in entry.others if one not in former]))

    def _keep_unreached(self, site: Site) -> None:
        if not self.is_registered(site.name):
            self.outcome.pending.append(site.name)
            self.unknown_is_certain = False

    def _take(self, site: Site) -> None:
        if self.is_registered(site.name) and self.record[site.name].public_key not in self.wanted_keys:
            # The old key first: a site changes its key because the old one may be in wrong hands.
            self._unregister(self.record[site.name].node_id, f"{site.name} (old key)")
        found = self._look_up(site)
        if found is not None and found[0] in self.listed:
            self._adopt(site, found[0])
        elif found is not None and not found[1]:
            self._refuse(site, _ONCE_UNREGISTERED)
        else:
            self._register(site)

    def _adopt(self, site: Site, node_id: str) -> None:
        for name in [name for name, entry in self.record.items() if entry.node_id == node_id]:
            del self.record[name]  # the site has another name now
        created = self.listed[node_id].get("created-at", "").replace(" ", "T")
        self._note(self.outcome.adopted, site.name, Entry(node_id, site.key, created))

    def _look_up(self, site: Site) -> tuple[str, bool] | None:
        recorded = self.node_of_key.get(site.key)
        if recorded in self.listed:
            return recorded, True
        with contextlib.suppress(NodesError):
            return find_in_database(Path(self.params["database"]), site.pem)
        return None

    def _register(self, site: Site) -> None:
        node_id = ""
        if not self.check_mode:
            try:
                node_id = self.flwr.register(site)
            except Refused as error:
                if _KEY_IN_USE not in str(error):
                    raise
                self.unknown_is_certain = False
                self._refuse(
                    site,
                    f"is known to the SuperLink, as a node that neither {self.path} nor "
                    f"{self.params['database']} names or as one that was unregistered",
                )
                return
            self.listed[node_id] = {"status": "registered"}
        self._note(self.outcome.registered, site.name, Entry(node_id, site.key, _now()))

    def _refuse(self, site: Site, why: str, file: str = "node_key") -> None:
        self.outcome.refused.append(
            f"the key of '{site.name}' {why}: move /etc/flower/supernode/{file} away on that host and run "
            "again, a new key is made"
        )

    def _named(self, sites: list[Site]) -> set[str]:
        """The federation's sites, those included that show a revoked key and may still have a good one."""
        return {site.name for site in sites}.union(self.outcome.revoked)

    def _forget_gone(self, sites: list[Site]) -> None:
        wanted = self._named(sites)
        gone = [name for name in self.record if name not in wanted and not self.is_registered(name)]
        for name in gone:
            self._note(self.outcome.unregistered, name, None)

    def _purge(self, sites: list[Site]) -> None:
        wanted = self._named(sites)
        for name in [name for name in self.record if name not in wanted]:
            self._drop(name)
        known = {one.node_id for one in self._recorded()}
        for node_id in [node_id for node_id in self.listed if node_id not in known]:
            if self.unknown_is_certain:
                self._unregister(node_id, f"node {node_id}")

    def _drop(self, name: str) -> None:
        for one in (self.record[name], *self.record[name].others):
            if one.node_id in self.listed:
                self._unregister(one.node_id, name)
        self._note(None, name, None)

    def _unregister(self, node_id: str, label: str) -> None:
        if not self.check_mode:
            self.flwr.unregister(node_id)
        self.listed.pop(node_id, None)
        self.outcome.unregistered.append(label)

    def _note(self, where: list[str] | None, name: str, entry: Entry | None, label: str = "") -> None:
        """Write the record after every step: an interrupted call leaves no node without a name."""
        if where is not None:
            where.append(f"{name}{label}")
        if entry is None:
            self.record.pop(name, None)
        else:
            self.record[name] = entry
        if not self.check_mode:
            write_record(self.path, self.record)

    def wait(self, names: list[str], seconds: int) -> None:
        """Wait until the sites are online; raises NodesError with the names of those that are not."""
        deadline = time.monotonic() + seconds
        while late := [name for name in names if self.status(name) != "online"]:
            if time.monotonic() > deadline:
                raise NodesError(
                    f"not online after {seconds} s: {', '.join(late)}: look at `journalctl -u flower-supernode` there"
                )
            time.sleep(1)
            self.look()

    def status(self, name: str) -> str:
        """What the SuperLink says of a site's node."""
        entry = self.record.get(name)
        return self.listed.get(entry.node_id, {}).get("status", "") if entry else ""

    def show(self) -> str:
        """The registrations as lines for the diff."""
        lines = [
            f"{name} {fingerprint(entry.public_key)}"
            for name, entry in self.record.items()
            if entry.node_id in self.listed or not entry.node_id
        ]
        lines += [
            f"{name} {fingerprint(other.public_key)} (beside)"
            for name, entry in self.record.items()
            for other in entry.others
        ]
        known = {one.node_id for one in self._recorded()}
        lines += [f"node {node_id}, of no known site" for node_id in self.listed if node_id not in known]
        return "".join(f"{line}\n" for line in sorted(lines))


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def fingerprint(line: str) -> str:
    """The SHA-256 fingerprint of an OpenSSH public key line, as `ssh-keygen -l` prints it."""
    digest = hashlib.sha256(base64.b64decode(line.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def run(params: dict[str, Any], check_mode: bool, home: Path) -> dict[str, Any]:
    """The module without Ansible: returns its result, raises NodesError and OSError; `home` is for `flwr`."""
    certificates = None if params["insecure"] else params["root_certificates"]
    if not params["insecure"] and not (certificates and Path(certificates).is_file()):
        raise NodesError(f"root_certificates '{certificates or ''}' is no file: set it to the CA's certificate")
    sites = read_sites(params["nodes"])
    registry = Registry(Flwr(home, params["superlink"], certificates), params, check_mode)
    try:
        registry.look()
        before = registry.show()
        registry.keep(sites)
        if registry.outcome.refused:
            raise NodesError("; ".join(registry.outcome.refused))
        if params["wait"] and not check_mode:
            passed = registry.outcome.revoked
            registry.wait([site.name for site in sites if site.key and site.name not in passed], params["wait"])
            registry.drop_replaced()
    except Refused as error:
        if _UNREACHABLE in str(error):
            raise NodesError(why_unreachable(params["superlink"], certificates)) from None
        raise NodesError(f"the SuperLink at {params['superlink']} refused: {error}") from None
    outcome = registry.outcome
    result: dict[str, Any] = {
        "changed": outcome.changed,
        "nodes": {
            name: {"node_id": entry.node_id, "status": registry.status(name), "public_key": entry.public_key}
            for name, entry in sorted(registry.record.items())
            if registry.is_registered(name)
        },
        "registered": outcome.registered,
        "adopted": outcome.adopted,
        "unregistered": outcome.unregistered,
        "pending": outcome.pending,
        "revoked": outcome.revoked,
    }
    if outcome.changed:
        header = f"nodes of {params['superlink']}"
        result["diff"] = {
            "before_header": header,
            "after_header": header,
            "before": before,
            "after": registry.show(),
        }
    return result


def main() -> None:
    """Bring the registrations in line and report them."""
    module = AnsibleModule(
        argument_spec={
            "nodes": {
                "type": "list",
                "elements": "dict",
                "required": True,
                "options": {
                    "name": {"type": "str", "required": True},
                    "public_key": {"type": "str", "default": "", "no_log": False},
                    "next_key": {"type": "str", "default": "", "no_log": False},
                },
            },
            "revoked": {"type": "list", "elements": "str", "default": []},
            "superlink": {"type": "str", "default": "127.0.0.1:8000"},
            "root_certificates": {"type": "path"},
            "insecure": {"type": "bool", "default": False},
            "purge": {"type": "bool", "default": True},
            "gone": {"type": "list", "elements": "str", "default": []},
            "home": {"type": "path", "default": "/var/lib/flower/operator"},
            "record": {"type": "path", "default": "/var/lib/flower/nodes.json"},
            "database": {"type": "path", "default": "/var/lib/flower/superlink/superlink.db"},
            "wait": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    if pki.CRYPTOGRAPHY_MISSING:
        module.fail_json(msg=missing_required_lib("cryptography"), exception=pki.CRYPTOGRAPHY_MISSING)
    try:
        with contextlib.ExitStack() as stack:
            home = Path(module.params["home"])
            if module.check_mode:
                home = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            result = run(module.params, module.check_mode, home)
    except NodesError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename} cannot be read or written: {error.strerror}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
