"""Federations in folders of their own, on real lab hosts, taken down whatever happens."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from flowerbed import lab
from flowerbed.federation import FederationFolder

NETWORKS = {"test-terraform": "10.93.0.0/16", "test-second": "10.94.0.0/16"}


def write(federation: FederationFolder, text: str) -> None:
    """Write the federation's variables; its network is the tests' own unless the text says otherwise."""
    network = "" if "network" in text else f'network = "{NETWORKS[federation.name]}"\n'
    federation.path.mkdir(exist_ok=True)
    (federation.path / "lab.tfvars").write_text(network + text)


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FederationFolder]:
    """One federation for the tests of a module, which build on each other from top to bottom."""
    federation = FederationFolder(tmp_path_factory.mktemp("federations") / "test-terraform")
    lab.destroy_all(federation.name)
    write(federation, "sites = { hospital-a = {}, hospital-b = {} }")
    yield federation
    lab.destroy_all(federation.name)


@pytest.fixture
def second(tmp_path: Path) -> Iterator[FederationFolder]:
    """Another federation; nothing is made of it unless the test does."""
    federation = FederationFolder(tmp_path / "test-second")
    write(federation, "sites = {}")
    yield federation
    lab.destroy_all(federation.name)
