"""What the coordinator notes of a run's messages, and what the driver makes of the notes."""

import importlib
import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.supercore.task_identity import TaskIdentity
from test_host_programs import program
from test_runs_follow import read as read_log

from flowerbed.paths import ANSIBLE
from flowerbed.runs import replies
from flowerbed.runs.follow import Phase, ReplyError, Round

sys.path.insert(0, str(ANSIBLE / "collections"))

from ansible_collections.flowerbed.federation.plugins.modules import rounds

recorder = program("replies")


class Grid:
    """As much of Flower's Grid as the recorder stands on.

    `waiting` are the replies that the next pull brings, `in_time` the nodes that answer before the time is over.
    """

    def __init__(self) -> None:
        self.run = SimpleNamespace(run_id=4711)
        self.waiting: list[Message] = []
        self.sent: list[Message] = []
        self.in_time: set[int] = set()

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Number and keep the messages."""
        ids = []
        for message in messages:
            self.sent.append(message)
            message.metadata.__dict__["_message_id"] = f"m{len(self.sent)}"
            ids.append(message.metadata.message_id)
        return ids

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """What waits."""
        there, self.waiting = self.waiting, []
        return there

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """As Flower's, in no time."""
        messages = list(messages)
        ids = self.push_messages(messages)
        self.waiting = [answer(one) for one in messages if one.metadata.dst_node_id in self.in_time]
        return self.pull_messages(ids)


@pytest.fixture(autouse=True)
def task(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("_run_id", 4711), ("_node_id", 1), ("_task_id", 1)):
        monkeypatch.setattr(TaskIdentity, name, value)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "results" / ".flowerbed" / "4711" / "replies.jsonl"


@pytest.fixture
def grid(file: Path) -> Any:
    return recorder.record(Grid, lambda run_id: file)()


def ask(node: int, kind: str = "train", round_: int | None = None) -> Message:
    config = ConfigRecord({} if round_ is None else {"server-round": round_})
    content = RecordDict({"arrays": ArrayRecord([np.ones(1000)]), "config": config})
    return Message(content, dst_node_id=node, message_type=kind)


def answer(asked: Message, **metrics: Any) -> Message:
    return Message(RecordDict({"metrics": MetricRecord(metrics)}), reply_to=asked)


def test_each_message_and_its_reply_are_noted_with_times_sizes_and_numbers(grid: Any, file: Path) -> None:
    asked = [ask(17, round_=3), ask(18, round_=3)]
    grid.push_messages(asked)
    grid.waiting = [answer(asked[1], loss=0.5, parts=[1.0, 2.0], broken=math.nan)]
    assert [one.content["metrics"]["loss"] for one in grid.pull_messages(["m1", "m2"])] == [0.5]
    notes = replies.read(file)
    first, second = notes.exchanges
    assert [(one.node_id, one.kind, one.round) for one in notes.exchanges] == [("17", "train", 3), ("18", "train", 3)]
    assert first.outcome == "missing" and first.bytes > 8000
    assert second.reply is not None and second.seconds is not None and second.seconds >= 0
    assert second.reply.metrics["loss"] == 0.5 and math.isnan(second.reply.metrics["broken"])
    assert "parts" not in second.reply.metrics, "a list may be anything, a patient's values too"
    assert notes.flower and notes.python


def test_no_arrays_content_is_noted(grid: Any, file: Path) -> None:
    grid.push_messages([ask(17)])
    assert len(file.read_bytes()) < 1000 < len(ask(17).content["arrays"]["0"].data)


def test_an_app_that_hands_over_a_generator_and_polls_is_noted_as_well(grid: Any, file: Path) -> None:
    (asked,) = [ask(17)]
    assert grid.push_messages(one for one in [asked]) == ["m1"]
    assert grid.pull_messages(["m1"]) == []
    grid.waiting = [answer(asked, loss=1)]
    grid.pull_messages(["m1"])
    assert [one.outcome for one in replies.read(file).exchanges] == ["result"]


def test_an_error_is_noted_for_the_site_that_was_asked_even_if_it_went_offline(grid: Any, file: Path) -> None:
    asked = [ask(17), ask(18)]
    grid.push_messages(asked)
    failed, offline = (
        Message(Error(code, text), reply_to=one)
        for code, text, one in zip(
            (2, 5), ("<class 'ValueError'>:<'no data'>", "Error: Node Unavailable - gone"), asked, strict=True
        )
    )
    offline.metadata.__dict__["_src_node_id"] = 1  # the SuperLink itself replies
    grid.waiting = [failed, offline]
    grid.pull_messages(["m1", "m2"])
    errors = [one.reply.error for one in replies.read(file).exchanges if one.reply]
    assert errors[0] == ReplyError("17", "ValueError: no data")
    assert errors[1] is not None and errors[1].node_id == "18" and "went offline" in errors[1].reason


def test_what_the_app_waits_for_no_more_is_noted_so_that_nobody_else_waits_for_it(grid: Any, file: Path) -> None:
    grid.in_time = {17}
    assert len(grid.send_and_receive((ask(node) for node in (17, 18)), timeout=1)) == 1
    with file.open("rb") as lines:
        assert rounds.given_up(lines) == {"m2"}


def test_with_all_replies_there_nothing_is_given_up(grid: Any, file: Path) -> None:
    grid.in_time = {17}
    grid.send_and_receive([ask(17)])
    assert rounds.given_up(file.read_bytes().splitlines()) == set()


def test_of_a_reply_that_comes_twice_the_first_counts(grid: Any, file: Path) -> None:
    asked = ask(17)
    grid.push_messages([asked])
    grid.waiting = [answer(asked, loss=1.0), answer(asked, loss=2.0)]
    grid.pull_messages(["m1"])
    (exchange,) = replies.read(file).exchanges
    assert exchange.reply is not None and exchange.reply.metrics == {"loss": 1.0}


@pytest.mark.parametrize("place", [Path("/dev/full"), Path("/proc/none/replies.jsonl")])
def test_what_cannot_be_noted_is_said_once_and_costs_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = recorder.record(Grid, lambda run_id: place)()
    for _ in range(3):
        asked = ask(17)
        assert len(grid.push_messages([asked])) == 1
        grid.waiting = [answer(asked, loss=1.0)]
        assert len(grid.pull_messages(["m1"])) == 1
    assert capsys.readouterr().out.count("the sites' replies are not recorded from here on: ") == 1


def test_a_message_of_another_shape_is_no_reason_to_fail(grid: Any, capsys: pytest.CaptureFixture[str]) -> None:
    grid.waiting = [SimpleNamespace(metadata=None)]
    assert len(grid.pull_messages(["m1"])) == 1
    assert "are not recorded" in capsys.readouterr().out


def test_a_flower_of_another_shape_runs_without_notes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Other:
        """Has no push_messages."""

    assert recorder.record(Other, lambda run_id: tmp_path) is Other
    recorder.stand_in(SimpleNamespace(__name__="flwr.new"), "HttpGrid", tmp_path)
    said = capsys.readouterr().out
    assert "no Other.push_messages" in said and "no flwr.new.HttpGrid" in said


def test_the_installed_flower_has_what_the_recorder_stands_on() -> None:
    places = {"flwr.superlink.runtime.run_serverapp": "HttpGrid", "flwr.simulation.run_simulation": "InMemoryGrid"}
    for module, name in places.items():
        grid = getattr(importlib.import_module(module), name)
        recording = recorder.record(grid, Path)
        assert issubclass(recording, grid) and recording is not grid
        assert recording.__name__ == grid.__name__


# What the driver reads ------------------------------------------------------------------------------------


def line(event: str, **more: Any) -> str:
    known = {"sent": {"at": 0.0, "type": "train", "push": 1}, "reply": {"node": "17", "at": 5.0}}[event]
    return json.dumps({"event": event, **known, **more})


def notes(tmp_path: Path, *lines: str) -> replies.Recording:
    (tmp_path / "replies.jsonl").write_text("\n".join(lines))
    return replies.read(tmp_path / "replies.jsonl")


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "{",
        "[]",
        "null",
        '{"event": 1}',
        '{"event": "sent"}',
        '{"event": "reply", "to": "m1", "at": "x"}',
        "[" * 9999,
        line("reply", to="m9"),
        line("sent", message="m2", node="1", at="soon"),
        '{"event": "reply", "to": "m1", "at": 1',
    ],
)
def test_a_line_that_cannot_be_read_is_left_out(tmp_path: Path, broken: str) -> None:
    found = notes(tmp_path, line("sent", message="m1", node="17"), broken)
    assert [one.outcome for one in found.exchanges] == ["missing"]


def test_without_notes_there_is_an_empty_recording(tmp_path: Path) -> None:
    assert replies.read(tmp_path / "replies.jsonl").exchanges == []
    (tmp_path / "replies.jsonl").symlink_to("/etc/passwd")
    assert replies.read(tmp_path / "replies.jsonl").text == b""


def test_rounds_that_nobody_numbers_are_counted(tmp_path: Path) -> None:
    found = notes(
        tmp_path,
        *(line("sent", message=f"a{node}", node=node, push=1) for node in "12"),
        *(line("reply", to=f"a{node}") for node in "12"),
        *(line("sent", message=f"b{node}", node=node, push=2) for node in "34"),  # others, after the first replied
        *(line("sent", message=f"q{node}", node=node, push=3, type="query") for node in "12"),
        line("sent", message="c3", node="3", push=4),  # the same again, without a reply
    )
    assert {key: len(each) for key, each in found.phases().items()} == {
        (1, "train"): 2,
        (2, "train"): 2,
        (1, "query"): 2,
        (3, "train"): 1,
    }


def test_a_round_is_what_the_message_says_it_is(tmp_path: Path) -> None:
    found = notes(
        tmp_path,
        line("sent", message="a", node="1", round=7),
        line("sent", message="b", node="1", group="8", push=2),
        line("sent", message="c", node="1", group="second half", push=3),
    )
    assert [one.round for one in found.exchanges] == [7, 8, 1]


def test_the_log_gains_who_failed_and_is_missing_and_keeps_its_own_numbers(tmp_path: Path) -> None:
    logged = Round(1, train=Phase("train", sampled=2, online=3, results=1, failures=1, metrics={"loss": 0.5}))
    logged.train.errors.append(ReplyError("1", "Node Unavailable"))  # type: ignore[union-attr] - it was just made
    found = notes(
        tmp_path,
        *(line("sent", message=f"m{node}", node=node) for node in ("17", "18")),
        line("reply", to="m17"),
        line("reply", to="m18", node="1", at=6.0, error={"code": 5, "reason": "gone"}),
        line("sent", message="e", node="17", type="evaluate", round=1, push=2),
    )
    (merged,) = replies.merge([logged], found)
    assert merged.train is not None and merged.evaluate is not None
    assert (merged.train.online, merged.train.results, merged.train.metrics) == (3, 1, {"loss": 0.5})
    assert [error.node_id for error in merged.train.errors] == ["18"]
    assert merged.train.seconds == 6.0
    assert (merged.evaluate.sampled, merged.evaluate.results, merged.evaluate.missing) == (1, 0, 1)
    assert logged.evaluate is None and logged.train.errors[0].node_id == "1", "what was given stays"  # type: ignore[union-attr] - as above


def test_a_log_and_notes_that_number_rounds_otherwise_meet_in_order(tmp_path: Path) -> None:
    rounds = [Round(number, train=Phase("train", sampled=1, results=1, failures=0)) for number in (1, 2)]
    found = notes(tmp_path, *(line("sent", message=f"m{n}", node="17", round=n, push=n) for n in (11, 12)))
    assert [each.number for each in replies.merge(rounds, found)] == [1, 2]
    assert [one.round for one in replies.aligned(rounds, found).exchanges] == [1, 2]


def test_without_notes_the_log_stays_as_it_is() -> None:
    rounds = read_log("client_error")[0].rounds
    assert replies.merge(rounds, replies.Recording()) == rounds
