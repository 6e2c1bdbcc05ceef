"""Which hosts are as the last `up` left them, and are to be so still: nothing has to be asked of Ansible there.

A host is settled when all that `up` would read of it on this machine is what it read last time, when one hash over what
Flowerbed described on the host (see fingerprint.py) is what it was after that, and when that was within a day: what
depends on the time, as the renewal of a certificate, is looked at then. In doubt a host is not settled.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pydantic import BaseModel, TypeAdapter, ValidationError

from flowerbed import inventory, ssh
from flowerbed.errors import WorkFailed
from flowerbed.federation import FederationFolder
from flowerbed.paths import ANSIBLE

SECONDS = 86400.0
_AT_ONCE = 25
_PROGRAM = Path(__file__).with_name("fingerprint.py")
# What variables may read, and what is known of it then: anything else could have changed unseen.
_READS_FILE = re.compile(
    r"lookup\(\s*'(?:ansible\.builtin\.)?file',\s*inventory_dir\s*~\s*'/([^']+)'(?:\s*,\s*\w+\s*=\s*\w+)*\s*\)"
)
_READS_ENVIRONMENT = re.compile(r"lookup\(\s*'(?:ansible\.builtin\.)?env',\s*'(\w+)'\s*\)")
_READS_COORDINATOR = re.compile(r"hostvars\[groups\['(?:gateway|superlink)'\] \| first\]")
_UNFORESEEN = re.compile(
    r"\b(?:lookup|query|q|now)\s*\(|\|\s*random\b|\bstrftime\b|\bhostvars\b|\bgroups\s*[\[.|]|\b(?:playbook_dir|role_path)\b"
    r"|\$ANSIBLE_VAULT"
)
_COMMENT = re.compile(r"^\s*#.*$", re.MULTILINE)
_FOLDER = re.compile(r"{{\s*inventory_dir\s*}}")
_LOCAL_PATH = re.compile(r"(?<![\w.])[~/][\w./+@-]+")
# A host whose folders do not answer is asked no longer than this.
_SECONDS_TO_ANSWER = "60"


class _Left(BaseModel):
    """How a host was left."""

    inputs: str
    written: str
    members: str
    fingerprint: str
    at: float
    warnings: list[str]


_Record = TypeAdapter(dict[str, _Left])


@dataclass(frozen=True)
class Settled:
    """What is known of the hosts before a playbook runs."""

    inputs: dict[str, str]
    """A hash for each host over what its roles read of it on this machine; none where that cannot be told."""
    members: str
    """A hash over who belongs to the federation, which the coordinator registers."""
    hosts: list[str] = field(default_factory=list)
    """The hosts whose roles need not be gone through."""
    everything: bool = False
    """Whether that holds for every host, each of them is online, and the federation has the members that it had."""
    warnings: dict[str, list[str]] = field(default_factory=dict)
    """What was said of them last time: the hosts that it concerns."""


def find(federation: FederationFolder, known: inventory.Hosts, *, look: bool) -> Settled:
    """Find the hosts that are settled; none without `look`, and nobody is asked then."""
    try:
        inputs, members = _inputs(federation, known), _members(federation)
        written = {name: _written(federation, known, name) for name in inputs}
    except OSError:  # Ansible says it better where it has to read that
        return Settled({}, "")
    record, now = _read(federation), time.time()
    candidates = [
        name
        for name, digest in inputs.items()
        if (last := record.get(name))
        and (last.inputs, last.written) == (digest, written[name])
        and 0 <= now - last.at < SECONDS
    ]
    if not look or not candidates:
        return Settled(inputs, members)
    coordinator = known.coordinator.name
    answers = _ask(federation, known, {*candidates, coordinator})
    if coordinator not in answers:
        return Settled(inputs, members)  # nobody knows who is registered
    sites: dict[str, bool] | None = answers[coordinator]["sites"]
    settled = [
        name
        for name in candidates
        if answers.get(name, {}).get("fingerprint") == record[name].fingerprint
        and (name == coordinator or sites is None or sites.get(name, False))
    ]
    everything = set(settled) == set(_names(known)) and record[coordinator].members == members
    warnings: dict[str, list[str]] = {}
    for name in settled if everything else [name for name in settled if name != coordinator]:
        for warning in record[name].warnings:
            warnings.setdefault(warning, []).append(name)
    return Settled(inputs, members, settled, everything, warnings)


def remember(
    federation: FederationFolder, known: inventory.Hosts, before: Settled, warnings: Mapping[str, list[str]]
) -> None:
    """Note how the hosts are after a playbook; `warnings` is what it said of which hosts.

    The coordinator was in it in any case: what it registers has changed then, though its roles were not gone through.
    """
    if before.everything:
        return
    coordinator = known.coordinator.name
    asked = [name for name in before.inputs if name not in before.hosts or name == coordinator]
    record = {name: entry for name, entry in _read(federation).items() if name in before.hosts}
    for name, answer in _ask(federation, known, asked).items():
        last = record.get(name)
        record[name] = _Left(
            inputs=before.inputs[name],
            written=_written(federation, known, name),
            members=before.members if name == coordinator else "",
            fingerprint=answer["fingerprint"],
            at=last.at if last else time.time(),
            warnings=[one for one, concerned in warnings.items() if name in concerned],
        )
    inventory.replace_file(_file(federation), _Record.dump_json(record, indent=1).decode() + "\n")


def _names(known: inventory.Hosts) -> list[str]:
    return [known.coordinator.name, *known.sites]


def _file(federation: FederationFolder) -> Path:
    return federation.state / "settled.json"


def _read(federation: FederationFolder) -> dict[str, _Left]:
    try:
        return _Record.validate_json(_file(federation).read_bytes())
    except (OSError, ValidationError):
        return {}


def _ask(federation: FederationFolder, known: inventory.Hosts, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """What each host's program says; a host that says nothing is missing."""
    hosts = {known.coordinator.name: known.coordinator, **known.sites}
    command = ["timeout", "--kill-after=5", _SECONDS_TO_ANSWER, "/usr/bin/python3", "-I", "-c", _PROGRAM.read_text()]

    def one(name: str) -> tuple[str, dict[str, Any]] | None:
        try:
            answer = json.loads(ssh.Shell(federation, hosts[name]).run(command))
        except (WorkFailed, ValueError):
            return None
        return name, answer

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return dict(answer for answer in pool.map(one, names) if answer)


def _inputs(federation: FederationFolder, known: inventory.Hosts) -> dict[str, str]:
    """One hash for each host over what a playbook reads for it on this machine; none where that cannot be told."""
    versions = [version("ansible-core"), version("flowerbed"), _PROGRAM.read_text()]
    environment = [f"{key}={os.environ[key]}" for key in sorted(os.environ) if key.startswith("ANSIBLE_")]
    secrets = [path for path in _files(federation.secrets) if path.parent not in _written_folders(federation)]
    shared = [*_files(ANSIBLE), *_files(federation.path / "group_vars"), *secrets, *_files(federation.revoked_file)]
    links = [f"{link} {link.resolve()}" for link in sorted(federation.state.glob("release-*.tar"))]
    packed = [f"{one} {one.stat().st_mtime_ns}" for one in sorted(federation.state.glob("packages/*.tar"))]
    common = _hash(*versions, *environment, *_contents(shared), *links, *packed)
    general = _reads(federation, [file.read_text(errors="replace") for file in _files(federation.path / "group_vars")])
    inputs = {}
    for name in _names(known):
        places = [
            federation.path / "host_vars" / f"{one}{suffix}"
            for one in sorted({name, known.coordinator.name})  # whose variables the others' may name
            for suffix in ("", ".yml", ".yaml", ".json")
        ]
        places += [federation.blocked_file] if name == known.coordinator.name else []
        own = [file for place in places for file in _files(place)]
        described = _described(federation, known, name)
        read = _reads(federation, [described, *(file.read_text(errors="replace") for file in own)])
        if general is not None and read is not None:
            inputs[name] = _hash(common, described, *general, *read, *_contents(own))
    return inputs


def _members(federation: FederationFolder) -> str:
    return _hash(*_contents([federation.hosts_file, *_files(federation.approved_file)]))


def _written(federation: FederationFolder, known: inventory.Hosts, name: str) -> str:
    """One hash over what a playbook itself writes on this machine and reads again for a host."""
    if name != known.coordinator.name:
        return _hash(*_contents([*_files(federation.ca_certificate)]))
    return _hash(*_contents([file for folder in _written_folders(federation) for file in _files(folder)]))


def _written_folders(federation: FederationFolder) -> list[Path]:
    return [federation.ca_certificate.parent, federation.backup_key.parent]


def _contents(files: Iterable[Path]) -> list[str]:
    return [f"{path} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in sorted(set(files))]


def _hash(*texts: str) -> str:
    digest = hashlib.sha256()
    for text in texts:
        digest.update(f"{len(text)} {text}\n".encode())
    return digest.hexdigest()


def _files(path: Path) -> Iterator[Path]:
    """The files at and below a path, through links as Ansible goes."""
    if path.is_file():
        yield path
    elif path.is_dir():
        for folder, folders, names in os.walk(path, followlinks=True):
            folders[:] = [name for name in folders if name not in ("__pycache__", "molecule", "collections")]
            yield from (file for name in names if (file := Path(folder) / name).is_file())


def _described(federation: FederationFolder, known: inventory.Hosts, name: str) -> str:
    """What the inventory says of a host; of hosts.yml, whose shape is the operator's, all of it."""
    text = federation.hosts_file.read_text()
    if federation.platform_file is None:
        return text
    document = json.loads(text)
    ours = (name, known.coordinator.name)
    for group in document["all"]["children"].values():
        group["hosts"] = {host: of for host, of in group.get("hosts", {}).items() if host in ours}
    return json.dumps(document, sort_keys=True)


def _reads(federation: FederationFolder, texts: list[str]) -> list[str] | None:
    """What the variables read beside themselves, as text; None where they read what nobody can foresee."""
    found: list[str] = []
    for text in texts:
        said = _COMMENT.sub("", text)
        found += [f"{name}={os.environ.get(name, '')}" for name in _READS_ENVIRONMENT.findall(said)]
        found += [_stat(federation.path / name) for name in _READS_FILE.findall(said)]
        paths = [Path(word) for word in _LOCAL_PATH.findall(_FOLDER.sub(str(federation.path), said))]
        # What is in these two is known already, and written by the playbook, too.
        of_ours = (federation.secrets, federation.state)
        found += [_stat(path) for path in paths if not any(path.is_relative_to(folder) for folder in of_ours)]
        for known in (_READS_FILE, _READS_ENVIRONMENT, _READS_COORDINATOR):
            said = known.sub("", said)
        if _UNFORESEEN.search(said):
            return None
    return found


def _stat(path: Path) -> str:
    """When a file on this machine, or what is directly in a folder, was last changed; empty where there is none."""
    with suppress(OSError, RuntimeError):  # most of what looks like a path is one of a host's, or none
        path = path.expanduser()
        each = sorted(path.iterdir()) if path.is_dir() else [path] if path.is_file() else []
        stats = [(one, one.stat()) for one in each if one.is_file()]
        return "\n".join(f"{one} {stat.st_mtime_ns} {stat.st_size}" for one, stat in stats)
    return ""
