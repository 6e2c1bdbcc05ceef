"""Turns the lines of a ServerApp's log into rounds, phases and events, one line at a time.

Flower has no other source for this: the SuperLink knows a run's status, the strategy alone knows its rounds. An
app with a loop of its own may log none of it; then there are no rounds here, and only errors.
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

MetricValue = int | float | list[int] | list[float]
Metrics = dict[str, MetricValue]

_ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_LEVEL = re.compile(r"(DEBUG|INFO|WARNING|ERROR|CRITICAL)\s*(?:\d{4}-\d\d-\d\d [\d:,]+)?\s*:\s{0,9}(.*)", re.DOTALL)
_COLOURED = re.compile(r"(?=\x1b\[9\dm(?:DEBUG|INFO|WARNING|ERROR|CRITICAL) )")
_ROUND = re.compile(r"\[ROUND (\d+)(?:/(\d+))?\]")
_SAMPLED = re.compile(r"configure_(train|fit|evaluate): (?:strategy )?sampled (\d+) \w+ \(out of (\d+)\)", re.I)
_RECEIVED = re.compile(r"aggregate_(train|fit|evaluate): received (\d+) results and (\d+) failures", re.I)
_REPLY_ERROR = re.compile(r"\s*(?:> )?Received error in reply from node (-?\d+): (.*)", re.DOTALL)
_AGGREGATED = re.compile(r"\s*└──> Aggregated MetricRecord: (\{.*\})")
_SERVER_METRICS = re.compile(r"\s*└──> MetricRecord: (\{.*\})")
_INITIAL_METRICS = re.compile(r"Initial global evaluation results: (\{.*\})")
_WAITING = re.compile(r"Waiting for nodes to connect: (\d+) connected \(minimum required: (\d+)\)")
_EXCEPTION = re.compile(r"\w+App raised an exception")
# The exception of the program that stands before the app at a site (roles/common/files/instance.py).
_REFUSED = "AppRefused: "
_CLIENT_EXCEPTION = re.compile(r"<class '(?:[\w.]*\.)?(\w+)'>:<(['\"]?)(.*?)\2>", re.DOTALL)


@dataclass(frozen=True)
class ReplyError:
    """A reply that is an error."""

    node_id: str
    """Who sent it: the site's node, or the SuperLink's own for a node that went offline."""
    reason: str

    @property
    def refused(self) -> bool:
        """Whether the site did not let the app run, because it has not approved it."""
        return self.reason.startswith(_REFUSED)

    def told(self, site: str) -> str:
        """Say in one line what happened at the site of this name."""
        if self.refused:
            return f"{site} REFUSED the app: {self.reason.removeprefix(_REFUSED)}"
        return f"{site} failed with {self.reason}"


@dataclass
class Phase:
    """Training or evaluation of one round; None: the log does not say."""

    kind: str
    """`train` or `evaluate`."""
    sampled: int | None = None
    """How many replies are expected: messages sent."""
    online: int | None = None
    """How many nodes there were to sample from."""
    results: int | None = None
    failures: int | None = None
    metrics: Metrics = field(default_factory=dict)
    """Aggregated over the sites, as the strategy does it."""
    errors: list[ReplyError] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    """Ids of the nodes that were sent a message, where the coordinator's notes tell."""
    silent: list[str] = field(default_factory=list)
    """Ids of the nodes that never replied, where the coordinator's notes tell."""
    began: float | None = None
    ended: float | None = None
    """Seconds of the monotonic clock."""

    @property
    def seconds(self) -> float | None:
        """How long the phase took; None when it was not watched from start to end."""
        return None if self.began is None or self.ended is None else self.ended - self.began

    @property
    def missing(self) -> int:
        """Replies that were expected and never came, neither as a result nor as an error."""
        return max(0, (self.sampled or 0) - (self.results or 0) - (self.failures or 0))


@dataclass
class Round:
    """One round; number 0 holds what the server measured before the first."""

    number: int
    train: Phase | None = None
    evaluate: Phase | None = None
    server: Metrics = field(default_factory=dict)
    """What the ServerApp measured itself."""

    @property
    def phases(self) -> list[Phase]:
        """The phases that took place, in their order."""
        return [phase for phase in (self.train, self.evaluate) if phase]


@dataclass(frozen=True)
class RoundStarted:
    """A round began; `planned` is the number of rounds in all, if the log says so."""

    number: int
    planned: int | None


@dataclass(frozen=True)
class PhaseStarted:
    """Messages went out to the sites."""

    round: Round
    phase: Phase


@dataclass(frozen=True)
class PhaseDone:
    """All that will come of a phase has come."""

    round: Round
    phase: Phase


@dataclass(frozen=True)
class ServerEvaluated:
    """The ServerApp measured the global model."""

    round: Round


@dataclass(frozen=True)
class Waiting:
    """The ServerApp waits for more nodes than are online, for ever if need be."""

    online: int
    needed: int


@dataclass(frozen=True)
class AppError:
    """The ServerApp raised an exception."""

    text: str


LogEvent = RoundStarted | PhaseStarted | PhaseDone | ServerEvaluated | Waiting | AppError


class Follower:
    """What the log has said so far."""

    def __init__(self) -> None:
        """Begin before the first line."""
        self.rounds: list[Round] = []
        self.planned: int | None = None
        self.waiting: Waiting | None = None
        self.error: str | None = None
        self._open: Phase | None = None
        self._entry: list[str] = []

    def feed(self, line: str, at: float | None = None) -> Iterator[LogEvent]:
        """Take a line that came `at` seconds of the monotonic clock (None: before we looked), give what it tells.

        An entry may span lines (a traceback does): what needs all of it is told with the line after it.
        """
        for part in _COLOURED.split(line):  # what a progress bar left without an end may stand before it
            text = plain(part)
            start = _LEVEL.fullmatch(text)
            if start is not None:
                yield from self._end_entry()
                message = start[2]
                if _REPLY_ERROR.match(message) or (start[1] == "ERROR" and _EXCEPTION.match(message)):
                    self._entry = [message]
                yield from self._read(message, at)
            elif self._entry:
                self._entry.append(text)

    def finish(self) -> Iterator[LogEvent]:
        """The log has ended: close what is open."""
        yield from self._end_entry()
        yield from self._close()

    def _read(self, message: str, at: float | None) -> Iterator[LogEvent]:
        if found := _ROUND.fullmatch(message.strip()):
            yield from self._close()
            self.planned = int(found[2]) if found[2] else self.planned
            self.rounds.append(Round(int(found[1])))
            yield RoundStarted(int(found[1]), self.planned)
        elif found := _SAMPLED.match(message):
            self.waiting = None
            yield from self._sampled(_kind(found[1]), int(found[2]), int(found[3]), at)
        elif found := _RECEIVED.match(message):
            yield from self._received(_kind(found[1]), int(found[2]), int(found[3]), at)
        elif found := _AGGREGATED.match(message):
            if self._open is not None:
                self._open.metrics |= metrics(found[1])
        elif found := _SERVER_METRICS.match(message) or _INITIAL_METRICS.match(message):
            yield from self._close()
            if not self.rounds:
                self.rounds.append(Round(0))
            self.rounds[-1].server |= metrics(found[1])
            yield ServerEvaluated(self.rounds[-1])
        elif found := _WAITING.match(message):
            waiting = Waiting(int(found[1]), int(found[2]))
            if waiting != self.waiting:
                self.waiting = waiting
                yield waiting
        elif message.startswith("Strategy execution finished"):
            yield from self._close()

    def _sampled(self, kind: str, sampled: int, online: int, at: float | None) -> Iterator[LogEvent]:
        phase = self._awaiting(kind)
        if phase is not None:
            # A strategy that narrows down what FedAvg sampled says so in a second such line: the last counts.
            phase.sampled = sampled
            return
        yield from self._close()
        phase = self._begin(kind)
        phase.sampled, phase.online, phase.began = sampled, online, at
        yield PhaseStarted(self.rounds[-1], phase)

    def _received(self, kind: str, results: int, failures: int, at: float | None) -> Iterator[LogEvent]:
        phase = self._awaiting(kind)
        if phase is None:
            yield from self._close()
            phase = self._begin(kind)
        phase.results, phase.failures, phase.ended = results, failures, at

    def _awaiting(self, kind: str) -> Phase | None:
        """The open phase, if it is of this kind and has no replies yet."""
        phase = self._open
        return phase if phase is not None and phase.kind == kind and phase.results is None else None

    def _begin(self, kind: str) -> Phase:
        """Open a phase in this round, or in a next one that was not announced."""
        if not self.rounds or self.rounds[-1].number == 0 or getattr(self.rounds[-1], kind) is not None:
            self.rounds.append(Round(self.rounds[-1].number + 1 if self.rounds else 1))
        phase = Phase(kind)
        setattr(self.rounds[-1], kind, phase)
        self._open = phase
        return phase

    def _close(self) -> Iterator[LogEvent]:
        phase, self._open = self._open, None
        if phase is not None:
            yield PhaseDone(self.rounds[-1], phase)

    def _end_entry(self) -> Iterator[LogEvent]:
        entry, self._entry = self._entry, []
        if not entry:
            return
        if found := _REPLY_ERROR.fullmatch("\n".join(entry).rstrip()):
            if self._open is not None:
                self._open.errors.append(ReplyError(found[1], reason(found[2])))
        elif self.error is None:
            self.error = _raised(entry[1:])
            yield AppError(self.error)


def plain(line: str) -> str:
    """Take the colours out of a line."""
    return _ANSI.sub("", line).rstrip("\r\n")


def metrics(text: str) -> Metrics:
    """Read a printed MetricRecord; what is not a number or a list of numbers is left out."""
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError):
        return {}
    if not isinstance(tree, ast.Dict):
        return {}
    found: Metrics = {}
    for key, value in zip(tree.keys, tree.values, strict=True):
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            number = _value(value)
            if number is not None:
                found[key.value] = number
    return found


def reason(text: str) -> str:
    """Make one line of a client's error: `<class 'ValueError'>:<'no data'>` becomes `ValueError: no data`."""
    found = _CLIENT_EXCEPTION.search(text)
    if found:
        text = f"{found[1]}: {found[3]}"
    return " ".join(text.split()).removeprefix("Error: ")[:500]


def _value(node: ast.expr) -> MetricValue | None:
    if isinstance(node, ast.List):
        numbers = [_number(item) for item in node.elts]
        return None if None in numbers else [number for number in numbers if number is not None]
    return _number(node)


def _number(node: ast.expr) -> int | float | None:
    """A number as Python prints it: `0.5`, `-1`, `nan`, `inf`, `np.float64(0.5)`."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value  # type: ignore[return-value]
    if isinstance(node, ast.Name) and node.id in ("nan", "inf"):
        return float(node.id)
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _number(node.operand)
        return None if inner is None else -inner
    if isinstance(node, ast.Call) and len(node.args) == 1:
        return _number(node.args[0])
    return None


def _kind(word: str) -> str:
    return "evaluate" if word.lower() == "evaluate" else "train"


def _raised(trace: list[str]) -> str:
    """The exception's own line: the first one after the frames of the last traceback."""
    starts = [index for index, text in enumerate(trace) if text.startswith("Traceback (most recent call last)")]
    after = trace[starts[-1] + 1 :] if starts else trace
    raised = next((text for text in after if text and not text.startswith(" ")), "an exception without a message")
    return raised.strip()[:500]
