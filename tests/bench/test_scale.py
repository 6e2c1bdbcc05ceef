"""What one SuperLink takes for so many hospitals and models of such a size: time, processor, memory, database.

Written to results/scale-NODES.json; `-k "test_scale and 10"` measures one number of hospitals. Each model in a
federation of its own would cost minutes more and tell the same: the SuperLink is started anew before each.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from flowerbed import lab
from tests.bench import profile
from tests.bench.record import Figure, save
from tests.e2e.conftest import Standing, make, up

APP = Path(__file__).parents[1] / "apps" / "steady"
NODES = {10: (1, 10, 100), 50: (1, 10)}
"""Hospitals, and the megabytes of the models."""
ROUNDS = 2
IDLE = 60.0
"""Seconds."""
OWN, SITE = "SuperLink", "a site, on average"
BYTES_A_NUMBER = 8
MEGA = 1_000_000
LINK = "flower-superlink"
DATABASE = "/var/lib/flower/superlink/superlink.db"
WATCH, SIZES = "watch-database", "/run/watch-database"
_ROUNDS = f'find /var/lib/flower -name "[0-9]*.npy" -newer {SIZES}.begin | wc -l'
_WATCHING = f"while sleep 1; do echo $({_ROUNDS}) $(du -cb {DATABASE}* | tail -n 1 | cut -f 1) >>{SIZES}; done"
NOTES = (
    "{nodes} hospitals and the SuperLink on one machine with two cores; a client adds a number of its own to each "
    "number and does nothing else. Each model had {rounds} rounds of training; the SuperLink was started anew before. "
    "Processor time and memory are the SuperLink's process alone."
)


@pytest.fixture(scope="module", params=list(NODES))
def standing(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """A federation of so many hospitals."""
    count: int = request.param
    sites = [f"hospital-{number:02}" for number in range(count)]
    made = make(tmp_path_factory.mktemp("scale"), f"scale{count}", sites, "10.77.0.0/16")
    entries = "".join(
        f'  {site} = {{ node_config = {{ partition-id = "{number}", num-partitions = "{count}" }} }}\n'
        for number, site in enumerate(sites)
    )
    (made.federation.path / "lab.tfvars").write_text(f'network = "{made.network}"\n\nsites = {{\n{entries}}}\n')
    # What has the libraries imported stays for minutes: of fifty hosts on one machine that is too much memory.
    (made.federation.path / "group_vars" / "supernode.yml").open("a").write("supernode_preload: [numpy]\n")
    lab.image.ensure()
    with up(made):
        yield made


@dataclass(frozen=True)
class Taken:
    """What the SuperLink's process has taken so far."""

    processor: float
    """Seconds."""
    memory: float
    """The most so far, in megabytes."""


def taken(standing: Standing) -> Taken:
    """Look at the process."""
    coordinator = standing.host("coordinator")
    pid = coordinator.check_output(f"systemctl show --property=MainPID --value {LINK}")
    fields = coordinator.check_output(f"cat /proc/{pid}/stat").rpartition(")")[2].split()
    peak = coordinator.check_output(f"awk '/VmHWM/ {{ print $2 }}' /proc/{pid}/status")
    ticks = int(fields[11]) + int(fields[12])
    return Taken(ticks / os.sysconf("SC_CLK_TCK"), int(peak) / 1000)


@contextmanager
def watched(standing: Standing) -> Iterator[list[tuple[int, float]]]:
    """Look at the database each second; once through, the list has the rounds done and the megabytes on the disk."""
    coordinator = standing.host("coordinator")
    coordinator.check_output(f"rm -f {SIZES}; touch {SIZES}.begin; systemd-run -q --unit={WATCH} sh -c '{_WATCHING}'")
    found: list[tuple[int, float]] = []
    try:
        yield found
    finally:
        coordinator.check_output(f"systemctl stop {WATCH}")
    lines = coordinator.check_output(f"cat {SIZES}").splitlines()
    found += [(int(rounds), int(size) / MEGA) for rounds, size in map(str.split, lines)]


def test_one_superlink_carries_models_of_each_size(standing: Standing) -> None:
    count = int(standing.federation.name.removeprefix("scale"))
    before = taken(standing)
    time.sleep(IDLE)
    idle = (taken(standing).processor - before.processor) * 60 / IDLE
    waiting = profile.memory_of_a_site(standing.federation.name)
    figures = [
        Figure(f"{count} hospitals that wait: processor a minute", "s", {OWN: [idle]}),
        Figure(f"{count} hospitals that wait: memory of a site", "MB", {SITE: [waiting]}),
    ]
    for megabytes in NODES[count]:
        standing.host("coordinator").check_output(f"systemctl restart {LINK}")
        standing.succeed("up", standing.path)  # until every site is online again
        before = taken(standing)
        numbers = megabytes * MEGA // BYTES_A_NUMBER
        settings = {"size": numbers, "seconds": 0.0, "min-nodes": count, "num-server-rounds": ROUNDS}
        words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        with watched(standing) as sizes, profile.memory_watched(standing.federation.name) as seen:
            command = ("run", str(APP), "--federation", standing.path, "-c", "reply-timeout=3000.0", *words)
            answer = standing.succeed(*command)
        assert answer["status"] == "completed", answer["reason"]
        after = taken(standing)
        rounds = [entry["train"]["seconds"] for entry in answer["rounds"] if "train" in entry]
        what = f"{count} hospitals, {megabytes} MB"
        at_most = max(size for _, size in sizes)
        later = at_most - max(size for done, size in sizes if done <= 1)
        figures += [
            Figure(f"{what}: a round", "s", {OWN: rounds}),
            Figure(f"{what}: processor a round", "s", {OWN: [(after.processor - before.processor) / ROUNDS]}),
            Figure(f"{what}: memory at most", "MB", {OWN: [after.memory]}),
            Figure(f"{what}: memory of a site at most", "MB", {SITE: [max(seen)]}),
            Figure(f"{what}: the database at most", "MB", {OWN: [at_most]}),
            Figure(f"{what}: the database grows", "MB", {OWN: [later / (ROUNDS - 1)]}),
        ]
        name, command = f"scale-{count:02}", f"./scripts/test bench -k 'test_scale and {count}'"
        save(name, command, figures, NOTES.format(nodes=count, rounds=ROUNDS))
