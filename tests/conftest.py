"""What may run side by side: `./scripts/test` gives each of two workers one group of tests at a time."""

from pathlib import Path

import pytest
from xdist.scheduler import LoadScopeScheduling

HERE = Path(__file__).parent
# Tests of one folder build on each other or share hosts; elsewhere those of one file do.
WHOLE = ("ansible", "driver", "e2e", "existing", "health", "joining", "lab", "leaving", "terraform", "trust", "upgrade")
LONGEST_FIRST = ("e2e", "ansible", "existing", "driver")


class ByGroup(LoadScopeScheduling):
    """One worker runs the tests of a group, in their order."""

    def _split_scope(self, nodeid: str) -> str:
        return group(nodeid)


def group(nodeid: str) -> str:
    """What a test shares hosts with: its folder, its file, or nothing, if it is a molecule scenario."""
    if "test_molecule.py" in nodeid:
        return nodeid
    folder, file = nodeid.split("/")[1], nodeid.split("::", maxsplit=1)[0]
    return folder if folder in WHOLE and "test_aws" not in file else file  # AWS is a server of each file's own


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByGroup:
    """Take our groups; xdist's own know files and classes alone."""
    return ByGroup(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest group, so that no worker waits for it at the end."""
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    folder = item.path.relative_to(HERE).parts[0]
    return LONGEST_FIRST.index(folder) if folder in LONGEST_FIRST else len(LONGEST_FIRST)
