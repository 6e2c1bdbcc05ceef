"""What a run tells a listener while it is followed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flowerbed.runs.follow import LogEvent, Round
from flowerbed.runs.results import SiteMetrics
from flowerbed.runs.verdict import Verdict


@dataclass(frozen=True)
class FederationReached:
    """The first event: the way to the federation is open."""

    federation: str
    sites: Mapping[str, str]
    """Site name to node id."""


@dataclass(frozen=True)
class RunSubmitted:
    """The SuperLink took the run."""

    run_id: str
    app: str
    federation: str
    left_out: tuple[str, ...] = ()
    """Files of the app's folder that Flower does not send."""


@dataclass(frozen=True)
class SitesMissing:
    """The run waits for nodes, and these sites are not online."""

    sites: tuple[str, ...]


@dataclass(frozen=True)
class LogLine:
    """A line of the ServerApp's log, as it is."""

    text: str


@dataclass(frozen=True)
class Reconnecting:
    """The log broke off while the run goes on."""

    reason: str


@dataclass(frozen=True)
class NotRecorded:
    """The coordinator's audit trail lacks an entry about the run, which goes on all the same."""

    reason: str


@dataclass(frozen=True)
class RunLeft:
    """The run goes on without us; the verdict says how to come back."""

    verdict: Verdict


@dataclass(frozen=True)
class RunEnded:
    """The run is judged and home."""

    verdict: Verdict
    folder: Path
    rounds: tuple[Round, ...]
    sites: SiteMetrics = field(default_factory=dict)


Event = (
    LogEvent
    | FederationReached
    | LogLine
    | RunSubmitted
    | SitesMissing
    | Reconnecting
    | NotRecorded
    | RunLeft
    | RunEnded
)
OnEvent = Callable[[Event], None]
