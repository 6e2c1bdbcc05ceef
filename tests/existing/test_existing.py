"""Machines that exist already become a federation: behind a jump host, a proxy, another user, another Debian."""

import json
import re
import shutil
from pathlib import Path

import pytest

from flowerbed.lab.spec import Places
from tests.existing.conftest import ADDRESSES, NAME, PASSWORD, TINY, Existing

SITES = {"hospital-a": "open", "hospital-b": "asking"}
GATEWAY = f"{ADDRESSES['coordinator']}:443"
CONNECT = r"""
import json, socket, sys
answers = {}
for target in sys.argv[1:]:
    address, port = target.rsplit(":", 1)
    try:
        socket.create_connection((address, int(port)), timeout=3).close()
        answers[target] = "open"
    except OSError as error:
        answers[target] = type(error).__name__
print(json.dumps(answers))
"""


def connects(existing: Existing, site: str, user: str, *targets: str) -> dict[str, str]:
    """What a user on a site can open."""
    command = ["setpriv", f"--reuid={user}", "--clear-groups", "python3", "-c", CONNECT, *targets]
    answers: dict[str, str] = json.loads(existing.shell(site).run(command))
    return answers


def test_nothing_is_wrong_in_the_files_and_terraform_was_not_asked(existing: Existing) -> None:
    assert existing.succeed("inventory", "check", existing.path)["findings"] == []
    assert not (existing.federation.state / "terraform").exists()


def test_every_site_is_online_and_status_sees_the_hosts_through_sudo_and_the_jump_host(existing: Existing) -> None:
    status = existing.succeed("status", existing.path)
    assert {host["name"]: host["node"] for host in status["hosts"] if host["role"] == "site"} == dict.fromkeys(
        SITES, "online"
    )
    assert status["healthy"]


def test_a_second_up_changes_nothing(existing: Existing) -> None:
    again = existing.succeed("up", existing.path, "--all")
    assert again["hosts_changed"] == dict.fromkeys(["coordinator", *SITES], 0)
    assert again["machines_changed"] == 0


def test_an_app_trains_at_both_sites_and_its_results_come_home(existing: Existing) -> None:
    run = existing.succeed("run", str(TINY), "--federation", existing.path)
    assert run["status"] == "completed"
    assert list((existing.work / "runs").glob("*/*/files/checkpoints/final.npy"))


def test_each_host_has_the_release_of_its_own_python_with_the_same_versions(existing: Existing) -> None:
    shown = "cd /opt/flower/current/lib && echo python3.* && ls python3.*/site-packages | grep -iE '^(flwr|numpy)-'"
    versions = {name: existing.on(name, shown).split() for name in ("coordinator", *SITES)}
    assert {name: said[0] for name, said in versions.items()} == {
        "coordinator": "python3.11",
        "hospital-a": "python3.11",
        "hospital-b": "python3.13",
    }
    assert versions["hospital-b"][1:] == versions["coordinator"][1:]


@pytest.mark.parametrize(("site", "proxy"), SITES.items())
def test_all_traffic_goes_through_the_sites_proxy_and_none_of_the_loopbacks(
    existing: Existing, site: str, proxy: str
) -> None:
    log = existing.on_border(f"journalctl --no-pager --output=cat --unit=proxy-{proxy}")
    assert set(re.findall(r": CONNECT (\S+) HTTP", log)) == {GATEWAY}
    assert "127.0.0.1" not in log
    assert connects(existing, site, "root", GATEWAY) == {GATEWAY: "TimeoutError"}


@pytest.mark.parametrize(("site", "port"), [("hospital-a", 3128), ("hospital-b", 3129)])
def test_the_supernode_reaches_its_proxy_alone_and_apps_not_even_that(existing: Existing, site: str, port: int) -> None:
    border = ADDRESSES["border"]
    proxy, other, ssh = f"{border}:{port}", f"{border}:{3128 + 3129 - port}", f"{border}:22"
    closed = dict.fromkeys([other, ssh, GATEWAY], "ConnectionRefusedError")
    assert connects(existing, site, "flower-supernode", proxy, *closed) == {proxy: "open", **closed}
    assert connects(existing, site, "flower-app", proxy) == {proxy: "ConnectionRefusedError"}


def test_the_proxys_password_is_roots_and_the_supernodes_alone(existing: Existing) -> None:
    site = "hospital-b"
    assert existing.on(site, "stat -c '%U %a' /etc/flower/supernode/proxy.env") == "root 600"
    shown = existing.on(
        site,
        "cat /etc/systemd/system/flower-* /etc/flower/egress/*; systemctl show flower-supernode; ps -eo args;"
        "journalctl --no-pager; find /var/lib/flower -type f -size -1M -exec cat {} + | tr -d '\\0'",
    )
    assert PASSWORD not in shown
    assert f"flower:{PASSWORD}@" in existing.on(site, "cat /etc/flower/supernode/proxy.env")
    pid = existing.on(site, "systemctl show --property=MainPID --value flower-supernode")
    for file in ("/etc/flower/supernode/proxy.env", f"/proc/{pid}/environ"):
        denied = existing.on(site, f"setpriv --reuid=flower-app --clear-groups cat {file} 2>&1 || true")
        assert "Permission denied" in denied
    assert PASSWORD not in (existing.federation.state / "last-play.log").read_text()


def in_an_instance(existing: Existing, site: str, look: str) -> str:
    """What a look at the process of an instance says, whose id is $pid: one that waits for its message."""
    wait = "import socket, sys, time; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); time.sleep(60)"
    return existing.on(
        site,
        f"setpriv --reuid=flower-superexec --clear-groups python3 -c '{wait}' /run/flower/clientapp.sock & waits=$!;"
        # By its command line: until then it is still systemd's, outside of the sandbox.
        "find_pid() { pid=$(pgrep -f '[/]libexec/instance.py' | head -1); test -n \"$pid\"; };"
        f"until find_pid; do sleep 0.1; done; {look}; kill $waits",
    )


def test_apps_have_no_proxy_in_their_environment(existing: Existing) -> None:
    for site in SITES:
        environment = in_an_instance(existing, site, "cat /proc/$pid/environ")
        assert "FLWR_HOME=" in environment
        assert "PROXY" not in environment.upper()


def test_apps_see_the_device_that_they_may_use_and_without_one_none(existing: Existing) -> None:
    look = "nsenter --mount --target $pid test -c /dev/net/tun; echo $?"
    assert {site: in_an_instance(existing, site, look) for site in SITES} == {"hospital-a": "0", "hospital-b": "1"}


def test_a_site_that_keeps_a_list_refuses_an_app_that_is_not_on_it_and_the_operator_hears_so(
    existing: Existing, tmp_path: Path
) -> None:
    changed = shutil.copytree(TINY, tmp_path / "tiny")
    client = changed / "tiny" / "client_app.py"
    client.write_text(client.read_text() + "# One line more, and it is another app.\n")
    done = existing.flowerbed("run", str(changed), "--federation", existing.path, "--json")
    run = json.loads(done.stdout)
    assert (done.returncode, run["status"]) == (1, "incomplete")
    refusal = f"hospital-a REFUSED the app: hospital-a does not allow app {run['app']['fab_hash']}"
    assert refusal in run["reason"]
    said = existing.on("hospital-a", "journalctl --output=json FLOWERBED_EVENT=app.refused")
    entries = [json.loads(line) for line in said.splitlines()]
    assert {(entry["FLOWERBED_RUN"], entry["FLOWERBED_APP_HASH"]) for entry in entries} == {
        (run["run_id"], run["app"]["fab_hash"])
    }


def test_a_proxy_that_does_not_answer_is_named_before_anything_changes(existing: Existing) -> None:
    file = existing.federation.path / "host_vars" / "hospital-a.yml"
    right = file.read_text()
    try:
        file.write_text(right.replace("3128", "3333"))
        done = existing.flowerbed("up", existing.path)
    finally:
        file.write_text(right)
    assert done.returncode == 1
    assert f"{ADDRESSES['border']}:3333 does not answer from here" in done.stderr
    assert "correct supernode_proxy" in done.stderr
    assert '"event": "changed"' not in (existing.federation.state / "last-play.log").read_text()


def test_a_user_who_may_not_become_root_is_told_so(existing: Existing) -> None:
    # As the machine's own people see it, who are root by other means.
    root = Places(NAME, "coordinator").running / "root"
    allowed = root / "etc/sudoers.d/flower-admin"
    allowed.rename(root / "root/flower-admin")
    try:
        done = existing.flowerbed("status", existing.path)
    finally:
        (root / "root/flower-admin").rename(allowed)
    assert done.returncode == 1
    assert "flower-admin may not become root on coordinator" in done.stderr
    assert "allow it sudo without a password" in done.stderr
