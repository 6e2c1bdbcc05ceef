"""A federation of three hospitals whose operator asks them from a loop of their own."""

from collections.abc import Iterator

import pytest

from flowerbed import Federation
from tests.e2e.conftest import SITES, Standing, make, up


@pytest.fixture(scope="session")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """The federation; taken down afterwards, also after a failure."""
    with up(make(tmp_path_factory.mktemp("interactive"), "test-interactive", SITES, "10.123.0.0/16")) as made:
        yield made


@pytest.fixture(scope="session")
def federation(standing: Standing) -> Federation:
    return Federation(standing.path, standing.work / "runs")
