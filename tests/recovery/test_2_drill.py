"""The drill: the coordinator is lost with its disk, and comes back at another address; nobody touches a hospital."""

import subprocess
import sys
import time
from collections.abc import Callable

from flowerbed import lab
from tests.recovery.conftest import FIRST, GATEWAY, NAME, PASSPHRASE, SECOND, SITES, Federation

SUPERNODE = "flower-supernode.service"
CONNECT = """python3 -c '
import socket, sys
try:
    socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=5).close()
    print("open")
except OSError as error:
    print(type(error).__name__)' """


def until(what: Callable[[], bool], seconds: int = 300) -> bool:
    """Wait for something; whether it came."""
    deadline = time.monotonic() + seconds
    while not what():
        if time.monotonic() > deadline:
            return False
        time.sleep(1)
    return True


def connect(recovery: Federation, site: str, address: str, port: int) -> str:
    """What the SuperNode's user gets at an address."""
    return recovery.on(site, f"setpriv --reuid=flower-supernode --clear-groups {CONNECT} {address} {port}")


def test_a_lost_coordinator_comes_back_from_a_backup_at_another_address(recovery: Federation) -> None:
    finished = recovery.run()
    under_way = recovery.submit("behaviour=slow", "slow.seconds=3600", "reply-timeout=7200")
    assert until(lambda: recovery.runs()[under_way] == "running")
    recovery.backup()
    started = {site: recovery.started(site, SUPERNODE) for site in SITES}

    lab.destroy(NAME, "coordinator")
    recovery.make_coordinator(SECOND)
    recovery.names.address = SECOND
    begin = time.monotonic()
    restored = recovery.succeed("restore", recovery.path, "--wait", "600")
    took = time.monotonic() - begin

    assert (restored["online"], restored["offline"]) == (sorted(SITES), [])
    assert restored["ended"] == {under_way: "finished:failed"}
    assert restored["unregistered"] == []
    known = recovery.runs()
    assert known[finished] == "finished:completed"
    assert known[under_way] == "finished:failed"
    trail = recovery.succeed("audit", "log", recovery.path, "--event", "run.finished")
    assert finished in {one["fields"].get("run") for one in trail["entries"] if one["host"] == "coordinator"}
    # Their SuperNodes were not even started anew.
    assert {site: recovery.started(site, SUPERNODE) for site in SITES} == started
    begin = time.monotonic()
    recovery.run()
    print(f"restored after {took:.0f} s, the next run took {time.monotonic() - begin:.0f} s")


def test_a_supernode_reaches_the_gateway_where_it_is_now_and_nothing_else(recovery: Federation) -> None:
    site = next(iter(SITES))
    assert connect(recovery, site, GATEWAY, 443) == "open"
    assert connect(recovery, site, SECOND, 22) == "ConnectionRefusedError"
    assert connect(recovery, site, FIRST, 443) == "ConnectionRefusedError"
    counted = recovery.on(site, "nft list chain inet flower_supernode supernode | grep counter")
    assert "packets 0" not in counted  # it was the site that refused, not somebody on the way


def test_a_name_that_nobody_answers_for_changes_nothing(recovery: Federation) -> None:
    site = next(iter(SITES))
    name, recovery.names.name = recovery.names.name, "nobody.example"
    try:
        recovery.on(site, "systemctl start flower-resolve.service")
        assert SECOND in recovery.on(site, "nft list set inet flower_supernode ipv4_peers")
    finally:
        recovery.names.name = name


def test_up_finds_nothing_to_do_at_the_coordinator_that_came_back(recovery: Federation) -> None:
    assert recovery.succeed("up", recovery.path)["hosts_changed"]["coordinator"] == 0


def test_a_restore_that_is_called_again_changes_no_state(recovery: Federation) -> None:
    before = recovery.runs()
    assert not recovery.succeed("restore", recovery.path)["changed"]
    assert recovery.runs() == before


def test_no_superlink_starts_on_half_a_state_and_the_same_call_completes_it(recovery: Federation) -> None:
    before = recovery.runs()
    file = recovery.backup()
    recovery.on("coordinator", "systemctl stop flower-superlink; touch /var/lib/flower/restoring")
    recovery.on("coordinator", "rm /var/lib/flower/superlink/superlink.db*; systemctl start flower-superlink || true")
    said = recovery.on("coordinator", "journalctl --sync; journalctl -u flower-superlink -o cat -n 20")
    assert "a restore was interrupted" in said
    assert recovery.on("coordinator", "test ! -e /var/lib/flower/superlink/superlink.db && echo none") == "none"
    recovery.succeed("restore", recovery.path, "--from", str(file), "--wait", "300")
    assert recovery.runs() == before
    assert recovery.online() == sorted(SITES)


def test_a_restore_that_was_killed_is_continued_by_the_same_call(recovery: Federation) -> None:
    before = recovery.runs()
    file = recovery.backup()
    recovery.on(
        "coordinator", "systemctl stop flower-superlink; rm -r /var/lib/flower/superlink /var/lib/flower/restored.json"
    )
    words = [f"{sys.prefix}/bin/flowerbed", "restore", recovery.path, "--from", str(file), "--overwrite"]
    environment = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "HOME": "/root", "FLOWERBED_CA_PASSPHRASE": PASSPHRASE}
    with subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        back = "test -e /var/lib/flower/restored.json && echo back || true"
        assert until(lambda: recovery.on("coordinator", back) == "back" or process.poll() is not None)
        process.kill()
    recovery.succeed("restore", recovery.path, "--from", str(file), "--wait", "300")
    assert recovery.runs() == before
    assert recovery.online() == sorted(SITES)


def test_a_backup_lets_no_revoked_site_in_again_and_keeps_the_state_that_it_replaces(recovery: Federation) -> None:
    file = recovery.backup()
    recovery.succeed("site", "revoke", "hospital-b", "--federation", recovery.path, "--reason", "left the consortium")
    restored = recovery.succeed("restore", recovery.path, "--from", str(file), "--overwrite", "--wait", "300")
    assert restored["online"] == ["hospital-a"]
    status = {host["name"]: host["node"] for host in recovery.status()["hosts"]}
    assert status["hospital-b"] == "unregistered"
    kept = recovery.on("coordinator", "ls /var/lib/flower/superlink")
    assert "superlink.db.replaced" in kept
