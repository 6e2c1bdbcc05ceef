"""`flowerbed health` tells at once what is wrong with a site, and a probe run whether it really trains."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from flowerbed.health.probe import APP
from tests.e2e.conftest import Standing
from tests.health.conftest import SITES, document

PROBE = ("--probe", "--probe-timeout", "1800")
APPROVED = "/etc/flower/supernode/approved_apps"


def looked(standing: Standing, code: int = 0, *words: str) -> dict[str, Any]:
    """Each host's checks."""
    hosts: dict[str, Any] = document(standing, code, "health", *words)["hosts"]
    return {name: host["checks"] for name, host in hosts.items()}


def nagios(standing: Standing) -> subprocess.CompletedProcess[str]:
    return standing.flowerbed("health", standing.path, "--nagios")


def wait_until(holds: Callable[[], bool], seconds: float = 300) -> None:
    """Wait for what must come."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(1)


def well(standing: Standing) -> bool:
    return standing.flowerbed("health", standing.path).returncode == 0


def test_every_check_of_a_federation_that_has_just_come_up_is_in_order(standing: Standing) -> None:
    hosts = looked(standing)
    everywhere = {"host", "units", "gateway", "disk", "certificate"}
    assert set(hosts["coordinator"]) == {*everywhere, "superlink"}
    for site in SITES:
        assert set(hosts[site]) == {*everywhere, "node", "clock", "data", "release", "probe"}
    assert {check["level"] for checks in hosts.values() for check in checks.values()} == {"ok"}
    assert hosts["hospital-a"]["probe"]["what"] == "never probed"


def test_a_monitoring_system_gets_one_line_and_its_own_exit_codes(standing: Standing) -> None:
    done = nagios(standing)
    assert (done.returncode, done.stdout) == (
        0,
        "FLOWERBED OK - hea-test: every site is well | sites=2 online=2 problems=0\n",
    )
    unknown = standing.flowerbed("health", "/no/such/federation", "--nagios")
    assert unknown.returncode == 3
    assert unknown.stdout.startswith("FLOWERBED UNKNOWN - ")


def test_a_probe_that_a_site_refuses_is_told_as_such_and_trains_once_its_hash_is_approved(standing: Standing) -> None:
    refused = looked(standing, 1, *PROBE)
    assert "trained 2 rounds" in refused["hospital-a"]["probe"]["what"]
    assert refused["hospital-b"]["probe"]["level"] == "critical"
    assert "REFUSED the app" in refused["hospital-b"]["probe"]["what"]

    line = standing.flowerbed("app", "hash", str(APP)).stdout.strip()
    standing.host("hospital-b").check_output(f"echo '{line}' >> {APPROVED}")
    trained = looked(standing, 0, *PROBE)
    for site in SITES:
        assert "trained 2 rounds" in trained[site]["probe"]["what"]
    # It is kept on the coordinator, for whoever looks next, and may be too old.
    assert "trained 2 rounds" in looked(standing)["hospital-a"]["probe"]["what"]
    assert looked(standing, 0, "--max-probe-age", "0")["hospital-a"]["probe"]["level"] == "warning"


@contextmanager
def another_ca(standing: Standing) -> Iterator[None]:
    """A site trusts another CA than the federation's, and starts anew."""
    host = standing.host("hospital-a")
    host.check_output(
        "cp /etc/flower/ca.crt /root/ca.crt && openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes "
        "-keyout /dev/null -subj '/CN=other CA' -days 99 -out /etc/flower/ca.crt && systemctl restart flower-supernode"
    )
    try:
        yield
    finally:
        host.check_output("cp /root/ca.crt /etc/flower/ca.crt && systemctl restart flower-supernode")


def restarts(standing: Standing) -> int:
    """How often systemd has started the SuperNode anew by itself."""
    return int(standing.host("hospital-a").check_output("systemctl show -P NRestarts flower-supernode"))


def test_a_site_whose_handshake_fails_is_not_healthy_for_a_minute(standing: Standing) -> None:
    with another_ca(standing):
        until = time.monotonic() + 70
        levels = []
        while time.monotonic() < until or not restarts(standing):
            done = nagios(standing)
            assert "hospital-a gateway: " in done.stdout
            assert "not of this federation's CA" in done.stdout
            levels.append(done.returncode)
            assert time.monotonic() < until + 300
        assert set(levels) == {2}
    wait_until(lambda: well(standing))


def test_a_site_that_the_gateway_refuses_is_not_healthy_though_it_was_online_until_now(standing: Standing) -> None:
    standing.succeed("site", "block", "hospital-a", "--federation", standing.path)
    try:
        for _ in range(3):
            found = looked(standing, 1)["hospital-a"]
            assert "critical" in {check["level"] for check in found.values()}
        wait_until(lambda: "refused it" in looked(standing, 1)["hospital-a"]["gateway"]["what"])
    finally:
        standing.succeed("site", "unblock", "hospital-a", "--federation", standing.path)
    wait_until(lambda: well(standing))


@pytest.mark.parametrize(
    ("breaks", "mends", "said"),
    [
        ("mount -t tmpfs -o size=1M none /srv/hospital", "umount /srv/hospital", "/srv/hospital is empty"),
        ("chmod 600 /srv/hospital/*.csv", "chmod 644 /srv/hospital/*.csv", ".csv is not readable"),
        ("chmod 700 /srv/hospital", "chmod 755 /srv/hospital", "/srv/hospital is not readable"),
    ],
    ids=["unmounted", "a file closed", "the folder closed"],
)
def test_a_site_whose_data_vanished_is_not_healthy_at_once(
    standing: Standing, breaks: str, mends: str, said: str
) -> None:
    host = standing.host("hospital-a")
    host.check_output(breaks)
    try:
        found = looked(standing, 1)["hospital-a"]
        assert (found["data"]["level"], found["node"]["level"]) == ("critical", "ok")
        assert said in found["data"]["what"]
        assert standing.flowerbed("status", standing.path).returncode == 1
    finally:
        host.check_output(mends)
    assert well(standing)


def test_a_gpu_that_is_gone_and_a_backup_that_failed_are_told(standing: Standing) -> None:
    unit = "/etc/systemd/system/flower-clientapp@.service"
    backups = "/var/lib/flower/backups"
    standing.host("hospital-a").check_output(f"cp {unit} /root/unit && echo 'DeviceAllow=/dev/nvidia0 rw' >> {unit}")
    last = '{"finished_at": "2026-01-01T00:00:00Z", "ok": false, "error": "no space left"}'
    coordinator = standing.host("coordinator")
    there = coordinator.file(backups).exists
    coordinator.check_output(f"mkdir -p {backups} && echo '{last}' > {backups}/last.json")
    try:
        found = looked(standing, 1)
        assert found["hospital-a"]["devices"]["what"] == "/dev/nvidia0 does not exist"
        assert found["coordinator"]["backup"]["what"] == "the last backup failed: no space left"
    finally:
        standing.host("hospital-a").check_output(f"cp /root/unit {unit}")
        coordinator.check_output(f"rm {backups}/last.json" + ("" if there else f" && rmdir {backups}"))
    assert well(standing)


def test_hosts_are_told_of_when_the_superlink_does_not_answer(standing: Standing) -> None:
    coordinator = standing.host("coordinator")
    coordinator.check_output("systemctl stop flower-superlink")
    try:
        found = looked(standing, 1)
        assert found["coordinator"]["superlink"]["level"] == "critical"
        assert "flower-superlink is inactive" in found["coordinator"]["units"]["what"]
        assert (found["hospital-a"]["node"]["level"], found["hospital-a"]["data"]["level"]) == ("unknown", "ok")
    finally:
        coordinator.check_output("systemctl start flower-superlink flower-superexec-serverapp flower-serverapp.socket")
    wait_until(lambda: well(standing))
