"""One entry more is one hospital more, one entry less is one less, and no other host is touched."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from flowerbed import lab
from tests.e2e.conftest import SITES, Standing, prepare_data

FOUR = [*SITES, "hospital-d"]

# What runs the tests in the background lets them ignore Ctrl-C, which an operator's terminal does not.
AT_A_TERMINAL = ["env", "--default-signal=INT"]


def test_one_more_entry_adds_that_hospital_and_changes_no_other_host(standing: Standing) -> None:
    prepare_data(standing, FOUR)
    standing.set_sites(FOUR)
    up = standing.succeed("up", standing.path)
    untouched = {name: count for name, count in up["hosts_changed"].items() if name in SITES}
    assert up["machines_changed"] == 1
    assert untouched == dict.fromkeys(SITES, 0)
    assert up["hosts_changed"]["hospital-d"] > 0
    nodes = {host["name"]: host["node"] for host in standing.succeed("status", standing.path)["hosts"]}
    assert nodes["hospital-d"] == "online"


def test_what_the_dossier_says_of_leaving_takes_everything_away_but_the_data(
    standing: Standing, tmp_path: Path
) -> None:
    page = str(tmp_path / "page.html")
    (machine,) = standing.succeed("dossier", standing.path, "--site", "hospital-d", "--out", page)["machines"]
    host = standing.host("hospital-d")
    for command in machine["uninstall"]:
        host.check_output(command)
    left = host.check_output("find / -xdev -iname '*flower*' -not -path '/proc/*' -not -path '/var/lib/systemd/*'")
    assert left == ""
    assert "flower" not in host.check_output("getent passwd; nft list ruleset; ps -eo args")
    assert host.check_output("ls /srv/hospital")


def test_one_entry_less_unregisters_the_hospital_and_takes_its_machine_away(standing: Standing) -> None:
    record = json.loads(standing.host("coordinator").file("/var/lib/flower/nodes.json").content_string)
    gone = record["hospital-d"]["node_id"]
    standing.set_sites(SITES)
    up = standing.succeed("up", standing.path)
    assert up["machines_changed"] == 1
    assert {name: up["hosts_changed"][name] for name in SITES} == dict.fromkeys(SITES, 0)
    assert "hospital-d" not in {host.name for host in lab.hosts("e2e")}
    listed = standing.flwr("supernode", "list", "--format", "json")
    status = {node["node-id"]: node["status"] for node in json.loads(listed.stdout)["nodes"]}
    assert status.get(gone, "unregistered") == "unregistered"


def test_after_an_interrupted_up_the_same_command_goes_on_and_replaces_a_host_that_died(standing: Standing) -> None:
    lab.kill("e2e", "hospital-b")
    status = standing.flowerbed("status", standing.path)
    assert status.returncode == 1
    assert "hospital-b" in status.stdout
    with subprocess.Popen(
        [*AT_A_TERMINAL, standing.program, "up", standing.path],
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        log = standing.federation.state / "last-play.log"
        before = log.stat().st_mtime_ns
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            if log.stat().st_mtime_ns != before and '"changed", "host": "hospital-b"' in log.read_text():
                break
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    up = standing.succeed("up", standing.path)
    standing.forget_hosts()
    assert up["machines_changed"] == 0
    assert up["hosts_changed"]["hospital-b"] > 0
    assert {up["hosts_changed"][name] for name in ("hospital-a", "hospital-c")} == {0}


def test_a_host_that_was_replaced_trains_again(standing: Standing) -> None:
    assert standing.succeed("status", standing.path)["healthy"]
    assert standing.run_example("-c", "num-server-rounds=1")["status"] == "completed"


def test_an_interrupted_run_goes_on_and_comes_home_with_logs(standing: Standing) -> None:
    command = [*AT_A_TERMINAL, standing.program, "run", str(standing.example), "--federation", standing.path]
    command += ["-c", "num-server-rounds=1"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, cwd=standing.work, start_new_session=True
    ) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        os.killpg(process.pid, signal.SIGINT)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 130, first + said
    run_id = first.split()[1].rstrip(":")
    home = standing.succeed("wait", run_id, "--federation", standing.path)
    assert home["status"] == "completed"
