"""The table of the ways between the supported versions of Flower, as the README has it."""

from collections.abc import Sequence
from pathlib import Path

from tests import readme

FILE = Path(__file__).with_suffix(".md")
NAME = "from one Flower to another"
"""Of the README's table."""
COLUMNS = ("from", "to", "upgrade", "run", "history, registrations", "rollback", "run", "history, registrations")
_HEAD = """# From one Flower to another

Made by `./scripts/test upgrade`: two hospitals on lab hosts, driven by Flowerbed with flwr {driver}. A run is one round
of examples/breast_cancer with every reply.

"""


def write(rows: Sequence[Sequence[str]], driver: str) -> None:
    """Write the page, and the README's table."""
    lines = [f"| {' | '.join(row)} |" for row in ([*COLUMNS], ["---"] * len(COLUMNS), *rows)]
    FILE.write_text(_HEAD.format(driver=driver) + "\n".join(lines) + "\n")
    readme.put(NAME, table())


def table() -> str:
    """The page's table."""
    return "\n".join(line for line in FILE.read_text().splitlines() if line.startswith("|"))
