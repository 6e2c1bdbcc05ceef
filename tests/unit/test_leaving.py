"""Who was removed stays out until it is let in again, or has no entry any more."""

import json
from pathlib import Path

import pytest

from flowerbed import inventory, joining, leaving
from flowerbed.errors import UsageError
from flowerbed.federation import FederationFolder

MACHINE = {"address": "10.0.0.1", "host_key": "ssh-ed25519 AAAA"}
OUTPUT = {
    "schema": 1,
    "coordinator": MACHINE,
    "sites": {"hospital-a": {**MACHINE, "address": "10.0.0.2"}, "hospital-b": {**MACHINE, "address": "10.0.0.3"}},
}


@pytest.fixture
def federation(tmp_path: Path) -> FederationFolder:
    """A federation of a platform, one of whose two sites was removed."""
    found = FederationFolder(tmp_path)
    (tmp_path / "lab.tfvars").touch()
    found.removed_file.write_text('["hospital-b"]')
    return found


def test_the_hosts_file_keeps_a_removed_site_without_a_role(federation: FederationFolder) -> None:
    described = inventory.parse(OUTPUT, "lab")
    inventory.write(described, federation, leaving.settle(federation, set(described.sites)))
    known = inventory.read(federation)
    assert list(known.sites) == ["hospital-a"]
    assert known.removed["hospital-b"].address == "10.0.0.3"
    groups = json.loads(federation.hosts_file.read_text())["all"]["children"]
    assert list(groups["removed"]["hosts"]) == ["hospital-b"]


def test_a_removed_site_is_forgotten_once_its_entry_is_gone(federation: FederationFolder) -> None:
    assert leaving.settle(federation, {"hospital-a"}) == []
    assert not federation.removed_file.exists()


def test_a_removed_site_joins_again_only_when_it_is_asked_for(federation: FederationFolder) -> None:
    with pytest.raises(UsageError, match="'hospital-a' was not removed"):
        leaving.add(federation, "hospital-a")
    leaving.add(federation, "hospital-b")
    assert leaving.removed(federation) == []


def test_an_entry_that_was_written_by_hand_is_refused_with_the_remedy(tmp_path: Path) -> None:
    by_hand = FederationFolder(tmp_path)
    by_hand.removed_file.write_text('["hospital-b"]')
    with pytest.raises(UsageError, match=r"hosts\.yml: hospital-b was removed .*take its entry out"):
        leaving.refuse_entries(by_hand, {"hospital-a", "hospital-b"})
    leaving.refuse_entries(by_hand, {"hospital-a"})
    leaving.refuse_entries(by_hand, {"hospital-a", "hospital-b"})  # a new entry of the same name is a new site


@pytest.mark.parametrize("content", ["{", "{}", "[1]"])
def test_a_file_that_is_damaged_is_named(federation: FederationFolder, content: str) -> None:
    federation.removed_file.write_text(content)
    with pytest.raises(UsageError, match=r"removed\.json: holds no list of names"):
        leaving.removed(federation)


def test_who_joined_by_kit_and_left_needs_a_new_approval(federation: FederationFolder) -> None:
    site = {"public_key": "k", "fingerprint": "f", "kit": "1", "release": "r", "approved": "2026-01-01T00:00:00Z"}
    federation.approved_file.write_text(json.dumps({"schema": 1, "sites": {"hospital-c": site, "hospital-d": site}}))
    joining.forget(federation, "hospital-c")
    joining.forget(federation, "hospital-x")
    assert list(joining.approved(federation)) == ["hospital-d"]
