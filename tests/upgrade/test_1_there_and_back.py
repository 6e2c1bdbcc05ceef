"""A federation takes a newer Flower while detached runs wait, and goes back: no run, no key and no reply is lost."""

import json
import subprocess
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.conftest import EXAMPLE, Standing
from tests.trust.test_1_rotation import status_of, wait_until
from tests.upgrade.conftest import HOSTS, VERSIONS, active, history, nodes, wish

PATIENCE = 1800
ROUNDS = 40
"""So that the run outlasts what is done before the upgrade waits for it."""
STARTER = "flower-superexec-serverapp.service"


@dataclass(frozen=True)
class There:
    """What was seen on the way from the oldest Flower to the next."""

    old: str
    new: str
    runs_before: dict[str, str]
    nodes_before: str
    refusal_of_up: tuple[int, str]
    refusal_in_a_run: tuple[int, str]
    active_after_refusals: set[str]
    answer: dict[str, Any]
    under_way: dict[str, Any]
    submitted_meanwhile: dict[str, Any]
    status_meanwhile: str


def submit(standing: Standing, rounds: int) -> str:
    """Start a detached run; its id."""
    words = ("run", str(EXAMPLE), "--federation", standing.path, "--detach", "-c", f"num-server-rounds={rounds}")
    run_id: str = standing.succeed(*words)["run_id"]
    return run_id


def followed(standing: Standing, run_id: str) -> dict[str, Any]:
    """Wait for the run's end, and read what came home of it."""
    return standing.succeed("wait", run_id, "--federation", standing.path)


def change(standing: Standing, command: str) -> tuple[dict[str, Any], str, str]:
    """Go to another release when the run under way has ended; what was said, and a run that was submitted meanwhile.

    With its status then.
    """
    words = [standing.program, command, standing.path, "--wait", str(PATIENCE), "--json"]
    with subprocess.Popen(words, cwd=standing.work, stdout=subprocess.PIPE, text=True) as changing:
        coordinator = standing.host("coordinator")
        wait_until(lambda: coordinator.run(f"systemctl is-active {STARTER}").stdout.strip() != "active", PATIENCE)
        meanwhile = submit(standing, 1)
        status = status_of(standing, meanwhile)
        said, _ = changing.communicate()
    assert changing.returncode == 0, said
    return json.loads(said), meanwhile, status


@pytest.fixture(scope="module")
def there(standing: Standing) -> There:
    """The upgrade, with one run under way and one that is submitted while that is waited for."""
    (old,) = active(standing)
    standing.run_example("-c", "num-server-rounds=1")
    runs_before, nodes_before = history(standing), nodes(standing)
    under_way = submit(standing, ROUNDS)
    wait_until(lambda: status_of(standing, under_way) == "running", PATIENCE)
    new = wish(standing, VERSIONS[1])
    up = standing.flowerbed("up", standing.path)
    refused = standing.flowerbed("upgrade", standing.path)
    unchanged = active(standing)
    answer, meanwhile, status = change(standing, "upgrade")
    return There(
        old,
        new,
        runs_before,
        nodes_before,
        (up.returncode, " ".join(up.stderr.split())),
        (refused.returncode, " ".join(refused.stderr.split())),
        unchanged,
        answer,
        followed(standing, under_way),
        followed(standing, meanwhile),
        status,
    )


def test_up_does_not_change_flowers_version(there: There) -> None:
    code, said = there.refusal_of_up
    assert code == 2
    assert "runs Flower 1.40.0" in said
    assert "flowerbed upgrade" in said


def test_in_a_run_an_upgrade_is_refused_and_nothing_was_changed(there: There) -> None:
    code, said = there.refusal_in_a_run
    assert code == 1
    assert "--wait" in said
    assert there.active_after_refusals == {there.old}


def test_every_host_runs_the_new_release(standing: Standing, there: There) -> None:
    assert (there.answer["before"], there.answer["release"]) == (there.old, there.new)
    assert active(standing) == {there.new}


def test_the_run_under_way_ended_on_the_old_flower_and_no_reply_was_missing(there: There) -> None:
    assert (there.under_way["status"], there.under_way["versions"]["flower"]) == ("completed", VERSIONS[0])
    assert len(there.under_way["rounds"]) == ROUNDS


def test_the_run_that_was_submitted_meanwhile_waited_and_was_done_by_the_new_one(there: There) -> None:
    assert there.status_meanwhile == "pending"
    meanwhile = there.submitted_meanwhile
    assert (meanwhile["status"], meanwhile["versions"]["flower"]) == ("completed", VERSIONS[1])


def test_runs_and_registrations_are_those_of_before(standing: Standing, there: There) -> None:
    assert there.runs_before.items() <= history(standing).items()
    assert nodes(standing) == there.nodes_before


def test_after_an_upgrade_neither_up_nor_another_upgrade_changes_anything(standing: Standing, there: There) -> None:
    again = standing.succeed("upgrade", standing.path)
    assert (again["release"], again["hosts_changed"]) == (there.new, {})
    assert standing.succeed("up", standing.path)["hosts_changed"] == dict.fromkeys(HOSTS, 0)


def test_back_on_the_old_release_the_runs_of_the_new_one_are_there_and_a_run_completes(
    standing: Standing, there: There
) -> None:
    newest = standing.run_example("-c", "num-server-rounds=1")
    before = history(standing)
    answer = standing.succeed("rollback", standing.path)
    assert (answer["before"], answer["release"], answer["warnings"]) == (there.new, there.old, [])
    assert active(standing) == {there.old}
    assert history(standing) == before
    assert before[newest["run_id"]] == "finished:completed"
    assert nodes(standing) == there.nodes_before
    assert standing.run_example("-c", "num-server-rounds=1")["status"] == "completed"


def test_after_a_rollback_neither_up_nor_another_rollback_changes_anything(standing: Standing, there: There) -> None:
    again = standing.succeed("rollback", standing.path)
    assert (again["release"], again["hosts_changed"]) == (there.old, {})
    up = standing.flowerbed("up", standing.path, "--json")
    assert json.loads(up.stdout)["hosts_changed"] == dict.fromkeys(HOSTS, 0)
    assert (
        f"stays with the release that it was rolled back to: `flowerbed upgrade {standing.federation.name}`"
        in " ".join(up.stderr.split())
    )
    assert active(standing) == {there.old}


def test_the_audit_trail_has_both(standing: Standing, there: There) -> None:
    trail = standing.succeed("audit", "log", standing.path, "--event", "release")
    switched = [one["fields"]["detail"] for one in trail["entries"] if one["event"] == "release.switched"]
    assert switched == [f"{there.old} to {there.new}", f"{there.new} to {there.old}"]


def test_the_copy_of_the_database_is_for_root_alone(standing: Standing, there: There) -> None:
    copies = standing.host("coordinator").file("/var/lib/flower/copies")
    assert (copies.user, copies.mode) == ("root", 0o700)
    assert sorted(copies.listdir()) == sorted(f"{one}.db" for one in (there.old, there.new))


def test_a_rollback_waits_for_the_run_under_way_and_the_one_submitted_meanwhile_is_done_by_the_old_one(
    standing: Standing, there: There
) -> None:
    assert standing.succeed("upgrade", standing.path)["release"] == there.new
    under_way = submit(standing, ROUNDS)
    wait_until(lambda: status_of(standing, under_way) == "running", PATIENCE)
    answer, meanwhile, status = change(standing, "rollback")
    assert (answer["release"], status) == (there.old, "pending")
    ended = followed(standing, under_way)
    assert (ended["status"], ended["versions"]["flower"], len(ended["rounds"])) == ("completed", VERSIONS[1], ROUNDS)
    waited = followed(standing, meanwhile)
    assert (waited["status"], waited["versions"]["flower"]) == ("completed", VERSIONS[0])
