"""Runs as they come home, of any size and trouble, made without running them; and their reports."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from flowerbed.runs import results
from flowerbed.runs.connection import Deployed
from flowerbed.runs.flwr import RunInfo
from flowerbed.runs.follow import Phase, ReplyError, Round
from flowerbed.runs.replies import Exchange, Recording, Reply
from flowerbed.runs.verdict import Verdict

BEGAN = datetime(2026, 11, 22, 10, 0, 0, tzinfo=UTC)


@dataclass
class Made:
    """What a run is made of."""

    sites: Sequence[str] = ("hospital-a", "hospital-b", "hospital-c")
    rounds: int = 3
    app: str = "breast-cancer"
    metric: str = "accuracy"
    scale: float = 1.0
    config: dict[str, object] = field(default_factory=lambda: {"num-server-rounds": 3, "rate": 0.5})
    failures: dict[tuple[int, str, str], str] = field(default_factory=dict)
    """Round, phase and site to the error that it replied."""
    missing: set[tuple[int, str, str]] = field(default_factory=set)
    no_number: set[int] = field(default_factory=set)
    """Rounds in which what all sites together measured is no number."""
    status: str = "completed"
    reason: str = "3 rounds, all 18 replies"
    recorded: bool = True
    log: Sequence[str] = ("one", "two")

    def write(self, into: Path) -> Path:
        """Bring the run home; gives its folder."""
        ids = {site: str(10**18 + index) for index, site in enumerate(self.sites)}
        rounds, exchanges, clock = [], [], BEGAN.timestamp() + 5
        for number in range(1, self.rounds + 1):
            round_ = Round(number)
            for kind in ("train", "evaluate"):
                sent = [self._exchange(number, kind, site, node, clock) for site, node in ids.items()]
                setattr(round_, kind, self._phase(number, kind, sent))
                exchanges += sent
                clock += 12
            rounds.append(round_)
        deployed = Deployed("lab", ids, release="1.41.0-abc")
        run = RunInfo(
            *("4711", f"flowerbed/{self.app}", "1.0.0", "ab" * 32, "finished:completed", ""),
            *(BEGAN, BEGAN, datetime.fromtimestamp(clock, UTC)),
            *(12_345_678, 23_456_789, 77.0),
        )
        submission = results.Submission(
            *("4711", "git+https://example.org/apps.git@v1", self.config, {"rate": 0.5}, "1.41.0-abc", "1.41.0"),  # type: ignore[arg-type] - any value must do
            sites=ids,
            requirements={"flwr": "1.41.0", "numpy": "2.2.0"},
            by="anna@consortium",
            flowerbed="0.1.0",
        )
        return results.write(
            into,
            run,
            Verdict(self.status, self.reason, int(self.status != "completed")),
            rounds,
            self.log,
            deployed=deployed,
            submission=submission,
            fetch=lambda folder: None,
            recording=Recording(exchanges, "1.41.0", "3.11.2", b"x\n") if self.recorded else None,
        )

    def _exchange(self, number: int, kind: str, site: str, node: str, clock: float) -> Exchange:
        index = list(self.sites).index(site)
        seconds = 3 + index % 5
        reason = self.failures.get((number, kind, site))
        metrics = {self.metric: self.scale * (1 - math.exp(-number / 3) / 2 - index / 100), "num-examples": 10 + index}
        reply = Reply(
            clock + seconds,
            clock + seconds - 0.5,
            0 if reason else 4096,
            {} if reason else metrics,
            ReplyError(node, reason) if reason else None,
        )
        return Exchange(node, kind, number, clock, True, 4096, None if (number, kind, site) in self.missing else reply)

    def _phase(self, number: int, kind: str, sent: list[Exchange]) -> Phase:
        good = [one.reply.metrics[self.metric] for one in sent if one.reply and not one.reply.error]
        failures = [one.reply.error for one in sent if one.reply and one.reply.error]
        mean = math.nan if number in self.no_number or not good else sum(good) / len(good)
        return Phase(
            kind, len(sent), len(sent), len(good), len(failures), {self.metric: mean}, list(failures), 0.0, 8.0
        )
