"""Before the role was applied: what it refuses, in one line that names the variable, and before anything is changed."""

import pytest

from tests.ansible.molecule.fixtures import Machine, refused

CASES = {
    "no-release": {"supernode_release": ""},
    "no-port": {"supernode_gateway": "flower.example.org"},
    "no-authority": {"supernode_ca_certificate": ""},
    "insecure": {"supernode_insecure": True},
    "keys-without-tls": {"supernode_insecure": True, "supernode_test_federation": True},
    "port-in-use": {"supernode_port": 22},
    "no-data": {"supernode_data_path": "/srv/nowhere"},
    "no-volume": {"supernode_volumes": [{"source": "/srv/nowhere"}]},
    "closed-data": {"supernode_data_path": "/srv/closed"},
    "unknown-group": {"supernode_data_group": "nobody-knows"},
    "no-proxy": {"supernode_proxy": "proxy.hospital.example:3128"},
    "password-in-proxy": {"supernode_proxy": "http://flower:secret@10.145.0.10:3128"},
    "password-alone": {"supernode_proxy": "http://10.145.0.10:22", "supernode_proxy_password": "secret"},
    "closed-proxy": {"supernode_proxy": "http://10.145.0.10:3128"},
    "list-without-sandbox": {"supernode_apps": "warn", "supernode_isolation": "subprocess"},
    "no-hash": {"supernode_approved_apps": [{"hash": "5f0e"}]},
    "unknown-name": {"supernode_gateway": "flower.invalid:443"},
}


@pytest.fixture(scope="module")
def messages() -> dict[str, str]:
    return refused(CASES)


@pytest.mark.parametrize(
    ("case", "remedy"),
    [
        ("no-release", "set supernode_release to the archive"),
        ("no-port", "set supernode_gateway to the gateway as address:port"),
        ("no-authority", "set supernode_ca_certificate to the CA's certificate"),
        ("insecure", "supernode_insecure is for tests: set supernode_test_federation"),
        ("keys-without-tls", "set supernode_authentication to false beside supernode_insecure"),
        ("port-in-use", "port 22 is in use by another program: stop that program or set supernode_port"),
        ("list-without-sandbox", "set supernode_isolation to process"),
        ("no-hash", "each hash in supernode_approved_apps has 64 hexadecimal digits"),
        ("no-data", "/srv/nowhere does not exist: make it or correct supernode_data_path"),
        ("no-volume", "/srv/nowhere does not exist: make it or correct supernode_volumes"),
        ("closed-data", "/srv/closed is not readable by everybody: change its permissions or set supernode_data_group"),
        ("unknown-group", "group 'nobody-knows' does not exist"),
        ("no-proxy", "set supernode_proxy to the proxy as http://address:port"),
        ("password-in-proxy", "its user and password have variables of their own"),
        ("password-alone", "set supernode_proxy, and both or none of them"),
        ("closed-proxy", "10.145.0.10:3128 does not answer from here (Connection refused): open the way to it"),
        ("unknown-name", "flower.invalid cannot be resolved here: mend the host's DNS"),
    ],
)
def test_the_role_refuses_and_names_the_remedy(messages: dict[str, str], case: str, remedy: str) -> None:
    assert remedy in messages[case]


def test_check_and_refusals_change_nothing(hospital: Machine, messages: dict[str, str]) -> None:
    assert len(messages) == len(CASES)
    assert hospital.changed_since_prepared() == []
