"""A site leaves while the others train, and nothing of Flowerbed is left on its machine; the hospital's data is."""

import json
from typing import Any

import pytest

from flowerbed import inventory
from tests.e2e.conftest import Standing
from tests.leaving.conftest import TINY, Known, wait_until, write_platform

RUN = ("-c", "min-nodes=1", "-c", "num-server-rounds=6", "-c", "reply-timeout=900.0")


def rounds_done(standing: Standing, run: str) -> int:
    """How many rounds of evaluation the ServerApp has aggregated."""
    return standing.flwr("log", run, "--show").stdout.count("aggregate_evaluate: Received")


@pytest.fixture(scope="module")
def left(known: Known) -> dict[str, Any]:
    """What is said of hospital-b, which leaves in the middle of a run of both."""
    standing = known.standing
    run = standing.succeed("run", str(TINY), "--federation", standing.path, "--detach", *RUN)["run_id"]
    assert wait_until(lambda: rounds_done(standing, run) >= 1, 300)
    gone = standing.succeed("site", "remove", "hospital-b", "--federation", standing.path, "--purge")
    listed = json.loads(standing.flwr("list", "--run-id", run, "--format", "json").stdout)["runs"][0]["status"]
    ended = standing.flowerbed("wait", run, "--federation", standing.path, "--json")
    return {"gone": gone, "status": listed, "run": json.loads(ended.stdout), "code": ended.returncode}


def test_the_run_goes_on_with_the_other_site_and_no_reply_is_missing(known: Known, left: dict[str, Any]) -> None:
    assert left["status"] == "running"
    assert (left["code"], left["run"]["status"]) == (0, "completed"), left["run"]


def test_the_machine_is_as_it_was_before_it_joined(known: Known, left: dict[str, Any]) -> None:
    assert known.differences("hospital-b") == []


def test_what_was_taken_away_and_what_stays_is_said(known: Known, left: dict[str, Any]) -> None:
    gone = left["gone"]
    assert gone["purged"]
    assert {"/opt/flower", "/etc/flower", "/var/lib/flower", "user flower-app"} <= set(gone["removed"])
    assert gone["packages"] == []  # the lab's machines have them from the beginning
    assert "take the entry of hospital-b out of" in gone["left_to_do"][0]


def test_the_hospitals_data_is_there(known: Known, left: dict[str, Any]) -> None:
    assert known.hosts["hospital-b"].check_output("cat /srv/hospital/* | wc -l") != "0"


def test_up_lets_it_stay_out_as_long_as_its_entry_is_there(known: Known, left: dict[str, Any]) -> None:
    standing = known.standing
    raised = standing.flowerbed("up", standing.path, "--json")
    assert raised.returncode == 0, raised.stderr
    assert json.loads(raised.stdout)["sites"] == ["hospital-a"]
    assert "hospital-b was removed and stays out" in " ".join(raised.stderr.split())
    assert not known.hosts["hospital-b"].file("/etc/flower").exists
    # The next run is that of the site that is left, and a second removal has nothing to do.
    done = standing.succeed("run", str(TINY), "--federation", standing.path, "-c", "min-nodes=1")
    assert done["status"] == "completed"
    again = standing.succeed("site", "remove", "hospital-b", "--federation", standing.path, "--purge")
    assert again["removed"] == []


def test_an_unknown_site_is_named(known: Known) -> None:
    done = known.standing.flowerbed("site", "remove", "atlantis", "--federation", known.standing.path)
    assert done.returncode == 2
    assert "has no site 'atlantis'" in done.stderr


def test_a_removed_site_joins_again_only_when_it_is_asked_for(known: Known, left: dict[str, Any]) -> None:
    standing = known.standing
    standing.succeed("site", "add", "hospital-b", "--federation", standing.path)
    assert standing.succeed("up", standing.path)["sites"] == ["hospital-a", "hospital-b"]


def test_the_hospital_itself_takes_everything_off_without_the_operator(known: Known, left: dict[str, Any]) -> None:
    host = known.hosts["hospital-b"]
    said = host.check_output("/opt/flower/libexec/leave --purge --check")
    assert "remove /opt/flower" in said
    assert host.service("flower-supernode").is_running
    host.check_output("/opt/flower/libexec/leave --purge")
    assert known.differences("hospital-b") == []
    trail = host.check_output("journalctl -t flowerbed -o cat --no-pager")
    assert "this machine left the federation" in trail


def test_without_its_entry_the_machine_goes_and_the_next_run_completes(known: Known, left: dict[str, Any]) -> None:
    standing = known.standing
    write_platform(standing, ["hospital-a"])
    assert standing.succeed("up", standing.path)["machines_changed"] == 1
    assert not standing.federation.removed_file.exists()
    done = standing.succeed("run", str(TINY), "--federation", standing.path, "-c", "min-nodes=1")
    assert done["status"] == "completed"


def test_flowerbed_is_taken_off_machines_that_exist_without_it(known: Known, left: dict[str, Any]) -> None:
    """The lab's machines, named by hand: for `down` they exist already."""
    standing = known.standing
    hosts = inventory.read(standing.federation)
    by_hand = standing.federation.path.with_name("by-hand")
    by_hand.mkdir()
    for name in ("secrets", "group_vars"):
        (by_hand / name).symlink_to(standing.federation.path / name)
    (by_hand / ".state").mkdir()
    for file in ("known_hosts", ".state/known_hosts"):  # the second one is what the lab's group_vars name
        (by_hand / file).write_text(standing.federation.known_hosts.read_text())
    (by_hand / "hosts.yml").write_text(standing.federation.hosts_file.read_text())  # JSON is YAML
    refused = standing.flowerbed("down", str(by_hand))
    assert refused.returncode == 2
    assert "--purge` takes Flowerbed off them" in refused.stderr
    standing.succeed("down", str(by_hand), "--purge")
    for name in (hosts.coordinator.name, *hosts.sites):
        assert known.differences(name) == [], name
