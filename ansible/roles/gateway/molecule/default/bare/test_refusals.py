"""Before the role was applied: what it refuses, in one line that names the variable, and before anything is changed."""

import pytest

from tests.ansible.molecule.fixtures import Machine, refused

CASES = {
    "no-authority": {"gateway_ca_path": ""},
    "no-name": {"gateway_ip_addresses": [], "gateway_dns_names": []},
    "insecure": {"gateway_insecure": True},
    "port-in-use": {"gateway_port": 22},
}


@pytest.fixture(scope="module")
def messages() -> dict[str, str]:
    return refused(CASES)


@pytest.mark.parametrize(
    ("case", "remedy"),
    [
        ("no-authority", "set gateway_ca_path to the folder of the CA"),
        ("no-name", "set gateway_dns_names or gateway_ip_addresses"),
        ("insecure", "gateway_insecure is for tests: set gateway_test_federation"),
        ("port-in-use", "port 22 is in use by another program: stop that program or set gateway_port"),
    ],
)
def test_the_role_refuses_and_names_the_remedy(messages: dict[str, str], case: str, remedy: str) -> None:
    assert remedy in messages[case]


def test_check_and_refusals_change_nothing(coordinator: Machine, messages: dict[str, str]) -> None:
    assert len(messages) == len(CASES)
    assert coordinator.changed_since_prepared() == []
