"""How soon Flower asks again for what it waits for, with the program that a host has for that."""

import json
import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from flowerbed.paths import ANSIBLE
from tests.host_programs import host_program

FILES = ANSIBLE / "roles" / "common" / "files"
# Flower's own loops, which call what stands in for the network here; the clock and the waits are those of a simulation,
# in which each answer comes after so many seconds.
_SCRIPT = """
import importlib, json, sys
from types import SimpleNamespace
sys.path.insert(0, {files!r})
import polls
now, waits = [0.0], []
def wait(seconds):
    waits.append(seconds)
    now[0] += seconds
pace = polls.Pace(polls.{kind}, lambda: now[0], wait)
"""
_SERVERAPP = (
    _SCRIPT.replace("{kind}", "SERVERAPP")
    + """
place = importlib.import_module("flwr.superlink.runtime.run_serverapp")
grid = place.HttpGrid
answered = SimpleNamespace(metadata=SimpleNamespace(reply_to_message_id="m"))
grid.push_messages = lambda self, messages: ["m"]
grid.pull_messages = lambda self, ids: [answered] if now[0] >= {after} else []
polls.follow(grid, ("push_messages", "pull_messages"), pace)
polls.stand_in(importlib.import_module(grid.__module__), pace)
replies = grid.send_and_receive(object.__new__(grid), [object()])
assert list(replies) == [answered]
print(json.dumps([waits, now[0]]))
"""
)
_SUPERNODE = (
    _SCRIPT.replace("{kind}", "SUPERNODE")
    + """
import contextlib
place = importlib.import_module("flwr.supernode.start_client_internal")
class Enough(BaseException):
    pass
came = []
def pull(**_):
    if asked and len(waits) == asked[0] + 3:
        raise Enough
    if not came and now[0] >= 9:
        came.append(1)
        pace.happened()
        return 4711
    return None
place._pull_and_store_message = pull
asked = []
class State:  # versions have different names for the one thing that is asked of it
    def __getattr__(self, _):
        return lambda **_: [] if now[0] < 11 else asked.append(len(waits)) or [1]
state = State()
original = place._push_messages
def push(**words):
    try:
        original(state=state, object_store=None, send=None, push_object=None)
    except AttributeError:  # what comes after the reply is there is not looked at here
        assert asked
place._push_messages = push
polls.stand_in(place, pace)
loop = [value for name, value in vars(place).items() if callable(value) and getattr(value, "__code__", None)
        and "_pull_and_store_message" in value.__code__.co_names]
assert len(loop) == 1
import ast, inspect, textwrap
(whole,) = ast.parse(textwrap.dedent(inspect.getsource(loop[0]))).body
(forever,) = [node for node in ast.walk(whole) if isinstance(node, ast.While)]
names = "state store node_config receive get_run get_fab pull_object confirm_message_received trusted_entities send"
space = dict(vars(place), **dict.fromkeys([*names.split(), "push_object"]))
try:
    exec(compile(ast.Module([forever], []), "the SuperNode's loop", "exec"), space)
except Enough:
    pass
print(json.dumps([waits, now[0]]))
"""
)
_SUPEREXEC = (
    _SCRIPT.replace("{kind}", "SUPEREXEC")
    + """
import superexec
place = importlib.import_module(superexec.PLACE)
class Enough(BaseException):
    pass
begun = []
class Client:
    close = lambda self: None
    def AcquireTask(self, request):
        if begun and waits[-3:] == [1] * 3:
            raise Enough
        there = not begun and now[0] >= 9
        return SimpleNamespace(HasField=lambda name: there, token="t", task=SimpleNamespace(task_id=1, run_id=2))
place.RuntimeHttpClient = SimpleNamespace(from_server_address=lambda **words: Client())
place.get_executor = lambda *words, **more: SimpleNamespace(
    reconcile=lambda: None, close=lambda: None, get_eligible_capacity=lambda *words, **more: ([], []))
for name in ("register_signal_handlers", "_handle_launch_result", "validate_and_resolve_root_certificates"):
    setattr(place, name, lambda *words, **more: None)
place.AutoExecPlugin.launch_task = lambda self, **words: begun.append(1) or True
superexec.ask_sooner(pace)
try:
    place.run_superexec(runtime_api_address="127.0.0.1:9", insecure=True)
except Enough:
    pass
print(json.dumps([waits, now[0]]))
"""
)

_PARTS = """
import importlib, json, sys, threading
from types import SimpleNamespace
sys.path.insert(0, {files!r})
import polls
place = importlib.import_module(polls.PARTS)
assert polls.fetch_sooner(place)
waits, asked = [], []
class Event(threading.Event):
    def wait(self, seconds=None):
        waits.append(seconds)
place.threading = SimpleNamespace(Event=Event, Lock=threading.Lock)
def pull(part):
    asked.append(part)
    if len(asked) < 4:
        raise place.ObjectUnavailableError(part)
    return b"content"
print(place.pull_objects(["part"], pull), file=sys.stderr)
print(json.dumps([waits, len(asked)]))
"""


class RungAt:
    """A bell that is rung at times of a simulation."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def ring(self, at: float) -> None:
        self._file.touch()
        os.utime(self._file, ns=(0, round((at + 100) * 1e9)))

    def rung(self) -> int | None:
        return self._file.stat().st_mtime_ns


def done_by(flower: Path, script: str) -> tuple[list[float], float]:
    """What the script says: the waits, and the time at the end."""
    text = script.replace("{files!r}", repr(str(FILES)))
    done = subprocess.run(
        [sys.executable, "-c", text],
        env={"PYTHONPATH": str(flower), "FLWR_TELEMETRY_ENABLED": "0", "HOME": str(flower)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    waits, end = json.loads(done.stdout.splitlines()[-1])
    return waits, end


@pytest.mark.parametrize("after", [0.0, 1.0, 20.0, 200.0])
def test_a_serverapp_has_its_reply_a_tenth_later_at_most_and_never_later_than_with_flower(
    flower: Path, after: float
) -> None:
    waits, end = done_by(flower, _SERVERAPP.replace("{after}", str(after)))
    assert end - after <= min(3, max(0.2, 0.1 * end))
    assert all(0.2 <= one <= 3 for one in waits)
    assert len(waits) <= end / 3 + 40, "however long it takes, the SuperLink is asked no more than forty times more"


def test_a_supernode_asks_sooner_after_a_message_and_as_flower_does_where_there_was_none(flower: Path) -> None:
    waits, _ = done_by(flower, _SUPERNODE)
    assert waits[:3] == [3, 3, 3]
    of_the_reply, after = waits[3:-3], waits[-3:]
    assert of_the_reply[:10] == [0.1] * 10
    assert 11 <= 9 + sum(of_the_reply) <= 11.2
    assert after == pytest.approx([0.2, 0.2, 0.25], abs=0.05), "a tenth of the time since the message"


def test_a_superexec_asks_sooner_after_a_task_and_as_flower_does_where_there_was_none(flower: Path) -> None:
    waits, _ = done_by(flower, _SUPEREXEC)
    assert waits[:9] == [1] * 9
    after = waits[9:]
    assert after[0] == 0.1 and after == sorted(after)
    assert sum(one for one in after if one < 1) <= 11, "ten seconds after a task it asks every second again"


def test_a_part_of_a_message_that_is_not_there_yet_is_asked_for_after_a_tenth_of_a_second(flower: Path) -> None:
    waits, times = done_by(flower, _PARTS)
    assert waits == [pytest.approx(wait, rel=0.21) for wait in (0.1, 0.2, 0.4)], "Flower's own: after a second"
    assert times == 4


def test_a_flower_that_fetches_otherwise_does_so_and_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert not host_program("common", "polls").fetch_sooner(ModuleType("elsewhere"))
    assert "no initial_backoff in elsewhere: it fetches at its own pace" in capsys.readouterr().out


@pytest.mark.parametrize(("answered_in", "wait"), [(0.01, 0.1), (0.1, 0.5), (2.0, 3.0)])
def test_a_supernode_asks_the_less_often_the_longer_its_superlink_takes_to_answer(
    answered_in: float, wait: float
) -> None:
    polls, waited = host_program("common", "polls"), list[float]()
    pace = polls.Pace(polls.SUPERNODE, wait=waited.append)
    pace.happened()
    for _ in range(2):
        pace.answered(answered_in)
    pace.sleep(3)
    pace.answered(0.0)
    pace.sleep(3)
    assert waited == [pytest.approx(wait, abs=0.01), pytest.approx(0.1, abs=0.01)], "one slow answer counts for nothing"


def asked_at(rings: list[float], until: float, bell: Any) -> list[float]:
    """When a SuperExec asks that this bell tells of what comes, in seconds of a simulation."""
    polls, now, asked = host_program("common", "polls"), [0.0], list[float]()

    def wait(seconds: float) -> None:
        now[0] += seconds
        while rings and rings[0] <= now[0]:
            bell.ring(rings.pop(0))

    pace = polls.Pace(polls.SUPEREXEC, lambda: now[0], wait, told_by=bell)
    while now[0] < until:
        asked.append(round(now[0], 2))
        pace.sleep(1)
    return asked


def test_who_is_told_when_something_comes_asks_every_three_seconds_until_then(tmp_path: Path) -> None:
    bell = RungAt(tmp_path / "bell")
    bell.ring(-60)
    late = [one for one in asked_at([100.05], 140, bell) if one > 60]
    before = [one for one in late if one <= 100]
    after = [one for one in late if one > 100]
    assert {round(two - one, 1) for one, two in pairwise(before)} == {3.0}
    assert after[:5] == pytest.approx([100.2, 100.3, 100.4, 100.5, 100.6], abs=0.11), "at once, and sooner for a while"
    assert after[-1] - after[-2] == pytest.approx(3.0, abs=0.1)


def test_what_comes_while_one_asks_is_not_missed(tmp_path: Path) -> None:
    polls, now = host_program("common", "polls"), [0.0]
    bell = RungAt(tmp_path / "bell")
    bell.ring(0)
    pace = polls.Pace(polls.SUPEREXEC, lambda: now[0], lambda seconds: now.append(now.pop() + seconds), told_by=bell)
    for _ in range(100):
        pace.sleep(1)
    waits = now[0]
    bell.ring(1)
    pace.sleep(1)
    assert now[0] - waits == pytest.approx(0.1)


def test_where_there_is_no_bell_one_asks_as_often_as_ever(tmp_path: Path) -> None:
    asked = asked_at([], 20, host_program("common", "polls").Bell(tmp_path / "none"))
    assert {round(two - one, 1) for one, two in pairwise(asked)} == {1.0}


def test_a_bell_is_heard_by_another_process_and_one_that_cannot_be_rung_stops_nobody(tmp_path: Path) -> None:
    polls = host_program("common", "polls")
    ours, theirs = polls.Bell(tmp_path / "bell"), polls.Bell(tmp_path / "bell")
    assert theirs.rung() is None
    ours.ring()
    first = theirs.rung()
    time.sleep(0.05)
    ours.ring()
    assert first is not None and theirs.rung() > first
    polls.Bell(tmp_path / "no" / "folder").ring()


def test_all_else_that_flower_asks_of_the_clock_is_answered_by_pythons_own() -> None:
    polls = host_program("common", "polls")
    module = ModuleType("somewhere")
    vars(module)["time"] = time
    waited: list[float] = []
    polls.stand_in(module, polls.Pace({}, wait=waited.append))
    assert module.time.monotonic is time.monotonic
    module.time.sleep(0.5)
    assert waited == [0.5]
    assert time.sleep is not module.time.sleep


def test_a_flower_of_another_shape_waits_as_it_did_and_that_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    polls = host_program("common", "polls")
    module = ModuleType("elsewhere")
    polls.stand_in(module, polls.Pace({}))
    assert not hasattr(module, "time")
    assert capsys.readouterr().out == "this version of Flower has no elsewhere.time: it asks at its own pace\n"
