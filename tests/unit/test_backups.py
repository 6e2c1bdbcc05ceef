"""A backup is whole, is the operator's alone to open, and a restore is all or nothing."""

import hashlib
import importlib.util
import json
import os
import sqlite3
import subprocess
import tarfile
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from flowerbed import backups
from flowerbed.errors import EnvironmentLacks, UsageError
from flowerbed.federation import FederationFolder
from flowerbed.paths import ANSIBLE
from tests.ansible.support import pki

from ansible_collections.flowerbed.federation.plugins.modules import coordinator_state  # isort: skip

PASSPHRASE = "correct horse battery"
NODE = 17222333444555666777  # above 2^63, as Flower's are
DAY = 86400
DATABASE = "var/lib/flower/superlink/superlink.db"


@pytest.fixture(scope="module")
def program() -> ModuleType:
    """The program that the coordinator runs."""
    path = ANSIBLE / "roles" / "backup" / "files" / "flower-backup"
    loader = SourceFileLoader("flower_backup", str(path))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.fixture
def coordinator(tmp_path: Path, program: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The disk of a coordinator whose database somebody has open and writes to."""
    monkeypatch.setattr(program, "journal", lambda: [])
    root = tmp_path / "disk"
    folder = root / "var/lib/flower/superlink"
    folder.mkdir(parents=True)
    database = sqlite3.connect(folder / "superlink.db")
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("CREATE TABLE node (node_id INTEGER, status TEXT)")
    database.execute("CREATE TABLE run (run_id INTEGER, primary_task_id INTEGER)")
    database.execute("CREATE TABLE task (task_id INTEGER, finished_at TEXT)")
    database.execute("INSERT INTO node VALUES (?, 'online')", (NODE - (1 << 64),))
    database.executemany("INSERT INTO run VALUES (?, ?)", [(7, 1), (8, 2)])
    database.executemany("INSERT INTO task VALUES (?, ?)", [(1, "2026-11-26"), (2, None)])
    database.commit()
    record = {"hospital-a": {"node_id": str(NODE), "public_key": "ecdsa", "registered_at": "", "others": []}}
    (root / "var/lib/flower/nodes.json").write_text(json.dumps(record))
    key = root / "etc/flower/superlink/server.key"
    key.parent.mkdir(parents=True)
    key.write_text("a key")
    key.chmod(0o600)
    for run, age in ((7, 1), (8, 30)):
        result = root / f"var/lib/flower/results/{run}/model.npz"
        result.parent.mkdir(parents=True)
        result.write_text(f"model {run}")
        os.utime(result, (time.time() - age * DAY,) * 2)
    yield root
    database.close()


@pytest.fixture
def federation(tmp_path: Path) -> FederationFolder:
    """The operator's folder, with the key that opens backups."""
    return make_federation(tmp_path / "north")


def remove(database: Path) -> None:
    """The database is gone, with what belongs to it."""
    for side in ("", "-wal", "-shm"):
        Path(f"{database}{side}").unlink(missing_ok=True)


def make_federation(path: Path) -> FederationFolder:
    folder = FederationFolder(path)
    pki.keep_recipient(folder.backup_key.parent, PASSPHRASE)
    folder.ca_passphrase_file.write_text(PASSPHRASE)
    return folder


@pytest.fixture
def settings(tmp_path: Path, federation: FederationFolder) -> dict[str, Any]:
    path = tmp_path / "backups"
    path.mkdir()
    return {
        "federation": federation.name,
        "path": str(path),
        "certificate": str(federation.backup_key.with_suffix(".crt")),
        "keep": 2,
        "keep_daily": 0,
        "keep_weekly": 0,
        "megabytes": 100,
        "results_days": 7,
    }


def make(program: ModuleType, settings: dict[str, Any], root: Path) -> Path:
    """A backup that must succeed."""
    said = program.run(settings, root, Path(settings["path"]) / "last.json")
    assert said["ok"], said["error"]
    return Path(said["file"])


@pytest.fixture
def backup(program: ModuleType, settings: dict[str, Any], coordinator: Path) -> Path:
    return make(program, settings, coordinator)


# What a backup holds


def test_the_operator_opens_it_and_finds_database_record_keys_and_young_results(
    backup: Path, federation: FederationFolder
) -> None:
    with backups.opened(federation, backup) as opened:
        assert opened.files == [
            "/etc/flower/superlink/server.key",
            "/var/lib/flower/audit.json",
            "/var/lib/flower/nodes.json",
            "/var/lib/flower/results/7/model.npz",
            "/var/lib/flower/superlink/superlink.db",
        ]
        assert (opened.runs, opened.runs_under_way) == (2, ["8"])


def test_nothing_of_it_can_be_read_without_the_key(backup: Path) -> None:
    content = backup.read_bytes()
    assert b"a key" not in content
    assert b"SQLite" not in content
    assert b"model 7" not in content


def test_openssl_alone_opens_it_for_who_has_the_key(backup: Path, federation: FederationFolder, tmp_path: Path) -> None:
    with tarfile.open(backup) as tar:
        tar.extract("state.cms", tmp_path, filter="data")
    command = ["openssl", "cms", "-decrypt", "-binary", "-inform", "DER", "-in", str(tmp_path / "state.cms")]
    command += ["-inkey", str(federation.backup_key), "-passin", f"pass:{PASSPHRASE}"]
    command += ["-recip", str(federation.backup_key.with_suffix(".crt"))]
    done = subprocess.run(command, capture_output=True, check=True)
    assert subprocess.run(["tar", "-tz"], input=done.stdout, capture_output=True, check=True).stdout.startswith(
        b"manifest.json\nfiles/var/lib/flower/superlink/superlink.db\n"
    )


def test_a_backup_is_made_of_a_database_that_nobody_has_open(
    program: ModuleType, settings: dict[str, Any], coordinator: Path
) -> None:
    database = coordinator / DATABASE
    program.copy_database(database, database.with_name("copy.db"))
    remove(database)
    database.with_name("copy.db").rename(database)
    closed = sqlite3.connect(database)
    closed.execute("PRAGMA journal_mode = WAL")
    closed.close()
    # A folder that cannot be written keeps SQLite from making the log that it would read.
    assert [file.name for file in database.parent.iterdir()] == [database.name]
    make(program, settings, coordinator)


def test_what_the_backup_came_to_is_left_for_who_watches_after_a_failure_too(
    program: ModuleType, settings: dict[str, Any], coordinator: Path
) -> None:
    last = Path(settings["path"]) / "last.json"
    file = make(program, settings, coordinator)
    good = json.loads(last.read_text())
    assert (good["file"], good["bytes"], good["error"]) == (str(file), file.stat().st_size, "")
    remove(coordinator / DATABASE)
    (coordinator / DATABASE).write_bytes(b"damaged" * 1000)
    program.run(settings, coordinator, last)
    bad = json.loads(last.read_text())
    assert (bad["ok"], bad["succeeded_at"]) == (False, good["finished_at"])
    assert "not a database" in bad["error"]
    assert list(Path(settings["path"]).glob("*.backup")) == [file]


def test_while_a_restore_is_half_done_no_backup_is_made(
    program: ModuleType, settings: dict[str, Any], coordinator: Path
) -> None:
    (coordinator / "var/lib/flower/restoring").touch()
    said = program.run(settings, coordinator, Path(settings["path"]) / "last.json")
    assert "a restore was interrupted" in said["error"]


def test_little_room_is_said_before_the_disk_is_full(
    program: ModuleType, settings: dict[str, Any], coordinator: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(program.shutil, "disk_usage", lambda place: SimpleNamespace(free=9))
    said = program.run(settings, coordinator, Path(settings["path"]) / "last.json")
    assert "make room" in said["error"]


def test_the_audit_trail_is_what_trusted_users_wrote_and_what_came_back_from_an_earlier_coordinator(
    program: ModuleType, coordinator: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def line(time: int, uid: str, message: str) -> str:
        entry = {"__REALTIME_TIMESTAMP": str(time), "_UID": uid, "MESSAGE": message, "FLOWERBED_SITE": "a"}
        return json.dumps({**entry, "FLOWERBED_EVENT": "site.joined"})

    def entry(time: int, message: str) -> dict[str, Any]:
        fields = {"site": "a"}
        return {"microseconds": time, "event": "site.joined", "message": message, "fields": fields, "user": "root"}

    monkeypatch.setattr(
        program, "journal", lambda: [line(30, "0", "late"), line(20, "0", "now"), line(21, "65534", "x")]
    )
    earlier = [entry(10, "before"), entry(20, "now")]
    (coordinator / "var/lib/flower/audit.json").write_text(json.dumps(earlier))
    assert program.trail(coordinator) == [*earlier, entry(30, "late")]


# What is kept


def kept(program: ModuleType, hours: list[int], **settings: int) -> list[int]:
    """The ages of the backups that stay, of those that are so many hours old, each of one megabyte."""
    now = 2000 * 7 * DAY - 1.0
    made = {Path(f"/{age}"): now - age * 3600 for age in hours}
    wanted = {"keep": 1, "keep_daily": 0, "keep_weekly": 0, "megabytes": 1000, **settings}
    return sorted(int(file.name) for file in program.kept(made, wanted, dict.fromkeys(made, 1 << 20)))


def test_the_latest_and_the_last_of_each_day_and_week_stay(program: ModuleType) -> None:
    hours = [*range(0, 72, 6), 200, 400]
    assert kept(program, hours, keep=3) == [0, 6, 12]
    assert kept(program, hours, keep=1, keep_daily=2) == [0, 24]
    assert kept(program, hours, keep=1, keep_weekly=3) == [0, 200, 400]


def test_the_oldest_go_where_the_disk_has_a_limit_and_the_newest_stays(program: ModuleType) -> None:
    assert kept(program, [1, 2, 3, 4], keep=4, megabytes=2) == [1, 2]
    assert kept(program, [1, 2], keep=4, megabytes=0) == [1]


def test_old_ones_go_and_so_does_what_an_interruption_left(
    program: ModuleType, settings: dict[str, Any], coordinator: Path
) -> None:
    left = Path(settings["path"]) / ".north-1.backup"
    left.touch()
    made = []
    for age in (30, 20, 10):
        file = make(program, settings, coordinator)
        made.append(file.rename(file.with_stem(f"north-{age}")))
        os.utime(made[-1], (time.time() - age,) * 2)
    program.rotate(settings)
    assert sorted(Path(settings["path"]).glob("*.backup")) == sorted(made[1:])
    assert not left.exists()


# What is refused


def test_the_wrong_passphrase_is_refused_in_one_line(backup: Path, federation: FederationFolder) -> None:
    federation.ca_passphrase_file.write_text("wrong horse battery")
    with (
        pytest.raises(UsageError, match=r"the passphrase does not open .*backup\.key"),
        backups.opened(federation, backup),
    ):
        pass


def test_another_federations_backup_is_refused(backup: Path, tmp_path: Path) -> None:
    with (
        pytest.raises(UsageError, match="is a backup of north, which"),
        backups.opened(make_federation(tmp_path / "south"), backup),
    ):
        pass


def test_without_the_key_it_says_what_is_missing(backup: Path, federation: FederationFolder) -> None:
    federation.backup_key.unlink()
    with pytest.raises(EnvironmentLacks, match=r"backup\.key is missing"), backups.opened(federation, backup):
        pass


@pytest.mark.parametrize("where", [0.0, 0.5, 0.99])
def test_a_damaged_file_is_refused(backup: Path, federation: FederationFolder, where: float) -> None:
    with tarfile.open(backup) as tar:
        payload = tar.getmember("state.cms")
    content = bytearray(backup.read_bytes())
    place = payload.offset_data + int(payload.size * where)
    content[place] ^= 1
    backup.write_bytes(content)
    with pytest.raises(UsageError, match=r"is damaged|does not open"), backups.opened(federation, backup):
        pass


def test_a_file_that_was_cut_off_is_refused(backup: Path, federation: FederationFolder) -> None:
    with tarfile.open(backup) as tar:
        payload = tar.getmember("state.cms")
    for size in (payload.offset_data + payload.size - 1, payload.offset_data, 100, 0):
        os.truncate(backup, size)
        with pytest.raises(UsageError, match="is damaged"), backups.opened(federation, backup):
            pass


def test_a_payload_with_a_hash_that_somebody_adapted_is_refused_by_the_encryption(
    backup: Path, federation: FederationFolder, tmp_path: Path
) -> None:
    with tarfile.open(backup) as tar:
        tar.extractall(tmp_path / "inside", filter="data")
    payload, manifest = tmp_path / "inside" / "state.cms", tmp_path / "inside" / "manifest.json"
    content = bytearray(payload.read_bytes())
    content[len(content) // 2] ^= 1
    payload.write_bytes(content)
    said = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**said, "sha256": hashlib.sha256(content).hexdigest()}))
    with tarfile.open(backup, "w:") as tar:
        tar.add(manifest, "manifest.json")
        tar.add(payload, "state.cms")
    with pytest.raises(UsageError, match="is damaged"), backups.opened(federation, backup):
        pass


def test_a_newer_flowers_backup_is_refused_where_the_release_is_older(backup: Path) -> None:
    made = replace(backups.read(backup), release="1.41.0-f2ec610341")
    backups.refuse_older_flower(made, "1.41.0")
    backups.refuse_older_flower(made, "1.100.0")
    with pytest.raises(UsageError, match=r"was made with Flower 1\.41\.0, whose database Flower 1\.40\.0 may not read"):
        backups.refuse_older_flower(made, "1.40.0")


# How the state comes back


@pytest.fixture
def archive(backup: Path, federation: FederationFolder, tmp_path: Path) -> Path:
    """The opened backup, as it is sent to the coordinator."""
    with backups.opened(federation, backup) as opened:
        return opened.archive.rename(tmp_path / "state.tar.gz")


def test_an_empty_disk_gets_everything_back(archive: Path, tmp_path: Path) -> None:
    state = coordinator_state.State(tmp_path / "new")
    state.bring_back(archive, "one")
    database = sqlite3.connect(state.database)
    assert database.execute("SELECT node_id FROM node").fetchall() == [(NODE - (1 << 64),)]
    key = tmp_path / "new/etc/flower/superlink/server.key"
    assert (key.read_text(), key.stat().st_mode & 0o777) == ("a key", 0o600)
    assert state.has("one")
    assert not state.has("two")


def test_wherever_it_is_interrupted_the_same_call_completes_it_and_until_then_it_is_marked(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    replaced = Path.replace
    # As many replacements as a whole call makes, one more each time before the power fails.
    for survived in range(12):
        state = coordinator_state.State(tmp_path / f"disk-{survived}")
        state.database.parent.mkdir(parents=True)
        old = sqlite3.connect(state.database)
        old.execute("CREATE TABLE before (one)")
        old.commit()
        old.close()
        count = iter(range(100))

        def replace(self: Path, target: Any, count: Any = count, survived: int = survived) -> Path:
            if next(count) >= survived:
                raise KeyboardInterrupt
            return replaced(self, target)

        monkeypatch.setattr(Path, "replace", replace)
        try:
            state.bring_back(archive, "one")
            assert survived > 5
        except KeyboardInterrupt:
            assert state.marker.exists() or survived == 0
            assert not state.has("one")
        monkeypatch.setattr(Path, "replace", replaced)
        if not state.has("one"):
            state.bring_back(archive, "one")
        tables = "SELECT name FROM sqlite_master WHERE type = 'table'"
        assert ("node",) in sqlite3.connect(state.database).execute(tables).fetchall()
        assert sqlite3.connect(f"{state.database}.replaced").execute(tables).fetchall() == [("before",)]
        assert not state.marker.exists()


def test_newer_state_is_noticed_also_where_it_is_in_the_log_beside_the_database_alone(tmp_path: Path) -> None:
    state = coordinator_state.State(tmp_path)
    assert state.newer_than(1000) == ""
    state.database.parent.mkdir(parents=True)
    state.database.touch()
    os.utime(state.database, (900, 900))
    assert state.newer_than(1000) == ""
    Path(f"{state.database}-wal").touch()
    assert state.newer_than(1000) != ""


def test_a_file_that_is_no_state_of_flowers_is_refused(tmp_path: Path) -> None:
    archive = tmp_path / "state.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        manifest = tmp_path / "manifest.json"
        manifest.write_text(
            json.dumps({"files": {"/etc/flower/../shadow": {"sha256": "", "owner": "root", "mode": "0600"}}})
        )
        tar.add(manifest, "manifest.json")
    with pytest.raises(coordinator_state.StateError, match="which is no state of Flower's"):
        coordinator_state.State(tmp_path / "new").bring_back(archive, "one")
    assert not (tmp_path / "new").exists()


# The operator's key


def test_a_key_whose_certificate_was_not_written_any_more_gets_one_that_opens_older_backups(
    backup: Path, federation: FederationFolder
) -> None:
    certificate = federation.backup_key.with_suffix(".crt")
    before = pki.read_certificate(certificate.read_bytes(), "").public_key()
    certificate.unlink()
    made, changed = pki.keep_recipient(federation.backup_key.parent, PASSPHRASE)
    assert changed
    assert made is not None
    assert made.public_key() == before


def test_a_passphrase_that_does_not_open_the_key_is_noticed_before_a_backup_needs_it(
    federation: FederationFolder,
) -> None:
    with pytest.raises(pki.PkiError, match="the passphrase does not open"):
        pki.keep_recipient(federation.backup_key.parent, "wrong horse battery")
