"""A revoked site is turned away at once, and a backup of its key does not get in again."""

import json
import time

from flowerbed import inventory
from tests.e2e.conftest import Standing

SITE = "hospital-b"
KEY = "/etc/flower/supernode/node_key"


def node_of(standing: Standing, name: str) -> str:
    """What status says of the site's node."""
    status = json.loads(standing.flowerbed("status", standing.path, "--json").stdout)
    return next(str(host["node"]) for host in status["hosts"] if host["name"] == name)


def refused(standing: Standing, since: str) -> bool:
    """Wait until the gateway has refused the site, for as long as the next start of its SuperNode may take."""
    address = inventory.read(standing.federation).sites[SITE].address
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        log = standing.host("coordinator").check_output("journalctl -t flower_gateway --no-pager -o cat -n 200")
        entries = [json.loads(line) for line in log.splitlines()]
        if any((one["address"], one["status"]) == (address, 401) and one["time"] >= since for one in entries):
            return True
        time.sleep(1)
    return False


def test_a_revoked_site_is_refused_within_60_seconds_and_the_others_go_on(standing: Standing) -> None:
    host = standing.host(SITE)
    host.check_output(f"cp {KEY} ~/backup_of_the_key")
    since = host.check_output("date -u +%FT%T")
    standing.succeed("site", "revoke", SITE, "--federation", standing.path, "--reason", "left the consortium")
    assert refused(standing, since)
    assert node_of(standing, SITE) == "unregistered"
    assert node_of(standing, "hospital-a") == "online"


def test_up_lets_no_revoked_site_in_and_changes_nothing(standing: Standing) -> None:
    again = standing.succeed("up", standing.path)
    assert again["sites"] == ["hospital-a"]
    assert sum(again["hosts_changed"].values()) == 0
    assert node_of(standing, SITE) == "unregistered"


def test_it_comes_back_with_a_key_of_its_own_making(standing: Standing) -> None:
    standing.succeed("rotate", standing.path, "--keys", "--site", SITE)
    assert node_of(standing, SITE) == "online"


def test_a_backup_of_the_revoked_key_does_not_get_in(standing: Standing) -> None:
    host = standing.host(SITE)
    host.check_output(f"cp -a {KEY} ~/good_key")
    since = host.check_output("date -u +%FT%T")
    host.check_output(f"cp ~/backup_of_the_key {KEY} && systemctl restart flower-supernode")
    try:
        assert refused(standing, since)
        assert node_of(standing, SITE) != "online"
    finally:
        host.check_output(f"cp -a ~/good_key {KEY} && rm ~/good_key ~/backup_of_the_key")
        host.check_output("systemctl restart flower-supernode")
