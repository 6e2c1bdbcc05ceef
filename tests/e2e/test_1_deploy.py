"""A second `up` changes nothing, and a check right after a deploy is clean."""

import json

import pytest

from flowerbed import inventory
from tests.e2e.conftest import SITES, Standing


def test_all_sites_are_online_after_up(standing: Standing) -> None:
    status = standing.succeed("status", standing.path)
    nodes = {host["name"]: host["node"] for host in status["hosts"] if host["role"] == "site"}
    assert nodes == dict.fromkeys(SITES, "online")
    assert status["healthy"]


def test_a_second_up_changes_no_machine_and_no_host(standing: Standing) -> None:
    again = standing.succeed("up", standing.path, "--all")
    assert (again["machines_changed"], again["settled"]) == (0, [])
    assert again["hosts_changed"] == dict.fromkeys(["coordinator", *SITES], 0)


def test_check_is_clean_right_after_a_deploy(standing: Standing) -> None:
    check = standing.succeed("up", standing.path, "--check")
    assert check["machines_changed"] == 0
    assert check["hosts_changed"] == dict.fromkeys(["coordinator", *SITES], 0)


def test_the_inventory_holds_no_secret(standing: Standing) -> None:
    hosts = standing.federation.hosts_file.read_text()
    states = [file.read_text() for file in standing.federation.state.rglob("terraform.tfstate")]
    assert any("hospital-a" in state for state in states)
    passphrase = standing.federation.ca_passphrase_file.read_text().strip()
    private_key = standing.federation.ssh_key.read_text().splitlines()[1]
    for text in (hosts, *states):
        assert passphrase not in text
        assert private_key not in text
    assert json.loads(hosts)["all"]["vars"]["flowerbed_schema"] == inventory.SCHEMA


@pytest.mark.parametrize("name", SITES)
def test_a_sites_supernode_came_online_before_its_superexec_began(standing: Standing, name: str) -> None:
    host = standing.host(name)
    online = float(host.check_output("stat --format=%.6Y /run/flower-supernode/online"))
    entries = host.check_output("journalctl --output=json --unit=flower-superexec-clientapp.service _COMM=python")
    assert online < int(json.loads(entries.splitlines()[0])["__REALTIME_TIMESTAMP"]) / 1e6


@pytest.mark.parametrize("name", ["coordinator", *SITES])
def test_nothing_of_flower_runs_as_root(standing: Standing, name: str) -> None:
    host = standing.host(name)
    processes = host.run("ps -eo user:32,args --no-headers").stdout.splitlines()
    flower = [line for line in processes if "/opt/flower" in line or "nginx" in line]
    assert flower
    assert not [line for line in flower if line.startswith("root ")]


@pytest.mark.parametrize("name", ["coordinator", *SITES])
def test_private_keys_are_readable_by_root_alone(standing: Standing, name: str) -> None:
    host = standing.host(name)
    keys = host.run("find /etc/flower -name '*key' -o -name '*.secret'").stdout.split()
    assert keys
    for key in keys:
        file = host.file(key)
        assert (file.user, file.mode) == ("root", 0o600), key


def test_the_ca_key_is_encrypted_and_stays_with_the_operator(standing: Standing) -> None:
    ca = standing.federation.secrets / "ca"
    assert (ca / "ca.key").read_text().startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert ca.stat().st_mode & 0o777 == 0o700
    assert standing.host("coordinator").run("find / -xdev -name ca.key").stdout == ""
