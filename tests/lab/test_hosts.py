"""A lab host is a machine: what is true of it is what is true of a hospital's."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from flowerbed import lab
from flowerbed.lab import network
from flowerbed.lab.spec import Places
from tests.lab.conftest import Bench

A, B = "10.91.1.1", "10.91.1.2"


def test_root_logs_in_with_the_labs_key_and_the_host_proves_its_own(bench: Bench) -> None:
    assert bench.said("a", "id -un; hostname") == "root\na"


def test_no_other_key_and_no_password_opens_a_host(bench: Bench) -> None:
    assert "Permission denied (publickey)" in bench.ssh("a", "true", key=bench.folder / "stranger").stderr


def test_every_host_has_an_ssh_key_and_a_machine_id_of_its_own(bench: Bench) -> None:
    keys = {(bench.folder / "keys" / f"{name}.pub").read_text() for name in ("a", "b")}
    assert len(keys) == 2
    assert bench.said("a", "cat /etc/machine-id") != bench.said("b", "cat /etc/machine-id")


def test_systemd_runs_the_host_and_no_unit_has_failed(bench: Bench) -> None:
    assert bench.said("a", "systemctl is-system-running --wait") == "running"


def test_a_service_of_the_host_can_be_sandboxed(bench: Bench) -> None:
    sandbox = "-p DynamicUser=yes -p ProtectSystem=strict -p PrivateTmp=yes -p NoNewPrivileges=yes"
    assert bench.said(
        "a", f"systemd-run --quiet --wait --pipe {sandbox} sh -c 'id -u; touch /etc/x || echo no'"
    ).endswith("no")


def test_a_host_has_no_way_out_and_no_package_index(bench: Bench) -> None:
    assert bench.said("a", "ip route show default; cat /etc/resolv.conf; ls /etc/apt/sources.list*; true") in (
        "",
        "/etc/apt/sources.list.d:",
    )
    assert not bench.reaches("a", "192.0.2.1")


def test_hosts_of_one_federation_reach_each_other(bench: Bench) -> None:
    assert bench.reaches("a", B)
    assert bench.reaches("b", A)


def test_this_machines_firewall_does_not_come_between_hosts(bench: Bench) -> None:
    with _nft_table("inet flowerbed_test", "chain f { type filter hook forward priority 0; policy drop; };"):
        assert bench.reaches("a", B)


def test_a_hosts_own_firewall_refuses_one_users_traffic(bench: Bench) -> None:
    rules = "chain o { type filter hook output priority 0; oifname != lo meta skuid 33 reject; };"
    as_user = f"setpriv --reuid 33 --clear-groups timeout 2 bash -c '</dev/tcp/{B}/22'"
    assert bench.ssh("a", as_user).returncode == 0
    bench.said("a", f"nft 'table inet test {{ {rules} }}'")
    try:
        assert bench.ssh("a", as_user).returncode != 0
        assert bench.reaches("a", B)
    finally:
        bench.said("a", "nft delete table inet test")


def test_a_cut_host_reaches_no_peer_and_keeps_ssh_from_this_machine(bench: Bench) -> None:
    lab.cut(bench.federation, "b")
    try:
        assert bench.is_cut_from("a", B)
        assert bench.is_cut_from("b", A)
        assert bench.said("b", "hostname") == "b"
        assert {host.name: host.cut for host in lab.hosts(bench.federation)} == {"a": "", "b": "peers"}
    finally:
        lab.restore(bench.federation, "b")
    assert bench.reaches("a", B)


def test_a_host_cut_from_everything_does_not_even_answer_by_ssh(bench: Bench) -> None:
    lab.cut(bench.federation, "b", everything=True)
    try:
        assert "timed out" in bench.ssh("b", "true").stderr
    finally:
        lab.restore(bench.federation, "b")
    assert bench.said("b", "hostname") == "b"


def test_a_host_has_a_disk_of_its_own_with_a_journal_as_a_real_machine_has(bench: Bench) -> None:
    disks = [Places(bench.federation, name).files for name in ("a", "b")]
    mounted = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    found = {device: kind for device, place, kind, *_ in mounted if Path(place) in disks}
    assert list(found.values()) == ["ext4", "ext4"]
    for device in found:
        shown = subprocess.run(["dumpe2fs", "-h", device], capture_output=True, text=True, check=True).stdout
        assert "has_journal" in shown


def test_after_a_power_cut_a_host_comes_back_with_its_disk_its_key_and_its_cut(bench: Bench) -> None:
    bench.said("b", "echo kept > /etc/kept")
    boot = bench.said("b", "cat /proc/sys/kernel/random/boot_id; systemctl show -P UserspaceTimestamp")
    lab.cut(bench.federation, "b")
    try:
        lab.kill(bench.federation, "b")
        assert [host.alive for host in lab.hosts(bench.federation)] == [True, False]
        lab.start(bench.federation, "b")
        assert bench.said("b", "cat /etc/kept") == "kept"
        assert bench.said("b", "cat /proc/sys/kernel/random/boot_id; systemctl show -P UserspaceTimestamp") != boot
        assert bench.is_cut_from("a", B)
    finally:
        lab.restore(bench.federation, "b")


def test_a_host_without_power_has_no_interface_that_the_next_start_would_meet(bench: Bench) -> None:
    interface = Places(bench.federation, "b").interface
    assert interface in network.inside(bench.federation, ["ip", "-brief", "link"])
    lab.kill(bench.federation, "b")
    assert interface not in network.inside(bench.federation, ["ip", "-brief", "link"])
    lab.start(bench.federation, "b")


def test_an_orderly_stop_lets_services_end(bench: Bench) -> None:
    unit = "systemd-run --quiet --unit=ends -p 'ExecStop=/bin/sh -c \"echo ended > /etc/ended\"' sleep 1000"
    bench.said("b", unit)
    lab.stop(bench.federation, "b")
    lab.stop(bench.federation, "b")
    lab.start(bench.federation, "b")
    assert bench.said("b", "cat /etc/ended") == "ended"


def test_the_site_sees_its_data_folder_and_writes_to_it(other: Bench, tmp_path: Path) -> None:
    (tmp_path / "records.csv").write_text("1,2\n")
    lab.create(replace(other.spec("h", "10.92.0.9"), data=str(tmp_path)))
    assert other.said("h", "cat /srv/hospital/records.csv; touch /srv/hospital/new") == "1,2"
    assert (tmp_path / "new").exists()


def test_without_a_data_folder_the_sites_folder_is_there_and_empty(bench: Bench) -> None:
    assert bench.said("a", "ls -A /srv/hospital") == ""


@contextmanager
def _nft_table(name: str, content: str) -> Iterator[None]:
    subprocess.run(["nft", f"table {name} {{ {content} }}"], check=True)
    try:
        yield
    finally:
        subprocess.run(["nft", "delete", "table", *name.split()], check=True)
