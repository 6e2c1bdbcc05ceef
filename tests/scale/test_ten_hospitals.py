"""Ten hospitals in the lab complete a run. Takes about six minutes: `./scripts/test scale`."""

from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Standing, make, up

TEN = [f"hospital-{letter}" for letter in "abcdefghij"]


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """A federation of ten; taken down afterwards, also after a failure."""
    with up(make(tmp_path_factory.mktemp("scale"), "scale", TEN, "10.80.0.0/16")) as made:
        yield made


def test_ten_hospitals_are_online(standing: Standing) -> None:
    status = standing.succeed("status", standing.path)
    assert {host["name"]: host["node"] for host in status["hosts"] if host["role"] == "site"} == dict.fromkeys(
        TEN, "online"
    )


def test_ten_hospitals_complete_a_run(standing: Standing) -> None:
    run = standing.run_example()
    assert run["status"] == "completed"
    assert [entry["evaluate"]["results"] for entry in run["rounds"]] == [10, 10, 10]


def test_a_second_up_changes_none_of_eleven_hosts(standing: Standing) -> None:
    again = standing.succeed("up", standing.path)
    assert again["machines_changed"] == 0
    assert again["hosts_changed"] == dict.fromkeys(["coordinator", *TEN], 0)
