"""`flwr` is called with a home of its own, and its answers are read, not its exit codes."""

import json
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from flowerbed.errors import UsageError, WorkFailed
from flowerbed.runs.connection import Connection, Deployed
from flowerbed.runs.flwr import LogStream, checked, environment, parse_answer, write_config


def stream(script: str, *, live: bool = False) -> LogStream:
    """A log from a process that is not Flower's."""
    process = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return LogStream(process, live=live)


def test_the_connection_is_the_default_one_with_an_absolute_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path / "home", Connection("127.0.0.1:4711", Path("ca.crt")))
    superlink = tomllib.loads((tmp_path / "home" / "config.toml").read_text())["superlink"]
    assert superlink[superlink["default"]] == {
        "address": "127.0.0.1:4711",
        "root-certificates": str(tmp_path / "ca.crt"),
    }


def test_an_insecure_connection_says_so(tmp_path: Path) -> None:
    write_config(tmp_path, Connection("127.0.0.1:4711", None, insecure=True))
    superlink = tomllib.loads((tmp_path / "config.toml").read_text())["superlink"]
    assert superlink[superlink["default"]] == {"address": "127.0.0.1:4711", "insecure": True}


def test_flwr_calls_nobody_and_finds_its_own_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("no_proxy", raising=False)  # it would win, and another test may have left it
    monkeypatch.setenv("NO_PROXY", "hospital.example")
    monkeypatch.setenv("FLWR_LOG_LEVEL", "DEBUG")
    env = environment(tmp_path)
    assert env["FLWR_HOME"] == str(tmp_path)
    assert (env["FLWR_TELEMETRY_ENABLED"], env["FLWR_DISABLE_UPDATE_CHECK"]) == ("0", "1")
    assert env["PATH"].split(":")[0] == str(Path(sys.executable).parent)
    assert env["no_proxy"] == "127.0.0.1,localhost,hospital.example"
    assert "FLWR_LOG_LEVEL" not in env


def test_an_answer_that_reports_success_is_given_as_it_is() -> None:
    assert parse_answer('{"success": true, "run-id": "7"}', "", "submit tiny", "a:1")["run-id"] == "7"


def test_exit_code_0_with_success_false_is_a_failure_in_flowers_words() -> None:
    answer = json.dumps(
        {"success": False, "error-message": "Using SuperLink: x (a:1)\n\n[code: 15] Invalid run configuration."}
    )
    with pytest.raises(WorkFailed, match=r"^cannot submit tiny: \[code: 15\] Invalid run configuration\.$"):
        parse_answer(answer, "", "submit tiny", "a:1")


def test_a_superlink_that_does_not_answer_is_named() -> None:
    answer = json.dumps({"success": False, "error-message": "Connection to the SuperLink is unavailable. Please…"})
    with pytest.raises(WorkFailed, match=r"the SuperLink does not answer on 127\.0\.0\.1:4711"):
        parse_answer(answer, "", "list the runs", "127.0.0.1:4711")


def test_a_run_that_the_federation_does_not_know_is_wrong_input() -> None:
    answer = json.dumps({"success": False, "error-message": "[code: 16] Run ID not found."})
    with pytest.raises(UsageError, match="the federation has no such run"):
        parse_answer(answer, "", "look up run 7", "a:1")


@pytest.mark.parametrize(("stdout", "stderr", "told"), [("", "boom\n", "boom"), ("", "", "nothing"), ("[1]", "", "1")])
def test_what_is_no_json_document_is_a_failure(stdout: str, stderr: str, told: str) -> None:
    with pytest.raises(WorkFailed, match=told):
        parse_answer(stdout, stderr, "list the runs", "a:1")


@pytest.mark.parametrize("text", ["", "--help", "7; rm", "abc"])
def test_a_run_id_is_a_number(text: str) -> None:
    with pytest.raises(UsageError):
        checked(text)


def test_a_log_comes_line_by_line_without_flwrs_own_preamble() -> None:
    with stream("echo 'Using SuperLink: x (a:1)'; echo one; printf 'tw'; printf 'o\\nthree'") as log:
        assert [line.text for line in log.lines()] == ["one", "two", "three"]
        assert log.failure is None


def test_a_log_that_breaks_off_says_why_and_gives_no_half_line() -> None:
    with stream("echo one; printf half; echo 'connection lost' >&2; exit 1") as log:
        assert [line.text for line in log.lines()] == ["one"]
        assert log.failure == "connection lost"


def test_what_was_in_the_log_before_has_no_time_and_what_comes_later_has() -> None:
    with stream("echo old; sleep 1; echo new") as log:
        assert [(line.text, line.at is None) for line in log.lines()] == [("old", True), ("new", False)]


def test_all_lines_of_a_run_that_was_just_submitted_have_a_time() -> None:
    with stream("echo first", live=True) as log:
        assert all(line.at is not None for line in log.lines())


def test_a_log_that_is_silent_past_the_deadline_times_out_and_its_process_ends() -> None:
    with stream("echo one; exec sleep 60") as log:
        end = time.monotonic() + 1
        lines = log.lines(lambda: end)
        assert next(lines).text == "one"
        with pytest.raises(TimeoutError):
            next(lines)
    assert log._process.poll() is not None


def test_letters_that_arrive_in_two_pieces_stay_whole() -> None:
    with stream("printf '\\342\\224'; sleep 0.2; printf '\\224\\n'") as log:
        assert [line.text for line in log.lines()] == ["└"]


def test_a_node_is_named_after_its_site() -> None:
    deployed = Deployed("lab", {"hospital-a": "17", "hospital-b": "18"})
    assert [deployed.site(node) for node in ("17", "99", "1")] == ["hospital-a", "node 99", "a site that went offline"]


def test_a_node_of_a_key_that_was_changed_meanwhile_is_named_after_its_site() -> None:
    asked: list[None] = []

    def again() -> Deployed:
        asked.append(None)
        return Deployed(
            "lab", {"hospital-a": "21", "hospital-b": "22"}, former={"17": "hospital-a", "19": "hospital-a"}
        )

    deployed = Deployed("lab", {"hospital-a": "17", "hospital-b": "18"}, again=again)
    assert deployed.knowing(["17", "18", "1"]) is deployed and not asked
    later = deployed.knowing(["17", "19", "21", "22"])
    names = [later.site(node) for node in ("17", "19", "21", "18", "22", "99")]
    assert names == ["hospital-a"] * 3 + ["hospital-b"] * 2 + ["node 99"]
    assert later.sites == deployed.sites
