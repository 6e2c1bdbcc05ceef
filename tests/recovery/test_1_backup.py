"""The coordinator's backups: whole, the operator's alone to open, and refused where they do not fit."""

import json
import os
import shutil
from pathlib import Path

import pytest

from flowerbed.federation import FederationFolder
from tests.recovery.conftest import Federation, make_folder
from tests.unit.test_backups import pki

LAST = "/var/lib/flower/backups/last.json"
# Each in a process as the unit's own, with all that keeps it in.
ATTEMPTS = r"""
import json, os, socket
def attempt(what):
    try:
        # What is out of sight is an empty file where the capability opens every file.
        return "done" if what() != "" else "empty"
    except OSError as error:
        return type(error).__name__
print(json.dumps({
    "user": os.getuid() != 0,
    "read the database": attempt(lambda: open("/var/lib/flower/superlink/superlink.db", "rb").read(1)),
    "write the database": attempt(lambda: open("/var/lib/flower/superlink/superlink.db", "ab")),
    "write a key": attempt(lambda: open("/etc/flower/superlink/server.key", "ab")),
    "read the passwords": attempt(lambda: open("/etc/shadow").read(1)),
    "read the host's SSH key": attempt(lambda: open("/etc/ssh/ssh_host_ed25519_key").read(1)),
    "reach the SuperLink": attempt(lambda: socket.create_connection(("127.0.0.1", 8000), 3)),
    "reach the network": attempt(lambda: socket.create_connection(("10.111.0.1", 53), 3)),
}))
"""


def test_the_timer_waits_for_the_next_hour(recovery: Federation) -> None:
    timer = recovery.on(
        "coordinator", "systemctl is-active flower-backup.timer; systemctl is-enabled flower-backup.timer"
    )
    assert timer.split() == ["active", "enabled"]


def test_a_backup_comes_home_for_its_owner_alone_and_was_opened_and_checked(recovery: Federation) -> None:
    made = recovery.succeed("backup", recovery.path)
    file = Path(made["file"])
    assert made["checked"]
    assert (file.parent, file.stat().st_mode & 0o777) == (recovery.federation.backups, 0o600)
    assert (file.parent / ".gitignore").read_text() == "*\n"
    last = json.loads(recovery.on("coordinator", f"cat {LAST}"))
    assert (last["ok"], last["bytes"], Path(last["file"]).name) == (True, file.stat().st_size, file.name)


def test_the_list_names_those_at_home_and_those_on_the_coordinator(recovery: Federation) -> None:
    listed = recovery.succeed("backup", "list", recovery.path)
    assert listed["unreachable"] == ""
    assert {one["place"] for one in listed["backups"]} == {"here", "coordinator"}


def test_the_coordinator_has_nothing_that_opens_a_backup(recovery: Federation) -> None:
    key = recovery.federation.backup_key.read_text().splitlines()[1]
    found = recovery.on("coordinator", f"grep -rlF '{key}' /etc /opt/flower/backup /var/lib/flower /root /tmp || true")
    assert found == ""
    decrypt = "openssl cms -decrypt -binary -inform DER -in /run/state.cms"
    newest = "$(ls /var/lib/flower/backups/*.backup | tail -1)"
    unpack = f"trap 'rm /run/state.cms' EXIT; tar -xf {newest} -O state.cms >/run/state.cms; test -s /run/state.cms"
    for name in ("superlink", "gateway"):
        recipient = f"-recip /etc/flower/{name}/server.crt -inkey /etc/flower/{name}/server.key"
        opened = recovery.on("coordinator", f"{unpack} && {decrypt} {recipient} 2>/dev/null | head -c 4 | wc -c")
        assert opened == "0"


def test_what_makes_backups_reads_the_state_and_can_do_nothing_else(recovery: Federation) -> None:
    override = "/run/systemd/system/flower-backup.service.d/attempts.conf"
    program = "/opt/flower/backup/attempts.py"
    recovery.on("coordinator", f"cat >{program} <<'EOF'\n{ATTEMPTS}\nEOF\nmkdir -p {Path(override).parent}")
    lines = f"[Service]\\nExecStart=\\nExecStart=/usr/bin/python3 -I {program}\\nSyslogIdentifier=attempts\\n"
    recovery.on("coordinator", f"printf '{lines}' >{override}; systemctl daemon-reload")
    try:
        recovery.on("coordinator", "systemctl start flower-backup.service")
        came = json.loads(recovery.on("coordinator", "journalctl --sync; journalctl -t attempts -o cat -n 1"))
    finally:
        recovery.on("coordinator", f"rm -r {Path(override).parent} {program}; systemctl daemon-reload")
    assert came.pop("user")
    assert came.pop("read the database") == "done"
    assert "done" not in came.values()


def test_a_failure_is_told_here_and_left_on_the_coordinator(recovery: Federation) -> None:
    recovery.on("coordinator", "mv /etc/flower/backup/backup.crt /etc/flower/backup/backup.away")
    try:
        code, said = recovery.refused("backup", recovery.path)
        assert code == 1
        assert "coordinator made no backup" in said
        last = json.loads(recovery.on("coordinator", f"cat {LAST}"))
        assert not last["ok"]
        assert 0 < last["succeeded_at"] <= last["finished_at"]
    finally:
        recovery.on("coordinator", "mv /etc/flower/backup/backup.away /etc/flower/backup/backup.crt")


# What cannot be restored is refused before anything changes


@pytest.fixture(scope="module")
def backup(recovery: Federation) -> Path:
    return recovery.backup()


@pytest.fixture
def untouched(recovery: Federation) -> object:
    """The coordinator's services go on as they were."""
    units = ("flower-superlink", "flower-gateway")
    before = [recovery.started("coordinator", unit) for unit in units]
    yield
    assert [recovery.started("coordinator", unit) for unit in units] == before


@pytest.mark.usefixtures("untouched")
def test_the_wrong_passphrase_is_refused(recovery: Federation, backup: Path) -> None:
    words = ("restore", recovery.path, "--from", str(backup), "--overwrite")
    code, said = recovery.refused(*words, passphrase="wrong horse battery")  # noqa: S106 - it opens nothing
    assert code == 2
    assert "the passphrase does not open" in said


@pytest.mark.usefixtures("untouched")
def test_a_damaged_backup_is_refused(recovery: Federation, backup: Path, tmp_path: Path) -> None:
    damaged = Path(shutil.copy(backup, tmp_path))
    content = bytearray(damaged.read_bytes())
    content[len(content) // 3] ^= 1
    damaged.write_bytes(content)
    code, said = recovery.refused("restore", recovery.path, "--from", str(damaged), "--overwrite")
    assert code == 2
    assert "is damaged" in said


@pytest.mark.usefixtures("untouched")
def test_another_federations_backup_is_refused(recovery: Federation, backup: Path, tmp_path: Path) -> None:
    other = make_folder(tmp_path / "other")
    shutil.copy(recovery.federation.hosts_file, other.hosts_file)
    shutil.copy(recovery.federation.known_hosts, other.known_hosts)
    pki.keep_recipient(other.backup_key.parent, os.environ.get("FLOWERBED_CA_PASSPHRASE", "correct horse battery"))
    assert FederationFolder(other.path).backup_key.exists()
    code, said = recovery.refused("restore", str(other.path), "--from", str(backup), "--overwrite")
    assert code == 2
    assert "is a backup of backup-test" in said


@pytest.mark.usefixtures("untouched")
def test_a_coordinator_with_newer_state_is_not_overwritten_unasked(recovery: Federation, backup: Path) -> None:
    code, said = recovery.refused("restore", recovery.path, "--from", str(backup))
    assert code == 1
    assert "newer state" in said
    assert "--overwrite" in said
