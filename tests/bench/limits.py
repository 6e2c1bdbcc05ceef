"""How far one SuperLink goes: a part of the README from what `test_scale` measured."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tests.bench.units import said

NAME = "how far one SuperLink goes"
"""Of the README's table."""
_OF = re.compile(r"(\d+) hospitals, (\d+) MB: (.*)")
_IDLE = re.compile(r"(\d+) hospitals that wait: processor a minute")
_PLANNED, _MODELS = (50, 200, 1000), (10, 100)
"""Hospitals, and megabytes of the model."""
_COLUMNS = ("a round", "processor a round", "memory at most", "the database at most", "the database grows")


def table(documents: Sequence[Mapping[str, Any]]) -> str:
    """A row for each number of hospitals and size of the model, with the median of each figure; empty without any."""
    rows: dict[tuple[int, int], dict[str, str]] = {}
    for one in documents:
        if not one["benchmark"].startswith("scale-"):
            continue
        for figure in one["figures"]:
            if found := _OF.fullmatch(figure["what"]):
                (side,) = figure["sides"].values()
                rows.setdefault((int(found[1]), int(found[2])), {})[found[3]] = said(side["median"], figure["unit"])
    if not rows:
        return ""
    lines = [
        "### How far one SuperLink goes",
        "",
        "What one SuperLink takes for a round with so many hospitals and such a model, all hosts on one machine:",
        "",
        "| hospitals | model | a round | the SuperLink's processor time in it | its memory at most | "
        "its database at most | which grows with each later round by |",
        "|---|---|---|---|---|---|---|",
    ]
    for (hospitals, megabytes), row in sorted(rows.items()):
        lines.append(f"| {hospitals} | {megabytes} MB | {' | '.join(row.get(name, '') for name in _COLUMNS)} |")
    return "\n".join([*lines, "", *plan(documents)])


@dataclass(frozen=True)
class Costs:
    """What a hospital costs the SuperLink, from the benchmark with the most hospitals."""

    waiting: float
    """Processor seconds in a minute without a run."""
    round: float
    """Processor seconds in a round, whatever the model."""
    megabyte: float
    """Processor seconds in a round for each MB of the model."""
    database: float
    """MB of the database for each MB of the model."""


def costs(documents: Sequence[Mapping[str, Any]]) -> Costs | None:
    """What a hospital costs; None where fewer than two models were measured."""
    measured: dict[int, dict[int, dict[str, float]]] = {}
    idle: dict[int, float] = {}
    for figure in (figure for one in documents if one["benchmark"].startswith("scale-") for figure in one["figures"]):
        (side,) = figure["sides"].values()
        if found := _OF.fullmatch(figure["what"]):
            measured.setdefault(int(found[1]), {}).setdefault(int(found[2]), {})[found[3]] = side["median"]
        elif found := _IDLE.fullmatch(figure["what"]):
            idle[int(found[1])] = side["median"]
    several = [hospitals for hospitals, models in measured.items() if len(models) > 1 and hospitals in idle]
    if not several:
        return None
    hospitals = max(several)
    models = measured[hospitals]
    small, large = min(models), max(models)
    used = {size: models[size]["processor a round"] / hospitals for size in (small, large)}
    megabyte = (used[large] - used[small]) / (large - small)
    return Costs(
        waiting=idle[hospitals] / hospitals,
        round=used[small] - megabyte * small,
        megabyte=megabyte,
        database=models[large]["the database at most"] / (hospitals * large),
    )


def plan(documents: Sequence[Mapping[str, Any]]) -> list[str]:
    """What more hospitals would take, on paper, a line each; empty where too little was measured."""
    each = costs(documents)
    if each is None:
        return []
    lines = [
        f"On paper, from these figures: a hospital that waits takes {each.waiting:.2f} s of the SuperLink's processor "
        f"a minute, one that trains {each.round:.2f} s a round and {each.megabyte:.3f} s more for each MB of the "
        "model. The SuperLink is one Python process and so has one core, and no round is shorter than that allows:",
        "",
        "| hospitals | processor a minute that they wait | "
        "a round at least: 10 MB | 100 MB | database: 10 MB | 100 MB |",
        "|---|---|---|---|---|---|",
    ]
    for hospitals in _PLANNED:
        rounds = [(each.round + each.megabyte * size) * hospitals for size in _MODELS]
        databases = [each.database * size * hospitals / 1000 for size in _MODELS]
        cells = [said(each.waiting * hospitals, "s"), *(said(one / 60, "min") for one in rounds)]
        lines.append(f"| {hospitals} | {' | '.join([*cells, *(said(one, 'GB') for one in databases)])} |")
    return lines
