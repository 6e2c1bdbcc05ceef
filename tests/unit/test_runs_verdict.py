"""A run is complete only if every reply that was expected came."""

from dataclasses import replace
from typing import Any

from test_runs_follow import read

from flowerbed.runs.follow import Phase, ReplyError, Round
from flowerbed.runs.verdict import Verdict, decide, without_files


def judge(name: str, status: str = "finished:completed", details: str = "", **more: object) -> Verdict:
    follower, _ = read(name)
    return decide(status, details, follower.rounds, planned=follower.planned, error=follower.error, **more)  # type: ignore[arg-type]


def test_all_replies_make_a_run_complete() -> None:
    assert judge("success") == Verdict("completed", "2 rounds, all 8 replies", 0)


def test_one_failing_client_makes_it_incomplete_and_is_named() -> None:
    verdict = judge("client_error", name_of=lambda _: "hospital-b")
    assert (verdict.status, verdict.exit_code) == ("incomplete", 1)
    assert verdict.reason == (
        "round 1 train: 1 of 2 replies (hospital-b failed with ValueError: no column 'age' in the data of partition 1)"
    )


def test_a_site_that_refused_the_app_is_said_to_have_refused_it_before_others_that_failed() -> None:
    errors = [ReplyError("1", "ValueError: no data"), ReplyError("2", "AppRefused: hospital-b does not allow app 5f0e")]
    phase = Phase("train", sampled=2, results=0, failures=2, errors=errors)
    verdict = decide(
        "finished:completed", "", [Round(1, train=phase)], name_of={"1": "a", "2": "hospital-b"}.__getitem__
    )
    assert verdict.reason == (
        "round 1 train: 0 of 2 replies (hospital-b REFUSED the app: hospital-b does not allow app 5f0e; "
        "a failed with ValueError: no data)"
    )


def test_a_run_that_nobody_trained_in_has_failed_although_flower_calls_it_completed() -> None:
    verdict = judge("clients_error")
    assert (verdict.status, verdict.exit_code) == ("failed", 1)
    assert verdict.reason.startswith("round 1 train: 0 of 2 replies")


def test_a_missing_reply_makes_it_incomplete() -> None:
    verdict = judge("late_reply")
    assert verdict == Verdict("incomplete", "round 1 train: 1 of 2 replies (1 did not reply in time)", 1)


def test_a_failed_server_app_tells_its_own_reason() -> None:
    verdict = judge("server_error", "finished:failed", "ServerApp failed with exception: …")
    assert verdict == Verdict("failed", "RuntimeError: the checkpoint to start from does not exist", 1)


def test_a_failure_that_the_log_does_not_explain_is_told_in_the_superlinks_words() -> None:
    why = "lost, its ServerApp is gone: Task failed."
    assert decide("finished:failed", "Task failed.", []) == Verdict("failed", why, 1, lost=True)


def test_a_run_that_did_all_its_work_and_was_not_heard_to_end_says_so() -> None:
    verdict = judge("success", "finished:failed", "No heartbeat received from the task")
    assert (verdict.status, verdict.lost) == ("failed", True)
    assert verdict.reason.startswith("lost at its end, after 2 rounds, all 8 replies: its ServerApp was not heard")


def test_a_run_whose_superlink_went_away_while_a_message_was_handed_over_is_lost_by_no_fault_of_the_app() -> None:
    said = "ServerApp failed with exception: Failed to push object with ID 'ece5' for run 13 using session '3f'."
    verdict = decide("finished:failed", said, [])
    assert verdict == Verdict("failed", f"lost, its SuperLink went away: {said}", 1, lost=True)


def test_a_run_that_somebody_stopped_is_no_success() -> None:
    assert decide("finished:stopped", "", []) == Verdict("stopped", "somebody stopped it", 1)


def test_a_run_that_we_stopped_timed_out() -> None:
    verdict = decide("finished:stopped", "", [], timed_out="stopped after 60 s")
    assert verdict == Verdict("timed-out", "stopped after 60 s", 1)


def test_an_app_that_logs_no_rounds_is_judged_by_its_status_alone() -> None:
    verdict = judge("silent")
    assert (verdict.status, verdict.exit_code) == ("completed", 0)
    assert "not counted" in verdict.reason


def test_a_site_that_was_not_online_is_missed() -> None:
    verdict = judge("success", expected_sites=3)
    assert (verdict.status, verdict.exit_code) == ("incomplete", 1)
    assert verdict.reason == "round 1 train: 2 of 3 sites were online; and 3 more"


def test_a_site_that_was_not_online_is_named_where_the_notes_tell_who_was_asked() -> None:
    phase = Phase("train", sampled=2, online=2, results=2, failures=0, asked=["7", "9"])
    names = {"5": "north", "7": "south", "9": "west"}
    judged: dict[str, Any] = {"expected_sites": 3, "nodes": list(names), "name_of": lambda node: names[node]}
    verdict = decide("finished:completed", "", [Round(1, train=phase)], **judged)
    assert verdict.reason == "round 1 train: 2 of 3 sites were online (north was not)"
    some_of_them = replace(phase, sampled=1, asked=["7"])
    assert decide("finished:completed", "", [Round(1, train=some_of_them)], **judged).reason.endswith("were online")


def test_sampling_fewer_than_are_online_is_the_strategys_right() -> None:
    phase = Phase("train", sampled=1, online=3, results=1, failures=0)
    assert decide("finished:completed", "", [Round(1, train=phase)], expected_sites=3).exit_code == 0


def test_rounds_that_were_planned_and_did_not_take_place_are_missed() -> None:
    phase = Phase("train", sampled=1, online=1, results=1, failures=0)
    verdict = decide("finished:completed", "", [Round(1, train=phase)], planned=3)
    assert (verdict.status, verdict.reason) == ("incomplete", "1 of 3 rounds took place")


def test_a_strategy_that_does_not_tell_what_it_sampled_still_tells_its_failures() -> None:
    phase = Phase("train", results=1, failures=1)
    assert decide("finished:completed", "", [Round(1, train=phase)]).reason == "round 1 train: 1 of 2 replies"


def test_a_run_whose_files_did_not_come_home_is_not_complete() -> None:
    verdict = without_files(Verdict("completed", "1 round, all 4 replies", 0), "cannot fetch /x: broken")
    assert (verdict.status, verdict.exit_code) == ("incomplete", 1)
    assert "did not come home: cannot fetch /x: broken" in verdict.reason
    assert without_files(Verdict("failed", "x", 1), "y").status == "failed"


def test_a_site_that_did_not_reply_is_named_where_the_coordinator_noted_it() -> None:
    phase = Phase("train", sampled=3, results=2, failures=0, silent=["17"])
    verdict = decide("finished:completed", "", [Round(1, train=phase)], name_of=lambda node: f"hospital-{node}")
    assert verdict.reason == "round 1 train: 2 of 3 replies (hospital-17 did not reply in time)"
