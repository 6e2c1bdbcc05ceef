"""Every step between the supported versions of Flower, there and back; writes matrix.md and the README's table."""

from collections.abc import Iterator
from importlib.metadata import version

import pytest

from tests.e2e.conftest import Standing
from tests.upgrade import matrix
from tests.upgrade.conftest import VERSIONS, active, history, nodes, wish

# The way begins and ends with the same version as few times as it can.
STEPS = [(VERSIONS[0], VERSIONS[1]), (VERSIONS[0], VERSIONS[2]), (VERSIONS[1], VERSIONS[2])]


@pytest.fixture(scope="module")
def rows() -> Iterator[list[list[str]]]:
    """The table's rows; written where all of them came."""
    made: list[list[str]] = []
    yield made
    if len(made) == len(STEPS):
        matrix.write(made, version("flwr"))


def completed(standing: Standing) -> str:
    """Run the example, and how it ended."""
    status: str = standing.run_example("-c", "num-server-rounds=1")["status"]
    return status


@pytest.mark.parametrize(("old", "new"), STEPS)
def test_there_and_back(standing: Standing, rows: list[list[str]], old: str, new: str) -> None:
    wish(standing, old)
    standing.succeed("upgrade", standing.path)
    kept = history(standing), nodes(standing)
    target = wish(standing, new)
    assert standing.succeed("upgrade", standing.path)["release"] == target
    assert active(standing) == {target}
    assert (history(standing), nodes(standing)) == kept
    row = [old, new, "works", completed(standing), "kept"]
    kept = history(standing), nodes(standing)
    back = standing.succeed("rollback", standing.path)
    assert back["release"].startswith(f"{old}-")
    assert back["warnings"] == []
    assert active(standing) == {back["release"]}
    assert (history(standing), nodes(standing)) == kept
    row += ["works", completed(standing), "kept"]
    rows.append(row)
