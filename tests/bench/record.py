"""What a benchmark measured, as JSON beside the conditions it was measured under, and the tables made from that.

`python -m tests.bench.record` makes the tables anew: tests/bench/results.md, and the one in the README.
"""

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from flowerbed.paths import REPOSITORY
from tests import readme
from tests.bench import limits, plot
from tests.bench.units import said

FOLDER = Path(__file__).parent / "results"
PAGE = Path(__file__).parent / "results.md"
NAME = "how long things take"
"""Of the README's table."""
_HEAD = """# What was measured

Made by `python -m tests.bench.record` from the JSON files in [results](results), each of which one command writes. Both
sides of a ratio were measured in turn, in one go, on the same hosts; the ratio is that of each turn.

"""


@dataclass(frozen=True)
class Figure:
    """One thing that was measured, on one side or on two."""

    what: str
    unit: str
    values: Mapping[str, Sequence[float]]
    """Side to what was measured on it, a value a turn."""
    ratio: tuple[str, str] | None = None
    """The sides of which the first is divided by the second."""
    aim: float | None = None
    """The most that the ratio, or without one the median of the only side, should be."""

    def ratios(self) -> list[float]:
        """The ratio of each turn."""
        assert self.ratio
        over, under = (self.values[side] for side in self.ratio)
        return [round(one / other, 4) for one, other in zip(over, under, strict=True)]

    def to_json(self) -> dict[str, Any]:
        """What the file holds."""
        found: dict[str, Any] = {"what": self.what, "unit": self.unit, "aim": self.aim}
        found["sides"] = {side: {"values": list(values), **spread(values)} for side, values in self.values.items()}
        if self.ratio:
            found["ratio"] = {"of": list(self.ratio), "values": self.ratios(), **spread(self.ratios())}
        return found


def spread(values: Sequence[float]) -> dict[str, float]:
    """Minimum, median and maximum."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def save(
    name: str,
    command: str,
    figures: Sequence[Figure],
    notes: str = "",
    phases: Mapping[str, Mapping[str, float]] | None = None,
    profiles: Mapping[str, Mapping[str, float]] | None = None,
) -> None:
    """Write a benchmark's file, and the tables anew.

    `command` makes it; `notes` says in a sentence what was done; `phases` are the seconds of each phase of a call,
    `profiles` the processor seconds of each program during one.
    """
    commit = subprocess.check_output(["git", "rev-parse", "--short", "HEAD"], cwd=REPOSITORY, text=True)
    document = {
        "benchmark": name,
        "command": command,
        "notes": notes,
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"architecture": platform.machine(), "cores": os.cpu_count(), "memory_gb": _memory()},
        "load": [round(one, 1) for one in os.getloadavg()],
        "versions": {
            "commit": commit.strip(),
            "python": platform.python_version(),
            **{package: version(package) for package in ("flwr", "ansible-core")},
        },
        "figures": [one.to_json() for one in figures],
        "phases": phases or {},
        "profiles": profiles or {},
    }
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n")
    render()


def _memory() -> int:
    return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9)


def read() -> list[dict[str, Any]]:
    """All benchmarks that were made."""
    return [json.loads(file.read_text()) for file in sorted(FOLDER.glob("*.json"))]


def page(documents: Sequence[Mapping[str, Any]]) -> str:
    """The page of all figures."""
    plotted = f"![{plot.TITLE}]({plot.FILE.name})\n\n" if plot.bars(documents) else ""
    return _HEAD + plotted + "\n".join("\n".join(_section(one)) for one in documents)


def _section(one: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {one['benchmark']}"
    yield ""
    if one["notes"]:
        yield f"{one['notes']}"
        yield ""
    yield "| | side | minimum | median | maximum | aim |"
    yield "|---|---|---|---|---|---|"
    for figure in one["figures"]:
        unit = figure["unit"]
        for side, values in figure["sides"].items():
            aim = figure["aim"] if "ratio" not in figure else None
            yield _row(figure["what"], side, values, unit, aim)
        if "ratio" in figure:
            yield _row(figure["what"], " / ".join(figure["ratio"]["of"]), figure["ratio"], "", figure["aim"])
    yield ""
    for call, found in one["phases"].items():
        yield f"Phases of the {call}, in seconds: {', '.join(f'{name} {seconds}' for name, seconds in found.items())}."
        yield ""
    for call, found in one.get("profiles", {}).items():
        shares = ", ".join(f"{name} {seconds}" for name, seconds in found.items())
        yield f"Who took the processors in {call}, in seconds of one: {shares}."
        yield ""
    machine, versions = one["machine"], one["versions"]
    yield (
        f"`{one['command']}`, {one['at'][:10]}: {machine['architecture']}, {machine['cores']} cores, "
        f"{machine['memory_gb']} GB, load {one['load'][0]} at the end; "
        + ", ".join(f"{name} {value}" for name, value in versions.items())
        + "."
    )
    yield ""


def _row(what: str, side: str, values: Mapping[str, float], unit: str, aim: float | None) -> str:
    cells = [what, side, *(said(values[which], unit) for which in ("min", "median", "max"))]
    return f"| {' | '.join(cells)} | {'' if aim is None else f'≤ {said(aim, unit)}'} |"


def table(documents: Sequence[Mapping[str, Any]]) -> str:
    """The figures that have an aim, as the README has them."""
    lines = ["| | measured | aim | command | load of the machine |", "|---|---|---|---|---|"]
    for one in documents:
        for figure in one["figures"]:
            if figure["aim"] is None:
                continue
            known = figure.get("ratio") or next(iter(figure["sides"].values()))
            unit = "" if "ratio" in figure else figure["unit"]
            what = figure["what"] + (f": {' / '.join(figure['ratio']['of'])}" if "ratio" in figure else "")
            aim = f"≤ {said(figure['aim'], unit)}"
            lines.append(f"| {what} | {said(known['median'], unit)} | {aim} | `{one['command']}` | {one['load'][0]} |")
    return "\n".join(lines)


def render() -> None:
    """Write both tables anew."""
    documents = read()
    PAGE.write_text(page(documents))
    plot.write(documents)
    readme.put(NAME, table(documents))
    readme.put(limits.NAME, limits.table(documents))


if __name__ == "__main__":
    render()
