"""What a coordinator tells Prometheus is what its SuperLink, notes and certificates say, and nothing breaks it."""

import json
import os
import sqlite3
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.ansible.support import pki
from tests.host_programs import host_program

exporter = host_program("monitoring", "exporter")
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC).timestamp()
HOUR = 3600
SCHEMA = """
CREATE TABLE node (node_id, status, registered_at, last_activated_at, last_deactivated_at, online_until);
CREATE TABLE run (run_id, fab_id, primary_task_id);
CREATE TABLE task (task_id, pending_at, starting_at, running_at, finished_at, sub_status);
"""


def iso(ago: float) -> str:
    return datetime.fromtimestamp(NOW - ago, UTC).isoformat(sep=" ")


class Coordinator:
    """/var/lib/flower and /etc/flower of one, with a database of Flower's shape."""

    def __init__(self, folder: Path) -> None:
        self.root, self.configuration = folder / "lib", folder / "etc"
        self.configuration.mkdir()
        (self.root / "superlink").mkdir(parents=True)
        self.database = sqlite3.connect(self.root / "superlink" / "superlink.db")
        self.database.executescript(SCHEMA)
        self.record: dict[str, Any] = {}

    def site(self, name: str, node_id: int, *values: object) -> None:
        """A site; values: status, registered, activated, deactivated, online until."""
        signed = node_id - (1 << 64) if node_id >= 1 << 63 else node_id
        self.database.execute("INSERT INTO node VALUES (?, ?, ?, ?, ?, ?)", (signed, *values))
        self.record[name] = {"node_id": str(node_id)}

    def run(self, run_id: int, *times: object, sub_status: str = "") -> None:
        """A run; times: pending, starting, running, finished."""
        self.database.execute("INSERT INTO run VALUES (?, 'us/app', ?)", (run_id, run_id + 1))
        self.database.execute("INSERT INTO task VALUES (?, ?, ?, ?, ?, ?)", (run_id + 1, *times, sub_status))

    def notes(self, run_id: int) -> Path:
        """Where the notes of a run are."""
        file = self.root / "results" / ".flowerbed" / str(run_id) / "replies.jsonl"
        file.parent.mkdir(parents=True, exist_ok=True)
        return file

    def look(self, now: float = NOW) -> Any:
        """What the exporter finds."""
        self.database.commit()
        (self.root / "nodes.json").write_text(json.dumps(self.record))
        return exporter.collect(self.root, self.configuration, now, superlink=True)


@pytest.fixture
def coordinator(tmp_path: Path) -> Coordinator:
    return Coordinator(tmp_path)


def sent(message: str, number: int, at: float, node: str = "7") -> str:
    return json.dumps({"event": "sent", "message": message, "node": node, "round": number, "at": at, "taken": True})


def reply(to: str, at: float, node: str = "7", **more: object) -> str:
    return json.dumps({"event": "reply", "to": to, "node": node, "at": at, "created": at - 1} | more)


def test_a_site_is_online_as_long_as_its_heartbeats_say(coordinator: Coordinator) -> None:
    coordinator.site("here", 7, "online", iso(9 * HOUR), iso(HOUR), None, NOW + 20)
    coordinator.site("cut-off", (1 << 64) - 5, "online", iso(9 * HOUR), iso(2 * HOUR), None, NOW - 100)
    coordinator.site("gone", 8, "offline", iso(9 * HOUR), iso(3 * HOUR), iso(HOUR), NOW - HOUR)
    coordinator.site("new", 9, "registered", iso(5), None, None, None)
    coordinator.record["stranger"] = {"node_id": "4711"}
    found = {site.name: (site.status, site.since and NOW - site.since) for site in coordinator.look().sites}
    assert found == {
        "here": ("online", HOUR),
        "cut-off": ("offline", 100),
        "gone": ("offline", HOUR),
        "new": ("registered", 5),
        "stranger": ("unregistered", 0),
    }


def test_runs_are_counted_by_how_they_stand(coordinator: Coordinator) -> None:
    coordinator.run(1, iso(900), iso(890), iso(880), iso(800), sub_status="completed")
    coordinator.run(2, iso(700), iso(690), iso(680), iso(600), sub_status="failed")
    coordinator.run(3, iso(500), iso(490), None, iso(400), sub_status="stopped")
    coordinator.run(4, iso(300), iso(290), iso(280), None)
    coordinator.run(5, iso(200), None, None, None)
    state = coordinator.look()
    assert state.counts == {"pending": 1, "starting": 0, "running": 1, "completed": 1, "failed": 1, "stopped": 1}
    assert {status: NOW - at for status, at in state.last.items()} == {"completed": 800, "failed": 600, "stopped": 400}
    assert [(run.run_id, run.status) for run in state.runs][:2] == [("5", "pending"), ("4", "running")]


def test_the_notes_of_a_run_tell_rounds_replies_and_who_trained(coordinator: Coordinator) -> None:
    coordinator.site("a", 7, "online", iso(HOUR), iso(HOUR), None, NOW + 20)
    coordinator.site("b", 8, "online", iso(HOUR), iso(HOUR), None, NOW + 20)
    coordinator.run(1, iso(300), iso(290), iso(280), None)
    began = NOW - 200
    lines = [
        *(sent("1", 1, began), sent("2", 1, began, "8"), reply("1", began + 20), reply("2", began + 30, "8")),
        reply("2", began + 99, "8"),  # a second time: the first counts
        *(sent("3", 2, began + 40), sent("4", 2, began + 40, "8"), reply("3", began + 50)),
        *(reply("4", began + 60, "8", error={"code": 1}), sent("5", 3, began + 70)),
    ]
    coordinator.notes(1).write_text("\n".join(lines) + "\n")
    state = coordinator.look()
    (run,) = state.runs
    assert (run.rounds, run.asked, run.replied, run.failed, run.round_seconds) == (3, 5, 4, 1, 20)
    assert {site.name: site.last_reply for site in state.sites} == {"a": began + 50, "b": began + 30}


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "7", "\x00\xff", '{"event": "sent", "at": NaN, "round": "x"}', "[" * 100_000, '{"at": 1e999}'],
)
def test_notes_that_make_no_sense_are_no_notes(coordinator: Coordinator, text: str) -> None:
    coordinator.run(1, iso(300), iso(290), iso(280), None)
    coordinator.notes(1).write_text(f"{text}\n{sent('1', 1, NOW)}\n", encoding="latin-1")
    assert coordinator.look().runs[0].asked == 1


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_an_app_put_in_the_place_of_its_notes_is_not_read(
    coordinator: Coordinator, kind: str, tmp_path: Path
) -> None:
    coordinator.run(1, iso(300), iso(290), iso(280), None)
    file = coordinator.notes(1)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_text(sent("1", 1, NOW) + "\n")
    make = {"link": lambda: file.symlink_to(elsewhere), "pipe": lambda: os.mkfifo(file), "folder": file.mkdir}
    make[kind]()
    assert coordinator.look().runs[0].asked == 0


def test_when_a_site_last_trained_outlives_the_runs_notes(coordinator: Coordinator) -> None:
    coordinator.site("a", 7, "online", iso(HOUR), iso(HOUR), None, NOW + 20)
    state = coordinator.look()
    exporter.keep_last_replies(state, {"sites": [{"node_id": "7", "last_reply": NOW - 50, "clock_ahead": -2.0}]})
    assert (state.sites[0].last_reply, state.sites[0].clock_ahead) == (NOW - 50, -2.0)


def test_a_database_that_cannot_be_read_is_told_and_the_rest_is_there(coordinator: Coordinator) -> None:
    (coordinator.root / "superlink" / "superlink.db").write_bytes(b"no database, but something else" * 100)
    state = coordinator.look()
    assert "superlink.db: file is not a database" in state.problem
    assert "flowerbed_read_success 0.0" in exporter.metrics(state)


def test_a_writer_is_read_beside_and_not_disturbed(coordinator: Coordinator) -> None:
    coordinator.database.execute("PRAGMA journal_mode=WAL")
    coordinator.run(1, iso(300), None, None, None)
    coordinator.database.commit()
    coordinator.database.execute("BEGIN IMMEDIATE")
    coordinator.database.execute("DELETE FROM run")
    (coordinator.root / "nodes.json").write_text("{}")
    state = exporter.collect(coordinator.root, coordinator.configuration, NOW, superlink=True)
    assert (state.problem, len(state.runs)) == ("", 1)


def test_certificates_end_when_openssl_says(coordinator: Coordinator) -> None:
    made = datetime.fromtimestamp(NOW, UTC) - timedelta(days=10)
    both = [pki.make_authority("CA", pki.permitted(["localhost"], []), days, made) for days in (3650, 40)]
    (coordinator.configuration / "ca.crt").write_text("".join(pki.to_pem(one.certificate) for one in both))
    (coordinator.configuration / "broken.crt").write_text(
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    )
    state = coordinator.look()
    assert [round((one.end - NOW) / 86400) for one in state.certificates] == [3640, 30]
    ends = [line for line in exporter.metrics(state).splitlines() if line.startswith("flowerbed_certificate")]
    assert len(ends) == 1 and float(ends[0].split()[-1]) == state.certificates[1].end


def test_backup_and_probe_are_told_where_there_are_any(coordinator: Coordinator) -> None:
    coordinator.site("a", 7, "online", iso(HOUR), iso(HOUR), None, NOW + 20)
    text = exporter.metrics(coordinator.look())
    assert "backup" not in text and "probe" not in text
    (coordinator.root / "backups").mkdir()
    (coordinator.root / "backups" / "last.json").write_text(
        json.dumps({"finished_at": NOW - 60, "ok": False, "error": "x"})
    )
    (coordinator.root / "probes.json").write_text(json.dumps({"a": {"at": "2026-11-26T11:00:00Z", "ok": True}}))
    text = exporter.metrics(coordinator.look())
    assert "flowerbed_backup_success 0.0" in text
    assert 'flowerbed_site_probe_success{site="a"} 1.0' in text
    assert f'flowerbed_site_probe_timestamp_seconds{{site="a"}} {NOW - HOUR}' in text


def test_a_name_cannot_forge_a_metric(coordinator: Coordinator) -> None:
    coordinator.site('a"} 1\nflowerbed_backup_success{x="\\', 7, "online", iso(HOUR), iso(HOUR), None, NOW + 20)
    lines = exporter.metrics(coordinator.look()).splitlines()
    assert not [line for line in lines if line.startswith("flowerbed_backup")]
    assert r'flowerbed_site_online{site="a\"} 1\nflowerbed_backup_success{x=\"\\"} 1.0' in lines
