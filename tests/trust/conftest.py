"""A federation of two hospitals whose keys, certificates and CA are replaced while it trains."""

from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Standing, make, up

SITES = ["hospital-a", "hospital-b"]


@pytest.fixture(scope="session")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """The federation; taken down afterwards, also after a failure."""
    with up(make(tmp_path_factory.mktemp("trust"), "test-trust", SITES, "10.122.0.0/16")) as made:
        yield made
