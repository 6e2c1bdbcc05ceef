"""Shows a run as it goes: one live line per round in a terminal, one plain line per phase elsewhere."""

from types import TracebackType
from typing import Self

from rich.console import Console, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from flowerbed.runs import report
from flowerbed.runs.connection import SUPERLINK_NODE
from flowerbed.runs.events import (
    Event,
    FederationReached,
    LogLine,
    NotRecorded,
    Reconnecting,
    RunEnded,
    RunLeft,
    RunSubmitted,
    SitesMissing,
)
from flowerbed.runs.follow import (
    AppError,
    Metrics,
    Phase,
    PhaseDone,
    PhaseStarted,
    Round,
    RoundStarted,
    ServerEvaluated,
    Waiting,
)
from flowerbed.runs.results import SiteMetrics
from flowerbed.runs.verdict import COMPLETED, RUNNING, Verdict

_SHOWN = 4
_BAR = 20


class Progress:
    """A context manager; what is called with each event of a run.

    Everything goes to `console`: give one on standard error where standard output is for data.
    """

    def __init__(self, console: Console, *, verbose: bool = False) -> None:
        """`verbose` shows the ServerApp's log as well."""
        self._console = console
        self._names = {SUPERLINK_NODE: "a site that went offline"}
        self._verbose = verbose
        self._planned: int | None = None
        self._done = 0
        self._round: Round | None = None
        self._live: Live | None = None

    def __enter__(self) -> Self:
        """Take the terminal's last line, if it is one."""
        if self._console.is_terminal:
            self._live = Live(self._status(Text("submitting")), console=self._console, transient=True)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give the line back."""
        if self._live is not None:
            self._live.stop()

    def __call__(self, event: Event) -> None:
        """Show one event."""
        match event:
            case FederationReached():
                self._names |= {node_id: site for site, node_id in event.sites.items()}
            case RunSubmitted():
                self._submitted(event)
            case LogLine() if self._verbose:
                self._say(Text(event.text, "dim"))
            case Waiting():
                self._say_or_show(Text(f"waiting for nodes: {event.online} online, {event.needed} needed", "yellow"))
            case SitesMissing() | Reconnecting() | NotRecorded():
                self._say(Text(_warning(event), "yellow"))
            case RoundStarted():
                self._end_round()
                self._planned = event.planned
                self._done = event.number - 1
                self._now(Text(self._title(event.number)))
            case PhaseStarted() | PhaseDone():
                self._phase(event)
            case ServerEvaluated():
                self._measured_by_server(event.round)
            case AppError():
                self._say(Text(f"the ServerApp failed: {event.text}", "red"))
            case RunLeft():
                self._say_verdict(event.verdict)
            case RunEnded():
                self._end(event)

    def _submitted(self, event: RunSubmitted) -> None:
        self._say(Text(f"run {event.run_id}: {event.app} on {event.federation}"))
        if event.left_out:
            more = " …" if len(event.left_out) > _SHOWN else ""
            files = ", ".join(event.left_out[:_SHOWN]) + more
            self._say(Text(f"not sent, Flower packs code and settings alone: {files}", "dim"))
        self._now(Text("starting"))

    def _phase(self, event: PhaseStarted | PhaseDone) -> None:
        self._round = event.round
        if self._live is not None:
            self._now(self._round_line(event.round))
        elif isinstance(event, PhaseDone):
            title = f"{self._title(event.round.number)} {event.phase.kind}"
            self._say(Text.assemble(title, " ", self._phase_text(event.phase)))

    def _measured_by_server(self, round_: Round) -> None:
        if self._live is not None and round_.phases:
            self._round = round_
            self._now(self._round_line(round_))
        else:
            self._say(Text(f"{self._title(round_.number)} server {_measured(round_.server)}"))

    def _end_round(self) -> None:
        """A finished round's line stays above the live one."""
        if self._live is not None and self._round is not None:
            self._say(self._round_line(self._round))
        self._round = None

    def _end(self, event: RunEnded) -> None:
        self._end_round()
        if self._live is not None:
            self._live.stop()
            self._live = None
        for table in metrics_table(event.rounds, event.sites):
            self._console.print(table)
        self._say_verdict(event.verdict)
        self._say(Text(f"results: {event.folder} ({report.NAME} shows them)"))

    def _say_verdict(self, verdict: Verdict) -> None:
        colour = {COMPLETED: "green", RUNNING: "blue"}.get(verdict.status, "red")
        self._say(Text.assemble((verdict.status, f"bold {colour}"), f": {verdict.reason}"))

    def _round_line(self, round_: Round) -> Text:
        parts: list[Text] = [Text(self._title(round_.number))]
        parts += [Text.assemble((phase.kind, "bold"), " ", self._phase_text(phase)) for phase in round_.phases]
        if round_.server:
            parts.append(Text.assemble(("server", "bold"), f" {_measured(round_.server)}"))
        return Text("  ").join(parts)

    def _phase_text(self, phase: Phase) -> Text:
        if phase.results is None:
            return Text(f"0/{phase.sampled} …", "dim")
        expected = phase.sampled if phase.sampled is not None else phase.results + (phase.failures or 0)
        good = phase.results >= expected and not phase.failures
        text = Text.assemble((f"{phase.results}/{expected}", "green" if good else "red"))
        if phase.metrics:
            text.append(f" {_measured(phase.metrics)}")
        for error in phase.errors:
            name = self._names.get(error.node_id, f"node {error.node_id}")
            text.append(f" ({error.told(name)})", "red")
        return text

    def _title(self, number: int) -> str:
        return f"round {number}/{self._planned}" if self._planned else f"round {number}"

    def _say_or_show(self, text: Text) -> None:
        if self._live is not None:
            self._now(text)
        else:
            self._say(text)

    def _say(self, text: RenderableType) -> None:
        self._console.print(text, soft_wrap=True)

    def _now(self, text: Text) -> None:
        if self._live is not None:
            self._live.update(self._status(text))

    def _status(self, text: Text) -> RenderableType:
        spinner = Spinner("dots", text=text)
        if not self._planned:
            return spinner
        line = Table.grid(padding=(0, 1))
        line.add_row(ProgressBar(total=self._planned, completed=self._done, width=_BAR), spinner)
        return line


def _warning(event: SitesMissing | Reconnecting | NotRecorded) -> str:
    if isinstance(event, SitesMissing):
        return f"not online: {', '.join(event.sites)}"
    if isinstance(event, Reconnecting):
        return f"the log broke off, reconnecting: {event.reason}"
    return f"the coordinator's audit trail lacks an entry of this run: {event.reason}"


def metrics_table(rounds: "tuple[Round, ...]", sites: SiteMetrics) -> list[Table]:
    """Make a finished run's tables: metrics per round, and the last round's per site where they are known."""
    tables = []
    columns = _columns(rounds)
    if columns:
        table = Table(title="metrics per round", title_justify="left")
        table.add_column("round", justify="right")
        for kind, name in columns:
            table.add_column(f"{kind} {name}", justify="right")
        for round_ in rounds:
            values = {phase.kind: phase.metrics for phase in round_.phases} | {"server": round_.server}
            table.add_row(str(round_.number), *(_number(values.get(kind, {}).get(name)) for kind, name in columns))
        tables.append(table)
    if sites:
        last = max(sites)
        for kind, by_site in sites[last].items():
            names = list(dict.fromkeys(name for values in by_site.values() for name in values))
            table = Table(title=f"round {last} {kind} per site", title_justify="left")
            table.add_column("site")
            for name in names:
                table.add_column(name, justify="right")
            for site, values in sorted(by_site.items()):
                table.add_row(site, *(_number(values.get(name)) for name in names))
            tables.append(table)
    return tables


def _columns(rounds: "tuple[Round, ...]") -> list[tuple[str, str]]:
    found: dict[tuple[str, str], None] = {}
    for round_ in rounds:
        for phase in round_.phases:
            found |= dict.fromkeys((phase.kind, name) for name in phase.metrics)
        found |= dict.fromkeys(("server", name) for name in round_.server)
    return sorted(found, key=lambda column: ("train", "evaluate", "server").index(column[0]))


def _measured(metrics: Metrics) -> str:
    shown = list(metrics.items())[:_SHOWN]
    more = " …" if len(metrics) > _SHOWN else ""
    return " ".join(f"{name} {_number(value)}" for name, value in shown) + more


def _number(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return f"{len(value)} values"
    return "" if value is None else str(value)
