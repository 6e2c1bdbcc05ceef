# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Certificates of a federation: an authority, the requests of its hosts, and what it signs for them.

Plain functions on values; the only files touched are those of `read_authority`, `save_authority` and
`replace_file`. Every function takes `now`, so that a certificate's age is a parameter and not the clock's.
Errors are `PkiError`, one line that names the thing and the remedy.
"""

from __future__ import annotations

import ipaddress
import os
import re
import tempfile
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
except ImportError:
    CRYPTOGRAPHY_MISSING = traceback.format_exc()
else:
    CRYPTOGRAPHY_MISSING = ""

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Certificate: TypeAlias = "x509.Certificate"
PrivateKey: TypeAlias = "ec.EllipticCurvePrivateKey"
PublicKey: TypeAlias = "ec.EllipticCurvePublicKey"
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

# Hosts whose clock is a little behind the operator's must not refuse a certificate made a second ago.
BACKDATED = timedelta(hours=1)
_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_DNS_NAME = re.compile(rf"(?=.{{1,253}}$){_LABEL}(\.{_LABEL})*")
_COMMON_NAME_MAX = 64  # RFC 5280, ub-common-name


class PkiError(Exception):
    """One line that names what is wrong and what mends it."""


@dataclass(frozen=True)
class Names:
    """Names of a host, as a certificate carries them."""

    dns: tuple[str, ...]
    ip: tuple[Address, ...]

    def __str__(self) -> str:
        return ", ".join([*self.dns, *map(str, self.ip)]) or "none"

    def __bool__(self) -> bool:
        return bool(self.dns or self.ip)

    def without(self, other: Names) -> Names:
        """The names that `other` has not."""
        return Names(
            tuple(name for name in self.dns if name not in other.dns),
            tuple(address for address in self.ip if address not in other.ip),
        )

    def same_as(self, other: Names) -> bool:
        """Whether both have the same names; their order says nothing."""
        return not self.without(other) and not other.without(self)


@dataclass(frozen=True)
class Permitted:
    """What an authority may vouch for: DNS names (with what lies below them) and networks."""

    dns: tuple[str, ...]
    networks: tuple[Network, ...]

    def __str__(self) -> str:
        return ", ".join([*self.dns, *map(str, self.networks)]) or "nothing"

    def __bool__(self) -> bool:
        return bool(self.dns or self.networks)

    def without(self, other: Permitted) -> Permitted:
        """What `other` does not cover."""
        return Permitted(
            tuple(name for name in self.dns if not any(_below(name, top) for top in other.dns)),
            tuple(net for net in self.networks if not any(_within(net, top) for top in other.networks)),
        )

    def outside(self, names: Names) -> Names:
        """Those of `names` that the authority may not vouch for."""
        return Names(
            tuple(name for name in names.dns if not any(_below(name, top) for top in self.dns)),
            tuple(ip for ip in names.ip if not any(ip in network for network in self.networks)),
        )


@dataclass(frozen=True)
class Authority:
    """The certificate and the key that sign for a federation."""

    certificate: Certificate
    key: PrivateKey


# Names ---------------------------------------------------------------------------------------------------


def names(dns_names: Iterable[str], ip_addresses: Iterable[str]) -> Names:
    """Read the names of a host; raises PkiError for what is no name or no address."""
    addresses = []
    for text in ip_addresses:
        try:
            addresses.append(ipaddress.ip_address(text))
        except ValueError:
            raise PkiError(f"'{text}' is no IP address: correct ip_addresses") from None
    return Names(_dns_names(dns_names, "dns_names", "ip_addresses"), tuple(dict.fromkeys(addresses)))


def permitted(dns_names: Iterable[str], networks: Iterable[str]) -> Permitted:
    """Read what an authority may vouch for; raises PkiError for what is no name or no network."""
    found = []
    for text in networks:
        try:
            found.append(ipaddress.ip_network(text))
        except ValueError as error:
            raise PkiError(f"'{text}' is no network ({error}): correct permitted_ip") from None
    return Permitted(_dns_names(dns_names, "permitted_dns", "permitted_ip"), tuple(dict.fromkeys(found)))


def _dns_names(texts: Iterable[str], option: str, for_addresses: str) -> tuple[str, ...]:
    found = []
    for text in texts:
        name = text.lower()
        if not _DNS_NAME.fullmatch(name):
            # A wildcard would let one stolen key stand for every host below the name.
            raise PkiError(f"'{text}' is no DNS name (wildcards are none either): correct {option}")
        if _is_address(name):
            raise PkiError(f"'{text}' is an IP address: move it from {option} to {for_addresses}")
        found.append(name)
    return tuple(dict.fromkeys(found))


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _below(name: str, top: str) -> bool:
    """RFC 5280: a DNS constraint covers the name and every name made by adding labels on its left."""
    return name == top or name.endswith(f".{top}")


def _within(network: Network, top: Network) -> bool:
    return network.version == top.version and network[0] in top and network[-1] in top


# The authority -------------------------------------------------------------------------------------------


def make_authority(common_name: str, allowed: Permitted, days: int = 3650, now: datetime | None = None) -> Authority:
    """Make an authority that is valid for `days` and may vouch for `allowed` only."""
    if not allowed:
        raise PkiError("an authority needs a name to vouch for: set permitted_dns or permitted_ip")
    key = ec.generate_private_key(ec.SECP384R1())
    subject = _common_name(common_name)
    certificate = (
        _builder(subject, subject, key.public_key(), *_validity(days, now))
        # Path length 0: it signs hosts only; a host's certificate can never become an authority of its own.
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        # The key signs certificates and revocation lists; it serves no connection and decrypts nothing.
        .add_extension(_key_usage(key_cert_sign=True, crl_sign=True), critical=True)
        # Critical: who trusts this authority trusts it for this federation's names, and whoever steals the
        # key can impersonate nothing else. A program that does not know the extension must refuse it.
        .add_extension(_name_constraints(allowed), critical=True)
        # Lets a host tell two authorities of the same name apart, after one was replaced.
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA384())
    )
    return Authority(certificate, key)


def _name_constraints(allowed: Permitted) -> x509.NameConstraints:
    permit: list[x509.GeneralName] = [x509.DNSName(name) for name in allowed.dns]
    permit += [x509.IPAddress(network) for network in allowed.networks]
    exclude: list[x509.GeneralName] = []
    # A kind of name that no constraint mentions is unrestricted (RFC 5280), so an unused kind is excluded.
    if not allowed.dns:
        exclude.append(x509.DNSName(""))
    if not allowed.networks:
        exclude += [x509.IPAddress(ipaddress.ip_network(every)) for every in ("0.0.0.0/0", "::/0")]
    return x509.NameConstraints(permitted_subtrees=permit, excluded_subtrees=exclude or None)


def permitted_by(authority: Certificate) -> Permitted:
    """What an authority's certificate may vouch for; raises PkiError when it has no constraints."""
    try:
        constraints = authority.extensions.get_extension_for_class(x509.NameConstraints).value
    except x509.ExtensionNotFound:
        raise PkiError(
            "the authority's certificate has no name constraints and could vouch for any name: "
            "move its folder away and run again, a new authority is made"
        ) from None
    trees = constraints.permitted_subtrees or []
    return Permitted(
        tuple(tree.value for tree in trees if isinstance(tree, x509.DNSName)),
        tuple(tree.value for tree in trees if isinstance(tree.value, Network)),
    )


def check_in_force(authority: Certificate, where: str, now: datetime | None = None) -> None:
    """Raise PkiError when the authority's certificate has expired; `where` names it."""
    end = authority.not_valid_after_utc
    if end <= _now(now):
        raise PkiError(
            f"the authority {where} expired on {end:%Y-%m-%d}: move its folder away and run again, "
            "a new authority is made and every certificate renewed"
        )


def read_authority(folder: Path) -> Certificate | None:
    """The certificate of the authority in `folder`, or None when there is no authority.

    Raises PkiError when it cannot be read or when one of its two files is missing.
    """
    certificate, key = folder / "ca.crt", folder / "ca.key"
    if not certificate.exists() and not key.exists():
        return None
    for file, other in ((certificate, key), (key, certificate)):
        if not file.exists():
            raise PkiError(
                f"{file} is missing beside {other}: bring it back from the backup, "
                "or move the folder away and run again, a new authority is made"
            )
    return read_certificate(_read(certificate), str(certificate))


def open_authority(folder: Path, certificate: Certificate, passphrase: str) -> Authority:
    """The authority in `folder` with its key, opened by the passphrase.

    Raises PkiError when the passphrase is wrong, or the key is unreadable, bare, or another's.
    """
    return Authority(certificate, _open_key(folder / "ca.key", certificate.public_key(), passphrase, folder / "ca.crt"))


def _open_key(file: Path, public: object | None, passphrase: str, certificate: Path) -> PrivateKey:
    try:
        key = serialization.load_pem_private_key(_read(file), passphrase.encode())
    except TypeError:
        raise PkiError(
            f"{file} is not encrypted: encrypt it with `openssl pkcs8 -topk8 -v2 aes-256-cbc` "
            "and the passphrase of superlink_ca_passphrase"
        ) from None
    except (ValueError, UnsupportedAlgorithm) as error:
        if "password" not in str(error).lower():
            raise PkiError(f"{file} holds no private key: bring it back from the backup") from None
        raise PkiError(
            f"the passphrase does not open {file}: correct superlink_ca_passphrase "
            "(FLOWERBED_CA_PASSPHRASE, or the federation's file secrets/ca_passphrase)"
        ) from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or public not in (None, key.public_key()):
        raise PkiError(f"{file} is not the key of {certificate}: bring both back from the same backup")
    return key


def save_authority(folder: Path, authority: Authority, passphrase: str) -> None:
    """Write ca.key (0600, encrypted) and ca.crt (0644) into `folder` (0700)."""
    _save(folder, authority, passphrase, "ca")


def _save(folder: Path, made: Authority, passphrase: str, name: str) -> None:
    if not passphrase:
        raise PkiError("the authority's key needs a passphrase: set superlink_ca_passphrase")
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    encrypted = made.key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase.encode()),
    )
    # The key first: a certificate without its key would look like a lost key.
    replace_file(folder / f"{name}.key", encrypted, 0o600)
    replace_file(folder / f"{name}.crt", to_pem(made.certificate).encode(), 0o644)


# Replacing the authority ---------------------------------------------------------------------------------
#
# A host that trusts one authority alone would refuse the other's certificates, so both are trusted in between:
#   prepare  the next authority is made in `next/`; hosts trust both (trust.crt holds two certificates)
#   switch   the next authority takes the place of the old one, whose key is gone, and signs from now on
#   finish   hosts trust the new authority alone
# Each step is safe to repeat, also after one that was interrupted.


def trusted(folder: Path) -> str:
    """The certificates that hosts trust, in PEM form; raises PkiError."""
    file = folder / "trust.crt"
    return _read(file if file.exists() else folder / "ca.crt").decode()


def trusts(folder: Path) -> list[Certificate]:
    """The same as certificates."""
    try:
        return x509.load_pem_x509_certificates(trusted(folder).encode())
    except ValueError:
        raise PkiError(f"{folder / 'trust.crt'} holds no certificates: remove it and run again") from None


def resume(folder: Path) -> None:
    """Complete a switch that was interrupted between its two files."""
    key, follower = folder / "ca.key", folder / "next"
    if (follower / "ca.key").exists() and key.exists() and key.read_bytes() == (follower / "ca.key").read_bytes():
        replace_file(folder / "ca.crt", _read(follower / "ca.crt"), 0o644)
        _remove(follower)


def keep_trust(folder: Path) -> bool:
    """Let hosts trust at least the signing authority; returns whether the file had to be written."""
    signing = read_certificate(_read(folder / "ca.crt"), str(folder / "ca.crt"))
    if (folder / "trust.crt").exists() and signing in trusts(folder):
        return False
    _trust(folder, [signing])
    return True


def prepare(folder: Path, make: Callable[[], Authority], passphrase: str) -> bool:
    """Make the next authority and let hosts trust both; returns whether there was anything to do."""
    follower = folder / "next"
    made = read_authority(follower) is None
    if made:
        save_authority(follower, make(), passphrase)
    both = [read_certificate(_read(one / "ca.crt"), str(one / "ca.crt")) for one in (folder, follower)]
    if trusts(folder) == both:
        return made
    _trust(folder, both)
    return True


def switch(folder: Path, passphrase: str) -> bool:
    """Let the next authority sign from now on; returns whether there was anything to do.

    Raises PkiError when no authority was prepared.
    """
    follower = folder / "next"
    certificate = read_authority(follower)
    if certificate is None:
        if len(trusts(folder)) > 1:
            return False  # it was done before
        raise PkiError(f"{follower} does not exist: prepare the next authority first")
    open_authority(follower, certificate, passphrase)
    if certificate not in trusts(folder):
        raise PkiError(f"hosts do not trust {follower} yet: prepare the next authority again")
    # trust.crt stays as it is to the last byte: a SuperNode starts anew where it has changed.
    replace_file(folder / "ca.key", _read(follower / "ca.key"), 0o600)
    replace_file(folder / "ca.crt", to_pem(certificate).encode(), 0o644)
    _remove(follower)
    return True


def finish(folder: Path) -> bool:
    """Let hosts trust the signing authority alone; returns whether there was anything to do."""
    if (folder / "next").exists():
        raise PkiError(f"{folder / 'next'} holds an authority that does not sign yet: switch to it first")
    signing = read_certificate(_read(folder / "ca.crt"), str(folder / "ca.crt"))
    if trusts(folder) == [signing]:
        return False
    _trust(folder, [signing])
    return True


def _trust(folder: Path, certificates: list[Certificate]) -> None:
    replace_file(folder / "trust.crt", "".join(map(to_pem, certificates)).encode(), 0o644)


def _remove(folder: Path) -> None:
    for name in ("ca.key", "ca.crt"):
        (folder / name).unlink(missing_ok=True)
    folder.rmdir()


# Who can open backups ------------------------------------------------------------------------------------


def make_recipient(key: PrivateKey, days: int = 7300, now: datetime | None = None) -> Certificate:
    """A certificate to which backups are encrypted so that `key` opens them; it vouches for nothing and nobody."""
    subject = _common_name("Flower federation backups")
    return (
        _builder(subject, subject, key.public_key(), *_validity(days, now))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        # The key agrees on a secret with who encrypts, and signs nothing.
        .add_extension(_key_usage(key_agreement=True), critical=True)
        # An archive names by this the key that opens it.
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA384())
    )


def keep_recipient(folder: Path, passphrase: str, *, dry: bool = False) -> tuple[Certificate | None, bool]:
    """The certificate to which backups are encrypted, made with its key where there is none; and whether it was made.

    Writes backup.key (0600, encrypted) and backup.crt (0644) into `folder` (0700); `dry` writes nothing, and gives None
    where it would. Raises PkiError when the key is missing beside its certificate, or when the passphrase does not open
    it: what is encrypted to it could never be read.
    """
    certificate, key = folder / "backup.crt", folder / "backup.key"
    if certificate.exists() and not key.exists():
        raise PkiError(
            f"{key} is missing beside {certificate}: bring it back from your own backup, or move the folder away and "
            "run again; backups that were made until now can then not be opened any more"
        )
    if certificate.exists():
        found = read_certificate(_read(certificate), str(certificate))
        _open_key(key, found.public_key(), passphrase, certificate)
        return found, False
    if dry:
        return None, True
    # A key without its certificate is what an interruption between the two leaves.
    own = _open_key(key, None, passphrase, certificate) if key.exists() else ec.generate_private_key(ec.SECP384R1())
    made = Authority(make_recipient(own), own)
    _save(folder, made, passphrase, "backup")
    return made.certificate, True


# Hosts ---------------------------------------------------------------------------------------------------


def make_key() -> PrivateKey:
    """A key for a TLS server; P-256 is what every TLS stack has, and fast."""
    return ec.generate_private_key(ec.SECP256R1())


def key_to_pem(key: PrivateKey) -> bytes:
    """The bare key, as a service without an operator needs it."""
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def read_key(path: Path) -> PrivateKey:
    """The key in `path`; raises PkiError when there is none."""
    try:
        key = serialization.load_pem_private_key(_read(path), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise PkiError(f"{path} holds no bare EC key in PEM form: move it away, a new one will be made")
    return key


def make_request(key: PrivateKey, common_name: str, wanted: Names) -> x509.CertificateSigningRequest:
    """A request for a certificate with the names `wanted`, signed by the key that it is for."""
    return (
        x509.CertificateSigningRequestBuilder()
        .subject_name(_common_name(common_name))
        .add_extension(_alternative_names(wanted), critical=False)
        .sign(key, hashes.SHA256())
    )


def read_request(pem: str) -> x509.CertificateSigningRequest:
    """Read a request; raises PkiError when it is none or when its key did not sign it."""
    try:
        request = x509.load_pem_x509_csr(pem.encode())
        valid = request.is_signature_valid
    except (ValueError, UnsupportedAlgorithm, InvalidSignature) as error:
        raise PkiError(
            f"the request is no certificate request in PEM form ({error}): make it with certificate_request"
        ) from None
    if not valid:
        raise PkiError("the request was not signed by the key it is for: make it again on its host")
    return request


def requested_key(request: x509.CertificateSigningRequest) -> PublicKey:
    """The public key of a request; raises PkiError when it is no EC key."""
    key = request.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise PkiError("the request is not for an EC key: make it with certificate_request")
    return key


def sign_request(
    authority: Authority,
    request: x509.CertificateSigningRequest,
    declared: Names,
    days: int = 365,
    now: datetime | None = None,
) -> Certificate:
    """A server's certificate for the request's key and the `declared` names.

    Nothing but the key and the label in the subject is taken from the request: a host cannot ask itself into
    an authority, another use or another name. The certificate ends no later than the authority.

    Raises PkiError when the authority has expired, when the request asks for names that were not declared,
    when the authority may not vouch for a name, or when the key is no EC key.
    """
    check_in_force(authority.certificate, f"'{_label(authority.certificate)}'", now)
    if not declared:
        raise PkiError("a certificate needs a name: set dns_names or ip_addresses")
    undeclared = alternative_names(request).without(declared)
    if undeclared:
        raise PkiError(
            f"the request asks for names that were not declared ({undeclared}): "
            "add them to dns_names or ip_addresses if they are this host's, else look at the host"
        )
    allowed = permitted_by(authority.certificate)
    outside = allowed.outside(declared)
    if outside:
        raise PkiError(
            f"the authority may not vouch for {outside}, it permits {allowed}: correct the names, or add "
            "them to authority_permitted_dns or authority_permitted_networks, move its folder away "
            "and run again, a new authority is made"
        )
    key = requested_key(request)
    identifier = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    begin, end = _validity(days, now)
    end = min(end, authority.certificate.not_valid_after_utc)
    subject, issuer = _common_name(_label(request)), authority.certificate.subject
    return (
        _as_server(_builder(subject, issuer, key, begin, end), key, declared)
        # Names the key that signed, so that a verifier picks the right one of two authorities.
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        # A TLS server signs its handshake and does nothing else with the key.
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .sign(authority.key, hashes.SHA384())
    )


def sign_code_request(
    authority: Authority, request: x509.CertificateSigningRequest, days: int, now: datetime | None = None
) -> Certificate:
    """A certificate for the request's key that is good for signing code, such as kits, and for nothing else.

    It bears no name of a host, so that it can never be shown by a server. It ends no later than the authority.
    Raises PkiError when the authority has expired or when the key is no EC key.
    """
    check_in_force(authority.certificate, f"'{_label(authority.certificate)}'", now)
    key, issuer = requested_key(request), authority.certificate
    identifier = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    begin, end = _validity(days, now)
    return (
        _builder(_common_name(_label(request)), issuer.subject, key, begin, min(end, issuer.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), critical=True)
        .add_extension(_key_usage(digital_signature=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(identifier), critical=False)
        .sign(authority.key, hashes.SHA384())
    )


def make_loopback(
    key: PrivateKey,
    common_name: str,
    wanted: Names,
    days: int = 3650,
    now: datetime | None = None,
) -> Certificate:
    """A self-signed server's certificate for a host's own loopback.

    Its one user is a program on the same host that is given this very file as its root, so no authority has
    to vouch for it and its key never leaves the host. Raises PkiError for a name beyond the loopback.
    """
    beyond = [*(n for n in wanted.dns if n != "localhost"), *(str(a) for a in wanted.ip if not a.is_loopback)]
    if beyond or not wanted:
        raise PkiError(
            f"a self-signed certificate serves the loopback only, not '{', '.join(beyond) or 'no name'}': "
            "use localhost, 127.0.0.1 and ::1, or let the authority sign the request"
        )
    subject = _common_name(common_name)
    return (
        _as_server(_builder(subject, subject, key.public_key(), *_validity(days, now)), key.public_key(), wanted)
        # No key usage: it signed itself, which a key usage would have to allow, and RFC 5280 keeps that right
        # for authorities; verifiers differ in how strictly they look.
        .sign(key, hashes.SHA256())
    )


def _as_server(builder: x509.CertificateBuilder, key: PublicKey, wanted: Names) -> x509.CertificateBuilder:
    """What both kinds of servers' certificates share."""
    return (
        builder
        # Never an authority.
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        # For servers: it cannot be shown as a client's identity where client certificates are asked for.
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        # The names by which clients may know the host; they look at these, not at the subject.
        .add_extension(_alternative_names(wanted), critical=False)
        # Names the key, for chains and for tools that show them.
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
    )


# Renewal -------------------------------------------------------------------------------------------------


def reasons_to_renew(
    certificate: Certificate | None,
    key: PublicKey,
    authority: Certificate | None,
    declared: Names,
    *,
    renew_before: int,
    now: datetime | None = None,
) -> list[str]:
    """Why `certificate` must be replaced; an empty list when it must not.

    `key` is the public key it must be for, `authority` the one that must have signed it (None: itself),
    `renew_before` the days before its end at which it is renewed.
    """
    if certificate is None:
        return ["missing"]
    reasons = []
    if certificate.public_key() != key:
        reasons.append("it is for a different key")
    if not alternative_names(certificate).same_as(declared):
        reasons.append(f"its names differ: it has {alternative_names(certificate)}, not {declared}")
    if not _issued_by(certificate, authority or certificate):
        reasons.append("it was issued by another authority")
    end = certificate.not_valid_after_utc
    # A certificate that ends with its authority gains nothing by being renewed.
    could_be_longer = authority is None or end < authority.not_valid_after_utc
    if end <= _now(now):
        reasons.append(f"it expired on {end:%Y-%m-%d}")
    elif end <= _now(now) + timedelta(days=renew_before) and could_be_longer:
        reasons.append(f"it expires soon, on {end:%Y-%m-%d}")
    return reasons


def _issued_by(certificate: Certificate, issuer: Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def alternative_names(document: Certificate | x509.CertificateSigningRequest) -> Names:
    """The names of a certificate or a request.

    Raises PkiError for a kind of name that no host of a federation has, such as an e-mail address.
    """
    try:
        found = document.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return Names((), ())
    except ValueError as error:
        raise PkiError(f"the names in the request or certificate cannot be read ({error})") from None
    strange = [name for name in found if not isinstance(name, (x509.DNSName, x509.IPAddress))]
    if strange:
        raise PkiError(f"a host has DNS names and IP addresses only, not {type(strange[0]).__name__}")
    return Names(
        tuple(name.lower() for name in found.get_values_for_type(x509.DNSName)),
        tuple(value for value in found.get_values_for_type(x509.IPAddress) if isinstance(value, Address)),
    )


def days_left(certificate: Certificate, now: datetime | None = None) -> int:
    """Whole days until the certificate ends; negative after its end."""
    return (certificate.not_valid_after_utc - _now(now)).days


def not_after(certificate: Certificate) -> str:
    """The end of the certificate in ISO 8601, UTC."""
    return f"{certificate.not_valid_after_utc:%Y-%m-%dT%H:%M:%SZ}"


def fingerprint(certificate: Certificate) -> str:
    """The certificate's SHA-256 fingerprint, as `openssl x509 -fingerprint` prints it."""
    return certificate.fingerprint(hashes.SHA256()).hex(":").upper()


def to_pem(document: Certificate | x509.CertificateSigningRequest) -> str:
    """A certificate or a request as PEM text."""
    return document.public_bytes(serialization.Encoding.PEM).decode()


def read_certificate(content: bytes, where: str) -> Certificate:
    """Read a certificate; raises PkiError when `content` is none, `where` names it."""
    try:
        return x509.load_pem_x509_certificate(content)
    except ValueError:
        raise PkiError(f"{where} holds no certificate in PEM form: bring it back from the backup") from None


# Parts ---------------------------------------------------------------------------------------------------


def _builder(
    subject: x509.Name, issuer: x509.Name, key: PublicKey, begin: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
    )


def _validity(days: int, now: datetime | None) -> tuple[datetime, datetime]:
    if days < 1:
        raise PkiError(f"a certificate valid for {days} days is none: set days to 1 or more")
    return _now(now) - BACKDATED, _now(now) + timedelta(days=days)


def _key_usage(
    digital_signature: bool = False, key_cert_sign: bool = False, crl_sign: bool = False, key_agreement: bool = False
) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=digital_signature,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=key_agreement,
        key_cert_sign=key_cert_sign,
        crl_sign=crl_sign,
        encipher_only=False,
        decipher_only=False,
    )


def _alternative_names(wanted: Names) -> x509.SubjectAlternativeName:
    general: list[x509.GeneralName] = [x509.DNSName(name) for name in wanted.dns]
    general += [x509.IPAddress(address) for address in wanted.ip]
    return x509.SubjectAlternativeName(general)


def _common_name(label: str) -> x509.Name:
    # OpenSSL takes a common name with a dot for a DNS name when there is no other, and then holds it against
    # the authority's constraints; a blank makes it the label that it is.
    if "." in label and " " not in label:
        label = f"host {label}"
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, label[:_COMMON_NAME_MAX] or "host")])


def _label(document: Certificate | x509.CertificateSigningRequest) -> str:
    found = document.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    return str(found[0].value) if found else ""


def _now(now: datetime | None) -> datetime:
    return now or datetime.now(UTC)


def _read(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise PkiError(f"{file} cannot be read ({error.strerror}): correct its path or permissions") from None


def replace_file(path: Path, content: bytes, mode: int) -> None:
    """Write the file as a whole or not at all; nobody but its owner ever sees it half-made."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    new = Path(name)
    try:
        with os.fdopen(handle, "wb") as stream:
            stream.write(content)
            os.fsync(stream.fileno())
        new.chmod(mode)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
