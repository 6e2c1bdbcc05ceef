"""A change that is killed in its middle costs a run at most, and the same call, given again, ends it."""

import re
import time

import pytest

from tests.faults import results
from tests.faults.bed import Bed
from tests.faults.faults import HALF_DONE, HalfDone
from tests.faults.promises import assert_next_run_completes, assert_nothing_lost, assert_told

ROUNDS = 15
"""So that the run outlasts what the change does before it is killed."""


@pytest.mark.parametrize("change", HALF_DONE, ids=str)
def test_a_change_that_is_killed_is_ended_by_the_same_call(bed: Bed, change: HalfDone) -> None:
    bed.recovered()
    change.prepare(bed)
    before = bed.kept()
    run = bed.run("-c", f"num-server-rounds={ROUNDS}")
    run.until(r"round 1/\d+ train")
    bed.kill_at(change.at, *change.command, bed.standing.path)
    began = time.monotonic()
    again = bed.standing.flowerbed(*change.command, bed.standing.path)
    assert again.returncode == 0, again.stderr
    bed.recovered()
    recovery = time.monotonic() - began
    ended = bed.end(run)
    assert_told(ended, change.verdicts, "replies|went offline|lost")
    assert_nothing_lost(before, bed.kept(), new_keys=change.makes_keys)
    assert set(bed.standing.succeed("up", bed.standing.path, "--all")["hosts_changed"].values()) == {0}
    assert_next_run_completes(bed, ended)
    results.note(change.name, bed, ended, recovery)


def test_a_change_waits_for_no_reply_that_the_app_gave_up(bed: Bed) -> None:
    bed.recovered()
    # The site works on its first message until long after the change.
    slow = ("slow-partition=2", "slow-seconds=3600.0", "reply-timeout=10.0", "num-server-rounds=30")
    run = bed.run(*(word for setting in slow for word in ("-c", setting)))
    run.until("round 2/30 train")
    bed.standing.succeed("rotate", bed.standing.path, "--keys", "--wait", "120")
    assert run.process.poll() is None, run.text
    (run_id,) = re.findall(r"^run (\d+): ", run.text, re.MULTILINE)
    bed.standing.succeed("stop", run_id, "--federation", bed.standing.path)
    assert bed.end(run).status == "stopped"
    bed.recovered()
