"""The table of the faults: a row is replaced by what was measured last, and stays otherwise."""

import re
from dataclasses import astuple, dataclass
from pathlib import Path

from tests import readme
from tests.faults.bed import Bed, Ended
from tests.faults.faults import DAMAGED, FAULTS, HALF_DONE, RESTORES

FILE = Path(__file__).with_suffix(".md")
NAME = "what faults cost"
"""Of the README's table."""
_SHORT = ["fault in the middle of a run", "the run", "recovery"]
_HEAD = """# What faults cost

Made by `./scripts/test faults`, on lab hosts: five hospitals and the coordinator on one machine. Each row is a test:
the fault strikes in the middle of a run; no registration, key, data or history is lost; and the next run completes,
with every site. Recovery is from the fault's end until every unit runs and every site is online, without a hand unless
the row says so.

| fault | what becomes of the run | recovery | what the operator is told |
|---|---|---|---|
"""


@dataclass(frozen=True)
class Row:
    """What was measured of one fault."""

    fault: str
    run: str
    recovery: str
    told: str

    def line(self) -> str:
        """The row as Markdown."""
        return "| " + " | ".join(re.sub(r"\s+", " ", cell).replace("|", r"\|") for cell in astuple(self)) + " |"


def note(fault: str, bed: Bed, ended: Ended, recovery: float) -> None:
    """Put a fault's row into the table, from what became of the run that was under way."""
    told = ended.reason.replace(str(ended.record["run_id"]), "RUN").replace(bed.name, "FED")
    write(fault, ended.status, recovery, told)


def write(fault: str, run: str, recovery: float, told: str) -> None:
    """Put a row into the table; rows of faults that are no more go."""
    order = [*(one.name for one in (*FAULTS, *HALF_DONE)), DAMAGED, *RESTORES]
    lines = {name: line for line in _lines() if (name := line.split(" | ")[0].removeprefix("| ")) in order}
    lines[fault] = Row(fault, run, f"{recovery:.0f} s", told).line()
    FILE.write_text(_HEAD + "".join(f"{lines[name]}\n" for name in order if name in lines))
    readme.put(NAME, short())


def short() -> str:
    """The table without what the operator is told, as the README has it."""
    rows = [re.split(r"(?<!\\) \| ", line.removeprefix("| ").removesuffix(" |"))[:3] for line in _lines()]
    return "\n".join(f"| {' | '.join(row)} |" for row in (_SHORT, ["---"] * len(_SHORT), *rows))


def _lines() -> list[str]:
    if not FILE.exists():
        return []
    return [
        line for line in FILE.read_text().splitlines() if line.startswith("| ") and not line.startswith("| fault |")
    ]
