"""A database that is damaged beyond use is named, and a backup brings back all that it held, also in two attempts."""

import time

import pytest

from tests.faults import results
from tests.faults.bed import Bed, Driven, Kept
from tests.faults.faults import DAMAGED, DATABASE, RESTORES
from tests.faults.promises import assert_full_run

UNKNOWN = "not in the backup, which is older"


def damage(bed: Bed) -> None:
    """Overwrite the database's first pages, and those that it has not taken in yet, and let the SuperLink read them."""
    for file in (DATABASE, f"{DATABASE}-wal"):
        bed.on("coordinator", f"dd if=/dev/urandom of={file} bs=4096 count=16 conv=notrunc status=none")
    bed.kill("coordinator", "flower-superlink")


def under_way(bed: Bed) -> tuple[Kept, Driven]:
    """A backup, what stood then, and a run that has begun since."""
    bed.recovered()
    bed.standing.succeed("backup", bed.standing.path)
    before = bed.kept()
    run = bed.run("-c", "num-server-rounds=20")
    run.until(r"round 1/\d+ train")
    return before, run


def restore(bed: Bed) -> float:
    """Bring the coordinator back, as the operator does; gives the seconds until every site is online."""
    began = time.monotonic()
    done = bed.standing.flowerbed("restore", bed.standing.path, "--overwrite")
    assert done.returncode == 0, done.stderr
    bed.recovered()
    return time.monotonic() - began


def assert_back(bed: Bed, before: Kept, run: Driven) -> None:
    """All that the backup holds is there, who follows the run is told that it is gone, and the next one completes."""
    assert run.end() == 2, run.text
    assert "error: " in run.text.splitlines()[-1]
    after = bed.kept()
    assert after.registrations == before.registrations
    assert after.nodes == before.nodes
    assert set(after.keys) == set(before.keys)
    assert after.data == before.data
    assert before.history <= after.history
    assert_full_run(bed)


def test_a_damaged_database_is_named_and_brought_back_from_a_backup(bed: Bed) -> None:
    before, run = under_way(bed)
    damage(bed)
    told = bed.told()
    assert told.startswith("exit 1"), told
    recovery = restore(bed)
    assert_back(bed, before, run)
    results.write(DAMAGED, UNKNOWN, recovery, run.said[-1].removeprefix("error: ").strip())


@pytest.mark.parametrize(("name", "at"), RESTORES.items())
def test_a_restore_that_is_killed_is_ended_by_the_same_call(bed: Bed, name: str, at: str) -> None:
    before, run = under_way(bed)
    bed.kill_at(at, "restore", bed.standing.path, "--overwrite")
    recovery = restore(bed)
    assert_back(bed, before, run)
    results.write(name, UNKNOWN, recovery, run.said[-1].removeprefix("error: ").strip())
