"""Compares two results of one benchmark: `python -m tests.bench.compare BEFORE.json AFTER.json`.

What is compared are the ratios, since both of their sides were measured on one machine in one go. A figure became
worse when each of its ratios is above all that there were before: less than that is noise. Exit code 1 when one did.
"""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def compare(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Each figure of both that has a ratio: its name, what the ratio was and is, and "worse", "better" or "noise"."""
    old = {one["what"]: one["ratio"] for one in before["figures"] if "ratio" in one}
    found = []
    for one in after["figures"]:
        was, now = old.get(one["what"]), one.get("ratio")
        if was is None or now is None or was["of"] != now["of"]:
            continue
        verdict = "worse" if now["min"] > was["max"] else "better" if now["max"] < was["min"] else "noise"
        found.append((one["what"], f"{_said(was)} -> {_said(now)}", verdict))
    return found


def _said(ratio: Mapping[str, float]) -> str:
    return f"{ratio['median']:.2f} ({ratio['min']:.2f} to {ratio['max']:.2f})"


def main(words: Sequence[str]) -> int:
    """Print the comparison."""
    if len(words) != 2:
        print("use: python -m tests.bench.compare BEFORE.json AFTER.json", file=sys.stderr)
        return 2
    try:
        before, after = (json.loads(Path(word).read_text()) for word in words)
    except (OSError, ValueError) as error:
        print(f"{error}: name two files that a benchmark wrote, such as tests/bench/results/run.json", file=sys.stderr)
        return 2
    if before["benchmark"] != after["benchmark"]:
        print(f"{before['benchmark']} and {after['benchmark']} are two benchmarks: name two of one", file=sys.stderr)
        return 2
    rows = compare(before, after)
    for what, ratios, verdict in rows:
        print(f"{verdict:7}{what}: {ratios}")
    return int(any(verdict == "worse" for _, _, verdict in rows))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
