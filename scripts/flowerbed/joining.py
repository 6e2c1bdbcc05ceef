"""Joining by kit, on the operator's side: a hospital's request is checked, and its key registered.

Who was let in stands in the federation's `approved.json`, which holds public data only. A site counts once the
SuperLink has its key; until then the same approval can be given again, and `up` goes on with it too.
"""

import base64
import fcntl
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import BaseModel, ConfigDict, ValidationError

from flowerbed import hosts, inventory, kit, revocation
from flowerbed.errors import FlowerbedError, UsageError, WorkFailed
from flowerbed.federation import FederationFolder
from flowerbed.inventory import HOST_NAME

SCHEMA = 1
# As the module join_request signs it.
PURPOSE = b"flowerbed join request 1\n"
_LARGEST = 16 * 1024
_KEY = re.compile(r"ecdsa-sha2-nistp(?:256|384) [A-Za-z0-9+/=]+")
Progress = Callable[[str], None]


class Refused(UsageError):
    """A request that is not to be trusted."""


class Request(BaseModel):
    """A hospital's request, as the file has it."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    schema_version: int
    federation: str
    site: str
    kit: str
    release: str
    public_key: str
    fingerprint: str
    made: str
    signature: str


@dataclass(frozen=True)
class Approved:
    """A site that was let in; times are ISO 8601 in UTC."""

    name: str
    public_key: str
    fingerprint: str
    kit: str
    release: str
    approved: str


@dataclass(frozen=True)
class Site:
    """A site, however it joined; `since` and `fingerprint` are known of those that joined by kit."""

    name: str
    way: str
    """`SSH`, `kit`, or `kit made` where its request is still to come."""
    since: str = ""
    fingerprint: str = ""


def approved(federation: FederationFolder) -> dict[str, Approved]:
    """The sites that joined by kit; raises UsageError when the file is damaged."""
    file = federation.approved_file
    if not file.exists():
        return {}
    try:
        sites = json.loads(file.read_text())["sites"]
        return {name: Approved(name=name, **values) for name, values in sites.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{file} is damaged ({error}): bring it back from git or the backup") from None


def approve(
    federation: FederationFolder,
    file: Path,
    fingerprint: str,
    *,
    replace: bool = False,
    progress: Progress = lambda _: None,
) -> Approved:
    """Check a request, note its site as let in, and register its key.

    `fingerprint` is the one that the hospital read out, not the one in the file; `replace` lets a known site have
    another key. Raises UsageError with one line that says what is wrong with the request, after it was noted in the
    coordinator's audit trail, and WorkFailed when the key could not be registered.
    """
    inventory.read(federation)  # before anything is said of the request
    with _alone(federation):
        try:
            request, used = examine(federation, file, fingerprint, replaced=replace)
        except Refused as error:
            progress("noting the refusal")
            _note_refusal(federation, file, str(error))
            raise
        site = Approved(
            name=request.site,
            public_key=request.public_key,
            fingerprint=request.fingerprint,
            kit=request.kit,
            release=request.release,
            approved=f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}",
        )
        # First: whoever is registered and stands nowhere is unregistered by the next `up`, and its key is lost then.
        _write(federation, {**approved(federation), site.name: site})
        progress(f"registering {site.name}")
        note = _note("site.approved", f"{site.name} was let in", site=site.name, fingerprint=site.fingerprint)
        _register(federation, site, note)
        kit.write(federation, used)
    return site


def examine(
    federation: FederationFolder, file: Path, fingerprint: str, *, replaced: bool = False
) -> tuple[Request, kit.Kit]:
    """Check a request without letting anybody in; returns it, and the record of its kit as used by it.

    Raises UsageError, with one line, for a request that is not to be trusted.
    """
    request, digest = _read(file)
    return request, _check(federation, request, digest, fingerprint, replaced)


def wait(federation: FederationFolder, site: Approved, seconds: int) -> None:
    """Wait until the site is online; raises WorkFailed, which says that it is approved all the same."""
    try:
        _register(federation, site, {"superlink_nodes_wait": seconds})
    except WorkFailed as error:
        if "not online" not in str(error):
            raise
        raise WorkFailed(
            f"{site.name} is let in, but its SuperNode has not answered within {seconds} s: it tries every 15 s while "
            f"its machine is on; `flowerbed status {federation.name}` shows when it is online"
        ) from None


def forget(federation: FederationFolder, name: str) -> None:
    """Let nobody in by this name any more without a new approval; an unknown name changes nothing."""
    with _alone(federation):
        let_in = approved(federation)
        if let_in.pop(name, None):
            _write(federation, let_in)


def sites(federation: FederationFolder) -> list[Site]:
    """All sites, and the hospitals whose request is awaited."""
    found = [Site(name, "SSH") for name in inventory.read(federation).sites]
    let_in = approved(federation)
    found += [Site(one.name, "kit", one.approved, one.fingerprint) for one in let_in.values()]
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"
    open_kits = [one for one in kit.known(federation).values() if not one.request and one.expires > now]
    waiting = {one.site: one for one in open_kits if one.site not in let_in}
    return sorted(found + [Site(name, "kit made", one.made) for name, one in waiting.items()], key=lambda one: one.name)


# The request -----------------------------------------------------------------------------------------------


def _read(file: Path) -> tuple[Request, str]:
    """The request and its sum; what is no request is refused."""
    try:
        with file.open("rb") as stream:
            content = stream.read(_LARGEST + 1)
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None
    try:
        if len(content) > _LARGEST:
            raise ValueError("it is too large")
        document = json.loads(content, object_pairs_hook=_once)
        document["schema_version"] = document.pop("schema")
        return Request.model_validate(document), hashlib.sha256(content).hexdigest()
    except ValidationError as error:
        first = error.errors()[0]
        raise Refused(f"{file} is no request to join: {first['loc'][0]}: {first['msg'].lower()}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(f"{file} is no request to join ({error}): ask for the file that `join` wrote") from None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object whose names stand there once: programs differ in which of two they take."""
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a name stands there twice")
    return dict(pairs)


def _check(federation: FederationFolder, request: Request, digest: str, told: str, replaced: bool) -> kit.Kit:
    """Refuse what is not to be trusted; returns the record of the kit, used by this request."""
    if request.schema_version != SCHEMA:
        raise Refused(f"the request has schema {request.schema_version}, not {SCHEMA}: make a kit with this version")
    _check_signature(request)
    if request.federation != federation.name:
        raise Refused(f"the request is for the federation '{request.federation}', not for {federation.name}")
    made = kit.known(federation).get(request.kit)
    if made is None:
        raise Refused(f"the request of '{request.site}' comes from a kit that was not made here: build one for it")
    if made.site != request.site:
        raise Refused(f"the request names the site '{request.site}', and its kit was made for '{made.site}'")
    if made.request:
        how = "this very request was approved before" if made.request == digest else "its kit was used before"
        raise Refused(f"{how}: build a new kit for {request.site} if it is to join again")
    if made.expires < f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}":
        raise Refused(f"the kit of {request.site} expired on {made.expires[:10]}: build a new one")
    if told.strip().removeprefix("SHA256:").rstrip("=") != request.fingerprint.removeprefix("SHA256:"):
        raise Refused(
            f"the key in the request is {request.fingerprint}, which is not what you were told: "
            f"somebody else may have written it; call {request.site} again"
        )
    _check_key(federation, request, replaced)
    return replace(made, request=digest)


def _check_signature(request: Request) -> None:
    """The request was signed by the very key that it asks to let in."""
    try:
        key = serialization.load_ssh_public_key(request.public_key.encode())
        if not _KEY.fullmatch(request.public_key) or not isinstance(key, ec.EllipticCurvePublicKey):
            raise ValueError("not a key of a SuperNode")
        signed = request.model_dump(exclude={"signature", "schema_version"}) | {"schema": request.schema_version}
        text = json.dumps(signed, sort_keys=True, separators=(",", ":")).encode()
        signature = base64.b64decode(request.signature, validate=True)
        key.verify(signature, PURPOSE + text, ec.ECDSA(hashes.SHA384()))
    except (ValueError, InvalidSignature):
        raise Refused("the request's signature is not its key's: it was changed on the way, ask for it again") from None
    if fingerprint_of(request.public_key) != request.fingerprint:
        raise Refused(f"the request says that its key is {request.fingerprint}, and it is another: ask for it again")


def _check_key(federation: FederationFolder, request: Request, replaced: bool) -> None:
    """The key is nobody else's, and was never revoked; the name is nobody else's."""
    if not HOST_NAME.fullmatch(request.site):
        raise Refused(f"'{request.site}' is no site's name")
    revoked = {one.public_key for one in revocation.read(federation)}
    if request.public_key in revoked:
        raise Refused(f"the key of {request.site} was revoked: its machine needs a new one, remove node_key there")
    known = inventory.read(federation)
    if request.site in (known.coordinator.name, *known.sites):
        raise Refused(f"{request.site} is a host of {federation.name} that is reached by SSH: use another name")
    let_in = approved(federation)
    others = [one.name for one in let_in.values() if one.public_key == request.public_key and one.name != request.site]
    if others:
        raise Refused(f"the key in the request is that of {others[0]}: every site makes its own")
    before = let_in.get(request.site)
    if before and before.public_key not in (request.public_key, *revoked) and not replaced:
        raise Refused(
            f"{request.site} joined on {before.approved[:10]} with another key: "
            "if its machine is a new one, approve with --replace"
        )


def fingerprint_of(public_key: str) -> str:
    """The SHA-256 fingerprint of an OpenSSH public key line, as `ssh-keygen -l` prints it."""
    digest = hashlib.sha256(base64.b64decode(public_key.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


# Keeping it ------------------------------------------------------------------------------------------------


@contextmanager
def _alone(federation: FederationFolder) -> Iterator[None]:
    """Let one approval at a time read and write the federation's files."""
    federation.state.mkdir(parents=True, exist_ok=True, mode=0o700)
    with (federation.state / "approve.lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _write(federation: FederationFolder, let_in: dict[str, Approved]) -> None:
    rows = {name: {key: value for key, value in asdict(one).items() if key != "name"} for name, one in let_in.items()}
    document = {"schema": SCHEMA, "sites": dict(sorted(rows.items()))}
    inventory.replace_file(federation.approved_file, json.dumps(document, indent=2) + "\n")


def _register(federation: FederationFolder, site: Approved, more: Mapping[str, Any]) -> None:
    nodes = [{"name": site.name, "public_key": site.public_key}]
    hosts.play(federation, "nodes.yml", variables={"superlink_nodes": nodes, **more})


def _note(event: str, message: str, **fields: str) -> dict[str, Any]:
    """What the playbook note.yml needs."""
    return {"note_event": event, "note_message": message, "note_fields": fields}


def _note_refusal(federation: FederationFolder, file: Path, why: str) -> None:
    """Refused is refused, whether the coordinator can be told or not."""
    try:
        hosts.play(federation, "note.yml", variables=_note("site.refused", why, detail=file.name))
    except FlowerbedError as error:
        raise Refused(f"{why} (and the coordinator could not note it: {error})") from None
