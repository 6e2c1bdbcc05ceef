"""The authority with the role's defaults: what its key can vouch for, tried by signing with it."""

import subprocess
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import NameOID

from tests.ansible.molecule.fixtures import CONVERGE, FOLDER, play

CA, KEY = FOLDER / "ca" / "ca.crt", FOLDER / "ca" / "ca.key"


@dataclass(frozen=True)
class Issuer:
    """Who signs: a name, and the key."""

    name: x509.Name
    key: ec.EllipticCurvePrivateKey


@pytest.fixture
def thief() -> Issuer:
    """The authority's own name and key, in wrong hands."""
    key = load_pem_private_key(KEY.read_bytes(), (FOLDER / "ca_passphrase").read_bytes())
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return Issuer(x509.load_pem_x509_certificate(CA.read_bytes()).subject, key)


def sign(file: Path, issuer: Issuer, *names: x509.GeneralName, is_ca: bool = False) -> Issuer:
    """Make a certificate that lasts a day, and write it; returns who could sign with it."""
    subject = Issuer(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, file.stem)]), ec.generate_private_key(ec.SECP256R1())
    )
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject.name)
        .issuer_name(issuer.name)
        .public_key(subject.key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    file.write_bytes(builder.sign(issuer.key, hashes.SHA256()).public_bytes(Encoding.PEM))
    return subject


def verify(certificate: Path, *words: str) -> str:
    """What openssl says of a certificate when it trusts the authority."""
    command = ["openssl", "verify", "-CAfile", str(CA), *words, str(certificate)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def test_the_key_is_encrypted_and_its_folder_is_the_operators_alone() -> None:
    assert "ENCRYPTED" in KEY.read_text().splitlines()[0]
    with pytest.raises(ValueError):
        load_pem_private_key(KEY.read_bytes(), b"another passphrase")
    assert (KEY.parent.stat().st_mode & 0o777, KEY.stat().st_mode & 0o777) == (0o700, 0o600)


def test_it_vouches_for_the_loopback(tmp_path: Path, thief: Issuer) -> None:
    leaf = tmp_path / "leaf.crt"
    sign(leaf, thief, x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1")))
    assert verify(leaf) == f"{leaf}: OK\n"


@pytest.mark.parametrize("name", [x509.DNSName("example.org"), x509.IPAddress(ip_address("192.0.2.1"))])
def test_what_it_signs_for_another_name_nobody_accepts(tmp_path: Path, thief: Issuer, name: x509.GeneralName) -> None:
    leaf = tmp_path / "leaf.crt"
    sign(leaf, thief, name)
    assert "permitted subtree violation" in verify(leaf)


def test_it_makes_no_other_authority(tmp_path: Path, thief: Issuer) -> None:
    between, leaf = tmp_path / "between.crt", tmp_path / "leaf.crt"
    other = sign(between, thief, is_ca=True)
    sign(leaf, other, x509.DNSName("localhost"))
    assert "path length constraint exceeded" in verify(leaf, "-untrusted", str(between))


def test_it_lasts_ten_years_under_its_name() -> None:
    certificate = x509.load_pem_x509_certificate(CA.read_bytes())
    assert certificate.subject.rfc4514_string() == "CN=Flower federation CA"
    assert (certificate.not_valid_after_utc - datetime.now(UTC)).days in (3649, 3650)


def test_it_is_kept_and_never_replaced() -> None:
    before = (CA.read_bytes(), KEY.read_bytes())
    assert play(CONVERGE)[-1]["hosts"]["operator"]["changed"] == 0
    assert (CA.read_bytes(), KEY.read_bytes()) == before


def test_another_passphrase_is_refused_in_words() -> None:
    failed = [event for event in play(CONVERGE, "--extra-vars", "authority_passphrase=another-passphrase")]
    message = next(event["message"] for event in failed if event["event"] == "failed")
    assert "passphrase" in message and "another-passphrase" not in message
