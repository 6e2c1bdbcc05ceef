"""Every key and certificate is replaced, the CA included, during a run of which no round fails."""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from tests.e2e.conftest import EXAMPLE, Standing
from tests.trust.conftest import SITES

AT_A_SITE = ("node_key", "runtime.key", "superexec.secret", "runtime.crt")
AT_THE_COORDINATOR = ("gateway/server.key", "gateway/server.crt")
AT_THE_COORDINATOR += ("superlink/server.key", "superlink/server.crt", "superlink/superexec.secret")
FILES = {
    "coordinator": ("ca.crt", *AT_THE_COORDINATOR),
    **{site: ("ca.crt", *(f"supernode/{name}" for name in AT_A_SITE)) for site in SITES},
}


@dataclass(frozen=True)
class Rotation:
    """What stood on the hosts before and after, and the run that went on meanwhile."""

    before: dict[str, str]
    after: dict[str, str]
    status: str
    """The run's, as the rotation had ended."""
    rounds_before: int
    rounds_after: int
    run: dict[str, Any]


def sums(standing: Standing) -> dict[str, str]:
    """A hash of each key and certificate of the federation, by host and path."""
    found = {}
    for host, paths in FILES.items():
        for path in paths:
            found[f"{host}:{path}"] = standing.host(host).file(f"/etc/flower/{path}").sha256sum
    found["operator:ca.key"] = (standing.federation.secrets / "ca" / "ca.key").read_text()
    return found


def rounds_done(standing: Standing, run_id: str) -> int:
    """How many rounds of evaluation the ServerApp has aggregated."""
    return standing.flwr("log", run_id, "--show").stdout.count("aggregate_evaluate: Received")


def status_of(standing: Standing, run_id: str) -> str:
    """What Flower says of the run."""
    listed = json.loads(standing.flwr("list", "--run-id", run_id, "--format", "json").stdout)
    return str(listed["runs"][0]["status"])


def wait_until(holds: Callable[[], bool], seconds: float = 120) -> None:
    """Wait for what must come."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(1)


@pytest.fixture(scope="module")
def rotation(standing: Standing) -> Rotation:
    """A run that goes on for as long as the rotation takes, and two rounds more."""
    before = sums(standing)
    started = standing.succeed(
        "run", str(EXAMPLE), "--federation", standing.path, "--detach", "-c", "num-server-rounds=500"
    )
    run_id = started["run_id"]
    try:
        wait_until(lambda: rounds_done(standing, run_id) > 0)
        rounds_before = rounds_done(standing, run_id)
        standing.succeed("rotate", standing.path)
        status, rounds = status_of(standing, run_id), rounds_done(standing, run_id)
        wait_until(lambda: rounds_done(standing, run_id) >= rounds + 2 or "finished" in status_of(standing, run_id))
    finally:
        standing.flowerbed("stop", run_id, "--federation", standing.path)
    followed = standing.flowerbed("logs", run_id, "--federation", standing.path, "--json")
    run = json.loads(followed.stdout)
    return Rotation(before, sums(standing), status, rounds_before, len(run["rounds"]), run)


def test_every_key_and_every_certificate_is_another(rotation: Rotation) -> None:
    same = [name for name, content in rotation.after.items() if content == rotation.before[name]]
    assert same == []


def test_the_run_went_on_and_no_reply_was_missing(rotation: Rotation) -> None:
    assert rotation.status == "running"
    assert rotation.rounds_after > rotation.rounds_before + 2
    # The last round was under way when the run was stopped.
    for entry in rotation.run["rounds"][:-1]:
        for phase in ("train", "evaluate"):
            assert (entry[phase]["sampled"], entry[phase]["results"], entry[phase]["failures"]) == (2, 2, 0), entry


def test_hosts_trust_the_new_ca_alone_and_the_old_nodes_are_gone(standing: Standing, rotation: Rotation) -> None:
    ca = (standing.federation.secrets / "ca" / "ca.crt").read_text()
    for host in FILES:
        assert standing.host(host).file("/etc/flower/ca.crt").content_string == ca
        assert not standing.host(host).file("/etc/flower/supernode/node_key.next").exists
    record = json.loads(standing.host("coordinator").file("/var/lib/flower/nodes.json").content_string)
    assert {name: entry["others"] for name, entry in record.items()} == {site: [] for site in SITES}
    listed = json.loads(standing.flwr("supernode", "list", "--format", "json").stdout)["nodes"]
    live = {str(node["node-id"]) for node in listed if node["status"] == "online"}
    assert live == {entry["node_id"] for entry in record.values()}


def test_up_changes_nothing_after_a_rotation(standing: Standing, rotation: Rotation) -> None:
    again = standing.succeed("up", standing.path)
    assert again["hosts_changed"] == dict.fromkeys(["coordinator", *SITES], 0)
    assert standing.succeed("status", standing.path)["healthy"]
