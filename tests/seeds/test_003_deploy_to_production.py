"""Seed 003: the app is simulated first, then runs on ten hospitals without a change, with the same results."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import EXAMPLE, Standing, make, up

TEN = [f"hospital-{letter}" for letter in "abcdefghij"]


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """A federation of ten; taken down afterwards, also after a failure."""
    with up(make(tmp_path_factory.mktemp("ten"), "ten", TEN, "10.80.0.0/16")) as made:
        yield made


def test_ten_hospitals_are_online(standing: Standing) -> None:
    status = standing.succeed("status", standing.path)
    assert {host["name"]: host["node"] for host in status["hosts"] if host["role"] == "site"} == dict.fromkeys(
        TEN, "online"
    )


@pytest.fixture(scope="module")
def simulated(standing: Standing) -> dict[str, Any]:
    """The example, simulated with the ten hospitals."""
    return standing.succeed("simulate", str(EXAMPLE), "--federation", standing.path)


@pytest.fixture(scope="module")
def deployed(standing: Standing, simulated: dict[str, Any]) -> dict[str, Any]:
    """The same, afterwards, on the hosts."""
    return standing.run_example()


def test_ten_hospitals_complete_a_run(deployed: dict[str, Any]) -> None:
    assert deployed["status"] == "completed"
    assert [entry["evaluate"]["results"] for entry in deployed["rounds"]] == [10, 10, 10]


@pytest.mark.parametrize("phase", ["train", "evaluate"])
def test_the_hosts_have_the_metrics_of_the_simulation_at_every_round_and_site(
    simulated: dict[str, Any], deployed: dict[str, Any], phase: str
) -> None:
    assert (simulated["simulation"], deployed["simulation"]) == (True, False)
    for here, there in zip(simulated["rounds"], deployed["rounds"], strict=True):
        assert here[phase]["metrics"] == pytest.approx(there[phase]["metrics"], rel=1e-6)
        assert sorted(here["sites"][phase]) == sorted(there["sites"][phase]) == TEN
        for site in TEN:
            assert here["sites"][phase][site] == pytest.approx(there["sites"][phase][site], rel=1e-6)


def test_a_second_up_changes_none_of_eleven_hosts(standing: Standing) -> None:
    again = standing.succeed("up", standing.path, "--all")
    assert again["machines_changed"] == 0
    assert again["hosts_changed"] == dict.fromkeys(["coordinator", *TEN], 0)
