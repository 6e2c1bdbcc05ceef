"""What fails in an upgrade leaves one release on all hosts, and what is killed goes on by the same call."""

import os
import shlex
import signal
import subprocess
import time

import pytest

from tests.e2e.conftest import Standing
from tests.trust.test_1_rotation import wait_until
from tests.upgrade.conftest import SITES, VERSIONS, active, history, nodes, wish

DATABASE = "/var/lib/flower/superlink/superlink.db"
DROP_IN = "/etc/systemd/system/flower-supernode.service.d/unfit.conf"
# Tasks at which an upgrade is killed: while releases are checked, with the SuperLink stopped, between the hosts.
POINTS = [
    "Check the files, the imports and the programs of the release",
    "Switch the coordinator to the release",
    "Run the SuperNode of the release",
]


@pytest.fixture(scope="module")
def old(standing: Standing) -> str:
    """The release that all hosts have; the lock names the next one."""
    wish(standing, VERSIONS[0])
    standing.succeed("upgrade", standing.path)
    (found,) = active(standing)
    wish(standing, VERSIONS[1])
    return found


@pytest.fixture(scope="module")
def new(standing: Standing, old: str) -> str:
    built: str = standing.succeed("release", "build", standing.path)["id"]
    return built


def test_where_one_sites_new_supernode_fails_every_host_goes_back_and_a_run_completes(
    standing: Standing, old: str, new: str
) -> None:
    site = standing.host(SITES[-1])
    site.check_output(
        f"mkdir -p {os.path.dirname(DROP_IN)} && printf '[Service]\\nExecStartPre=/bin/sh -c "  # noqa: PTH120
        f'"! readlink /opt/flower/current | grep -q {new}"\\n\' > {DROP_IN} && systemctl daemon-reload'
    )
    known, runs = nodes(standing), history(standing)
    try:
        failed = standing.flowerbed("upgrade", standing.path)
    finally:
        site.check_output(f"rm {DROP_IN} && systemctl daemon-reload")
    assert failed.returncode == 1, failed.stdout + failed.stderr
    said = " ".join(failed.stderr.split())
    assert f"error: {SITES[-1]}:" in said
    assert f"every host is on {old} again" in said
    assert active(standing) == {old}
    assert (nodes(standing), history(standing)) == (known, runs)
    assert standing.run_example("-c", "num-server-rounds=1")["status"] == "completed"


def test_a_damaged_release_is_found_before_anything_is_switched(standing: Standing, old: str, new: str) -> None:
    site = standing.host(SITES[-1])
    folder = f"/opt/flower/releases/{new}"
    damaged = site.check_output(f"ls {folder}/lib/python3*/site-packages/numpy/__init__.py")
    site.check_output(f"echo 'raise SystemExit(1)' >> {damaged}")
    before = pids(standing)
    try:
        failed = standing.flowerbed("upgrade", standing.path)
    finally:
        site.check_output(f"rm -r {folder}")
    assert failed.returncode == 1
    said = " ".join(failed.stderr.split())
    assert f"{SITES[-1]}: release {new} does not work here: numpy/__init__.py" in said
    assert f"nothing was switched: every host is on {old}" in said
    assert pids(standing) == before


def pids(standing: Standing) -> dict[str, str]:
    """The processes of Flower's services at the sites; the shell that asks is none of them."""
    return {
        name: standing.host(name).check_output("pgrep -f '[b]in/flower-super|[l]ibexec/supernode' | sort")
        for name in SITES
    }


@pytest.mark.parametrize("point", POINTS)
def test_an_upgrade_that_was_killed_is_ended_by_the_same_call(
    standing: Standing, old: str, new: str, point: str
) -> None:
    known, runs = nodes(standing), history(standing)
    log = standing.federation.state / "last-play.log"
    log.write_text("")
    with subprocess.Popen(
        [standing.program, "upgrade", standing.path, "--batch", "1"],
        cwd=standing.work,
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        wait_until(lambda: f'"{point}"' in log.read_text() or process.poll() is not None, 900)
        time.sleep(0.2)  # into the task
        os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    refused = standing.flowerbed("up", standing.path)
    assert refused.returncode == 2
    assert f"is on its way to release {new}" in " ".join(refused.stderr.split())
    answer = standing.succeed("upgrade", standing.path)
    assert answer["release"] == new
    assert active(standing) == {new}
    assert (nodes(standing), history(standing)) == (known, runs)
    assert standing.succeed("rollback", standing.path)["release"] == old
    assert active(standing) == {old}


def test_where_migrations_cannot_be_taken_back_the_copy_takes_the_files_place_and_the_lost_run_is_named(
    standing: Standing, old: str, new: str
) -> None:
    standing.succeed("upgrade", standing.path)
    lost = standing.run_example("-c", "num-server-rounds=1")["run_id"]
    known, runs = nodes(standing), history(standing)
    coordinator = standing.host("coordinator")
    # As if a Flower had been there that neither release knows.
    unknown = "UPDATE alembic_version SET version_num = 'ffffffffffff'"
    script = f"import sqlite3; c = sqlite3.connect('{DATABASE}'); c.execute(\"{unknown}\"); c.commit()"
    coordinator.check_output("systemctl stop flower-superlink")
    coordinator.check_output(shlex.join(["/usr/bin/python3", "-c", script]))
    answer = standing.succeed("rollback", standing.path)
    assert answer["release"] == old
    (warning,) = answer["warnings"]
    assert f"1 runs are in /var/lib/flower/copies/{new}.db alone" in warning
    assert history(standing) == {run: status for run, status in runs.items() if run != lost}
    assert nodes(standing) == known
    trail = standing.succeed("audit", "log", standing.path, "--event", "runs.lost")
    assert [one["fields"]["detail"] for one in trail["entries"]] == [lost]
    assert standing.run_example("-c", "num-server-rounds=1")["status"] == "completed"
