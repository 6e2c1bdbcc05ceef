"""What may run side by side: `./scripts/test` gives each of two workers one group of tests at a time."""

from pathlib import Path

import pytest

HERE = Path(__file__).parent
# Tests of one folder build on each other or share hosts; elsewhere those of one file do.
WHOLE = ("e2e", "driver", "lab", "terraform")
LONGEST_FIRST = ("e2e", "driver", "ansible")


@pytest.hookimpl(tryfirst=True)  # before xdist reads the groups
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group the tests, and begin with the longest group, so that no worker waits for it at the end."""
    for item in items:
        parts = item.path.relative_to(HERE).parts
        if item.path.name == "test_molecule.py":
            group = item.name  # every scenario has hosts of its own
        else:
            group = parts[0] if parts[0] in WHOLE else "/".join(parts)
        item.add_marker(pytest.mark.xdist_group(group))
    items.sort(key=_turn)


def _turn(item: pytest.Item) -> int:
    folder = item.path.relative_to(HERE).parts[0]
    return LONGEST_FIRST.index(folder) if folder in LONGEST_FIRST else len(LONGEST_FIRST)
