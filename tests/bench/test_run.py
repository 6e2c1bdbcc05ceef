"""What a run costs: a round beside bare Flower on the same hosts, and what `flowerbed run` adds around the run.

Written to tests/bench/run.md. Both sides of the ratio are measured in one go, in turn, on the same hosts.
"""

import os
import platform
import shlex
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from flowerbed import control, ssh
from flowerbed.errors import WorkFailed
from flowerbed.runs import flwr, submit_and_follow
from flowerbed.runs.connection import Connection, Deployed
from tests.e2e.conftest import EXAMPLE, SITES, Standing, make, prepare_data, up

RESULTS = Path(__file__).parent / "run.md"
ROUNDS = 3
TURNS = 2
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
def figures() -> Iterator[dict[str, list[float]]]:
    """What was measured; written down when all is."""
    found: dict[str, list[float]] = {}
    yield found
    print({name: _spread(values) for name, values in found.items()})
    if len(found) < 5:
        return
    lines = [f"| {name} | {_spread(values)} |" for name, values in found.items()]
    ratio = statistics.median(found["round, Flowerbed"]) / statistics.median(found["round, bare Flower"])
    day = datetime.now(UTC).date().isoformat()
    RESULTS.write_text(
        "# What a run costs\n\n"
        "Written by `./scripts/test bench -k test_run`. Three hospitals, the breast cancer example,\n"
        f"{ROUNDS} rounds in {TURNS} turns, bare Flower and Flowerbed one after the other on the same hosts. Bare\n"
        "Flower is `flower-superlink` and `flower-supernode` as root, without TLS, keys or a sandbox.\n\n"
        "| seconds | minimum, median, maximum |\n|---|---|\n" + "\n".join(lines) + "\n\n"
        f"Ratio of the medians of a round: {ratio:.2f} (aim: at most 1.10). Load of the machine: "
        f"{os.getloadavg()[0]:.1f} at the end.\n\n"
        f"Machine: {platform.machine()}, {os.cpu_count()} cores, {day}.\n"
    )


def test_a_round_takes_no_more_than_a_tenth_longer_than_with_bare_flower(
    standing: Standing, figures: dict[str, list[float]]
) -> None:
    ours, bare = [], []
    for _ in range(TURNS):
        with bare_flower(standing) as way:
            bare += rounds(way.run())
        answer = standing.succeed(
            "run", str(EXAMPLE), "--federation", standing.path, "-c", f"num-server-rounds={ROUNDS}"
        )
        assert answer["status"] == "completed"
        ours += rounds(answer)
    figures["round, bare Flower"] = bare
    figures["round, Flowerbed"] = ours
    assert statistics.median(ours) <= 1.1 * statistics.median(bare)


def test_what_is_around_a_run_takes_less_than_three_seconds(
    standing: Standing, figures: dict[str, list[float]]
) -> None:
    before, after = [], []
    for _ in range(TURNS):
        called = datetime.now(UTC)
        answer = standing.succeed("run", str(EXAMPLE), "--federation", standing.path, "-c", "num-server-rounds=1")
        returned = datetime.now(UTC)
        taken, ended = span(standing, answer["run_id"])
        before.append((taken - called).total_seconds())
        after.append((returned - ended).total_seconds())
    around = [sum(both) for both in zip(before, after, strict=True)]
    figures["before a run: pack, submit"] = before
    figures["after a run: collect"] = after
    figures["around a run"] = around
    assert statistics.median(around) < 3, (before, after)


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


def _spread(values: list[float]) -> str:
    return f"{min(values):.1f}, {statistics.median(values):.1f}, {max(values):.1f}"
