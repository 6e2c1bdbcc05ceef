"""Which release the hosts of a federation are to have, between an upgrade, a rollback and `up`."""

import json
from pathlib import Path

import pytest

from flowerbed import release, upgrade
from flowerbed.console import Steps
from flowerbed.errors import UsageError
from flowerbed.federation import FederationFolder
from flowerbed.paths import INVENTORIES

LOCK = (INVENTORIES / "lab" / "release.lock").read_text()
HOSTS = """\
all:
  children:
    superlink: {hosts: {coordinator: {ansible_host: 192.0.2.1}}}
    supernode: {hosts: {hospital-a: {ansible_host: 192.0.2.2}}}
"""


@pytest.fixture
def federation(tmp_path: Path) -> FederationFolder:
    """A folder with a lock and machines that do not answer."""
    made = FederationFolder(tmp_path)
    made.lock.write_text(LOCK)
    (tmp_path / "hosts.yml").write_text(HOSTS)
    return made


def hold(federation: FederationFolder, text: str) -> None:
    """As after a rollback."""
    federation.held.mkdir(parents=True)
    (federation.held / federation.lock.name).write_text(text)


def test_release_in_may_name_another_flower_than_this_machines(tmp_path: Path) -> None:
    source = tmp_path / "release.in"
    source.write_text("flwr==1.40.0\nnumpy\n")
    assert release.read_requirements(source) == ["flwr==1.40.0", "numpy"]
    source.write_text("flwr\nnumpy\n")
    assert release.read_requirements(source) == ["numpy"]


@pytest.mark.parametrize("version", ["1.39.0", "1.43.0"])
def test_a_flower_that_is_not_supported_is_refused_by_its_version(federation: FederationFolder, version: str) -> None:
    federation.lock.write_text(LOCK.replace(f"flwr=={release.flower_version()} ", f"flwr=={version} "))
    with pytest.raises(UsageError, match=rf"pins Flower {version}, and .* is supported"):
        release.wanted(federation)


def test_what_is_held_goes_before_the_lock(federation: FederationFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []
    monkeypatch.setattr(release, "build", lambda locked, **_: asked.append(locked))
    release.of(federation)
    hold(federation, LOCK)
    release.of(federation)
    release.wanted(federation)
    assert asked == [federation.lock, federation.held / "release.lock", federation.lock]


def test_up_says_that_hosts_stay_with_another_release_than_the_locks(federation: FederationFolder) -> None:
    assert upgrade.stays(federation) == ""
    hold(federation, LOCK)
    assert upgrade.stays(federation) == ""
    federation.lock.write_text(LOCK.replace("numpy==", "numpy==0"))
    assert f"`flowerbed upgrade {federation.name}` brings the one of release.lock" in upgrade.stays(federation)


def test_half_way_between_two_releases_up_names_both_ways_out(federation: FederationFolder) -> None:
    upgrade.refuse_half_way(federation)
    federation.switch_file.parent.mkdir(parents=True)
    federation.switch_file.write_text(json.dumps({"to": "1.42.0-0123456789"}))
    with pytest.raises(UsageError, match=r"on its way to release 1\.42\.0-0123456789: .*upgrade.* or .*rollback"):
        upgrade.refuse_half_way(federation)


def test_without_an_upgrade_there_is_nothing_to_go_back_to(federation: FederationFolder) -> None:
    with pytest.raises(UsageError, match="has no release before"):
        upgrade.rollback(federation, Steps())
