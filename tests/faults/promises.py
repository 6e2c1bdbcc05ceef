"""What must hold after every fault."""

import re

from tests.faults.bed import SITES, Bed, Ended, Kept

COMPLETED = "completed"


def assert_told(ended: Ended, verdicts: tuple[str, ...], reason: str) -> None:
    """What the operator is told of a run is what became of it, and is one of these verdicts, with such a reason."""
    assert ended.status in verdicts, ended.reason
    assert ended.exit_code == (0 if ended.status == COMPLETED else 1)
    assert " ".join(f"{ended.status}: {ended.reason}".split()) in " ".join(ended.said.split())
    phases = [entry["train"] for entry in ended.record["rounds"] if "train" in entry]
    every_reply = all((phase["sampled"], phase["results"]) == (len(SITES), len(SITES)) for phase in phases)
    every_round = len(phases) == ended.record["config"]["num-server-rounds"]
    at_its_end = "lost at its end" in ended.reason
    assert (ended.status == COMPLETED or at_its_end) == (every_reply and every_round), ended.record["rounds"]
    if ended.status != COMPLETED:
        assert re.search(reason, ended.reason), ended.reason


def assert_nothing_lost(before: Kept, after: Kept, *, new_keys: bool = False) -> None:
    """Registrations, keys and data are the same, and no run is forgotten; where new keys were made, all have theirs."""
    if new_keys:
        assert set(after.registrations) == set(before.registrations)
        assert set(after.keys) == set(before.keys)
    else:
        assert after.registrations == before.registrations
        assert after.nodes == before.nodes
        assert after.keys == before.keys
    assert after.data == before.data
    assert before.history < after.history, "the runs that there were, and this one"


def assert_next_run_completes(bed: Bed, ended: Ended) -> None:
    """What was lost is done again from its last checkpoint; otherwise a run of every site is done anew."""
    if ended.record["lost"]:
        run_id = str(ended.record["run_id"])
        again = bed.end(bed.start("run", "--retry", run_id, "--federation", bed.standing.path))
        assert again.record["retry_of"] == run_id
        saved = [file for file in ended.record["files"] if file.startswith("checkpoints/")]
        assert again.record["config"]["resume-from"] == (run_id if saved else "")
        assert f"checkpoints/{ended.record['config']['num-server-rounds']}.npy" in again.record["files"]
        assert (again.status, again.exit_code) == (COMPLETED, 0), again.reason
    else:
        assert_full_run(bed)


def assert_full_run(bed: Bed) -> None:
    """A run in which every site takes part completes."""
    run = bed.end(bed.run("-c", "num-server-rounds=1", "-c", f"min-nodes={len(SITES)}"))
    assert (run.status, run.exit_code) == (COMPLETED, 0), run.reason
