"""Two who change a federation at once: one does, the other is told by whom; nobody is kept out by who is gone."""

import shutil

import pytest

from flowerbed.federation import FederationFolder
from tests.e2e.conftest import Standing
from tests.faults.bed import Bed, Driven

HELD = "/run/flowerbed.turn"


@pytest.fixture
def elsewhere(bed: Bed) -> Standing:
    """The same federation's folder on another operator's machine, who does not see the first one's locks."""
    work = bed.standing.work / "elsewhere"
    path = work / bed.name
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(bed.federation.path, path, symlinks=True, ignore=shutil.ignore_patterns("turn.lock"))
    return Standing(FederationFolder(path), work, bed.standing.network)


def changing(bed: Bed) -> Driven:
    """A change that has begun: new certificates for the coordinator."""
    change = bed.start("rotate", bed.standing.path, "--certificates")
    bed.until_held("coordinator", HELD)
    return change


def refusal(standing: Standing, *words: str) -> str:
    """The one line with which a command is refused."""
    done = standing.flowerbed(*words)
    assert done.returncode == 1, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    return line


def test_of_two_who_run_up_at_once_one_does_and_the_other_is_told(bed: Bed) -> None:
    both = [bed.start("up", bed.standing.path) for _ in range(2)]
    assert sorted(one.end() for one in both) == [0, 1]
    (refused,) = [one for one in both if one.process.returncode]
    assert f"{bed.name} is being changed by " in refused.text
    assert "(up): run this again when that is done" in " ".join(refused.text.split())


def test_an_operator_at_another_machine_is_told_as_well_and_changes_nothing(bed: Bed, elsewhere: Standing) -> None:
    change = changing(bed)
    line = refusal(elsewhere, "site", "block", "hospital-a", "--federation", elsewhere.path)
    assert change.end() == 0, change.text
    assert "is being changed by " in line and "(rotate)" in line
    assert not elsewhere.federation.blocked_file.exists()


def test_a_change_that_was_killed_keeps_nobody_out(bed: Bed, elsewhere: Standing) -> None:
    change = changing(bed)
    change.process.kill()
    change.process.wait()
    bed.until_free("coordinator", HELD)
    done = elsewhere.flowerbed("site", "block", "hospital-a", "--federation", elsewhere.path)
    assert done.returncode == 0, done.stderr
    assert elsewhere.flowerbed("site", "unblock", "hospital-a", "--federation", elsewhere.path).returncode == 0
    assert bed.standing.flowerbed("up", bed.standing.path).returncode == 0
    bed.recovered()
