"""A session with hospitals on hosts of their own: over SSH alone, with large arrays, bad lines, and nothing left."""

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from flowerbed import Federation, lab
from flowerbed.errors import WorkFailed
from tests.e2e.conftest import SITES, Standing

CLIENT = Path(__file__).parents[1] / "apps" / "answers.py"
MEGABYTES = 100
MEMORY = "for p in $(pgrep -f '[i]nstance.py flwr-serverapp'); do awk '/VmHWM/ {print $2}' /proc/$p/status; done"
"""The most memory that each ServerApp on the host ever held, in KiB."""

LEAVES = """
import os, signal, sys
from pathlib import Path
from flowerbed import Federation
session = Federation(sys.argv[1], Path(sys.argv[2])).connect(sys.argv[3], patience=5)
print(session.run_id, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


def listening(standing: Standing) -> list[str]:
    """What the coordinator listens on."""
    return sorted(standing.host("coordinator").check_output("ss -tulnH | awk '{print $1, $5}'").splitlines())


def ssh_processes(standing: Standing) -> list[str]:
    """This machine's ssh processes with a host of the federation, without those of the test's own looks at it."""
    found = subprocess.run(["pgrep", "-af", "^ssh .*"], capture_output=True, text=True, check=False).stdout
    return [line for line in found.splitlines() if str(standing.federation.known_hosts) in line and "BatchMode" in line]


def status(standing: Standing, run_id: str) -> str:
    (run,) = [run for run in standing.succeed("runs", standing.path)["runs"] if run["run_id"] == run_id]
    return str(run["status"])


def test_a_session_opens_no_port(standing: Standing, federation: Federation) -> None:
    before = listening(standing)
    with federation.connect(CLIENT) as session:
        assert session.sites == tuple(SITES)
        assert listening(standing) == before


def test_arrays_of_a_hundred_megabytes_go_to_three_sites_and_come_back(
    standing: Standing, federation: Federation
) -> None:
    model = np.random.default_rng(7).random(MEGABYTES * 125_000)
    with federation.connect(CLIENT) as session:
        config = {"megabytes": MEGABYTES}
        replies = session.broadcast_and_wait("evaluate.large", {"config": config, "arrays": model}, timeout=600)
        assert list(replies.all()) == SITES
        for number, site in enumerate(SITES):
            (array,) = replies[site]["arrays"].to_numpy_ndarrays()
            assert array.nbytes == MEGABYTES * 1_000_000
            assert array[0] == pytest.approx(model.sum())
            assert (array[1:] == number).all()
        (kibibytes,) = standing.host("coordinator").check_output(MEMORY).split()
    # One array on its way in or out at a time, not three: Flower holds an array about four times while it packs it.
    assert int(kibibytes) * 1024 < 900_000_000


def test_a_site_that_is_cut_off_is_absent_and_takes_part_again_later(
    standing: Standing, federation: Federation
) -> None:
    with federation.connect(CLIENT) as session:
        lab.cut(standing.federation.name, "hospital-b")
        try:
            replies = session.broadcast_and_wait("query", timeout=40)
        finally:
            lab.restore(standing.federation.name, "hospital-b")
        assert list(replies.absent) == ["hospital-b"]
        assert list(replies.records) == ["hospital-a", "hospital-c"]
        assert list(session.broadcast_and_wait("query", timeout=120).all()) == SITES


def test_a_call_survives_a_coordinator_that_is_out_of_reach_for_a_while(
    standing: Standing, federation: Federation
) -> None:
    def away() -> None:
        lab.cut(standing.federation.name, "coordinator", everything=True)
        time.sleep(8)
        lab.restore(standing.federation.name, "coordinator")

    with federation.connect(CLIENT) as session:
        trouble = threading.Timer(1, away)
        trouble.start()
        try:
            assert list(session.broadcast_and_wait("query", timeout=120).all()) == SITES
        finally:
            trouble.join()


def test_a_session_whose_run_was_stopped_says_so(standing: Standing, federation: Federation) -> None:
    with federation.connect(CLIENT) as session:
        standing.succeed("stop", session.run_id, "--federation", standing.path)
        with pytest.raises(WorkFailed, match=r"the session has ended, its run is stopped"):
            session.broadcast_and_wait("query", timeout=60)
    assert session.result is not None
    assert session.result.verdict.status == "stopped"


def test_a_closed_session_is_a_run_that_came_home_and_leaves_nothing(
    standing: Standing, federation: Federation
) -> None:
    with federation.connect(CLIENT) as session:
        session.broadcast_and_wait("query", sites=["hospital-a"])
        assert len(ssh_processes(standing)) == 2
    result = session.result
    assert result is not None and result.folder is not None
    assert result.exit_code == 0
    assert json.loads((result.folder / "run.json").read_text())["run_id"] == session.run_id
    assert status(standing, session.run_id) == "finished:completed"
    coordinator = standing.host("coordinator")
    assert coordinator.check_output(f"ls -A /var/lib/flower/results/{session.run_id}") == ""
    assert coordinator.run("pgrep -f '[i]nstance.py flwr-serverapp'").stdout == ""
    assert ssh_processes(standing) == []


def test_a_session_whose_process_was_killed_ends_by_itself_and_leaves_nothing(standing: Standing) -> None:
    words = [sys.executable, "-c", LEAVES, standing.path, str(standing.work / "runs"), str(CLIENT)]
    run_id = subprocess.run(words, capture_output=True, text=True, check=False).stdout.strip()
    deadline = time.monotonic() + 120
    while status(standing, run_id) != "finished:completed":
        assert time.monotonic() < deadline
        time.sleep(1)
    while ssh_processes(standing):
        assert time.monotonic() < deadline
        time.sleep(1)
