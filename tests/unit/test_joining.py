"""A request to join lets in the key of the hospital that was told of, once, and nobody else's."""

import argparse
import base64
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from flowerbed import joining, kit, revocation
from flowerbed.errors import UsageError
from flowerbed.federation import FederationFolder
from flowerbed.kit import apply

sys.path.insert(0, str(Path(__file__).parents[2] / "ansible" / "collections"))

from ansible_collections.flowerbed.federation.plugins.modules import join_request

HOSTS = """\
all:
  children:
    superlink: {hosts: {coordinator: {}}}
    supernode: {hosts: {hospital-a: {}}}
"""
KIT = kit.Kit("0123", "hospital-d", "2026-11-22T00:00:00Z", "2999-01-01T00:00:00Z", "", "", "", "1.41.0-f2ec610341")
Document = dict[str, Any]


@pytest.fixture
def federation(tmp_path: Path) -> FederationFolder:
    """A federation that made a kit for hospital-d."""
    made = FederationFolder(tmp_path / "study")
    made.path.mkdir()
    made.hosts_file.write_text(HOSTS)
    kit.write(made, KIT)
    return made


@pytest.fixture
def key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


def request(key: ec.EllipticCurvePrivateKey, **changes: Any) -> Document:
    """What a site writes, as its module does; `changes` are what the site itself says otherwise."""
    names = {"federation": "study", "site": "hospital-d", "kit": "0123", "release": "1.41.0-f2ec610341"}
    document = join_request.wanted(key, names) | {"made": "2026-11-22T12:00:00Z"} | changes
    return {**document, "signature": join_request.sign(key, document)}


def write(federation: FederationFolder, document: Any) -> Path:
    file = federation.path.parent / "hospital-d.request.json"
    file.write_text(document if isinstance(document, str) else json.dumps(document))
    return file


def refused(federation: FederationFolder, document: Any, reason: str, fingerprint: str = "", **how: bool) -> None:
    told = fingerprint or (document["fingerprint"] if isinstance(document, dict) else "SHA256:x")
    with pytest.raises(joining.Refused, match=reason) as caught:
        joining.examine(federation, write(federation, document), told, **how)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_genuine_request_is_let_in_with_or_without_the_kind_of_its_fingerprint(
    federation: FederationFolder, key: ec.EllipticCurvePrivateKey
) -> None:
    document = request(key)
    for told in (document["fingerprint"], f" {document['fingerprint'].removeprefix('SHA256:')} "):
        found, used = joining.examine(federation, write(federation, document), told)
        assert (found.site, found.public_key) == ("hospital-d", document["public_key"])
        assert used.request


@pytest.mark.parametrize("name", ["federation", "site", "kit", "release", "made", "fingerprint", "public_key"])
def test_a_request_that_was_changed_on_the_way_is_refused(
    federation: FederationFolder, key: ec.EllipticCurvePrivateKey, name: str
) -> None:
    other = request(ec.generate_private_key(ec.SECP384R1()), made="2026-11-23T12:00:00Z")
    document = request(key)
    document[name] = other[name] if other[name] != document[name] else f"{document[name]}x"
    refused(federation, document, "it was changed on the way", fingerprint=document["fingerprint"])


def test_another_keys_signature_is_refused(federation: FederationFolder, key: ec.EllipticCurvePrivateKey) -> None:
    other = ec.generate_private_key(ec.SECP384R1())
    stolen = {**request(key), "signature": request(other)["signature"]}
    refused(federation, stolen, "it was changed on the way")


def test_a_signature_that_the_key_made_for_something_else_is_refused(
    federation: FederationFolder, key: ec.EllipticCurvePrivateKey
) -> None:
    document = request(key)
    bare = {name: value for name, value in document.items() if name != "signature"}
    text = json.dumps(bare, sort_keys=True, separators=(",", ":")).encode()
    signed = base64.b64encode(key.sign(text, ec.ECDSA(join_request.hashes.SHA384()))).decode()
    refused(federation, {**document, "signature": signed}, "it was changed on the way")


def test_a_key_that_is_not_the_one_read_out_is_refused(
    federation: FederationFolder, key: ec.EllipticCurvePrivateKey
) -> None:
    other = request(ec.generate_private_key(ec.SECP384R1()))
    refused(federation, request(key), "not what you were told", fingerprint=other["fingerprint"])
    refused(federation, request(key), "not what you were told", fingerprint="SHA256:")
    lying = request(key, fingerprint=other["fingerprint"])
    refused(federation, lying, "and it is another", fingerprint=other["fingerprint"])


def test_a_kit_is_good_for_one_request(federation: FederationFolder, key: ec.EllipticCurvePrivateKey) -> None:
    document = request(key)
    _, used = joining.examine(federation, write(federation, document), document["fingerprint"])
    kit.write(federation, used)
    refused(federation, document, "this very request was approved before")
    refused(federation, request(key, made="2026-11-23T00:00:00Z"), "its kit was used before")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"federation": "other"}, "is for the federation 'other', not for study"),
        ({"kit": "4711"}, "from a kit that was not made here"),
        ({"kit": "../0123"}, "from a kit that was not made here"),
        ({"site": "hospital-e"}, "its kit was made for 'hospital-d'"),
        ({"schema": 2}, "schema 2, not 1"),
    ],
    ids=str,
)
def test_a_foreign_request_is_refused(
    federation: FederationFolder, key: ec.EllipticCurvePrivateKey, changes: Document, reason: str
) -> None:
    refused(federation, request(key, **changes), reason)


def test_a_request_from_an_expired_kit_is_refused(
    federation: FederationFolder, key: ec.EllipticCurvePrivateKey
) -> None:
    kit.write(federation, replace(KIT, expires="2026-01-31T00:00:00Z"))
    refused(federation, request(key), "expired on 2026-01-31: build a new one")


def test_a_revoked_key_never_gets_in_again(federation: FederationFolder, key: ec.EllipticCurvePrivateKey) -> None:
    document = request(key)
    revoke(federation, document)
    refused(federation, document, "was revoked")
    refused(federation, document, "was revoked", replaced=True)


def test_a_name_that_is_somebody_elses_is_refused(
    federation: FederationFolder, key: ec.EllipticCurvePrivateKey
) -> None:
    for name in ("hospital-a", "coordinator"):
        kit.write(federation, replace(KIT, site=name))
        refused(federation, request(key, site=name), "reached by SSH")


def test_a_site_with_another_key_is_let_in_only_where_the_operator_says_so(
    federation: FederationFolder, key: ec.EllipticCurvePrivateKey
) -> None:
    other = request(ec.generate_private_key(ec.SECP384R1()))
    approve(federation, "hospital-d", other)
    refused(federation, request(key), "approve with --replace")
    document = request(key)
    found, _ = joining.examine(federation, write(federation, document), document["fingerprint"], replaced=True)
    assert found.public_key == document["public_key"]


def test_a_site_whose_key_was_revoked_comes_back_with_a_new_one(
    federation: FederationFolder, key: ec.EllipticCurvePrivateKey
) -> None:
    other = request(ec.generate_private_key(ec.SECP384R1()))
    approve(federation, "hospital-d", other)
    revoke(federation, other)
    document = request(key)
    found, _ = joining.examine(federation, write(federation, document), document["fingerprint"])
    assert found.public_key == document["public_key"]


def test_a_copied_machines_key_is_refused_under_another_name(
    federation: FederationFolder, key: ec.EllipticCurvePrivateKey
) -> None:
    approve(federation, "hospital-c", request(key))
    refused(federation, request(key), "is that of hospital-c")


def approve(federation: FederationFolder, name: str, document: Document) -> None:
    """What the file says after a site was let in."""
    facts = {key: document[key] for key in ("public_key", "fingerprint", "kit", "release")}
    sites = {name: {**facts, "approved": "2026-11-22T12:00:00Z"}}
    federation.approved_file.write_text(json.dumps({"schema": 1, "sites": sites}))


def revoke(federation: FederationFolder, document: Document) -> None:
    """Note the key as one that never gets in again."""
    revoked = revocation.Revoked("hospital-d", document["public_key"], "2026-11-22T12:00:00Z", "stolen")
    federation.revoked_file.write_text(json.dumps([asdict(revoked)]))


def without(name: str) -> Callable[[Document], Any]:
    return lambda document: {key: value for key, value in document.items() if key != name}


def rsa_key(document: Document) -> Document:
    public = rsa.generate_private_key(65537, 2048).public_key()
    line = public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    return {**document, "public_key": line}


@pytest.mark.parametrize(
    "spoil",
    [
        without("signature"),
        without("schema"),
        lambda document: {**document, "schema": "1"},
        lambda document: {**document, "extra": 1},
        lambda document: {**document, "public_key": f"{document['public_key']}\nssh-rsa AAAA"},
        rsa_key,
        lambda document: json.dumps(document)[:-1] + ', "site": "hospital-a"}',
        lambda document: json.dumps(document) + " " * 20_000,
        lambda document: json.dumps(document)[:-1],
        lambda _: "[]",
        lambda _: "",
    ],
    ids=["unsigned", "no schema", "type", "extra", "two keys", "RSA", "twice", "large", "cut off", "list", "empty"],
)
def test_what_is_no_request_is_refused_in_one_line(
    federation: FederationFolder, key: ec.EllipticCurvePrivateKey, spoil: Callable[[Document], Any]
) -> None:
    document = request(key)
    refused(federation, spoil(document), "request", fingerprint=document["fingerprint"])


def test_a_request_that_cannot_be_read_is_the_callers_mistake(federation: FederationFolder) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        joining.examine(federation, federation.path / "none.json", "SHA256:x")


def test_sites_lists_who_joined_how_and_who_is_awaited(
    federation: FederationFolder, key: ec.EllipticCurvePrivateKey
) -> None:
    assert [(one.name, one.way) for one in joining.sites(federation)] == [
        ("hospital-a", "SSH"),
        ("hospital-d", "kit made"),
    ]
    approve(federation, "hospital-d", request(key))
    assert [(one.name, one.way) for one in joining.sites(federation)] == [("hospital-a", "SSH"), ("hospital-d", "kit")]


def test_the_settings_of_a_hospital_are_kept_and_its_passwords_come_from_files(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("not-for-apps.4711\n")
    words = [f"supernode_proxy_password=@{secret}", 'supernode_labels={"region": "north"}', "supernode_port=9999"]
    options = argparse.Namespace(set=words, data="/srv/hospital")
    known = {"supernode_proxy_password": "str", "supernode_labels": "dict", "supernode_port": "int"}
    assert apply.own_settings(options, {**known, "supernode_data_path": "str"}) == {
        "supernode_proxy_password": "not-for-apps.4711",
        "supernode_labels": {"region": "north"},
        "supernode_port": 9999,
        "supernode_data_path": "/srv/hospital",
    }
    for word in ("supernode_other=1", "supernode_port", "supernode_labels=north", "supernode_proxy_password={{ x }}"):
        with pytest.raises(ValueError, match=r"--set|template"):
            apply.own_settings(argparse.Namespace(set=[word], data=None), known)
