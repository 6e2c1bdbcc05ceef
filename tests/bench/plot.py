"""Draws the phases of the first `up` against the number of hospitals, as an SVG."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

FILE = Path(__file__).parent / "up.svg"
TITLE = "Phases of the first up, in seconds, for so many hospitals"
CALL = "first `up`"
_COLOURS = ("#4c78a8", "#f58518", "#54a24b", "#e45756", "#72b7b2", "#b279a2", "#9d755d", "#bab0ac", "#eeca3b")
_WIDTH, _HEIGHT, _LEFT, _BAR, _GAP, _TOP = 760, 360, 50, 50, 34, 40


def bars(documents: Sequence[Mapping[str, Any]]) -> dict[int, Mapping[str, float]]:
    """The number of hospitals to the phases, of the benchmarks that have them."""
    found = {}
    for one in documents:
        name, _, count = one["benchmark"].partition("-")
        if name == "up" and one["phases"].get(CALL):
            found[int(count)] = one["phases"][CALL]
    return dict(sorted(found.items()))


def write(documents: Sequence[Mapping[str, Any]]) -> None:
    """Draw them, where there are any."""
    found = bars(documents)
    if found:
        FILE.write_text(drawn(found))


def drawn(found: Mapping[int, Mapping[str, float]]) -> str:
    """The picture's text."""
    names = list(dict.fromkeys(name for phases in found.values() for name in phases))
    colours = {name: _COLOURS[number % len(_COLOURS)] for number, name in enumerate(names)}
    most = max(sum(phases.values()) for phases in found.values())
    scale = (_HEIGHT - 2 * _TOP) / most
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        f'font-size="12" role="img"><title>{escape(TITLE)}</title><rect width="100%" height="100%" fill="white"/>'
    ]
    for place, (count, phases) in enumerate(found.items()):
        left, bottom = _LEFT + place * (_BAR + _GAP), _HEIGHT - _TOP
        for name, seconds in phases.items():
            height = seconds * scale
            bottom -= height
            parts.append(
                f'<rect x="{left}" y="{bottom:.1f}" width="{_BAR}" height="{height:.1f}" fill="{colours[name]}">'
                f"<title>{escape(name)}: {seconds:.1f} s</title></rect>"
            )
        middle = left + _BAR / 2
        total = sum(phases.values())
        parts.append(f'<text x="{middle}" y="{bottom - 6:.1f}" text-anchor="middle">{total:.0f} s</text>')
        parts.append(f'<text x="{middle}" y="{_HEIGHT - _TOP + 18}" text-anchor="middle">{count}</text>')
    legend = _LEFT + len(found) * (_BAR + _GAP) + 10
    for number, name in enumerate(reversed(names)):
        top = _TOP + number * 22
        parts.append(f'<rect x="{legend}" y="{top}" width="14" height="14" fill="{colours[name]}"/>')
        parts.append(f'<text x="{legend + 22}" y="{top + 12}">{escape(name)}</text>')
    return "\n".join([*parts, "</svg>"]) + "\n"
