"""Making and taking down: nothing is left, nothing is half made, calls may cross."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from flowerbed import lab
from flowerbed.errors import UsageError
from flowerbed.lab import network
from flowerbed.lab.spec import Places
from tests.lab.conftest import Bench


def traces(federation: str, names: list[str]) -> dict[str, list[str]]:
    """All that hosts leave on this machine: processes, mounts, interfaces, control groups, files."""
    marks = (f"/{federation}/", *(Places(federation, name).machine for name in names))

    def marked(text: str) -> bool:
        return any(mark in f"{text}/" for mark in marks)

    processes = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if "State:\tZ" in (folder / "status").read_text():  # dead; its parent has yet to take notice
                continue
            belongs = (folder / "cgroup").read_text() + (folder / "cmdline").read_text()
        except OSError:
            continue
        if marked(belongs.replace("\n", "/").replace("\0", "/")):
            processes.append(folder.name)
    places = [
        Path("/run/flowerbed-lab"),
        Path("/var/lib/flowerbed-lab"),
        Path("/run/systemd/nspawn"),
        Path("/run/netns"),
    ]
    files = [str(path) for place in places for path in [*place.glob("*"), *place.glob("*/*")]]
    return {
        "processes": processes,
        "mounts": [line for line in Path("/proc/self/mounts").read_text().splitlines() if marked(line)],
        "interfaces": [path.name for path in Path("/sys/class/net").glob(network.uplink_name(federation))],
        "control groups": [
            str(path) for path in Path("/sys/fs/cgroup").glob("**/flowerbed-lab/*") if marked(str(path))
        ],
        "files": [path for path in files if marked(path)],
    }


def test_taking_hosts_down_leaves_nothing(other: Bench) -> None:
    names = ["hospital-with-a-long-name", "b"]
    for number, name in enumerate(names):
        lab.create(other.spec(name, f"10.92.1.{number + 1}"))
    there = traces(other.federation, names)
    assert all(there.values()), f"the test must see what is there: {there}"
    for name in names:
        lab.destroy(other.federation, name)
    assert traces(other.federation, names) == {key: [] for key in there}
    assert not list((other.folder / "keys").glob("hospital-with*"))


def test_a_power_cut_before_leaves_nothing_either(other: Bench) -> None:
    lab.create(other.spec("a", "10.92.1.1"))
    lab.kill(other.federation, "a")
    lab.destroy_all(other.federation)
    assert not any(traces(other.federation, ["a"]).values())


def test_five_hosts_can_be_made_at_once_and_taken_down_at_once(other: Bench) -> None:
    names = [f"h{number}" for number in range(5)]
    with ThreadPoolExecutor(5) as pool:
        made = list(pool.map(lambda name: _command("create", *_create_options(other, name)), names))
    assert [done.returncode for done in made] == [0] * 5, [done.stderr for done in made]
    assert [host.alive for host in lab.hosts(other.federation)] == [True] * 5
    with ThreadPoolExecutor(5) as pool:
        gone = list(pool.map(lambda name: _command("destroy", "--federation", other.federation, "--name", name), names))
    assert [done.returncode for done in gone] == [0] * 5, [done.stderr for done in gone]
    assert not any(traces(other.federation, names).values())


def test_where_the_processors_do_not_suffice_a_host_gets_by_its_weight(other: Bench) -> None:
    for name, address, weight in (("heavy", "10.92.1.1", 10000), ("light", "10.92.1.2", 100)):
        lab.create(replace(other.spec(name, address), cpu_weight=weight))
    burn = f"for _ in $(seq {os.cpu_count()}); do (while :; do :; done) & done; sleep 5; cat /proc/[0-9]*/stat; kill 0"
    with ThreadPoolExecutor(2) as pool:
        said = pool.map(lambda name: other.ssh(name, f"bash -c '{burn}'").stdout, ("heavy", "light"))
    heavy, light = (sum(int(line.split()[13]) for line in lines.splitlines() if " (bash) " in line) for lines in said)
    assert heavy > 3 * light > 0


def test_a_creation_that_was_killed_is_made_good_by_the_next(other: Bench) -> None:
    arguments = _words("create", *_create_options(other, "h0"))
    with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not Places(other.federation, "h0").spec_file.exists() and process.poll() is None:
            pass
        process.kill()
    assert _command("create", *_create_options(other, "h0")).returncode == 0
    assert other.said("h0", "hostname") == "h0"


def test_a_creation_that_fails_leaves_nothing(other: Bench, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    spec = replace(other.spec("a", "10.92.1.1"), keys_dir=str(tmp_path / "file"))
    with pytest.raises(UsageError, match=r"keys-dir .* cannot be written"):
        lab.create(spec)
    assert not any(traces(other.federation, ["a"]).values())


def test_making_a_living_host_again_changes_nothing(bench: Bench) -> None:
    before = (Places(bench.federation, "a").running / "pid").read_text()
    lab.create(bench.spec("a", "10.91.1.1"))
    assert (Places(bench.federation, "a").running / "pid").read_text() == before


def test_a_dead_host_is_made_afresh(other: Bench) -> None:
    lab.create(other.spec("a", "10.92.1.1"))
    other.said("a", "touch /etc/old")
    lab.kill(other.federation, "a")
    lab.create(other.spec("a", "10.92.1.1"))
    assert other.ssh("a", "ls /etc/old").returncode == 2


def test_a_living_host_is_not_replaced_by_a_different_one(bench: Bench) -> None:
    with pytest.raises(UsageError, match=r"host a of federation test-lab exists already and differs: .* destroy"):
        lab.create(bench.spec("a", "10.91.1.9"))


def test_two_hosts_do_not_share_an_address(bench: Bench) -> None:
    with pytest.raises(UsageError, match=r"address 10\.91\.1\.2 of host c is taken by host b"):
        lab.create(bench.spec("c", "10.91.1.2"))


def test_a_network_that_is_used_is_refused_by_name(bench: Bench, other: Bench) -> None:
    with pytest.raises(
        UsageError, match=r"network 10\.91\.128\.0/17 .* has 10\.91\.0\.0/16; set network in its lab\.tfvars"
    ):
        lab.create(replace(other.spec("a", "10.91.128.2"), network="10.91.128.0/17"))
    assert not any(traces(other.federation, ["a"]).values())


def test_unknown_hosts_may_be_destroyed_but_not_stopped(other: Bench) -> None:
    lab.destroy(other.federation, "nobody")
    with pytest.raises(UsageError, match="no lab host nobody"):
        lab.stop(other.federation, "nobody")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "Hospital_A"}, "name 'Hospital_A' is no host name"),
        ({"name": "../../etc"}, "name '../../etc' is no host name"),
        ({"federation": "a/b"}, "federation 'a/b' is no host name"),
        ({"network": "10.92.0.1/16"}, "network '10.92.0.1/16' is no IPv4 network"),
        ({"address": "first"}, "address 'first' of host a is no IPv4 address"),
        ({"address": "10.92.0.1"}, "address 10.92.0.1 of host a is no free host address"),
        ({"address": "10.93.0.2"}, "address 10.93.0.2 of host a is no free host address"),
        ({"data": "/etc/hostname"}, "data '/etc/hostname' of host a is no folder"),
        ({"ssh_key": "secret"}, "the SSH key of host a is no public key line"),
        ({"suite": "sid"}, "suite 'sid' is unknown"),
        ({"cpu_weight": 0}, "cpu_weight 0 of host a is not from 1 to 10000"),
    ],
)
def test_a_wrong_value_is_refused_by_name(other: Bench, change: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message.replace("..", r"\.\.")):
        lab.create(replace(other.spec("a", "10.92.1.1"), **change))
    assert lab.hosts(other.federation) == []


@pytest.mark.parametrize(("federation", "name"), [("..", ".."), ("test-other", "../../../tmp"), ("", "a"), ("a", "")])
def test_what_is_no_name_destroys_nothing(federation: str, name: str) -> None:
    with pytest.raises(UsageError, match="is no host name"):
        lab.destroy(federation, name)
    with pytest.raises(UsageError, match="is no host name"):
        lab.stop(federation, name)


@pytest.mark.parametrize("federation", ["..", "a/../b", ""])
def test_what_is_no_federation_is_not_destroyed(federation: str) -> None:
    with pytest.raises(UsageError, match="is no host name"):
        lab.destroy_all(federation)


def test_the_command_lists_hosts_as_json(bench: Bench) -> None:
    listed = json.loads(_command("list", "--federation", bench.federation).stdout)
    assert listed[0] == {"federation": "test-lab", "name": "a", "address": "10.91.1.1", "alive": True, "cut": ""}


def test_who_is_not_root_is_told_so() -> None:
    script = "import os, sys; from flowerbed.lab.__main__ import main; os.seteuid(65534); sys.exit(main(['list']))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        3,
        "flowerbed.lab: the lab's hosts are systemd-nspawn containers of root's: use sudo\n",
    )


def test_a_missing_program_is_named_with_its_package(other: Bench) -> None:
    done = _command("destroy", "--federation", other.federation, "--name", "a", PATH="/nonexistent")
    assert done.returncode == 3
    assert done.stderr.startswith("flowerbed.lab: the lab needs systemd-nspawn, mmdebstrap, ip, nft")
    assert "apt-get install systemd-container mmdebstrap iproute2 nftables" in done.stderr


def _words(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "flowerbed.lab", *arguments]


def _command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(_words(*arguments), env=os.environ | environment, capture_output=True, text=True, check=False)


def _create_options(bench: Bench, name: str) -> list[str]:
    spec = bench.spec(name, f"10.92.2.{int(name[1:]) + 1}")
    options = ["--federation", spec.federation, "--name", name, "--address", spec.address, "--network", spec.network]
    return [*options, "--ssh-key-file", str(bench.key.with_suffix(".pub")), "--keys-dir", spec.keys_dir]
