"""Times of `up`, phase by phase, beside the floor in the same run: 3, 10, 25 and 50 hospitals, each a command.

A time is of this machine on this day; what is asserted are ratios, both sides in one run.
"""

import itertools
import json
import os
import re
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowerbed import inventory, lab, machines
from flowerbed.federation import DEFAULT_PYTHON
from tests.bench import plot, profile
from tests.bench.record import Figure, save
from tests.e2e.conftest import Standing, make

HERE = Path(__file__).parent
NETWORK = "10.78.0.0/16"
OURS, FLOOR = "Flowerbed", "floor"
# Seconds for the first `up` and for one hospital more.
AIMS: dict[int, tuple[float | None, float | None]] = {3: (45, None), 10: (90, None), 25: (None, None), 50: (300, 25)}
# Seconds of a processor that all hosts take in a second when nothing is under way, and how often in a row.
_QUIET, _QUIET_TIMES = 0.5, 5
NOTES = (
    "`up` for {count} hospitals on one machine, with image and release there; what follows the first was called when "
    "the hosts had imported beforehand what they do. The floor makes the same machines and "
    "then runs [floor.sh](floor.sh), a plain script over SSH without Ansible, checks or idempotence."
)


def _clean(standing: Standing) -> None:
    standing.flowerbed("down", standing.path)


@pytest.fixture(scope="module", params=list(AIMS))
def standing(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """A federation that is not up yet, with warm caches: the image and the release are there."""
    count: int = request.param
    made = make(tmp_path_factory.mktemp("bench"), f"bench{count}", named(count), NETWORK)
    lab.image.ensure()
    made.succeed("release", "build", made.path)
    try:
        yield made
    finally:
        _clean(made)


def _until_quiet(standing: Standing) -> None:
    """Until the hosts have imported what they import beforehand, which is no part of another `up`."""
    name, deadline = standing.federation.name, time.monotonic() + 300
    quiet = 0
    while quiet < _QUIET_TIMES and time.monotonic() < deadline:
        before = profile.of_hosts(name)
        time.sleep(1)
        quiet = quiet + 1 if profile.of_hosts(name) - before < _QUIET else 0


def named(count: int) -> list[str]:
    """So many hospitals."""
    return [f"hospital-{number:02}" for number in range(count)]


def _timed(standing: Standing, *words: str) -> tuple[float, dict[str, float]]:
    """Seconds of a command in all, and of its phases and of the playbook's plays, where one was run."""
    begin = time.monotonic()
    answer = standing.succeed(*words)
    taken = time.monotonic() - begin
    ours = {name: round(seconds, 1) for name, seconds in answer["seconds"].items() if name != "hosts"}
    if set(answer["settled"]) == set(answer["hosts_changed"]):
        return taken, {**ours, "hosts": round(answer["seconds"]["hosts"], 1)}
    return taken, {**ours, **plays(standing)}


def plays(standing: Standing) -> dict[str, float]:
    """Seconds of each play of the last playbook."""
    lines = (standing.federation.state / "last-play.log").read_text().splitlines()
    found: list[tuple[float, str]] = []
    for line in lines:
        at, _, text = line.strip().partition(" ")
        event = json.loads(text) if text.startswith("{") else {}
        if event.get("event") in ("play", "stats"):
            found.append((float(at), str(event.get("name", "end"))))
    return {name: round(after - at, 1) for (at, name), (after, _) in itertools.pairwise(found)}


def test_up_takes_no_more_than_twice_the_floor(standing: Standing) -> None:
    count = int(standing.federation.name.removeprefix("bench"))
    os.sync()
    could, commands = profile.of_the_machine(), profile.of_commands()
    first, phases = _timed(standing, "up", standing.path)
    taken = {
        "the command with Ansible, SSH and Terraform": profile.of_commands() - commands,
        "the hosts": profile.of_hosts(standing.federation.name),
    }
    taken["nobody"] = profile.of_the_machine() - could - sum(taken.values())
    on_hosts = profile.by_program(Counter(), profile.of_programs(standing.federation.name), taken["the hosts"], 1)
    _until_quiet(standing)
    second, again = _timed(standing, "up", standing.path)
    through_all, all_of_it = _timed(standing, "up", standing.path, "--all")
    standing.set_sites(named(count + 1))
    first_one, another = named(count + 1)[0], named(count + 1)[-1]
    shutil.copytree(standing.federation.data / first_one, standing.federation.data / another)
    more, one_more = _timed(standing, "up", standing.path)
    standing.set_sites(named(count))
    _clean(standing)

    os.sync()
    begin = time.monotonic()
    made = machines.up(standing.federation)
    inventory.write(inventory.parse(dict(made.inventory), "lab"), standing.federation)
    bare = time.monotonic() - begin
    archive = standing.federation.release_for(DEFAULT_PYTHON).resolve()
    hosts = inventory.read(standing.federation)
    addresses = [hosts.coordinator.address, *(site.address for site in hosts.sites.values())]
    command = [str(HERE / "floor.sh"), str(standing.federation.path), str(archive), *addresses]
    begin = time.monotonic()
    floor = subprocess.run(command, capture_output=True, text=True, check=False)
    floor_seconds = bare + time.monotonic() - begin
    assert floor.returncode == 0, floor.stderr
    floor_phases = {name: float(value) for name, value in re.findall(r"(\w+) ([0-9.]+)", floor.stdout)}
    floor_phases = {"machines": round(bare, 1), **floor_phases}

    aim, aim_more = AIMS[count]
    figure = Figure(f"`up`, {count} hospitals", "s", {OURS: [first], FLOOR: [floor_seconds]}, (OURS, FLOOR), 2)
    figures = [
        figure,
        Figure(f"first `up`, {count} hospitals", "s", {OURS: [first]}, aim=aim),
        Figure(f"second `up`, {count} hospitals", "s", {OURS: [second]}, aim=10 + 0.5 * (count + 1)),
        Figure(f"`up --all` with {count} hospitals", "s", {OURS: [through_all]}),
        Figure(f"one hospital more than {count}", "s", {OURS: [more]}, aim=aim_more),
    ]
    calls = {
        plot.CALL: phases,
        "second `up`": again,
        "`up --all`": all_of_it,
        "`up` with one hospital more": one_more,
        "floor": floor_phases,
    }
    name, command_line = f"up-{count:02}", f"./scripts/test bench -k 'test_up and {count}'"
    profiles = {
        "the first `up`": {name: round(seconds, 1) for name, seconds in taken.items()},
        "the first `up`, on the hosts": on_hosts,
    }
    save(name, command_line, figures, NOTES.format(count=count), calls, profiles)
    assert figure.ratios()[0] <= 2
