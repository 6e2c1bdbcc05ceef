"""Before the role was applied: what it refuses, in one line that names the variable, and before anything is changed."""

import pytest

from tests.ansible.molecule.fixtures import FOLDER, refused

CASES = {
    "no-path": {"authority_path": ""},
    "no-passphrase": {"authority_passphrase": ""},
    "short-passphrase": {"authority_passphrase": "eleven char"},
}


@pytest.fixture(scope="module")
def messages() -> dict[str, str]:
    # The role acts once for all hosts of a play, so each case is a play of its own.
    return {case: message for name, values in CASES.items() for case, message in refused({name: values}).items()}


@pytest.mark.parametrize(
    ("case", "remedy"),
    [
        ("no-path", "set authority_path to a folder on the operator's machine"),
        ("no-passphrase", "the CA's passphrase (12 characters or more) in FLOWERBED_CA_PASSPHRASE"),
        ("short-passphrase", "the CA's passphrase (12 characters or more) in FLOWERBED_CA_PASSPHRASE"),
    ],
)
def test_the_role_refuses_and_names_the_remedy(messages: dict[str, str], case: str, remedy: str) -> None:
    assert remedy in messages[case]


def test_a_refusal_does_not_print_the_passphrase(messages: dict[str, str]) -> None:
    assert "eleven char" not in messages["short-passphrase"]


def test_check_and_refusals_change_nothing(messages: dict[str, str]) -> None:
    assert len(messages) == len(CASES)
    assert not (FOLDER / "ca").exists()
