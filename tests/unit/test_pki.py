"""The promises of the federation's certificates, proved by OpenSSL and by handshakes."""

import ipaddress
import ssl
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

sys.path.insert(0, str(Path(__file__).parents[2] / "ansible" / "collections"))

from ansible_collections.flowerbed.federation.plugins.module_utils import pki

NOW = datetime.now(UTC).replace(microsecond=0)
HOST = pki.names(["flower.example.org", "localhost"], ["127.0.0.1", "10.77.0.10"])
ALLOWED = pki.permitted(["flower.example.org", "localhost"], ["127.0.0.1/32", "10.77.0.0/24"])
PASSPHRASE = "correct horse battery"


@pytest.fixture(scope="module")
def authority() -> pki.Authority:
    return pki.make_authority("Test CA", ALLOWED)


@pytest.fixture(scope="module")
def key() -> ec.EllipticCurvePrivateKey:
    return pki.make_key()


def signed(authority: pki.Authority, key: ec.EllipticCurvePrivateKey, **options: object) -> x509.Certificate:
    return pki.sign_request(authority, pki.make_request(key, "coordinator", HOST), HOST, **options)


def forged(
    issuer: x509.Name,
    by: ec.EllipticCurvePrivateKey,
    key: ec.EllipticCurvePrivateKey,
    name: x509.GeneralName,
    usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.SERVER_AUTH,
    ca: bool = False,
    label: str = "forged",
) -> x509.Certificate:
    """What somebody with the signing key could make, past the checks of sign_request."""
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, label)]))
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - timedelta(hours=1))
        .not_valid_after(NOW + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([name]), critical=False)
        .add_extension(x509.ExtendedKeyUsage([usage]), critical=False)
        .sign(by, hashes.SHA256())
    )


def verify(
    folder: Path,
    root: x509.Certificate,
    certificate: x509.Certificate,
    *more: str,
    between: x509.Certificate | None = None,
) -> str:
    """Empty when `openssl verify` accepts the certificate, else what it says."""
    for name, document in (("root", root), ("between", between), ("leaf", certificate)):
        if document is not None:
            (folder / f"{name}.crt").write_text(pki.to_pem(document))
    command = ["openssl", "verify", "-CAfile", str(folder / "root.crt"), *more]
    command += ["-untrusted", str(folder / "between.crt")] if between is not None else []
    done = subprocess.run([*command, str(folder / "leaf.crt")], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


STRICT = ("-x509_strict", "-purpose", "sslserver")


@pytest.mark.parametrize(
    "name", [("-verify_hostname", "flower.example.org"), ("-verify_ip", "10.77.0.10"), ("-verify_ip", "127.0.0.1")]
)
def test_openssl_accepts_a_host_under_each_of_its_names(
    tmp_path: Path, authority: pki.Authority, key: ec.EllipticCurvePrivateKey, name: tuple[str, str]
) -> None:
    assert verify(tmp_path, authority.certificate, signed(authority, key), *STRICT, *name) == ""


def test_a_host_known_by_its_address_alone_may_have_any_label(tmp_path: Path) -> None:
    # OpenSSL takes a common name with dots for a DNS name when there is no other.
    authority = pki.make_authority("Test CA", pki.permitted([], ["10.77.0.10/32"]))
    address = pki.names([], ["10.77.0.10"])
    for label in ("coordinator", "coordinator.example.org", "10.77.0.10", "x" * 200):
        certificate = pki.sign_request(authority, pki.make_request(pki.make_key(), label, address), address)
        assert verify(tmp_path, authority.certificate, certificate, *STRICT) == ""


@pytest.mark.parametrize(
    "name",
    [
        x509.DNSName("bank.example.com"),
        x509.DNSName("flower.example.org.example.com"),
        x509.DNSName("example.org"),
        x509.IPAddress(ipaddress.ip_address("10.78.0.1")),
        x509.IPAddress(ipaddress.ip_address("::1")),
    ],
    ids=lambda name: str(name.value),
)
def test_openssl_refuses_another_name_even_from_the_stolen_key(
    tmp_path: Path, authority: pki.Authority, key: ec.EllipticCurvePrivateKey, name: x509.GeneralName
) -> None:
    certificate = forged(authority.certificate.subject, authority.key, key, name)
    assert "permitted subtree violation" in verify(tmp_path, authority.certificate, certificate)


@pytest.mark.parametrize(
    ("allowed", "name"),
    [
        (pki.permitted([], ["127.0.0.1/32"]), x509.DNSName("bank.example.com")),
        (pki.permitted(["localhost"], []), x509.IPAddress(ipaddress.ip_address("10.0.0.1"))),
        (pki.permitted(["localhost"], []), x509.IPAddress(ipaddress.ip_address("2001:db8::1"))),
    ],
    ids=["addresses only", "names only", "names only, IPv6"],
)
def test_a_kind_of_name_that_nobody_asked_for_is_excluded(
    tmp_path: Path, key: ec.EllipticCurvePrivateKey, allowed: pki.Permitted, name: x509.GeneralName
) -> None:
    authority = pki.make_authority("Test CA", allowed)
    certificate = forged(authority.certificate.subject, authority.key, key, name)
    assert "excluded subtree violation" in verify(tmp_path, authority.certificate, certificate)


def test_openssl_refuses_what_a_host_signs(
    tmp_path: Path, authority: pki.Authority, key: ec.EllipticCurvePrivateKey
) -> None:
    host = signed(authority, key)
    certificate = forged(host.subject, key, pki.make_key(), x509.DNSName("localhost"))
    assert "invalid CA certificate" in verify(tmp_path, authority.certificate, certificate, between=host)


def test_openssl_refuses_an_authority_below_the_authority(
    tmp_path: Path, authority: pki.Authority, key: ec.EllipticCurvePrivateKey
) -> None:
    name = x509.DNSName("localhost")
    below = forged(authority.certificate.subject, authority.key, key, name, ca=True, label="below")
    certificate = forged(below.subject, key, pki.make_key(), x509.DNSName("localhost"))
    assert "path length constraint exceeded" in verify(tmp_path, authority.certificate, certificate, between=below)


def test_a_hosts_certificate_is_no_clients_and_the_authoritys_no_servers(
    tmp_path: Path, authority: pki.Authority, key: ec.EllipticCurvePrivateKey
) -> None:
    as_client = verify(tmp_path, authority.certificate, signed(authority, key), "-purpose", "sslclient")
    assert "purpose" in as_client
    client = forged(
        authority.certificate.subject,
        authority.key,
        key,
        x509.DNSName("localhost"),
        ExtendedKeyUsageOID.CLIENT_AUTH,
    )
    assert "purpose" in verify(tmp_path, authority.certificate, client, "-purpose", "sslserver")
    usage = authority.certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    assert (usage.key_cert_sign, usage.crl_sign, usage.digital_signature) == (True, True, False)


def test_the_authoritys_constraints_are_critical_and_exact(authority: pki.Authority) -> None:
    extensions = authority.certificate.extensions
    constraints = extensions.get_extension_for_class(x509.NameConstraints)
    assert constraints.critical
    assert pki.permitted_by(authority.certificate) == ALLOWED
    basic = extensions.get_extension_for_class(x509.BasicConstraints)
    assert (basic.critical, basic.value.ca, basic.value.path_length) == (True, True, 0)
    assert isinstance(authority.key.curve, ec.SECP384R1)


def test_a_host_names_the_key_that_signed_it(authority: pki.Authority, key: ec.EllipticCurvePrivateKey) -> None:
    issuer = signed(authority, key).extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
    own = authority.certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    assert issuer.key_identifier == own.key_identifier


# What may be signed


def test_a_request_for_an_undeclared_name_is_refused_and_the_name_is_said(
    authority: pki.Authority, key: ec.EllipticCurvePrivateKey
) -> None:
    request = pki.make_request(key, "coordinator", HOST)
    with pytest.raises(pki.PkiError, match=r"not declared \(10\.77\.0\.10\)"):
        pki.sign_request(authority, request, pki.names(HOST.dns, ["127.0.0.1"]))


def test_a_request_cannot_ask_itself_into_an_authority_or_a_client(
    tmp_path: Path, authority: pki.Authority, key: ec.EllipticCurvePrivateKey
) -> None:
    request = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "coordinator")]))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate = pki.sign_request(authority, request, HOST)
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    usages = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert list(usages) == [ExtendedKeyUsageOID.SERVER_AUTH]
    assert verify(tmp_path, authority.certificate, certificate, *STRICT) == ""


def test_a_name_beyond_the_authority_is_refused_with_the_remedy(
    authority: pki.Authority, key: ec.EllipticCurvePrivateKey
) -> None:
    wanted = pki.names(["bank.example.com"], [])
    with pytest.raises(pki.PkiError, match=r"may not vouch for bank\.example\.com.*authority_permitted_dns"):
        pki.sign_request(authority, pki.make_request(key, "x", wanted), wanted)


def test_a_request_that_its_key_did_not_sign_is_refused(key: ec.EllipticCurvePrivateKey) -> None:
    other = pki.make_request(pki.make_key(), "coordinator", HOST)
    mine = pki.make_request(key, "coordinator", HOST)
    spki = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    stolen = mine.public_bytes(serialization.Encoding.DER).replace(
        key.public_key().public_bytes(*spki), other.public_key().public_bytes(*spki)
    )
    pem = pki.to_pem(x509.load_der_x509_csr(stolen))
    with pytest.raises(pki.PkiError, match="was not signed by the key"):
        pki.read_request(pem)


def test_a_request_for_an_rsa_key_or_a_mail_address_is_refused(
    authority: pki.Authority, key: ec.EllipticCurvePrivateKey
) -> None:
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "x")])
    request = x509.CertificateSigningRequestBuilder().subject_name(subject)
    with pytest.raises(pki.PkiError, match="not for an EC key"):
        rsa_key = rsa.generate_private_key(65537, 2048)
        pki.sign_request(authority, request.sign(rsa_key, hashes.SHA256()), HOST)
    mail = x509.SubjectAlternativeName([x509.RFC822Name("a@example.org")])
    with pytest.raises(pki.PkiError, match="RFC822Name"):
        pki.sign_request(authority, request.add_extension(mail, critical=False).sign(key, hashes.SHA256()), HOST)


@pytest.mark.parametrize(
    ("dns", "addresses", "said"),
    [
        (["*.example.org"], [], "permitted|wildcards"),
        (["10.0.0.1"], [], "move it from dns_names to ip_addresses"),
        (["a_b"], [], "no DNS name"),
        ([], ["10.0.0.256"], "no IP address"),
        ([], ["10.0.0.0/24"], "no IP address"),
    ],
)
def test_what_is_no_name_is_refused(dns: list[str], addresses: list[str], said: str) -> None:
    with pytest.raises(pki.PkiError, match=said):
        pki.names(dns, addresses)


def test_a_network_with_host_bits_and_an_authority_for_nothing_are_refused() -> None:
    with pytest.raises(pki.PkiError, match="host bits set"):
        pki.permitted([], ["10.0.0.7/24"])
    with pytest.raises(pki.PkiError, match="set permitted_dns or permitted_ip"):
        pki.make_authority("Test CA", pki.permitted([], []))


def test_a_wider_authority_covers_a_narrower_wish() -> None:
    wish = pki.permitted(["a.flower.example.org"], ["10.77.0.10/32"])
    assert not wish.without(ALLOWED)
    assert str(pki.permitted(["example.org"], ["10.77.0.0/23", "::1/128"]).without(ALLOWED)) == (
        "example.org, 10.77.0.0/23, ::1/128"
    )


# Validity and renewal


def test_nothing_is_signed_after_the_authoritys_end_nor_beyond_it(key: ec.EllipticCurvePrivateKey) -> None:
    authority = pki.make_authority("Test CA", ALLOWED, days=10)
    assert signed(authority, key).not_valid_after_utc == authority.certificate.not_valid_after_utc
    with pytest.raises(pki.PkiError, match=r"'Test CA' expired on .* move its folder away"):
        signed(authority, key, now=NOW + timedelta(days=11))


def test_the_days_are_counted_from_now_and_a_slow_clock_accepts_them(
    authority: pki.Authority, key: ec.EllipticCurvePrivateKey
) -> None:
    certificate = signed(authority, key, days=100, now=NOW)
    assert certificate.not_valid_after_utc == NOW + timedelta(days=100)
    assert certificate.not_valid_before_utc <= NOW - timedelta(minutes=5)
    assert pki.days_left(certificate, NOW) == 100
    with pytest.raises(pki.PkiError, match="set days to 1 or more"):
        signed(authority, key, days=0)


def test_a_good_certificate_is_left_alone(authority: pki.Authority, key: ec.EllipticCurvePrivateKey) -> None:
    certificate = signed(authority, key)
    turned = pki.names(reversed(HOST.dns), [str(ip) for ip in reversed(HOST.ip)])
    reasons = pki.reasons_to_renew(certificate, key.public_key(), authority.certificate, turned, renew_before=30)
    assert reasons == []


def test_every_reason_to_renew_is_said(authority: pki.Authority, key: ec.EllipticCurvePrivateKey) -> None:
    certificate = signed(authority, key, days=100, now=NOW)

    def reasons(
        certificate: x509.Certificate | None = certificate,
        key: ec.EllipticCurvePrivateKey = key,
        authority: pki.Authority = authority,
        names: pki.Names = HOST,
        day: int = 0,
    ) -> str:
        found = pki.reasons_to_renew(
            certificate,
            key.public_key(),
            authority.certificate,
            names,
            renew_before=30,
            now=NOW + timedelta(days=day),
        )
        return "; ".join(found)

    assert reasons() == ""
    assert reasons(certificate=None) == "missing"
    assert reasons(key=pki.make_key()) == "it is for a different key"
    assert "its names differ" in reasons(names=pki.names(["localhost"], []))
    assert reasons(authority=pki.make_authority("Test CA", ALLOWED)) == "it was issued by another authority"
    assert reasons(day=69) == ""
    assert "it expires soon" in reasons(day=70)
    assert "it expired" in reasons(day=100)


def test_a_certificate_that_ends_with_its_authority_is_not_renewed_every_day(
    key: ec.EllipticCurvePrivateKey,
) -> None:
    authority = pki.make_authority("Test CA", ALLOWED, days=20)
    certificate = signed(authority, key)
    assert pki.reasons_to_renew(certificate, key.public_key(), authority.certificate, HOST, renew_before=30) == []


# The authority's files


@pytest.fixture
def folder(tmp_path: Path, authority: pki.Authority) -> Path:
    folder = tmp_path / "secrets" / "ca"
    pki.save_authority(folder, authority, PASSPHRASE)
    return folder


def test_the_authoritys_key_is_encrypted_and_its_owners_alone(folder: Path) -> None:
    modes = {path.name: path.stat().st_mode & 0o777 for path in (folder, *folder.iterdir())}
    assert modes == {"ca": 0o700, "ca.key": 0o600, "ca.crt": 0o644}
    assert (folder / "ca.key").read_text().startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")


def test_the_passphrase_opens_the_key_and_another_does_not(folder: Path, authority: pki.Authority) -> None:
    certificate = pki.read_authority(folder)
    assert certificate == authority.certificate
    opened = pki.open_authority(folder, certificate, PASSPHRASE)
    assert opened.key.private_numbers() == authority.key.private_numbers()
    with pytest.raises(pki.PkiError, match="superlink_ca_passphrase"):
        pki.open_authority(folder, certificate, "another passphrase")


def test_a_folder_without_an_authority_is_no_error(tmp_path: Path) -> None:
    assert pki.read_authority(tmp_path) is None


@pytest.mark.parametrize("file", ["ca.crt", "ca.key"])
def test_half_an_authority_is_never_completed_by_a_new_one(folder: Path, file: str) -> None:
    (folder / file).unlink()
    with pytest.raises(pki.PkiError, match=f"{file} is missing beside .*bring it back from the backup"):
        pki.read_authority(folder)


def test_a_key_that_is_damaged_bare_or_anothers_is_said_to_be(folder: Path, authority: pki.Authority) -> None:
    certificate, key = authority.certificate, folder / "ca.key"
    key.write_text("nonsense")
    with pytest.raises(pki.PkiError, match="holds no private key"):
        pki.open_authority(folder, certificate, PASSPHRASE)
    key.write_bytes(pki.key_to_pem(authority.key))
    with pytest.raises(pki.PkiError, match="is not encrypted"):
        pki.open_authority(folder, certificate, PASSPHRASE)
    pki.save_authority(folder, pki.make_authority("Other CA", ALLOWED), PASSPHRASE)
    with pytest.raises(pki.PkiError, match="is not the key of"):
        pki.open_authority(folder, certificate, PASSPHRASE)
    (folder / "ca.crt").write_text("nonsense")
    with pytest.raises(pki.PkiError, match="holds no certificate"):
        pki.read_authority(folder)


def test_an_authority_without_constraints_is_refused() -> None:
    key = pki.make_key()
    bare = forged(x509.Name([]), key, key, x509.DNSName("localhost"), ca=True)
    with pytest.raises(pki.PkiError, match="no name constraints"):
        pki.permitted_by(bare)


# Handshakes, as the programs on a host make them


def handshake(folder: Path, root: x509.Certificate, certificate: x509.Certificate, key: bytes, host: str) -> None:
    """A TLS handshake by Python's own rules for X.509, the strict ones of newer versions included."""
    for name, content in (("root", pki.to_pem(root)), ("leaf", pki.to_pem(certificate)), ("key", key.decode())):
        (folder / name).write_text(content)
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(folder / "leaf", folder / "key")
    asking = ssl.create_default_context(cafile=str(folder / "root"))
    asking.verify_flags |= ssl.VERIFY_X509_STRICT
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = asking.wrap_bio(to_client, to_server, server_hostname=host)
    server = serving.wrap_bio(to_server, to_client, server_side=True)
    waiting = [client, server]
    for _ in range(10):
        for side in list(waiting):
            try:
                side.do_handshake()
                waiting.remove(side)
            except ssl.SSLWantReadError:
                continue
    assert waiting == []


def test_a_client_that_trusts_the_authority_reaches_the_host(
    tmp_path: Path, authority: pki.Authority, key: ec.EllipticCurvePrivateKey
) -> None:
    certificate = signed(authority, key)
    for host in ("flower.example.org", "127.0.0.1"):
        handshake(tmp_path, authority.certificate, certificate, pki.key_to_pem(key), host)
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(tmp_path, authority.certificate, certificate, pki.key_to_pem(key), "bank.example.com")


def test_the_loopbacks_certificate_is_its_own_root(tmp_path: Path, key: ec.EllipticCurvePrivateKey) -> None:
    certificate = pki.make_loopback(key, "hospital-a.example.org", pki.names(["localhost"], ["127.0.0.1", "::1"]))
    for host in ("localhost", "127.0.0.1", "::1"):
        handshake(tmp_path, certificate, certificate, pki.key_to_pem(key), host)
    assert verify(tmp_path, certificate, certificate, *STRICT) == ""
    child = forged(certificate.subject, key, pki.make_key(), x509.DNSName("localhost"))
    assert verify(tmp_path, certificate, child) != ""


@pytest.mark.parametrize("names", [(["flower.example.org"], []), (["localhost"], ["10.77.0.10"]), ([], [])], ids=str)
def test_a_self_signed_certificate_serves_the_loopback_only(
    key: ec.EllipticCurvePrivateKey, names: tuple[list[str], list[str]]
) -> None:
    with pytest.raises(pki.PkiError, match="the loopback only"):
        pki.make_loopback(key, "hospital-a", pki.names(*names))
