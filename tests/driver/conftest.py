"""One real federation for all tests of the driver: each of its processes costs seconds to start."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from loopback import LoopbackFederation


@pytest.fixture(scope="session")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LoopbackFederation]:
    """A SuperLink with hospital-a and hospital-b registered, and both online."""
    federation = LoopbackFederation(tmp_path_factory.mktemp("federation"))
    try:
        federation.start_superlink()
        for site in ("hospital-a", "hospital-b"):
            federation.register(site)
        for site in federation.sites:
            federation.start_supernode(site)
        federation.wait_online()
        yield federation
    finally:
        federation.stop()


@pytest.fixture(scope="session")
def apps() -> Path:
    return Path(__file__).parents[1] / "apps"
