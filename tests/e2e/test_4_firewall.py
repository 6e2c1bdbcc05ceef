"""What the firewall lets in, what it leaves alone, and that it locks nobody out."""

import json
from collections.abc import Iterator

import pytest

from flowerbed import control, hosts, inventory
from flowerbed.errors import WorkFailed
from flowerbed.ssh import Shell
from tests.e2e.conftest import Standing
from tests.e2e.test_4_network import CONNECT, ask

SITE = "hospital-b"
SERVE = "python3 -m http.server --bind 0.0.0.0 8088"
LISTENING = "for i in $(seq 100); do ss -Hltn 'sport = :8088' | grep -q . && break; sleep 0.1; done"


def apply(standing: Standing, **variables: object) -> int:
    """Apply the firewall to the site with these variables; returns how many tasks changed something."""
    return hosts.play(standing.federation, "firewall.yml", limit=[SITE], variables=variables).total_changed


def new_connection(standing: Standing, *command: str) -> str:
    """Run a command on the site over an SSH connection of its own."""
    return Shell(standing.federation, inventory.read(standing.federation).sites[SITE]).run(list(command))


@pytest.fixture(scope="module")
def address(standing: Standing) -> Iterator[str]:
    """The site's, which serves on port 8088 and has a table of its own."""
    host = standing.host(SITE)
    host.check_output("nft add table inet hospital")
    host.check_output(f"systemd-run --quiet --collect --unit=served {SERVE}; {LISTENING}")
    yield host.check_output("hostname -I").split()[0]
    host.check_output("systemctl stop served; nft delete table inet hospital")
    apply(standing)


def test_ssh_and_the_gateway_are_open_and_nothing_else(standing: Standing, address: str) -> None:
    open_, closed = [f"{address}:22", f"{standing.gateway}:443", f"{standing.gateway}:22"], f"{address}:8088"
    assert ask(standing, CONNECT, *open_, closed) == {**dict.fromkeys(open_, "open"), closed: "TimeoutError"}


def test_it_refuses_to_close_what_the_host_serves_and_opens_it_where_one_says_so(
    standing: Standing, address: str
) -> None:
    with pytest.raises(WorkFailed, match=r"8088/tcp \(python3\).*firewall_allowed_ports.*firewall_manage"):
        apply(standing)
    served = f"{address}:8088"
    assert ask(standing, CONNECT, served) == {served: "TimeoutError"}
    assert apply(standing, firewall_allowed_ports=["8088/tcp"]) == 1
    assert apply(standing, firewall_allowed_ports=["8088/tcp"]) == 0
    assert ask(standing, CONNECT, served) == {served: "open"}


@pytest.mark.usefixtures("address")
def test_rules_that_would_lock_the_operator_out_are_taken_back_by_the_host(standing: Standing) -> None:
    before = new_connection(standing, "nft", "--stateless", "list", "ruleset")
    foreign = {
        "firewall_ssh_networks": ["192.0.2.0/24"],
        "firewall_allowed_ports": ["8088/tcp"],
        "firewall_rollback_seconds": 15,
    }
    with pytest.raises(WorkFailed, match=r"locked you out.*firewall_ssh_networks"):
        apply(standing, **foreign)
    assert new_connection(standing, "nft", "--stateless", "list", "ruleset") == before
    assert "192.0.2.0" not in new_connection(standing, "cat", "/etc/flower/egress/firewall.nft")


def test_without_it_everything_is_open_and_other_tables_are_as_they_were(standing: Standing, address: str) -> None:
    tables = {line for line in new_connection(standing, "nft", "list", "tables").splitlines() if line}
    assert "table inet hospital" in tables
    assert apply(standing, firewall_manage=False) == 1
    left = set(new_connection(standing, "nft", "list", "tables").splitlines())
    assert tables - left == {"table inet flower_firewall"}
    served = f"{address}:8088"
    assert ask(standing, CONNECT, served) == {served: "open"}


def test_each_change_is_in_the_audit_trail_of_the_host(standing: Standing) -> None:
    trail = "journalctl --output=json FLOWERBED_EVENT=firewall.applied _UID=0 --no-pager"
    entries = [json.loads(line) for line in control.coordinator(standing.federation).run(trail.split()).splitlines()]
    assert entries
