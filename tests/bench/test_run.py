"""What a run costs: beside bare Flower on the same hosts, and what `flowerbed run` adds around the run.

Both sides of a ratio are measured in one go, in turn, on the same hosts.
"""

import shlex
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from flowerbed import control, ssh
from flowerbed.errors import WorkFailed
from flowerbed.runs import flwr, submit_and_follow
from flowerbed.runs.connection import Connection, Deployed
from tests.bench import profile
from tests.bench.record import Figure, save
from tests.e2e.conftest import EXAMPLE, SITES, Standing, make, prepare_data, up

COMMAND = "./scripts/test bench -k test_run"
NOTES = (
    "Three hospitals and the breast cancer example. Bare Flower is `flower-superlink` and `flower-supernode` as root "
    "on the same hosts, without TLS, keys or a sandbox. Both sides were started half a minute before. Right after a "
    "start what Flowerbed imports beforehand is still being imported; after ten minutes without a message it is gone, "
    "and is imported again with the first one."
)
OURS, BARE = "Flowerbed", "bare Flower"
LATER, AT_ONCE = "after ten minutes without a message", "right after a start"
ROUNDS = 3
TURNS = 2
SETTLES = 35.0
"""Seconds after which nothing of a start or of a run goes on."""
_PORT = 443  # the one port that the coordinator's firewall lets in
_COORDINATORS = ["flower-superexec-serverapp", "flower-superlink", "flower-gateway"]
_SITES = ["flower-superexec-clientapp", "flower-supernode"]
# When the SuperLink took the run, and when it knew its end; `flwr list` gives whole seconds.
_TIMES = """
import sqlite3, sys
with sqlite3.connect("file:/var/lib/flower/superlink/superlink.db?mode=ro", uri=True) as database:
    words = "select min(pending_at), max(finished_at) from task where run_id = ?"
    print(*database.execute(words, (int(sys.argv[1]),)).fetchone(), sep="\\n")
"""


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """Three hospitals with their patients."""
    made = make(tmp_path_factory.mktemp("bench-run"), "benchrun", SITES, "10.89.0.0/16")
    prepare_data(made, SITES)
    with up(made):
        yield made


@pytest.fixture(scope="module")
def profiles() -> dict[str, dict[str, float]]:
    """Who took the processors, and is written down."""
    return {}


@pytest.fixture(scope="module")
def figures(profiles: dict[str, dict[str, float]]) -> Iterator[list[Figure]]:
    """What was measured, and is written down."""
    found: list[Figure] = []
    yield found
    if found:
        save("run", COMMAND, found, NOTES, profiles=profiles)


def test_a_round_takes_no_more_than_a_tenth_longer_than_with_bare_flower(
    standing: Standing, figures: list[Figure]
) -> None:
    sides: dict[str, list[list[float]]] = {OURS: [], BARE: [], LATER: [], AT_ONCE: []}
    whole: dict[str, list[float]] = {side: [] for side in sides}
    command = ("run", str(EXAMPLE), "--federation", standing.path, "-c", f"num-server-rounds={ROUNDS}")
    for _ in range(TURNS):
        with bare_flower(standing) as way:
            time.sleep(SETTLES)
            answers = {BARE: way.run()}
        answers[AT_ONCE] = standing.succeed(*command)
        time.sleep(SETTLES)
        answers[OURS] = standing.succeed(*command)
        for host in ("coordinator", *SITES):
            standing.host(host).check_output("systemctl stop 'flower-*app-warm.service'")
        answers[LATER] = standing.succeed(*command)
        for side, answer in answers.items():
            assert answer["status"] == "completed"
            sides[side].append(rounds(answer))
            whole[side].append(answer["seconds"])
    medians = {side: [statistics.median(turn) for turn in sides[side]] for side in (OURS, BARE)}
    round_ = Figure("a round after the first", "s", medians, (OURS, BARE), 1.1)
    what = f"{ROUNDS} rounds on three sites"
    figures += [round_, Figure(what, "s", {side: whole[side] for side in (OURS, BARE)}, (OURS, BARE), 0.3)]
    for when in (AT_ONCE, LATER):
        figures.append(Figure(f"{what}, {when}", "s", {OURS: whole[when], BARE: whole[BARE]}, (OURS, BARE)))
    assert statistics.median(round_.ratios()) <= 1.1


def test_what_is_around_a_run_takes_less_than_three_seconds(standing: Standing, figures: list[Figure]) -> None:
    before, after = [], []
    for _ in range(TURNS + 1):
        called = datetime.now(UTC)
        answer = standing.succeed("run", str(EXAMPLE), "--federation", standing.path, "-c", "num-server-rounds=1")
        returned = datetime.now(UTC)
        taken, ended = span(standing, answer["run_id"])
        before.append((taken - called).total_seconds())
        after.append((returned - ended).total_seconds())
    around = [sum(both) for both in zip(before, after, strict=True)]
    figures += [
        Figure("before a run: pack, submit", "s", {OURS: before}),
        Figure("after a run: collect", "s", {OURS: after}),
        Figure("around a run", "s", {OURS: around}, aim=3),
    ]
    assert statistics.median(around) < 3, (before, after)


def test_a_federation_that_waits_takes_no_more_of_the_processors_than_bare_flower(
    standing: Standing, figures: list[Figure], profiles: dict[str, dict[str, float]]
) -> None:
    taken: dict[str, list[dict[str, float]]] = {OURS: [], BARE: []}
    for _ in range(TURNS):
        with bare_flower(standing):
            time.sleep(SETTLES)
            taken[BARE].append(idle(standing))
        time.sleep(SETTLES)
        taken[OURS].append(idle(standing))
    # What else goes on only adds to it.
    least = {side: min(turns, key=lambda turn: sum(turn.values())) for side, turns in taken.items()}
    profiles.update({f"a minute without a run of {side}": turn for side, turn in least.items()})
    sides = {side: [sum(turn.values())] for side, turn in least.items()}
    figure = Figure("a minute without a run: the least processor time on all hosts", "s", sides, (OURS, BARE), 1.0)
    figures.append(figure)
    assert figure.ratios()[0] <= 1.5, "the services beside Flower's own, and no more"


def idle(standing: Standing, seconds: float = 60.0) -> dict[str, float]:
    """Processor time that each program takes on all hosts in a minute, in seconds."""
    name = standing.federation.name
    before, total = profile.of_programs(name), profile.of_hosts(name)
    time.sleep(seconds)
    return profile.by_program(before, profile.of_programs(name), profile.of_hosts(name) - total)


def rounds(answer: dict[str, Any]) -> list[float]:
    """Seconds of each round but the first, which waits for imports to be cached."""
    found = [entry["train"]["seconds"] + entry["evaluate"]["seconds"] for entry in answer["rounds"]]
    return found[1:]


def span(standing: Standing, run_id: str) -> tuple[datetime, datetime]:
    """When the SuperLink took a run and when that ended, as it knows itself; hosts here share this machine's clock."""
    signed = int(run_id) - (1 << 64 if int(run_id) >= 1 << 63 else 0)
    command = f"python3 -c {shlex.quote(_TIMES)} {signed}"
    begin, end = standing.host("coordinator").check_output(command).splitlines()
    return datetime.fromisoformat(begin), datetime.fromisoformat(end)


@dataclass(frozen=True)
class Bare:
    """Bare Flower on the hosts."""

    standing: Standing
    address: str

    def run(self) -> dict[str, Any]:
        """Run the example on it; what run.json would hold."""
        shell = control.coordinator(self.standing.federation)
        with flwr.control(Connection(self.address, None, insecure=True)) as api:
            deadline = time.monotonic() + 60
            while not answers(api):
                assert time.monotonic() < deadline, "the bare SuperLink does not answer"
                time.sleep(1)
        result = submit_and_follow(
            Connection(self.address, None, insecure=True),
            shell,
            EXAMPLE,
            {"num-server-rounds": ROUNDS, "min-sites": len(SITES)},
            deployed=Deployed("bare", results="/nonexistent"),
            into=self.standing.work / "bare",
        )
        assert result.verdict.status == "completed", result.verdict.reason
        return dict(result.record)


def answers(api: flwr.Control) -> bool:
    """Whether the SuperLink has started."""
    try:
        api.runs()
    except WorkFailed:
        return False
    return True


@contextmanager
def bare_flower(standing: Standing) -> Iterator[Bare]:
    """Stop Flowerbed's services and start Flower's own commands in their place; afterwards the other way round."""
    coordinator = standing.host("coordinator")
    sites = [standing.host(name) for name in SITES]
    # The sites first, so that they can say goodbye; afterwards the coordinator first, so that they find it.
    for host, units in [*((site, _SITES) for site in sites), (coordinator, _COORDINATORS)]:
        host.check_output(f"systemctl stop {' '.join(units)}")
    try:
        start(
            coordinator,
            f"flower-superlink --insecure --host 0.0.0.0 --port {_PORT} --disable-runtime-dependency-installation",
        )
        for site in sites:
            path = 'data-path="/srv/hospital"'
            start(site, f"flower-supernode --insecure --superlink {standing.gateway}:{_PORT} --node-config '{path}'")
        shell = control.coordinator(standing.federation)
        with ssh.forward(shell, _PORT) as port:
            yield Bare(standing, f"127.0.0.1:{port}")
    finally:
        for host, units in [(coordinator, _COORDINATORS), *((site, _SITES) for site in sites)]:
            host.run("systemctl stop bare-flower")
            host.check_output(f"systemctl start {' '.join(reversed(units))}")
        standing.succeed("up", standing.path)


def start(host: Any, command: str) -> None:
    """Start one of Flower's commands as a unit of its own."""
    settings = {
        "PATH": "/opt/flower/current/bin:/usr/bin:/bin",
        "FLWR_HOME": "/run/bare",
        "FLWR_TELEMETRY_ENABLED": "0",
    }
    environment = " ".join(f"--setenv={name}={value}" for name, value in settings.items())
    host.check_output(f"systemd-run --collect --unit=bare-flower {environment} /opt/flower/current/bin/{command}")
