"""Times of `up`, phase by phase, beside the floor in the same run; written to tests/bench/results.md.

A time is of this machine on this day; what is asserted are the aims' ratios, both sides in one run.
"""

import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flowerbed import inventory, lab, machines
from flowerbed.federation import DEFAULT_PYTHON
from tests.e2e.conftest import EXAMPLE, Standing, make

HERE = Path(__file__).parent
RESULTS = HERE / "results.md"


def _clean(standing: Standing) -> None:
    standing.flowerbed("down", standing.path)


@pytest.fixture(scope="module", params=[3, 10])
def standing(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """A federation that is not up yet, with warm caches: the image and the release are there."""
    count: int = request.param
    sites = [f"hospital-{letter}" for letter in "abcdefghij"[:count]]
    made = make(tmp_path_factory.mktemp("bench"), f"bench{count}", sites, "10.78.0.0/16")
    lab.image.ensure()
    made.succeed("release", "build", made.path)
    try:
        yield made
    finally:
        _clean(made)


def _timed(standing: Standing, *words: str) -> tuple[float, dict[str, float]]:
    begin = time.monotonic()
    answer = standing.succeed(*words)
    return time.monotonic() - begin, answer.get("seconds", {})


def test_up_takes_no_more_than_twice_the_floor(standing: Standing) -> None:
    first, phases = _timed(standing, "up", standing.path)
    second, _ = _timed(standing, "up", standing.path)
    hosts = inventory.read(standing.federation)
    run, _ = _timed(standing, "run", str(EXAMPLE), "--federation", standing.path)
    _clean(standing)

    begin = time.monotonic()
    made = machines.up(standing.federation)
    inventory.write(inventory.parse(dict(made.inventory), "lab"), standing.federation)
    bare = time.monotonic() - begin
    archive = standing.federation.release_for(DEFAULT_PYTHON).resolve()
    addresses = [hosts.coordinator.address, *(site.address for site in hosts.sites.values())]
    command = [str(HERE / "floor.sh"), str(standing.federation.path), str(archive), *addresses]
    begin = time.monotonic()
    floor = subprocess.run(command, capture_output=True, text=True, check=False)
    floor_seconds = bare + time.monotonic() - begin
    assert floor.returncode == 0, floor.stderr
    floor_phases = dict(re.findall(r"(\w+) ([0-9.]+)", floor.stdout))

    count = len(hosts.sites)
    lines = [
        f"| {count} | {first:.0f} | {_spread(phases)} | {floor_seconds:.0f} "
        f"| machines {bare:.1f}, {', '.join(f'{name} {value}' for name, value in floor_phases.items())} "
        f"| {first / floor_seconds:.1f} | {second:.0f} | {run:.0f} |"
    ]
    _record(lines)
    assert first <= 2 * floor_seconds


def _spread(phases: dict[str, float]) -> str:
    return ", ".join(f"{name} {seconds:.1f}" for name, seconds in phases.items())


def _record(lines: list[str]) -> None:
    head = [
        "# Measured times of `up`",
        "",
        "Written by `./scripts/test bench`. Seconds; the floor makes the same machines and then runs `floor.sh`, a",
        "plain script over SSH. Image and release were there; nothing else ran on the machine.",
        "",
        "| sites | up | its phases | floor | its phases | up / floor | second up | run, 3 rounds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    known = RESULTS.read_text().splitlines() if RESULTS.exists() else head
    count = lines[0].split("|")[1]
    kept = [line for line in known if line and not line.startswith((f"|{count}|", "Machine:"))]
    text = "\n".join([*head, *(line for line in kept if line.startswith("| ") and line not in head), *lines])
    machine = f"Machine: {platform.machine()}, {platform.system()}, Python {platform.python_version()}"
    day = datetime.now(UTC).date().isoformat()
    RESULTS.write_text(f"{text}\n\n{machine}, {day}.\n")


if __name__ == "__main__":
    sys.exit(pytest.main([__file__]))
