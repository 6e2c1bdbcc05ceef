"""What was changed beside Flowerbed is told, in machines, on hosts and in registrations, and `up` mends it."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from flowerbed import lab
from tests.leaving.conftest import NAME, Known, wait_until

UNIT = "/etc/systemd/system/flower-supernode.service"
KEY = "/etc/flower/supernode/node_key"
REMOVE_A_PACKAGE = "rm -r /opt/flower/current/lib/python3.*/site-packages/threadpoolctl*"
RULE = "inet flower_supernode supernode ip daddr 192.0.2.1 accept"


def test_a_federation_that_was_just_brought_up_has_none(known: Known) -> None:
    code, found = known.drift()
    assert (code, found["clean"]) == (0, True), found


@pytest.fixture(scope="module")
def changed(known: Known, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What is told after somebody changed this and that."""
    standing = known.standing
    site = standing.host("hospital-a")
    site.check_output(f"sed -i s/RestartSec=15/RestartSec=14/ {UNIT} && chmod 0644 {KEY}")
    site.check_output(f"nft add rule {RULE} && {REMOVE_A_PACKAGE}")
    folder = tmp_path_factory.mktemp("keys")
    subprocess.run(["ssh-keygen", "-q", "-t", "ecdsa", "-b", "384", "-N", "", "-f", folder / "node"], check=True)
    registered = standing.flwr("supernode", "register", str(folder / "node.pub"), "--name", "by-hand")
    assert registered.returncode == 0, registered.stdout + registered.stderr
    _unregister(known, "hospital-b")
    code, found = known.drift()
    assert code == 1
    return found


def _unregister(known: Known, site: str) -> None:
    record = known.standing.host("coordinator").file("/var/lib/flower/nodes.json").content_string
    done = known.standing.flwr("supernode", "unregister", str(json.loads(record)[site]["node_id"]))
    assert done.returncode == 0, done.stdout + done.stderr


def lines(found: dict[str, Any], host: str) -> str:
    """All lines of the differences on a host."""
    return "\n".join(line for one in found["hosts"] if one["name"] == host for line in one["lines"])


@pytest.mark.parametrize(
    "told",
    ["-RestartSec=14", "+RestartSec=15", f"{KEY}: it was owned by 0 with mode 0644", "threadpoolctl", "192.0.2.1"],
)
def test_what_was_changed_on_a_host_is_told_with_what_it_was(changed: dict[str, Any], told: str) -> None:
    assert told in lines(changed, "hospital-a")


def test_a_host_on_which_nothing_was_changed_differs_by_nothing_but_a_service_that_is_not_let_in(
    changed: dict[str, Any],
) -> None:
    others = [one for one in changed["hosts"] if one["name"] != "hospital-a"]
    # Its node was unregistered: the SuperNode ends, and tries again later.
    assert all((one["name"], "flower-supernode" in "".join(one["lines"])) == ("hospital-b", True) for one in others)
    assert changed["machines"] == []
    assert changed["unknown"] == {}


def test_a_node_that_was_registered_by_hand_and_one_that_was_unregistered_are_told(changed: dict[str, Any]) -> None:
    told = [f"{one['name']}: {one['what']}" for one in changed["registrations"]]
    assert "hospital-b: it is not registered" in told
    assert len([line for line in told if "nobody knows it" in line]) == 1
    assert len(told) == 2


def test_no_secret_is_told(known: Known, changed: dict[str, Any]) -> None:
    key = known.standing.host("hospital-a").check_output(f"sed -n 2p {KEY}")
    assert len(key) > 40
    assert key not in str(changed)


def test_up_with_verify_mends_all_of_it(known: Known, changed: dict[str, Any]) -> None:
    # A SuperLink never takes a key again that was unregistered: the message of `up` says so, and what to do.
    refused = known.standing.flowerbed("up", known.standing.path, "--verify")
    assert f"move {KEY} away" in refused.stderr
    known.standing.host("hospital-b").check_output(f"rm {KEY}")
    known.standing.succeed("up", known.standing.path, "--verify")
    code, found = known.drift()
    assert (code, found["clean"]) == (0, True), found


def test_a_machine_that_died_is_told_and_its_host_is_unknown(known: Known) -> None:
    lab.kill(NAME, "hospital-b")
    try:
        code, found = known.drift()
    finally:
        lab.start(NAME, "hospital-b")
    assert code == 1
    assert ["hospital-b" in one["name"] and "dead" in one["what"] for one in found["machines"]] == [True]
    assert list(found["unknown"]) == ["hospital-b"]
    assert found["hosts"] == []

    def online() -> bool:
        return known.standing.flowerbed("status", known.standing.path).returncode == 0

    assert wait_until(online, 240)


def test_the_text_names_host_and_remedy(known: Known) -> None:
    site = known.standing.host("hospital-a")
    site.check_output("echo '# mine' >>/etc/flower/supernode/node_config.toml")
    try:
        done = known.standing.flowerbed("drift", known.standing.path)
        assert done.returncode == 1
        assert "hospital-a: Install | Describe users, folders" in done.stdout
        assert "-# mine" in done.stdout
        assert f"`flowerbed up {Path(known.standing.path).name} --verify` makes it so again" in done.stdout
    finally:
        site.check_output("sed -i '/# mine/d' /etc/flower/supernode/node_config.toml")
