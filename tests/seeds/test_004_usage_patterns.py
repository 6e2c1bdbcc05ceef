"""Seed 004: a simulation from Python, server logic as a library, a Connect API, and jobs from the command line."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from flowerbed import Federation
from flowerbed.session import Session
from tests.e2e.conftest import EXAMPLE, SITES, Standing, prepare_data

ROUND = {"num-server-rounds": 1}


@pytest.fixture(scope="module")
def federation(standing: Standing) -> Federation:
    """The hospitals with their patients, as the Python API has them."""
    prepare_data(standing, SITES)
    return Federation(standing.federation.path, standing.work / "runs")


@pytest.fixture(scope="module")
def session(federation: Federation) -> Iterator[Session]:
    """The notebook's client code at the sites."""
    with federation.connect(EXAMPLE.parent / "interactive" / "client.py") as opened:
        yield opened


def test_pattern_1_sites_are_simulated_locally_from_python(federation: Federation) -> None:
    result = federation.simulate(EXAMPLE, config=ROUND)
    result.raise_for_status()
    assert result.record["simulation"] is True
    assert set(result.record["rounds"][0]["sites"]["evaluate"]) == set(SITES)


def test_pattern_2_the_server_logic_is_an_ordinary_loop_with_remote_sites(session: Session) -> None:
    sums = [reply["sums"].to_numpy_ndarrays() for reply in session.broadcast_and_wait("query.sums").all().values()]
    patients, total, squares = (sum(parts) for parts in zip(*sums, strict=True))
    mean = total / patients
    weights, scale = np.zeros(31), [mean, np.sqrt(squares / patients - mean**2)]
    accuracy = []
    for _ in range(2):
        model = {"model": [weights, *scale], "settings": {"steps": 20, "rate": 0.5}}
        trained = session.broadcast_and_wait("train", model).all().values()
        weights = np.mean([site["model"].to_numpy_ndarrays()[0] for site in trained], axis=0)
        tested = session.broadcast_and_wait("evaluate", {"model": [weights, *scale]}).all().values()
        right, of_all = (sum(site["numbers"][name] for site in tested) for name in ("right", "patients"))
        accuracy.append(right / of_all)
    assert accuracy[-1] > 0.9


def test_pattern_3_a_broadcast_waits_for_each_sites_reply(session: Session) -> None:
    replies = session.broadcast_and_wait("query.count", timeout=120)
    assert set(replies) == set(SITES)
    assert sum(reply["numbers"]["patients"] for reply in replies.values()) == 569
    only = session.broadcast_and_wait("query.count", sites=["hospital-b"])
    assert set(only) == {"hospital-b"}


def test_pattern_4_a_job_is_submitted_from_the_command_line(standing: Standing, federation: Federation) -> None:
    words = ("--federation", standing.path, "-c", "num-server-rounds=1")
    run = standing.succeed("run", str(EXAMPLE), *words)
    assert run["status"] == "completed"
    assert run["run_id"] in {one.run_id for one in federation.runs()}


def test_what_the_command_line_does_the_python_api_does(federation: Federation, tmp_path: Path) -> None:
    submitted = federation.submit(EXAMPLE, config=ROUND)
    assert submitted.run_id in {run.run_id for run in federation.unfinished()}
    assert submitted.wait(timeout=0).verdict.status == "running"
    result = submitted.wait()
    result.raise_for_status()
    assert any("[ROUND 1/1]" in line for line in submitted.log())
    assert submitted.run_id not in {run.run_id for run in federation.unfinished()}
    assert federation.status().healthy
