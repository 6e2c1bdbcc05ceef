"""What the coordinator noted of a run's messages: who was sent what, who replied what and when.

The notes are made by roles/common/files/replies.py, which describes their form. They come from a process that ran an
app, so nothing in them is believed to be well-formed; what cannot be read is left out.
"""

import contextlib
import json
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flowerbed.errors import FlowerbedError
from flowerbed.runs.connection import SUPERLINK_NODE, Deployed, Remote
from flowerbed.runs.follow import Phase, ReplyError, Round, reason

NAME = "replies.jsonl"
FOLDER = ".flowerbed"
_LIMIT = 256 * 1024 * 1024
_ROUNDS_LIMIT = 1_000_000


@dataclass(frozen=True)
class Reply:
    """What came back for a message; times are seconds since 1970."""

    at: float
    """When the ServerApp had it, by the coordinator's clock."""
    created: float | None
    """When the site made it, by the site's clock."""
    bytes: int
    """Size of its arrays."""
    metrics: dict[str, float]
    """Its single numbers, those of several MetricRecords with the record's name before a dot."""
    error: ReplyError | None
    """Why the site failed, with the id of the node that was asked; None: it did not."""


@dataclass(frozen=True)
class Exchange:
    """A message to a node, and the first reply to it."""

    node_id: str
    kind: str
    """The message's type: `train`, `evaluate`, `query`, or one of these with an action behind a dot."""
    round: int
    """As the strategy or the app numbers it, else counted."""
    sent: float
    """When it was sent; seconds since 1970 by the coordinator's clock."""
    taken: bool
    """Whether the SuperLink took it."""
    bytes: int
    """Size of its arrays."""
    reply: Reply | None
    """None: it never came."""

    @property
    def seconds(self) -> float | None:
        """From the sending to the reply."""
        return None if self.reply is None else max(0.0, self.reply.at - self.sent)

    @property
    def outcome(self) -> str:
        """`result`, `failure` or `missing`."""
        return "missing" if self.reply is None else "failure" if self.reply.error else "result"


@dataclass(frozen=True)
class Recording:
    """All that was noted of a run."""

    exchanges: list[Exchange] = field(default_factory=list)
    """In the order in which they were sent."""
    flower: str | None = None
    """Flower's version on the coordinator."""
    python: str | None = None
    """Python's version there."""
    text: bytes = b""
    """The notes as they came."""

    def phases(self) -> dict[tuple[int, str], list[Exchange]]:
        """The exchanges by round and kind, in the order of the first sending."""
        found: dict[tuple[int, str], list[Exchange]] = {}
        for exchange in self.exchanges:
            found.setdefault((exchange.round, exchange.kind), []).append(exchange)
        return found


def fetch(remote: Remote, deployed: Deployed, run_id: str) -> Recording:
    """Bring the notes of a run from the coordinator; an empty recording where there are none, for whatever reason."""
    with tempfile.TemporaryDirectory(prefix="flowerbed-replies-") as folder:
        try:
            remote.fetch(f"{deployed.results}/{FOLDER}/{run_id}", Path(folder))
        except FlowerbedError:
            return Recording()  # it is the same way as that of the files, which say what is wrong with it
        return read(Path(folder) / NAME)


def read(file: Path) -> Recording:
    """Read the notes; an empty recording where there are none, or too many to be true."""
    try:
        if file.is_symlink() or file.stat().st_size > _LIMIT:
            return Recording()
        text = file.read_bytes()
    except OSError:
        return Recording()
    sent: dict[str, Exchange] = {}
    counter = _Counter()
    begin: dict[str, Any] = {}
    for entry in _entries(text):
        with contextlib.suppress(KeyError, TypeError, ValueError, OverflowError):
            match entry["event"]:
                case "begin":
                    begin = entry
                case "sent":
                    exchange = _sent(entry)
                    number = _number(entry) or counter.round(exchange, int(entry["push"]))
                    sent.setdefault(str(entry["message"]), replace(exchange, round=number))
                case "reply":
                    asked = sent[str(entry["to"])]
                    counter.replied(asked)
                    if asked.reply is None:
                        sent[str(entry["to"])] = replace(asked, reply=_reply(entry, asked))
    versions = {key: str(begin[key])[:50] if key in begin else None for key in ("flower", "python")}
    return Recording(list(sent.values()), text=text, **versions)


def merge(rounds: Sequence[Round], recording: Recording) -> list[Round]:
    """Add to the log's rounds what the notes know better: who failed, who is missing, how long it took.

    A phase of the log and one of the notes belong together by their round's number, else by their order. Rounds of
    training and evaluation that the log does not mention are added. The rounds given stay as they are.
    """
    merged = {
        each.number: replace(each, train=_copy(each.train), evaluate=_copy(each.evaluate), server=dict(each.server))
        for each in rounds
    }
    for kind in ("train", "evaluate"):
        logged = {number: phase for number, each in merged.items() if (phase := getattr(each, kind))}
        noted = {number: each for (number, what), each in recording.phases().items() if what.split(".")[0] == kind}
        for number, phase in _pairs(logged, noted):
            _enrich(logged[number], phase)
        if not logged:
            for number, phase in noted.items():
                known = merged.setdefault(number, Round(number))
                setattr(known, kind, of_exchanges(kind, phase))
    return [merged[number] for number in sorted(merged)]


def aligned(rounds: Sequence[Round], recording: Recording) -> Recording:
    """The notes with each phase's round numbered as the log does it."""
    numbers: dict[tuple[int, str], int] = {}
    for kind in ("train", "evaluate"):
        logged = {each.number: phase for each in rounds if (phase := getattr(each, kind))}
        noted = {number: each for (number, what), each in recording.phases().items() if what.split(".")[0] == kind}
        for number, phase in _pairs(logged, noted):
            numbers |= {(one.round, one.kind): number for one in phase}
    exchanges = [replace(one, round=numbers.get((one.round, one.kind), one.round)) for one in recording.exchanges]
    return replace(recording, exchanges=exchanges)


def of_exchanges(kind: str, exchanges: Sequence[Exchange]) -> Phase:
    """A phase as the notes alone tell it."""
    phase = Phase(kind)
    _enrich(phase, exchanges)
    return phase


class _Counter:
    """Numbers the rounds of an app that does not: by kind, one more when a node is asked again or after a reply."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._asked: dict[str, set[str]] = {}
        self._answered: dict[str, bool] = {}
        self._push: dict[str, int] = {}

    def round(self, exchange: Exchange, push: int) -> int:
        kind = exchange.kind
        asked = self._asked.setdefault(kind, set())
        new_push = self._push.get(kind) != push
        if kind not in self._numbers or exchange.node_id in asked or (new_push and self._answered.get(kind)):
            self._numbers[kind] = self._numbers.get(kind, 0) + 1
            self._answered[kind] = False
            asked.clear()
        asked.add(exchange.node_id)
        self._push[kind] = push
        return self._numbers[kind]

    def replied(self, exchange: Exchange) -> None:
        self._answered[exchange.kind] = True


def _entries(text: bytes) -> Iterator[dict[str, Any]]:
    for line in text.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            entry = json.loads(line)
            if isinstance(entry, dict):
                yield entry


def _sent(entry: dict[str, Any]) -> Exchange:
    return Exchange(
        node_id=str(entry["node"]),
        kind=str(entry["type"]),
        round=0,
        sent=float(entry["at"]),
        taken=bool(entry.get("taken", True)),
        bytes=int(entry.get("bytes", 0)),
        reply=None,
    )


def _number(entry: dict[str, Any]) -> int | None:
    """The round as the strategy or the app gives it: in the message's config, or as its group."""
    group = str(entry.get("group") or "")
    number = entry.get("round")
    if not isinstance(number, int):
        number = int(group) if group.isascii() and group.isdecimal() else None
    return number if number is not None and 0 < number < _ROUNDS_LIMIT else None


def _reply(entry: dict[str, Any], asked: Exchange) -> Reply:
    error = entry.get("error")
    created = entry.get("created")
    return Reply(
        at=float(entry["at"]),
        created=float(created) if isinstance(created, int | float) else None,
        bytes=int(entry.get("bytes", 0)),
        metrics=_metrics(entry.get("metrics")),
        error=None if error is None else ReplyError(asked.node_id, _reason(error, str(entry["node"]))),
    )


def _reason(error: dict[str, Any], replied_by: str) -> str:
    said = reason(str(error.get("reason") or f"error {error.get('code')}"))
    return f"it went offline ({said})" if replied_by == SUPERLINK_NODE else said


def _metrics(records: Any) -> dict[str, float]:
    if not isinstance(records, dict):
        return {}
    whole = {name: values for name, values in records.items() if isinstance(values, dict) and values}
    return {
        str(name) if len(whole) == 1 else f"{record}.{name}": number
        for record, values in whole.items()
        for name, value in values.items()
        if (number := _value(value)) is not None
    }


def _value(value: Any) -> float | None:
    if isinstance(value, int | float):
        return value
    return float(value) if value in ("nan", "inf", "-inf") else None


def _pairs(logged: dict[int, Phase], noted: dict[int, list[Exchange]]) -> Iterable[tuple[int, list[Exchange]]]:
    same = sorted(logged.keys() & noted.keys())
    others = zip(sorted(logged.keys() - noted.keys()), sorted(noted.keys() - logged.keys()), strict=False)
    return [*((number, noted[number]) for number in same), *((number, noted[other]) for number, other in others)]


def _copy(phase: Phase | None) -> Phase | None:
    return phase and replace(phase, metrics=dict(phase.metrics), errors=list(phase.errors))


def _enrich(phase: Phase, exchanges: Sequence[Exchange]) -> None:
    """Complete a phase; numbers that the log has stay, since the strategy may have judged a reply itself."""
    replied = [one for one in exchanges if one.reply]
    phase.sampled = len(exchanges) if phase.sampled is None else phase.sampled
    if phase.results is None:
        phase.results = sum(one.outcome == "result" for one in exchanges)
        phase.failures = sum(one.outcome == "failure" for one in exchanges)
    phase.asked = [one.node_id for one in exchanges]
    phase.silent = [one.node_id for one in exchanges if one.reply is None]
    errors = [one.reply.error for one in exchanges if one.reply and one.reply.error]
    if len(errors) >= len(phase.errors):
        phase.errors = errors
    if phase.seconds is None and replied and len(replied) == len(exchanges):
        phase.began = min(one.sent for one in exchanges)
        phase.ended = max(one.reply.at for one in replied if one.reply)
