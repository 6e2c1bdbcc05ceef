"""How far one SuperLink goes: a part of the README from what `test_scale` measured."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tests.bench.units import said

NAME = "how far one SuperLink goes"
"""Of the README's table."""
_OF = re.compile(r"(\d+) hospitals, (\d+) MB: (.*)")
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
    return "\n".join(lines)
