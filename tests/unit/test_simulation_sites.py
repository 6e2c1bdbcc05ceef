"""A simulation's sites are the inventory's, told what the role would tell them, with data that are on this machine."""

import shutil
from pathlib import Path

import pytest

from flowerbed.errors import UsageError
from flowerbed.federation import FederationFolder
from flowerbed.paths import INVENTORIES
from flowerbed.simulation import sites

NAMES = ["hospital-north", "hospital-south", "hospital-west"]


@pytest.fixture(scope="module")
def existing(tmp_path_factory: pytest.TempPathFactory) -> FederationFolder:
    """The federation of existing machines, which nobody reaches."""
    path = tmp_path_factory.mktemp("simulation") / "existing"
    shutil.copytree(INVENTORIES / "existing", path, ignore=shutil.ignore_patterns("secrets", ".state"))
    return FederationFolder(path)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder of data for each of its sites."""
    for name in NAMES:
        (tmp_path / "data" / name).mkdir(parents=True)
    return tmp_path / "data"


def test_node_config_and_labels_are_the_roles_and_data_are_here(existing: FederationFolder, data: Path) -> None:
    west = sites.of(existing, data)[-1]
    assert (west.name, west.labels) == ("hospital-west", {"region": "west", "gpu": "a100"})
    assert west.node_config == {
        "site": "hospital-west",
        "data-path": str(data / "hospital-west"),
        "label-region": "west",
        "label-gpu": "a100",
        "partition-id": 2,
        "batch-size": 64,
    }


def test_data_that_are_at_the_hospital_are_asked_for(existing: FederationFolder) -> None:
    with pytest.raises(UsageError, match="hospital-north has data: give --data with one folder for each site"):
        sites.of(existing, None)


def test_made_up_sites_take_the_folders_in_turn(existing: FederationFolder, data: Path) -> None:
    made = sites.made(existing, 4, data)
    assert [Path(str(site.node_config["data-path"])).name for site in made] == [*NAMES, NAMES[0]]
    assert [site.node_config["partition-id"] for site in made] == [0, 1, 2, 3]
    assert len({site.node_id for site in made}) == 4


def test_made_up_sites_need_no_data(existing: FederationFolder) -> None:
    assert sites.made(existing, 1, None)[0].node_config == {"site": "site-1", "partition-id": 0, "num-partitions": 1}


def test_impossible_sites_are_refused(existing: FederationFolder, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--sites 0: a simulation has one site or more"):
        sites.made(existing, 0, None)
    with pytest.raises(UsageError, match="holds no folders"):
        sites.made(existing, 2, tmp_path)
