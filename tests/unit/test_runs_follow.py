"""The log of a real run, line by line, tells its rounds. The logs in runs_logs were recorded from a SuperLink."""

import math
from collections.abc import Iterable
from pathlib import Path

from flowerbed.runs.follow import (
    AppError,
    Follower,
    LogEvent,
    PhaseDone,
    PhaseStarted,
    Round,
    RoundStarted,
    ServerEvaluated,
    Waiting,
    metrics,
    plain,
    reason,
)

LOGS = Path(__file__).parent / "runs_logs"


def read(name: str) -> tuple[Follower, list[LogEvent]]:
    return fed((LOGS / f"{name}.log").read_text().splitlines())


def fed(lines: Iterable[str]) -> tuple[Follower, list[LogEvent]]:
    follower = Follower()
    events: list[LogEvent] = []
    for second, line in enumerate(lines):
        events += follower.feed(line, float(second))
    events += follower.finish()
    return follower, events


def info(*messages: str) -> list[str]:
    return [f"\x1b[92mINFO \x1b[0m:      {message}" for message in messages]


def counts(rounds: list[Round]) -> list[tuple[int, str, int | None, int | None, int | None]]:
    return [
        (one.number, phase.kind, phase.sampled, phase.results, phase.failures) for one in rounds for phase in one.phases
    ]


def test_a_run_that_went_well_has_every_reply_and_every_metric() -> None:
    follower, _ = read("success")
    assert counts(follower.rounds) == [
        (1, "train", 2, 2, 0),
        (1, "evaluate", 2, 2, 0),
        (2, "train", 2, 2, 0),
        (2, "evaluate", 2, 2, 0),
    ]
    assert follower.planned == 2
    last = follower.rounds[-1]
    assert last.train is not None and last.train.metrics == {"loss": 0.6666666666666667}
    assert last.evaluate is not None
    assert last.evaluate.metrics == {"accuracy": 0.6309523809523809, "distance": 0.8571428571428571}
    assert [(one.number, one.server) for one in follower.rounds] == [
        (0, {"size": 0.0}),
        (1, {"size": 1.1428571428571428}),
        (2, {"size": 2.0}),
    ]
    assert follower.error is None


def test_events_come_in_the_order_of_the_run() -> None:
    _, events = read("success")
    names = [type(event).__name__ for event in events]
    one_round = ["RoundStarted", "PhaseStarted", "PhaseDone", "PhaseStarted", "PhaseDone", "ServerEvaluated"]
    assert names == ["ServerEvaluated", *one_round, *one_round]


def test_a_phase_is_done_only_with_its_metrics() -> None:
    follower = Follower()
    seen = []
    for line in (LOGS / "success.log").read_text().splitlines():
        for event in follower.feed(line):
            if isinstance(event, PhaseDone):
                seen.append(dict(event.phase.metrics))
    assert [sorted(each) for each in seen] == [["loss"], ["accuracy", "distance"]] * 2


def test_a_phase_lasts_from_its_messages_to_its_replies() -> None:
    follower, _ = read("success")
    train = follower.rounds[1].train
    assert train is not None and train.seconds == 1.0


def test_a_phase_that_began_before_we_looked_has_no_duration() -> None:
    follower = Follower()
    sampled, received = info(
        "configure_train: Sampled 2 nodes (out of 2)", "aggregate_train: Received 2 results and 0 failures"
    )
    list(follower.feed(sampled, None))
    list(follower.feed(received, 7.0))
    assert follower.rounds[0].phases[0].seconds is None


def test_a_client_that_fails_is_named_with_its_reason() -> None:
    follower, _ = read("client_error")
    train = follower.rounds[0].train
    assert train is not None
    assert (train.sampled, train.results, train.failures, train.missing) == (2, 1, 1, 0)
    assert [error.reason for error in train.errors] == ["ValueError: no column 'age' in the data of partition 1"]
    assert train.errors[0].node_id.isdecimal()


def test_all_clients_can_fail() -> None:
    follower, _ = read("clients_error")
    train = follower.rounds[0].train
    assert train is not None
    assert (train.results, train.failures, len(train.errors), train.metrics) == (0, 2, 2, {})


def test_two_sites_that_went_offline_are_two_errors_though_the_superlink_replies_for_both() -> None:
    lost = "\t> Received error in reply from node 1: Error: Node Unavailable"
    follower, _ = fed(
        info(
            "configure_train: Sampled 3 nodes (out of 3)",
            "aggregate_train: Received 1 results and 2 failures",
            lost,
            lost,
        )
    )
    assert len(follower.rounds[0].phases[0].errors) == 2


def test_a_node_that_is_lost_during_training_is_an_error() -> None:
    follower, _ = read("node_lost")
    train = follower.rounds[0].train
    assert train is not None and train.failures == 1
    assert train.errors[0].reason.startswith("Node Unavailable — ")


def test_a_reply_that_comes_too_late_is_missing() -> None:
    follower, _ = read("late_reply")
    train = follower.rounds[0].train
    assert train is not None
    assert (train.results, train.failures, train.missing) == (1, 0, 1)
    assert follower.rounds[0].evaluate is None


def test_replies_that_never_come_are_missing_although_flower_logs_nothing_then() -> None:
    follower, events = fed(
        info("[ROUND 1/1]", "configure_train: Sampled 2 nodes (out of 2)", "Strategy execution finished in 9.00s")
    )
    phase = follower.rounds[0].phases[0]
    assert (phase.results, phase.missing) == (None, 2)
    assert isinstance(events[-1], PhaseDone)


def test_a_server_app_that_raises_is_one_error_with_its_own_words() -> None:
    follower, events = read("server_error")
    assert events == [AppError("RuntimeError: the checkpoint to start from does not exist")]
    assert follower.error == "RuntimeError: the checkpoint to start from does not exist"


def test_waiting_is_told_when_it_changes_and_not_every_second() -> None:
    _, events = read("waiting")
    assert events == [RoundStarted(1, 1), Waiting(0, 2)]


def test_waiting_ends_when_the_nodes_are_there() -> None:
    follower, events = fed(
        info(
            "Waiting for nodes to connect: 0 connected (minimum required: 2).",
            "Waiting for nodes to connect: 1 connected (minimum required: 2).",
            "configure_train: Sampled 2 nodes (out of 2)",
        )
    )
    assert [event for event in events if isinstance(event, Waiting)] == [Waiting(0, 2), Waiting(1, 2)]
    assert follower.waiting is None


def test_an_app_that_logs_nothing_has_no_rounds() -> None:
    follower, events = read("silent")
    assert (follower.rounds, events) == ([], [])


def test_a_strategy_that_enrols_some_of_the_sampled_sites_says_so_in_a_second_line() -> None:
    follower, events = fed(
        info(
            "[ROUND 1/1]",
            "configure_train: Sampled 3 nodes (out of 3)",
            "configure_train: Sampled 1 nodes (out of 3)",
            "aggregate_train: Received 1 results and 0 failures",
        )
    )
    phase = follower.rounds[0].phases[0]
    assert (phase.sampled, phase.online, phase.missing) == (1, 3, 0)
    assert len([event for event in events if isinstance(event, PhaseStarted)]) == 1


def test_rounds_that_are_not_announced_are_counted() -> None:
    one = info("configure_train: Sampled 2 nodes (out of 2)", "aggregate_train: Received 2 results and 0 failures")
    follower, _ = fed([*one, *one])
    assert [each.number for each in follower.rounds] == [1, 2]


def test_a_line_that_a_progress_bar_left_open_does_not_hide_what_follows() -> None:
    follower, _ = fed(["100%|██████| 313/313 [00:01<00:00]" + info("[ROUND 2/3]")[0]])
    assert [each.number for each in follower.rounds] == [2]


def test_debug_logs_with_times_read_the_same() -> None:
    follower, _ = fed(["\x1b[92mINFO 2026-01-02 03:04:05,678\x1b[0m:      [ROUND 1/2]"])
    assert follower.planned == 2


def test_what_an_app_prints_is_no_event() -> None:
    assert fed(["[ROUND 1/2]", "Traceback (most recent call last):", "ERROR", ""])[1] == []


def test_a_traceback_within_a_traceback_tells_the_last_one() -> None:
    follower, _ = fed(
        [
            "\x1b[91mERROR \x1b[0m:     ServerApp raised an exception",
            "Traceback (most recent call last):",
            '  File "a.py", line 1, in f',
            "KeyError: 'weights'",
            "",
            "During handling of the above exception, another exception occurred:",
            "",
            "Traceback (most recent call last):",
            '  File "a.py", line 2, in f',
            "ValueError: no weights",
            "and a second line of it",
        ]
    )
    assert follower.error == "ValueError: no weights"


def test_numbers_are_read_as_python_prints_them() -> None:
    read_ = metrics(
        "{'a': 1, 'b': -0.5, 'c': 1e-07, 'd': np.float64(0.25), 'e': [1.0, 2.0], 'f': 'text', 'g': nan, 'h': -inf}"
    )
    assert math.isnan(read_.pop("g"))  # type: ignore[arg-type]
    assert read_ == {"a": 1, "b": -0.5, "c": 1e-07, "d": 0.25, "e": [1.0, 2.0], "h": -math.inf}
    assert metrics("{'a': 0.5, ") == {}
    assert metrics("{__import__('os').getcwd(): 1, 'b': True}") == {}


def test_colours_and_class_names_are_taken_off() -> None:
    assert plain("\x1b[92mINFO \x1b[0m: x\r") == "INFO : x"
    assert (
        reason("<class 'sklearn.exceptions.NotFittedError'>:<\"call 'fit'\nfirst\">")
        == "NotFittedError: call 'fit' first"
    )


def test_the_server_measures_within_its_round() -> None:
    _, events = read("success")
    assert [event.round.number for event in events if isinstance(event, ServerEvaluated)] == [0, 1, 2]
