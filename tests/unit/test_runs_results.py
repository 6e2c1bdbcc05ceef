"""A run's folder holds everything about it, never overwrites another, and is there whole or not at all."""

import csv
import json
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from test_runs_follow import read

from flowerbed.errors import WorkFailed
from flowerbed.runs import results
from flowerbed.runs.connection import Deployed
from flowerbed.runs.flwr import RunInfo
from flowerbed.runs.follow import Phase, Round
from flowerbed.runs.verdict import Verdict

DEPLOYED = Deployed("lab", {"hospital-a": "17", "hospital-b": "18"}, release="r1")
DONE = Verdict("completed", "2 rounds, all 8 replies", 0)
RUN = RunInfo(
    run_id="4711",
    app="flowerbed/tiny",
    version="1.2.3",
    fab_hash="ab" * 32,
    status="finished:completed",
    details="",
    submitted=datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC),
    started=datetime(2026, 2, 3, 4, 5, 10, tzinfo=UTC),
    finished=datetime(2026, 2, 3, 4, 6, 6, tzinfo=UTC),
    received_bytes=10,
    sent_bytes=20,
    client_seconds=1.5,
)
SUBMISSION = results.Submission(
    "4711",
    "git+https://example.org/apps@abc",
    {"rounds": 2, "rate": 0.5},
    {"rounds": 2},
    "r1",
    "1.41.0",
    dict(DEPLOYED.sites),
)


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()


def files(**content: str) -> Callable[[Path], None]:
    def fetch(into: Path) -> None:
        for name, text in content.items():
            (into / f"{name}.json").write_text(text)

    return fetch


def write(into: Path, run: RunInfo = RUN, **more: Any) -> tuple[Path, Verdict]:
    options: dict[str, Any] = {"deployed": DEPLOYED, "submission": SUBMISSION, "fetch": files()}
    rounds = more.pop("rounds", read("success")[0].rounds)
    folder = results.write(into, run, DONE, rounds, ["one", "two"], **(options | more))
    return folder, results.verdict_of(folder)


def test_the_folder_is_named_after_the_time_of_submission(tmp_path: Path) -> None:
    folder, verdict = write(tmp_path)
    assert (folder, verdict) == (tmp_path / "2026-02-03" / "04-05-06", DONE)
    assert sorted(entry.name for entry in folder.iterdir()) == [
        "files",
        "log.txt",
        "metrics.csv",
        "metrics.json",
        "report.html",
        "run.json",
    ]
    assert sorted(entry.name for entry in folder.parent.iterdir()) == ["04-05-06"]
    assert (folder / "log.txt").read_text() == "one\ntwo\n"


def test_the_record_tells_how_the_results_came_about(tmp_path: Path) -> None:
    folder, _ = write(tmp_path)
    record = results.read(folder)
    expected = {
        "run_id": "4711",
        "status": "completed",
        "app": {"name": "tiny", "publisher": "flowerbed", "version": "1.2.3", "fab_hash": "ab" * 32},
        "config": {"rounds": 2, "rate": 0.5},
        "overrides": {"rounds": 2},
        "federation": "lab",
        "sites": {"hospital-a": "17", "hospital-b": "18"},
        "release": "r1",
        "flower": "1.41.0",
        "submitted": "2026-02-03T04:05:06+00:00",
        "seconds": 60.0,
    }
    assert {key: record[key] for key in expected} == expected
    assert [each["round"] for each in record["rounds"]] == [0, 1, 2]
    assert record["rounds"][1]["train"]["seconds"] == 1.0


def test_a_second_run_of_the_same_second_gets_a_folder_of_its_own(tmp_path: Path) -> None:
    folders = [write(tmp_path, replace(RUN, run_id=str(number)))[0].name for number in (1, 2, 3)]
    assert folders == ["04-05-06", "04-05-06-2", "04-05-06-3"]


def test_latest_points_to_the_newest(tmp_path: Path) -> None:
    write(tmp_path)
    later, _ = write(tmp_path, replace(RUN, run_id="5", submitted=datetime(2026, 2, 4, tzinfo=UTC)))
    assert (tmp_path / "latest").resolve() == later
    assert not (tmp_path / "latest").readlink().is_absolute()


def test_metrics_are_a_table_per_round_phase_and_site(tmp_path: Path) -> None:
    sites = (
        '{"rounds": [{"round": 2, "sites": {"17": {"accuracy": 0.9, "num-examples": 10}, "18": {"accuracy": 0.8}}}]}'
    )
    folder, _ = write(tmp_path, fetch=files(metrics=sites))
    rows = list(csv.reader((folder / "metrics.csv").open()))
    assert rows[0] == ["round", "phase", "site", "metric", "value"]
    assert ["0", "server", "", "size", "0.0"] in rows
    assert ["1", "train", "", "loss", "0.38095238095238093"] in rows
    assert ["2", "evaluate", "hospital-a", "accuracy", "0.9"] in rows
    assert ["2", "evaluate", "hospital-b", "accuracy", "0.8"] in rows
    document = json.loads((folder / "metrics.json").read_text())
    assert document["rounds"][2]["sites"]["evaluate"]["hospital-a"] == {"accuracy": 0.9, "num-examples": 10}
    assert document["rounds"][2]["train"] == {"loss": 0.6666666666666667}


def test_an_app_may_tell_sites_by_phase_and_rounds_that_it_did_not_log(tmp_path: Path) -> None:
    sites = '{"rounds": [{"round": 1, "phase": "train", "sites": {"17": {"loss": 0.1}}}]}'
    folder, _ = write(tmp_path, rounds=[], fetch=files(metrics=sites))
    assert ["1", "train", "hospital-a", "loss", "0.1"] in list(csv.reader((folder / "metrics.csv").open()))


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"rounds": 1}', '{"rounds": [{"sites": {"17": 1}}]}', '{"accuracy": 0.5}']
)
def test_a_metrics_file_of_another_form_is_the_apps_own_affair(tmp_path: Path, text: str) -> None:
    folder, verdict = write(tmp_path, fetch=files(metrics=text))
    assert verdict == DONE
    assert (folder / "files" / "metrics.json").read_text() == text


def test_what_is_no_number_in_json_is_null_there_and_itself_in_the_table(tmp_path: Path) -> None:
    rounds = [
        Round(1, train=Phase("train", results=1, failures=0, metrics={"loss": float("nan"), "parts": [1.0, 2.0]}))
    ]
    folder, _ = write(tmp_path, rounds=rounds)
    assert json.loads((folder / "metrics.json").read_text())["rounds"][0]["train"] == {
        "loss": None,
        "parts": [1.0, 2.0],
    }
    rows = list(csv.reader((folder / "metrics.csv").open()))
    assert ["1", "train", "", "loss", "nan"] in rows and ["1", "train", "", "parts", "[1.0, 2.0]"] in rows


def test_files_that_cannot_be_fetched_cost_the_verdict_and_nothing_else(tmp_path: Path) -> None:
    def broken(into: Path) -> None:
        raise WorkFailed("cannot fetch /results: connection lost")

    folder, verdict = write(tmp_path, fetch=broken)
    assert (verdict.status, verdict.exit_code) == ("incomplete", 1)
    assert results.read(folder)["files_error"] == "cannot fetch /results: connection lost"
    assert (folder / "metrics.csv").exists()
    assert results.find(tmp_path, RUN.run_id) is None, "a later call tries again"


def test_a_failure_on_the_way_leaves_no_half_folder(tmp_path: Path) -> None:
    def crash(into: Path) -> None:
        (into / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, fetch=crash)
    assert list((tmp_path / "2026-02-03").iterdir()) == []
    assert not (tmp_path / "latest").exists()


def test_a_run_that_is_home_is_found_again(tmp_path: Path) -> None:
    write(tmp_path, replace(RUN, run_id="1"))
    folder, _ = write(tmp_path)
    assert results.find(tmp_path, RUN.run_id) == folder
    assert results.find(tmp_path, "2") is None
    assert (results.verdict_of(folder), results.log_of(folder)) == (DONE, ["one", "two"])


def test_what_only_the_submitter_knows_is_kept_until_the_run_is_home(tmp_path: Path) -> None:
    results.remember(tmp_path, SUBMISSION)
    assert results.recall(tmp_path, "4711") == SUBMISSION
    write(tmp_path)
    assert results.recall(tmp_path, "4711") is None


def test_a_run_that_was_submitted_elsewhere_comes_home_without_its_config(tmp_path: Path) -> None:
    folder, _ = write(tmp_path, submission=results.recall(tmp_path, "4711"))
    assert results.read(folder)["config"] is None


def test_the_folder_is_readable_for_others(tmp_path: Path) -> None:
    folder, _ = write(tmp_path)
    assert oct(folder.stat().st_mode & 0o777) == "0o755"
