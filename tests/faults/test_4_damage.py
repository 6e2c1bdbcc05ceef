"""A database that is damaged beyond use: the operator is told, and a backup brings back all that it held."""

import time

from tests.faults import results
from tests.faults.bed import Bed
from tests.faults.faults import DAMAGED, DATABASE
from tests.faults.promises import assert_full_run


def damage(bed: Bed) -> None:
    """Overwrite the database's first pages, and those that it has not taken in yet, and let the SuperLink read them."""
    for file in (DATABASE, f"{DATABASE}-wal"):
        bed.on("coordinator", f"dd if=/dev/urandom of={file} bs=4096 count=16 conv=notrunc status=none")
    bed.kill("coordinator", "flower-superlink")


def test_a_damaged_database_is_named_and_brought_back_from_a_backup(bed: Bed) -> None:
    bed.standing.succeed("backup", bed.standing.path)
    before = bed.kept()
    run = bed.run("--node-timeout", "60")
    run.until(r"round 1/\d+ train")
    damage(bed)
    told = bed.told()
    assert told.startswith("exit 1"), told
    began = time.monotonic()
    restored = bed.standing.flowerbed("restore", bed.standing.path, "--overwrite")
    assert restored.returncode == 0, restored.stderr
    bed.recovered()
    recovery = time.monotonic() - began
    assert run.end() != 0, "the backup does not know the run, and neither does the SuperLink now"
    after = bed.kept()
    assert after.registrations == before.registrations
    assert after.data == before.data
    assert before.history <= after.history
    assert_full_run(bed)
    results.write(DAMAGED, "unknown to the backup", recovery, run.said[-1].removeprefix("error: "))
