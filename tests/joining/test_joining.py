"""Two hospitals join by kit and train with a third, and nobody but their own administrators ever logs in there.

The commands are those of the README, in its order.
"""

import json
import re
import subprocess
import tarfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.joining.conftest import (
    APPROVE,
    BUILD,
    CHECK,
    HOSPITALS,
    JOIN,
    LEAVE,
    REACHED,
    SUM,
    UNPACK,
    Hospital,
    Joining,
)

NOT_REGISTERED = "Failed to activate SuperNode"
ALL = sorted([REACHED, *HOSPITALS])


def in_each(joining: Joining, command: str) -> dict[str, str]:
    """Run a command in both hospitals at once; what it printed there."""

    def run(hospital: Hospital) -> str:
        done = hospital.says(command)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    with ThreadPoolExecutor() as pool:
        return dict(zip(joining.hospitals, pool.map(run, joining.hospitals.values()), strict=True))


def approve(joining: Joining, name: str, fingerprint: str, *words: str) -> subprocess.CompletedProcess[str]:
    return joining.operator(" ".join([APPROVE, *words]), name, fingerprint)


def request(joining: Joining, name: str) -> Path:
    """The request of a hospital, as it arrived."""
    return joining.standing.work / f"{name}.request.json"


def fingerprint(joining: Joining, name: str) -> str:
    """What the hospital's administrator reads out: the fingerprint of the key on that machine."""
    said = joining.hospitals[name].on("ssh-keygen -l -f /etc/flower/supernode/node_key.pub")
    return said.split()[1]


def trail(joining: Joining) -> list[dict[str, str]]:
    """The coordinator's audit trail."""
    said = joining.standing.host("coordinator").check_output("journalctl -t flowerbed -o json --no-pager")
    return [json.loads(line) for line in said.splitlines()]


def test_the_operator_is_let_in_to_no_hospital(joining: Joining) -> None:
    for hospital in joining.hospitals.values():
        known = hospital.shell.federation.known_hosts
        command = ["ssh", "-i", str(joining.standing.federation.ssh_key), "-o", f"UserKnownHostsFile={known}"]
        command += ["-o", "BatchMode=yes", "-o", "IdentitiesOnly=yes", f"root@{hospital.shell.host.address}", "true"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert "Permission denied" in done.stderr


def test_a_kit_is_one_file_and_what_must_be_told_besides(joining: Joining) -> None:
    for name, hospital in joining.hospitals.items():
        built = joining.operator(BUILD, name)
        assert built.returncode == 0, built.stdout + built.stderr
        hospital.receive(joining.standing.work / f"{name}.kit")
        told = re.search(r"--ca-fingerprint (\S+)", built.stdout)
        assert told
        hospital.ca_fingerprint = told[1]
        assert hospital.says(SUM).stdout.split()[0] in built.stdout


def test_a_kit_holds_no_secret(joining: Joining) -> None:
    federation = joining.standing.federation
    secrets = [federation.ca_passphrase_file.read_text().strip(), "PRIVATE KEY-----\n"]
    with tarfile.open(joining.standing.work / "hospital-d.kit") as kit:
        for member in kit.getmembers():
            content = kit.extractfile(member)
            assert content
            text = content.read() if member.size < 1_000_000 else b""
            assert not [secret for secret in secrets if secret.encode() in text], member.name


def test_a_kit_that_was_tampered_with_is_refused_before_anything_is_changed(joining: Joining) -> None:
    hospital = joining.hospitals["hospital-d"]
    assert hospital.says(UNPACK).returncode == 0
    genuine = hospital.on("cp -a hospital-d genuine && cat hospital-d/collection.tar | sha256sum")
    before = hospital.everything()
    hospital.on("printf x | dd of=$HOME/hospital-d/collection.tar bs=1 seek=4000 conv=notrunc 2>&1")
    done = hospital.says(JOIN)
    hospital.on("cp -p genuine/collection.tar hospital-d/")
    assert done.returncode == 2
    assert done.stderr == "refused: collection.tar is not as it was signed: get the kit again\n"
    hospital.ca_fingerprint, right = hospital.ca_fingerprint[:-2] + "00", hospital.ca_fingerprint
    done = hospital.says(JOIN)
    hospital.ca_fingerprint = right
    assert done.returncode == 2
    assert "another one than you were told of" in done.stderr
    assert hospital.everything() == before
    hospital.on(f"rm -r genuine && test '{genuine}' = \"$(cat hospital-d/collection.tar | sha256sum)\"")


def test_check_shows_what_would_be_done_and_changes_nothing(joining: Joining) -> None:
    assert joining.hospitals["hospital-e"].says(UNPACK).returncode == 0
    before = {name: hospital.everything() for name, hospital in joining.hospitals.items()}
    for said in in_each(joining, CHECK).values():
        assert "+ExecStart=/opt/flower/current/bin/python -P /opt/flower/libexec/supernode.py" in said
        assert '+data-path = "/srv/hospital"' in said
        assert "nothing was changed" in said
    assert {name: hospital.everything() for name, hospital in joining.hospitals.items()} == before


def test_join_makes_a_site_and_a_request_without_a_secret_and_leaves_nothing_else(joining: Joining) -> None:
    for name, said in in_each(joining, JOIN).items():
        hospital = joining.hospitals[name]
        assert f"{name} in {joining.standing.federation.name}" in said
        assert fingerprint(joining, name) in said
        request(joining, name).write_text(hospital.on(f"cat ~/{name}/{name}.request.json"))
        key = hospital.on("cat /etc/flower/supernode/node_key").splitlines()[1]
        assert key not in request(joining, name).read_text()
        assert hospital.on("ls -A /opt") == "flower"
        assert hospital.on("stat -c '%a %U' /etc/flower/kit /etc/flower/kit/settings.json").splitlines() == [
            "700 root",
            "600 root",
        ]


def test_a_site_is_refused_until_it_is_approved(joining: Joining) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        said = [one.on("journalctl -u flower-supernode -o cat --no-pager") for one in joining.hospitals.values()]
        if all(NOT_REGISTERED in text for text in said):
            break
        time.sleep(0.5)
    assert all(NOT_REGISTERED in text for text in said), said
    listed = joining.standing.succeed("site", "list", joining.standing.path)["sites"]
    assert {one["name"]: one["way"] for one in listed} == {REACHED: "SSH", **dict.fromkeys(HOSPITALS, "kit made")}


def test_a_request_with_another_fingerprint_than_was_read_out_is_refused_and_noted(joining: Joining) -> None:
    done = approve(joining, "hospital-d", fingerprint(joining, "hospital-e"))
    assert done.returncode == 2
    assert "not what you were told" in done.stderr
    assert not joining.standing.federation.approved_file.exists()
    last = trail(joining)[-1]
    assert last["FLOWERBED_EVENT"] == "site.refused"
    assert "not what you were told" in last["MESSAGE"]


def test_approved_sites_come_online_by_themselves(joining: Joining) -> None:
    for name, wait in (("hospital-d", "0"), ("hospital-e", "120")):
        done = approve(joining, name, fingerprint(joining, name), "--wait", wait)
        assert done.returncode == 0, done.stderr
    status = joining.standing.succeed("status", joining.standing.path)
    assert {host["name"]: host["node"] for host in status["hosts"] if host["role"] == "site"} == dict.fromkeys(
        ALL, "online"
    )
    assert {host["name"] for host in status["hosts"] if host["by_kit"]} == set(HOSPITALS)
    assert status["healthy"]
    noted = [one["FLOWERBED_SITE"] for one in trail(joining) if one["FLOWERBED_EVENT"] == "site.approved"]
    assert noted == list(HOSPITALS)
    for hospital in joining.hospitals.values():
        assert "site.joined" in hospital.on("journalctl -t flowerbed -o json --no-pager")


def test_all_sites_train_together_and_are_known_by_name(joining: Joining) -> None:
    run = joining.standing.run_example("-c", "num-server-rounds=1")
    assert run["status"] == "completed"
    assert sorted(run["rounds"][-1]["sites"]["evaluate"]) == ALL


def test_a_second_join_changes_nothing_and_remembers_what_the_hospital_has_set(joining: Joining) -> None:
    hospital = joining.hospitals["hospital-d"]
    before = [line for line in hospital.everything() if "/flower" in line and "/var/lib" not in line]
    done = hospital.says(JOIN.replace("--data /srv/hospital", ""))
    assert "there was nothing to change" in done.stdout, done.stdout + done.stderr
    assert [line for line in hospital.everything() if "/flower" in line and "/var/lib" not in line] == before


def test_the_same_request_does_not_count_twice(joining: Joining) -> None:
    done = approve(joining, "hospital-d", fingerprint(joining, "hospital-d"))
    assert done.returncode == 2
    assert "approved before" in done.stderr


def test_up_keeps_the_sites_that_joined_by_kit(joining: Joining) -> None:
    up = joining.standing.succeed("up", joining.standing.path)
    assert up["sites"] == ALL
    assert up["hosts_changed"] == {"coordinator": 0, REACHED: 0}
    assert joining.standing.succeed("status", joining.standing.path)["healthy"]


def test_a_hospital_leaves_by_its_kit_and_the_consortium_lets_it_go(joining: Joining) -> None:
    hospital = joining.hospitals["hospital-e"]
    gone = joining.standing.succeed("site", "remove", "hospital-e", "--federation", joining.standing.path, "--purge")
    assert not gone["purged"]
    assert "the hospital takes the software off its machine with" in gone["left_to_do"][0]
    assert "hospital-e" not in json.loads(joining.standing.federation.approved_file.read_text())["sites"]
    before = hospital.everything()
    assert "Nothing was changed." in hospital.says(LEAVE + " --check").stdout
    assert hospital.on("systemctl is-enabled flower-supernode") == "enabled"
    done = hospital.says(LEAVE)
    assert done.returncode == 0, done.stdout + done.stderr
    after = hospital.everything()
    left = [line for line in after if re.search(r"/(etc|opt|var/lib|run)(/systemd/.*)?/flower|^flower", line)]
    assert left == []
    assert len(after) < len(before)
    again = hospital.says(LEAVE)
    assert again.returncode == 2
    assert "has not joined, or has left already" in again.stderr
    listed = joining.standing.succeed("site", "list", joining.standing.path)["sites"]
    assert [one["name"] for one in listed] == [REACHED, "hospital-d"]
