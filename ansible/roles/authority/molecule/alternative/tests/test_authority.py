"""The authority with other parameters: another name, other networks, a short life."""

from datetime import UTC, datetime
from ipaddress import ip_network

from cryptography import x509

from tests.ansible.molecule.fixtures import FOLDER

CERTIFICATE = x509.load_pem_x509_certificate((FOLDER / "ca" / "ca.crt").read_bytes())


def test_it_bears_the_name() -> None:
    assert CERTIFICATE.subject.rfc4514_string() == "CN=Northern hospitals"


def test_it_may_vouch_for_what_was_asked_and_nothing_else() -> None:
    constraints = CERTIFICATE.extensions.get_extension_for_class(x509.NameConstraints)
    assert constraints.critical
    assert constraints.value.permitted_subtrees is not None
    assert [name.value for name in constraints.value.permitted_subtrees] == [
        "flower.example.org",
        ip_network("203.0.113.0/28"),
        ip_network("198.51.100.7/32"),
    ]


def test_it_lasts_as_long_as_was_asked() -> None:
    assert (CERTIFICATE.not_valid_after_utc - datetime.now(UTC)).days in (29, 30)
