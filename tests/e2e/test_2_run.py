"""A run on the deployed hospitals: right, recorded, and driven by either command line."""

import csv
import hashlib
import importlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import EXAMPLE, SITES, Standing

APPS = Path(__file__).parents[1] / "apps"


@pytest.fixture(scope="module")
def run(standing: Standing) -> dict[str, Any]:
    """One run of the example over three rounds."""
    return standing.run_example()


@pytest.fixture(scope="module")
def folder(standing: Standing, run: dict[str, Any]) -> Path:
    """Where the run came home."""
    return standing.work / run["folder"]


def test_every_expected_reply_of_every_round_came(run: dict[str, Any]) -> None:
    assert run["status"] == "completed"
    assert [entry["round"] for entry in run["rounds"]] == [1, 2, 3]
    for entry in run["rounds"]:
        for phase in ("train", "evaluate"):
            assert (entry[phase]["sampled"], entry[phase]["results"], entry[phase]["failures"]) == (3, 3, 0)


def test_the_federated_model_is_as_accurate_as_one_trained_centrally(
    standing: Standing, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(EXAMPLE)
    rounds = json.loads((folder / "files" / "metrics.json").read_text())["rounds"]
    folders = [standing.federation.data / site for site in SITES]
    _, centrally = importlib.import_module("central").train_centrally(folders)
    assert rounds[-1]["metrics"]["accuracy"] >= 0.95
    assert abs(rounds[-1]["metrics"]["accuracy"] - centrally) <= 0.02


def test_each_hospitals_own_accuracy_is_known_by_its_name(run: dict[str, Any]) -> None:
    sites = run["rounds"][-1]["sites"]["evaluate"]
    assert set(sites) == set(SITES)
    assert all(0.85 <= numbers["accuracy"] <= 1 for numbers in sites.values())


def test_what_each_hospital_replied_and_when_is_noted_on_the_coordinator(run: dict[str, Any], folder: Path) -> None:
    assert run["recorded"] and (folder / "replies.jsonl").is_file()
    for entry in run["rounds"]:
        for phase in ("train", "evaluate"):
            replies = entry[phase]["replies"]
            assert {site: one["outcome"] for site, one in replies.items()} == dict.fromkeys(SITES, "result")
            assert all(one["seconds"] > 0 for one in replies.values())
    assert run["timings"]["sites"].keys() == set(SITES)
    assert run["versions"]["python"].startswith("3.")
    assert run["labels"] == {site: {"region": "north"} for site in SITES}


def test_the_report_shows_every_hospital_and_round(folder: Path) -> None:
    text = (folder / "report.html").read_text()
    for site in SITES:
        for phase in ("train", "evaluate"):
            for number in (1, 2, 3):
                assert f"round {number} {phase}, {site}: replied after" in text


def test_log_metrics_and_the_serverapps_files_come_home(standing: Standing, run: dict[str, Any], folder: Path) -> None:
    assert "ROUND 3/3" in (folder / "log.txt").read_text()
    assert json.loads((folder / "run.json").read_text())["run_id"] == run["run_id"]
    with (folder / "metrics.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["round"] for row in rows} == {"1", "2", "3"}
    model = json.loads((folder / "files" / "model.json").read_text())
    assert len(model["features"]) == 30
    assert (standing.work / "runs" / "latest").resolve() == folder.resolve()


def test_the_run_is_listed(standing: Standing, run: dict[str, Any]) -> None:
    listed = {one["run_id"]: one["status"] for one in standing.succeed("runs", standing.path)["runs"]}
    assert listed[run["run_id"]] == "finished:completed"


def test_plain_flwr_works_against_the_federation(standing: Standing, run: dict[str, Any]) -> None:
    done = standing.flwr("list", "--run-id", run["run_id"], "--format", "json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["runs"][0]["status"] == "finished:completed"


def test_a_file_of_hundreds_of_megabytes_comes_home_whole(standing: Standing) -> None:
    options = ("-c", "num-server-rounds=0", "-c", "megabytes=300")
    run = standing.succeed("run", str(APPS / "tiny"), "--federation", standing.path, *options)
    files = standing.work / run["folder"] / "files"
    assert (files / "large.bin").stat().st_size == 300_000_000
    with (files / "large.bin").open("rb") as stream:
        assert hashlib.file_digest(stream, "sha256").hexdigest() == (files / "large.sha256").read_text()


def test_plain_flwr_run_streams_the_log_of_the_deployed_hospitals(standing: Standing) -> None:
    done = standing.flwr("run", str(EXAMPLE), "--stream", "-c", "num-server-rounds=1 min-sites=3")
    assert done.returncode == 0, done.stderr
    assert "aggregate_evaluate: Received 3 results and 0 failures" in done.stdout


def test_a_site_that_fails_makes_the_run_fail_though_flower_calls_it_completed(standing: Standing) -> None:
    data = standing.federation.data / "hospital-b" / "breast_cancer.csv"
    kept = data.read_text()
    data.write_text("no,such,columns\n1,2,3\n")
    try:
        done = standing.flowerbed(
            "run", str(EXAMPLE), "--federation", standing.path, "-c", "num-server-rounds=1", "--json"
        )
    finally:
        data.write_text(kept)
    answer = json.loads(done.stdout)
    assert done.returncode == 1
    assert answer["flower_status"] == "finished:completed"
    assert "hospital-b" in answer["reason"]


def test_a_detached_run_can_be_stopped(standing: Standing) -> None:
    started = standing.succeed("run", str(EXAMPLE), "--federation", standing.path, "--detach")
    standing.succeed("stop", started["run_id"], "--federation", standing.path)
    listed = {one["run_id"]: one["status"] for one in standing.succeed("runs", standing.path)["runs"]}
    assert listed[started["run_id"]] == "finished:stopped"
