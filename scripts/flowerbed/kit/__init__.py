"""Kits: one file by which a hospital's own administrator joins, without a login for anybody else.

A kit holds the program `join`, a signed manifest with the hash of everything else, the CA's certificate, the release,
the collection, and Ansible for the time of joining. It holds no secret. The operator keeps a record of every kit, in
the federation's `.state/kits/`: a request to join counts once, and only if it comes from a kit that was made here.
"""

import hashlib
import io
import json
import os
import secrets
import string
import tarfile
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import NameOID

from flowerbed import hosts, inventory, release, variables
from flowerbed.errors import UsageError
from flowerbed.federation import DEFAULT_PYTHON, FederationFolder
from flowerbed.inventory import HOST_NAME, TEMPLATE_MARKERS
from flowerbed.paths import ANSIBLE

SCHEMA = 1
ANSIBLE_CORE = release.Program("ansible-core", ("ansible-playbook", "--version"), "[core {version}]")
LOCK = Path(__file__).with_name("ansible.lock")
_HERE = Path(__file__).parent
_DAYS = 365
# What the program `join` sets itself, and what is the consortium's alone.
_NOT_THE_SITES = {"supernode_release", "supernode_ca_certificate", "supernode_name", "supernode_start"}
_ROLES = ("supernode", "firewall")
_COLLECTION = ("galaxy.yml", "README.md", "meta", "playbooks", "plugins", "roles")
_NOT_FOR_SITES = {"molecule", "__pycache__"}


@dataclass(frozen=True)
class Kit:
    """One kit, as the operator's record has it; times are ISO 8601 in UTC."""

    id: str
    site: str
    made: str
    expires: str
    file: str
    sha256: str
    ca_fingerprint: str
    release: str
    request: str = ""
    """The SHA-256 sum of the request that this kit was used for; empty until one was approved."""


def build(
    federation: FederationFolder,
    site: str,
    *,
    out: Path | None = None,
    python: str = DEFAULT_PYTHON,
    days: int = 30,
    settings: Mapping[str, Any] | None = None,
    progress: release.Progress = lambda _: None,
) -> Kit:
    """Make the kit of a hospital that joins as `site`, and note it.

    `out` is the file, `<site>.kit` in the current folder unless it is given; `python` is that of the hospital's
    machine; after `days` it can neither be installed nor used for a request. `settings` are variables of the role
    supernode, beside those that the federation's `group_vars` and `host_vars/<site>.yml` set; the hospital may change
    them. Raises UsageError for a site that is there already or a setting that is none, and FlowerbedError as the
    release and the playbook do.
    """
    _refuse_site(federation, site, days)
    given = dict(settings or {})
    refuse_settings(given, "--set")
    flower = release.of(federation, progress, python)
    ansible = release.build(_ansible_lock(python), program=ANSIBLE_CORE, progress=progress)
    progress("certifying the key that signs the kit")
    key = ec.generate_private_key(ec.SECP384R1())
    answer = _play(federation, site, _request(key, site), days)
    values = {**answer["settings"], **given}
    refuse_settings(values, f"{federation.name}'s variables")
    if "supernode_gateway" not in values:
        raise UsageError(
            f"{federation.name} sets no supernode_gateway for its sites: set it in group_vars/supernode.yml"
        )
    now = datetime.now(UTC)
    made, expires = (f"{moment:%Y-%m-%dT%H:%M:%SZ}" for moment in (now, now + timedelta(days=days)))
    ident, file = secrets.token_hex(16), (out or Path(f"{site}.kit")).absolute()
    ca = x509.load_pem_x509_certificate(federation.ca_certificate.read_bytes())
    contents: dict[str, bytes | Path] = {
        "join": (_HERE / "join.py").read_bytes(),
        "apply.py": (_HERE / "apply.py").read_bytes(),
        "README.txt": _readme(federation, site, python, str(values["supernode_gateway"]), file.name),
        "ca.crt": ca.public_bytes(serialization.Encoding.PEM),
        "trust.crt": answer["trust"].encode(),
        "settings.json": _json({"values": values, "variables": {name: str(one["type"]) for name, one in _settable()}}),
        "collection.tar": _collection(),
        "ansible.tar": ansible.archive,
        "release.tar": flower.archive,
    }
    manifest = {
        "kit": ident,
        "federation": federation.name,
        "site": site,
        "made": made,
        "expires": expires,
        "gateway": values["supernode_gateway"],
        "gateway_ip_addresses": values.get("supernode_gateway_ip_addresses", []),
        "python": flower.target.python,
        "arch": flower.target.arch,
        "release": flower.id,
    }
    progress(f"packing {file.name}")
    signer = x509.load_pem_x509_certificate(answer["signer"].encode())
    _pack(file, site, seal(manifest, contents, signer, key))
    fingerprint = ca.fingerprint(hashes.SHA256()).hex(":").upper()
    made_kit = Kit(ident, site, made, expires, str(file), _sha256(file), fingerprint, flower.id)
    write(federation, made_kit)
    return made_kit


def seal(
    manifest: Mapping[str, Any],
    contents: Mapping[str, bytes | Path],
    signer: x509.Certificate,
    key: ec.EllipticCurvePrivateKey,
) -> dict[str, bytes | Path]:
    """Add the manifest, with the hash of every file in `contents`, and the signature over it (CMS, detached, DER)."""
    document = {"schema": SCHEMA, **manifest, "files": {name: _sha256(one) for name, one in contents.items()}}
    text = _json(document)
    builder = pkcs7.PKCS7SignatureBuilder().set_data(text).add_signer(signer, key, hashes.SHA384())
    options = [pkcs7.PKCS7Options.DetachedSignature, pkcs7.PKCS7Options.Binary, pkcs7.PKCS7Options.NoCapabilities]
    return {**contents, "manifest.json": text, "manifest.p7s": builder.sign(serialization.Encoding.DER, options)}


def known(federation: FederationFolder) -> dict[str, Kit]:
    """All kits that were made for a federation, by their ids."""
    files = sorted(_folder(federation).glob("*.json"))
    return {file.stem: Kit(**json.loads(file.read_text())) for file in files}


def write(federation: FederationFolder, kit: Kit) -> None:
    """Keep the operator's record of a kit."""
    inventory.replace_file(_folder(federation) / f"{kit.id}.json", json.dumps(asdict(kit), indent=2) + "\n")


def read_settings(words: list[str], file: Path | None) -> dict[str, Any]:
    """Settings from a YAML file and from NAME=VALUE words, whose values are YAML too; the words count more.

    Raises UsageError for what is neither.
    """
    found: Any = {}
    try:
        if file is not None:
            found = yaml.safe_load(file.read_text()) or {}
        if not isinstance(found, dict):
            raise UsageError(f"{file}: must be a mapping, one `name: value` a line")
        for word in words:
            name, equals, value = word.partition("=")
            if not equals:
                raise UsageError(f"--set {word}: write it as NAME=VALUE")
            found[name] = yaml.safe_load(value)
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise UsageError(f"{file or '--set'}: it is no YAML: {' '.join(str(error).split())}") from None
    return found


def refuse_settings(values: Mapping[str, Any], source: str) -> None:
    """Raise UsageError, naming `source`, for what a hospital cannot set, or what a kit must not hold."""
    settable = dict(_settable())
    for name, value in values.items():
        if name not in settable:
            raise UsageError(f"{source}: {name} is no setting of a site: {variables.strange(name) or 'it is unknown'}")
        if settable[name].get("no_log"):
            raise UsageError(f"{source}: {name} is a secret, and a kit holds none: the hospital sets it with --set")
        for where, what in variables.mistakes(name, value, settable[name]):
            raise UsageError(f"{source}: {name}{where}: {what}")
    if any(marker in json.dumps(dict(values)) for marker in TEMPLATE_MARKERS):
        raise UsageError(f"{source}: a setting holds a template marker, which Ansible would run: remove it")


def _refuse_site(federation: FederationFolder, site: str, days: int) -> None:
    if not HOST_NAME.fullmatch(site):
        raise UsageError(f"'{site}' is no site's name: use lower-case letters, digits and dashes, 32 at most")
    if not 1 <= days <= _DAYS:
        raise UsageError(f"--days {days}: a kit is good for 1 to {_DAYS} days")
    there = inventory.read(federation)
    if site in (there.coordinator.name, *there.sites):
        raise UsageError(f"{site} is a host of {federation.name} that is reached by SSH: choose another name")
    if not federation.ca_certificate.exists():
        raise UsageError(f"{federation.ca_certificate} is missing: bring the federation up first")


def _settable() -> Iterator[tuple[str, variables.Spec]]:
    """What a hospital may set."""
    for name, spec in sorted(variables.known().items()):
        if name.startswith(tuple(f"{role}_" for role in _ROLES)) and name not in _NOT_THE_SITES:
            yield name, spec


def _ansible_lock(python: str) -> Path:
    """The lock of Ansible for a Python: its hashes are those of all files, so only the target differs."""
    lines = LOCK.read_text().splitlines(keepends=True)
    target = release.Target(python)
    copy = release.BUILD / f"ansible-{python}.lock"
    inventory.replace_file(copy, "".join([f"# target: {target}\n", *lines[1:]]))
    return copy


def _request(key: ec.EllipticCurvePrivateKey, site: str) -> str:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"kit of {site}")])
    request = x509.CertificateSigningRequestBuilder().subject_name(name).sign(key, hashes.SHA384())
    return request.public_bytes(serialization.Encoding.PEM).decode()


def _play(federation: FederationFolder, site: str, csr: str, days: int) -> dict[str, Any]:
    """What the playbook says: the signer's certificate, the site's settings, the CA certificates that hosts trust."""
    # In the federation's folder: what Ansible calls inventory_dir must be that folder for this site too.
    with (
        tempfile.NamedTemporaryFile("w", dir=federation.path, prefix=".kit-", suffix=".json") as extra,
        tempfile.TemporaryDirectory(prefix="flowerbed-kit-") as folder,
    ):
        json.dump({"all": {"children": {"supernode": {"hosts": {site: {}}}}}}, extra)
        extra.flush()
        answer = Path(folder) / "answer.json"
        settable = [name for name, spec in _settable() if not spec.get("no_log")]
        given = {"kit_site": site, "kit_csr": csr, "kit_days": days, "kit_file": str(answer), "kit_variables": settable}
        hosts.play(federation, "kit.yml", variables=given, also=Path(extra.name))
        said: dict[str, Any] = json.loads(answer.read_text())
    return said


def _collection() -> bytes:
    """The collection as a site needs it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        tops = [ANSIBLE / name for name in _COLLECTION]
        files = [file for top in tops for file in ([top] if top.is_file() else sorted(top.rglob("*")))]
        for file in files:
            name = file.relative_to(ANSIBLE)
            if file.is_file() and not _NOT_FOR_SITES & set(name.parts):
                _add(tar, f"ansible_collections/flowerbed/federation/{name}", file.read_bytes())
    return buffer.getvalue()


def _readme(federation: FederationFolder, site: str, python: str, gateway: str, file: str) -> bytes:
    lines = []
    for name, spec in _settable():
        described = spec["description"]
        said = described if isinstance(described, str) else " ".join(described)
        lines.append(f"  {name} ({spec['type']}): {said}")
    text = string.Template((_HERE / "README.txt").read_text())
    words = {"federation": federation.name, "site": site, "python": python, "gateway": gateway, "file": file}
    return text.substitute(words, variables="\n".join(lines)).encode()


def _pack(file: Path, site: str, contents: Mapping[str, bytes | Path]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with tarfile.open(new, "w", format=tarfile.PAX_FORMAT) as tar:
            for name, content in sorted(contents.items()):
                _add(tar, f"{site}/{name}", content, 0o755 if name == "join" else 0o644)
        new.replace(file)
    finally:
        new.unlink(missing_ok=True)


def _add(tar: tarfile.TarFile, name: str, content: bytes | Path, mode: int = 0o644) -> None:
    entry = tarfile.TarInfo(name)
    entry.mode = mode
    entry.mtime = int(time.time())
    entry.size = content.stat().st_size if isinstance(content, Path) else len(content)
    with content.open("rb") if isinstance(content, Path) else io.BytesIO(content) as stream:
        tar.addfile(entry, stream)


def _sha256(content: bytes | Path) -> str:
    with content.open("rb") if isinstance(content, Path) else io.BytesIO(content) as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _json(document: Any) -> bytes:
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


def _folder(federation: FederationFolder) -> Path:
    return federation.state / "kits"
