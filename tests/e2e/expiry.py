"""Certificates that have ended: signed by the federation's own CA, and put where a host has a good one."""

from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from tests.e2e.conftest import Standing


def expire(standing: Standing, host: str, path: str) -> None:
    """Let a host have a certificate that ended yesterday, and is the one that it has in all else."""
    ca = standing.federation.secrets / "ca"
    passphrase = standing.federation.ca_passphrase_file.read_text().strip().encode()
    key = serialization.load_pem_private_key((ca / "ca.key").read_bytes(), passphrase)
    assert isinstance(key, EllipticCurvePrivateKey)
    current = x509.load_pem_x509_certificate(standing.host(host).file(path).content)
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder(current.issuer, current.subject, current.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=9))
        .not_valid_after(now - timedelta(days=1))
    )
    for extension in current.extensions:
        builder = builder.add_extension(extension.value, extension.critical)
    pem = builder.sign(key, hashes.SHA384()).public_bytes(serialization.Encoding.PEM).decode()
    standing.host(host).check_output("printf %s %s > %s", "%s", pem, path)
