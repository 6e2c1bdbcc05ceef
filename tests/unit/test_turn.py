"""One change of a federation at a time, and nobody is kept out by a change that was killed."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flowerbed import journal, turn
from flowerbed.errors import WorkFailed
from flowerbed.federation import FederationFolder

_HOLDER = """
import sys
from pathlib import Path
from flowerbed import turn
from flowerbed.federation import FederationFolder
with turn.taken(FederationFolder(Path(sys.argv[1])), "rotate"):
    print("taken", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def federation(tmp_path: Path) -> FederationFolder:
    """A federation that nobody has brought up."""
    return FederationFolder(tmp_path)


def other(federation: FederationFolder) -> "subprocess.Popen[str]":
    """Another process that changes the federation until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(federation.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "taken\n"
    return process


def test_the_second_is_told_who_changes_the_federation_and_with_what(federation: FederationFolder) -> None:
    with other(federation) as process:
        with pytest.raises(WorkFailed) as refused, turn.taken(federation, "up"):
            pass
        process.communicate("")
    assert f"is being changed by {journal.operator()} since " in str(refused.value)
    assert "(rotate)" in str(refused.value)
    with turn.taken(federation, "up"):
        pass


def test_a_change_that_was_killed_keeps_nobody_out(federation: FederationFolder) -> None:
    with other(federation) as process:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    with turn.taken(federation, "up"):
        pass


def test_a_change_that_failed_keeps_nobody_out(federation: FederationFolder) -> None:
    with pytest.raises(ZeroDivisionError), turn.taken(federation, "up"):
        raise ZeroDivisionError
    with turn.taken(federation, "up"):
        pass
