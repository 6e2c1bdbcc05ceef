"""Geometry of the report's charts: what is drawn where, in the units of their own drawings; no markup."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT = 360, 190
_RIGHT, _TOP, _BOTTOM = 12, 10, 26
_LEFT, _GAP, _LETTER = 46, 9, 6.6
"""The least room for labels; their distance from the plot, and a letter's width."""
_LARGEST = 1e300
"""What is larger is drawn as no number: on such an axis the differences would be."""
_MARKED_ROUNDS = 12
"""With more rounds than this, a line has a marker at its end alone."""
_ROUND_LABELS = 8
DISTINCT = 8
"""As many lines can be told apart; of more sites only the band between lowest and highest is drawn."""

Point = tuple[int, float | None]
"""Round and value; None: a value that is no finite number."""


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis."""

    at: float
    label: str


@dataclass(frozen=True)
class Line:
    """A curve; it breaks where a value is missing or no number."""

    name: str
    style: int
    """Which colour, dashes and marker it has, from 1; 0 is that of all sites together."""
    path: str
    markers: list[tuple[float, float]]
    gaps: list[float] = field(default_factory=list)
    """Where along the rounds a value was no number."""


@dataclass(frozen=True)
class Chart:
    """The curves of one metric in one phase."""

    ident: str
    phase: str
    metric: str
    left: float
    """Where the plot begins."""
    lines: list[Line]
    """Those of the sites, then that of all together, which lies on top."""
    band: str
    """The outline from the lowest to the highest of many sites; empty for few."""
    across: list[Tick]
    up: list[Tick]
    last: str
    """The last value of all together, or nothing."""
    ends: str
    """Which of many sites are lowest and highest at the end; empty for few."""
    said: str
    """The chart in words."""

    @property
    def right(self) -> int:
        """Where the plot ends."""
        return WIDTH - _RIGHT

    @property
    def bottom(self) -> int:
        """Where the axis of rounds lies."""
        return HEIGHT - _BOTTOM


def curves(
    ident: str,
    phase: str,
    metric: str,
    together: Sequence[Point],
    sites: Mapping[str, Sequence[Point]],
    styles: Mapping[str, int],
) -> Chart:
    """Lay out a metric's values: those of all sites `together` and of each site; `styles` gives a site's style."""
    together = _drawable(together)
    sites = {name: _drawable(points) for name, points in sites.items()}
    series = [together, *sites.values()]
    rounds = sorted({number for points in series for number, _ in points})
    values = [value for points in series for _, value in points if value is not None]
    low, high = (min(values), max(values)) if values else (0.0, 1.0)
    marks = ticks(low, high)
    left = max(_LEFT, _GAP + _LETTER * max(len(number_text(mark)) for mark in marks))
    plot = _Plot(left, rounds[0], rounds[-1], min(low, marks[0]), max(high, marks[-1]))
    many = len(sites) > DISTINCT
    lines = [] if many else [_line(plot, name, styles[name], points) for name, points in sites.items()]
    if together:
        lines.append(_line(plot, "all sites", 0, together))
    finite = [value for _, value in together if value is not None]
    return Chart(
        ident=ident,
        phase=phase,
        metric=metric,
        left=left,
        lines=lines,
        band=_band(plot, sites) if many else "",
        across=[Tick(plot.x(number), str(number)) for number in _thinned(rounds)],
        up=[Tick(plot.y(mark), number_text(mark)) for mark in marks],
        last=number_text(together[-1][1]) if together else "",
        ends=_ends(sites) if many else "",
        said=_said(phase, metric, rounds, finite, sites),
    )


def ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Round numbers around the interval from `low` to `high`: `wanted` of them, or nearly so."""
    if high - low <= max(abs(high) * 1e-9, 1 / _LARGEST):
        pad = abs(high) * 0.1 or 1.0
        low, high = low - pad, high + pad
    step = _step((high - low) / max(1, wanted - 1))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def number_text(value: float | None) -> str:
    """A number as short as four digits make it."""
    if value is None:
        return "no number"
    return f"{value:.4g}".replace("e+0", "e").replace("e-0", "e-").replace("e+", "e")


@dataclass(frozen=True)
class _Plot:
    left: float
    first: int
    last: int
    low: float
    high: float

    def x(self, number: int) -> float:
        inner = WIDTH - self.left - _RIGHT
        if self.last == self.first:
            return self.left + inner / 2
        return round(self.left + inner * (number - self.first) / (self.last - self.first), 1)

    def y(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return round(HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * share, 1)


def _drawable(points: Sequence[Point]) -> list[Point]:
    return [(number, None if value is None or abs(value) > _LARGEST else value) for number, value in points]


def _line(plot: _Plot, name: str, style: int, points: Sequence[Point]) -> Line:
    path, dots = [], []
    for piece in _pieces(points):
        placed = [(plot.x(number), plot.y(value)) for number, value in piece]
        path.append("M" + "L".join(f"{x},{y}" for x, y in placed))
        dots += placed if len(points) <= _MARKED_ROUNDS or len(placed) == 1 else placed[-1:]
    gaps = [plot.x(number) for number, value in points if value is None]
    return Line(name, style, "".join(path), dots, gaps)


def _pieces(points: Sequence[Point]) -> Iterator[list[tuple[int, float]]]:
    piece: list[tuple[int, float]] = []
    for number, value in points:
        if value is None:
            if piece:
                yield piece
            piece = []
        else:
            piece.append((number, value))
    if piece:
        yield piece


def _band(plot: _Plot, sites: Mapping[str, Sequence[Point]]) -> str:
    by_round: dict[int, list[float]] = {}
    for points in sites.values():
        for number, value in points:
            if value is not None:
                by_round.setdefault(number, []).append(value)
    if not by_round:
        return ""
    if len(by_round) == 1:
        ((number, values),) = by_round.items()
        x = plot.x(number)
        return f"M{x - 8},{plot.y(max(values))}H{x + 8}V{plot.y(min(values))}H{x - 8}Z"
    numbers = sorted(by_round)
    top = [f"{plot.x(number)},{plot.y(max(by_round[number]))}" for number in numbers]
    base = [f"{plot.x(number)},{plot.y(min(by_round[number]))}" for number in reversed(numbers)]
    return "M" + "L".join([*top, *base]) + "Z"


def _thinned(rounds: Sequence[int]) -> list[int]:
    if len(rounds) <= _ROUND_LABELS:
        return list(rounds)
    step = int(_step((rounds[-1] - rounds[0]) / (_ROUND_LABELS - 2))) or 1
    inner = [number for number in range(0, rounds[-1] + 1, step) if number > rounds[0] + step / 2]
    return [rounds[0], *(number for number in inner if number <= rounds[-1])]


def _step(rough: float) -> float:
    """The next of 1, 2, 5, 10, 20, … that is not smaller."""
    power = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough * (1 - 1e-9))


def _said(
    phase: str, metric: str, rounds: Sequence[int], finite: Sequence[float], sites: Mapping[str, Sequence[Point]]
) -> str:
    over = f"round {rounds[0]}" if len(rounds) == 1 else f"rounds {rounds[0]} to {rounds[-1]}"
    parts = [f"{metric} of {phase} in {over}."]
    if finite:
        parts.append(
            f"All sites together: from {number_text(finite[0])} to {number_text(finite[-1])}, "
            f"lowest {number_text(min(finite))}, highest {number_text(max(finite))}."
        )
    return " ".join([*parts, _ends(sites)]).strip()


def _ends(sites: Mapping[str, Sequence[Point]]) -> str:
    last = {name: value for name, points in sites.items() if points and (value := points[-1][1]) is not None}
    if not last:
        return ""
    low, high = (pick(last, key=lambda name: last[name]) for pick in (min, max))
    return f"At the end highest {high} with {number_text(last[high])}, lowest {low} with {number_text(last[low])}."


# The timeline ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Block:
    """A message to a site, from its sending to the reply; places and widths are in percent of the whole time."""

    left: float
    width: float
    kind: str
    """`train`, `evaluate` or `other`."""
    outcome: str
    """`result`, `failure` or `missing`."""
    latest: bool
    """Whether it was the last reply of its phase."""
    said: str


@dataclass(frozen=True)
class Row:
    """What one site did."""

    site: str
    blocks: list[Block]


@dataclass(frozen=True)
class Band:
    """A round on the timeline."""

    left: float
    width: float
    label: str


@dataclass(frozen=True)
class Timeline:
    """All sites over the time from the first message to the end."""

    rows: list[Row]
    bands: list[Band]
    ticks: list[Tick]


@dataclass(frozen=True)
class Sent:
    """A message on the timeline; times are in seconds since the first."""

    site: str
    round: int
    kind: str
    outcome: str
    began: float
    ended: float
    latest: bool
    said: str


_TIME_STEPS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400)
_TIME_LABELS = 8
_MINUTE, _HOUR = 60, 3600
_LABEL_PERCENT = 3.2
_THINNEST = 0.12


def timeline(sites: Sequence[str], sent: Sequence[Sent]) -> Timeline:
    """Lay out the messages, one row a site."""
    whole = max((one.ended for one in sent), default=0.0) or 1.0
    rows: dict[str, list[Block]] = {site: [] for site in sites}
    spans: dict[int, tuple[float, float]] = {}
    for one in sent:
        left = round(100 * one.began / whole, 2)
        width = round(max(_THINNEST, 100 * (one.ended - one.began) / whole - 0.15), 2)
        kind = one.kind if one.kind in ("train", "evaluate") else "other"
        block = Block(left, width, kind, one.outcome, one.latest, one.said)
        rows.setdefault(one.site, []).append(block)
        start, end = spans.get(one.round, (one.began, one.ended))
        spans[one.round] = (min(start, one.began), max(end, one.ended))
    return Timeline([Row(site, blocks) for site, blocks in rows.items()], list(_bands(spans, whole)), _clock(whole))


def _bands(spans: Mapping[int, tuple[float, float]], whole: float) -> Iterator[Band]:
    free = 0.0
    for number, (start, end) in sorted(spans.items(), key=lambda each: each[1]):
        left = 100 * start / whole
        label = str(number) if left >= free else ""
        if label:
            free = left + _LABEL_PERCENT
        yield Band(round(left, 2), round(100 * (end - start) / whole, 2), label)


def _clock(whole: float) -> list[Tick]:
    step = next((step for step in _TIME_STEPS if whole / step <= _TIME_LABELS), _TIME_STEPS[-1])
    count = int(whole // step)
    return [Tick(round(100 * index * step / whole, 2), _time(index * step)) for index in range(count + 1)]


def _time(seconds: int) -> str:
    for unit, name in ((_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= 2 * unit and seconds % unit == 0:
            return f"{seconds // unit} {name}"
    return f"{seconds} s"
