"""Before the role was applied: what it refuses, in one line that names the variable, and before anything is changed."""

import pytest

from tests.ansible.molecule.fixtures import Machine, refused

CASES = {
    "no-release": {"superlink_release": ""},
    "no-authority": {"superlink_ca_path": ""},
    "insecure": {"superlink_insecure": True},
    "port-in-use": {"superlink_port": 22},
    "no-volume": {"superlink_volumes": [{"source": "/srv/nowhere"}]},
    "unknown-isolation": {"superlink_isolation": "container"},
}


@pytest.fixture(scope="module")
def messages() -> dict[str, str]:
    return refused(CASES)


@pytest.mark.parametrize(
    ("case", "remedy"),
    [
        ("no-release", "set superlink_release to the archive"),
        ("no-authority", "set superlink_ca_path to the folder of the CA"),
        ("insecure", "superlink_insecure is for tests: set superlink_test_federation"),
        ("port-in-use", "port 22 is in use by another program: stop that program or set superlink_port"),
        ("no-volume", "/srv/nowhere does not exist: make it or correct superlink_volumes"),
        ("unknown-isolation", "superlink_isolation must be one of: process, subprocess"),
    ],
)
def test_the_role_refuses_and_names_the_remedy(messages: dict[str, str], case: str, remedy: str) -> None:
    assert remedy in messages[case]


def test_check_and_refusals_change_nothing(coordinator: Machine, messages: dict[str, str]) -> None:
    assert len(messages) == len(CASES)
    assert coordinator.changed_since_prepared() == []
