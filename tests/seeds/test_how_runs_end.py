"""Runs on lab hosts that end badly: each has its exit code, says what happened, and comes home with a report."""

import json
import re
import subprocess
from pathlib import Path
from typing import Any

from tests.e2e.conftest import Standing
from tests.seeds.conftest import APPS

TINY = str(APPS / "tiny")


def run(standing: Standing, *words: str) -> tuple[int, dict[str, Any], str]:
    """Exit code, run.json and the report of a run of the tiny app."""
    done = standing.flowerbed("run", TINY, "--federation", standing.path, *words, "--json")
    return ended(standing, done)


def ended(standing: Standing, done: subprocess.CompletedProcess[str]) -> tuple[int, dict[str, Any], str]:
    answer: dict[str, Any] = json.loads(done.stdout)
    report = standing.work / answer["folder"] / "report.html"
    return done.returncode, answer, report.read_text()


def test_a_run_in_which_a_site_fails_is_half_failed(standing: Standing) -> None:
    code, answer, report = run(standing, "-c", "behaviour=client-error")
    assert (code, answer["status"], answer["flower_status"]) == (1, "incomplete", "finished:completed")
    assert "hospital-b failed with ValueError: no column" in answer["reason"]
    assert "hospital-b" in report and "Incomplete" in report and "no column" in report


def test_a_run_whose_server_app_raises_has_failed(standing: Standing) -> None:
    code, answer, report = run(standing, "-c", "behaviour=server-error")
    assert (code, answer["status"]) == (1, "failed")
    assert answer["reason"] == "RuntimeError: the checkpoint to start from does not exist"
    assert answer["reason"] in report


def test_a_run_that_takes_too_long_has_timed_out(standing: Standing) -> None:
    code, answer, report = run(
        standing, "--timeout", "25", "-c", "behaviour=slow", "-c", "slow.seconds=60", "-c", "min-nodes=3"
    )
    assert (code, answer["status"], answer["flower_status"]) == (1, "timed-out", "finished:stopped")
    assert re.fullmatch(r"stopped after \d+ s", answer["reason"])
    assert "Timed out" in report


def test_a_run_that_waits_for_a_site_that_is_not_there_names_it_and_gives_up(standing: Standing) -> None:
    gone = standing.host("hospital-c")
    gone.check_output("systemctl stop flower-supernode")
    try:
        code, answer, _ = run(standing, "--node-timeout", "10", "-c", "min-nodes=3")
    finally:
        gone.check_output("systemctl start flower-supernode")
    assert (code, answer["status"]) == (1, "timed-out")
    assert answer["reason"].endswith("2 of 3 online: hospital-c not online")
    standing.succeed("up", standing.path)


def test_a_run_that_somebody_stops_says_so_to_who_waits_for_it(standing: Standing) -> None:
    words = ("--federation", standing.path)
    started = standing.succeed("run", TINY, *words, "--detach", "-c", "behaviour=slow", "-c", "slow.seconds=60")
    standing.succeed("stop", started["run_id"], *words)
    done = standing.flowerbed("wait", started["run_id"], *words, "--json")
    code, answer, report = ended(standing, done)
    assert (code, answer["status"], answer["reason"]) == (1, "stopped", "somebody stopped it")
    assert "Stopped" in report


def test_two_runs_at_a_time_have_separate_results(standing: Standing, tmp_path: Path) -> None:
    command = [standing.program, "run", TINY, "--federation", standing.path, "--json", "-c"]
    both = [
        subprocess.Popen([*command, f"learning-rate={rate}"], cwd=standing.work, stdout=subprocess.PIPE, text=True)
        for rate in (0.25, 0.75)
    ]
    first, second = (json.loads(one.communicate()[0]) for one in both)
    assert [first["status"], second["status"]] == ["completed", "completed"]
    assert first["submitted"] < second["finished"] and second["submitted"] < first["finished"], "at the same time"
    assert first["folder"] != second["folder"]
    losses = [one["rounds"][0]["train"]["metrics"]["loss"] for one in (first, second)]
    assert losses[1] / losses[0] > 2.5, "each had its own configuration"


def test_an_operator_whose_line_drops_loses_nothing(standing: Standing) -> None:
    command = [standing.program, "run", TINY, "--federation", standing.path, "--json", "-c", "min-nodes=3"]
    with subprocess.Popen(command, cwd=standing.work, stdout=subprocess.PIPE, text=True) as driver:
        coordinator = standing.host("coordinator")
        before = coordinator.check_output("journalctl -t flowerbed -o cat --no-pager | grep -c 'was submitted'")
        coordinator.check_output(
            "until [ \"$(journalctl -t flowerbed -o cat --no-pager | grep -c 'was submitted')\" -gt "
            f"{before} ]; do sleep 0.5; done"
        )
        forward = subprocess.run(
            ["pgrep", "--parent", str(driver.pid), "--full", "127.0.0.1:8000"],
            capture_output=True,
            text=True,
            check=True,
        )
        subprocess.run(["kill", *forward.stdout.split()], check=True)
        answer = json.loads(driver.communicate()[0])
    assert (answer["status"], answer["exit_code"]) == ("completed", 0)
    log = (standing.work / answer["folder"] / "log.txt").read_text()
    assert log.count("configure_train: Sampled 3 nodes") == 1
