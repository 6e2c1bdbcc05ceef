"""A ClientApp that ends without a reply: the SuperNode answers for it, and takes new work."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flowerbed.paths import ANSIBLE

FILES = ANSIBLE / "roles" / "common" / "files"
# The SuperNode's own state, of the version of Flower that is first among the folders.
_SCRIPT = """
import importlib, json, sys
sys.path.insert(0, {files!r})
import supernode, unanswered
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore
from flwr.app import ConfigRecord, Message, RecordDict
module = importlib.import_module(unanswered.STATE[0])
State, error = (getattr(module, name) for name in unanswered.STATE[1:])
unanswered.answer_for_all(State, error)
from flwr.supercore.task_identity import TaskIdentity
TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 4711, 1
state = State(InMemoryObjectStore())
state.set_node_id(7)
get_messages = getattr(state, "get_messages_legacy", None) or state.get_messages
def message(number):
    made = Message(RecordDict({{"config": ConfigRecord({{"number": number}})}}), 7, "train")
    made.metadata.__dict__["_run_id"] = 4711
    made.metadata.__dict__["_message_id"] = f"message {{number}}"
    return made
def begin(number):
    task = state.create_task("flwr-clientapp", 4711, "hash")
    state.store_message(message(number))
    assert state.claim_task(task)
    assert state.activate_task(task)
    return task
def fetch():
    for one in get_messages(run_ids=[4711], is_reply=False, limit=1):
        state.record_message_processing_start(one.metadata.message_id)
def reply_to_first():
    reply = Message(RecordDict(), reply_to=message(1))
    reply.metadata.__dict__["_message_id"] = "reply 1"
    state.store_message(reply)
def replies():
    found = get_messages(is_reply=True)
    for one in found:
        if one.has_error():
            assert state.get_message_processing_duration(one.metadata.reply_to_message_id) >= 0
    return [[one.metadata.reply_to_message_id, one.has_error()] for one in found]
{what}
"""
ENDED_UNFETCHED = """
task = begin(1)
state.finish_task(task, "failed", "it was told to end")
print(json.dumps(replies()))
"""
ENDED_FETCHED = """
task = begin(1)
fetch()
state.finish_task(task, "failed", "it was told to end")
print(json.dumps(replies()))
"""
REPLIED = """
task = begin(1)
fetch()
reply_to_first()
state.finish_task(task, "completed", "")
print(json.dumps(replies()))
"""
LATE = """
first = begin(1)
fetch()
reply_to_first()
got = replies()
state.delete_messages(message_ids=["message 1", "reply 1"])
begin(2)
fetch()
state.finish_task(first, "failed", "its app raised")
print(json.dumps(got + replies()))
"""


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        (ENDED_UNFETCHED, [["message 1", True]]),
        (ENDED_FETCHED, [["message 1", True]]),
        (REPLIED, [["message 1", False]]),
        (LATE, [["message 1", False]]),
    ],
    ids=["ended before it had its message", "ended with it", "replied", "ended late, with the next under way"],
)
def test_each_message_has_one_reply_and_none_is_answered_for_that_is_worked_on(
    flower: Path, what: str, expected: list[list[object]]
) -> None:
    assert done_by(flower, what) == expected


def done_by(flower: Path, what: str) -> Any:
    """What the script gives at last."""
    return json.loads(said_by(flower, what).splitlines()[-1])


def said_by(flower: Path, what: str) -> str:
    """All that the script says."""
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT.format(files=str(FILES), what=what)],
        env={"PYTHONPATH": str(flower), "FLWR_TELEMETRY_ENABLED": "0", "HOME": str(flower)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr + done.stdout


DROPPED = """
workers = unanswered.Workers()
workers.follow(State)
task = state.create_task("flwr-clientapp", 4711, "hash")
state.store_message(message(1))
token = state.claim_task(task)
state.activate_task(task)
assert state.get_task_by_token(token)
workers.drop("message 1")
assert state.get_task_by_token(token) is None
print(json.dumps([replies(), len(state.msg_store)]))
"""


def test_the_app_of_a_message_that_was_dropped_is_refused_and_nothing_is_replied(flower: Path) -> None:
    assert done_by(flower, DROPPED) == [[], 0]


DROPPED_AFTER_THE_REPLY = """
workers = unanswered.Workers()
workers.follow(State)
first = begin(1)
fetch()
reply = Message(RecordDict({"config": ConfigRecord({"done": 1})}), reply_to=message(1))
from flwr.supercore.inflatable.inflatable_object import get_object_tree
tree = get_object_tree(reply)
state.object_store.preregister(4711, tree)
reply.metadata.__dict__["_message_id"] = tree.object_id
state.store_message(reply)
state.finish_task(first, "completed", "")
workers.drop("message 1")
left = [len(state.msg_store), len(state.object_store)]
begin(2)
fetch()
print(json.dumps([left, replies()]))
"""


def test_a_reply_to_a_message_that_was_dropped_is_not_sent_for_the_next_one(flower: Path) -> None:
    assert done_by(flower, DROPPED_AFTER_THE_REPLY) == [[0, 0], []]


# A SuperNode that sends a reply of which its app has brought the beginning alone.
CUT_OFF = """
import polls
place = importlib.import_module(supernode.PLACE)
from flwr.supercore.inflatable.inflatable_object import get_object_tree
now, waits = [0.0], []
def wait(seconds):
    waits.append(seconds)
    now[0] += seconds
    if len(waits) == 4:
        state.finish_task(task, "failed", "it was killed")
    assert len(waits) < 1000
polls.stand_in(place, polls.Pace({}, wait=wait))
workers = unanswered.Workers(clock=lambda: now[0])
workers.follow(State)
place.time.sleep = workers.guard(place.time.sleep)
task = begin(1)
fetch()
reply = Message(RecordDict({"config": ConfigRecord({"number": 1})}), reply_to=message(1))
reply.metadata.__dict__["_message_id"] = reply.object_id
store = InMemoryObjectStore()
tree = get_object_tree(reply)
store.preregister(4711, tree)
state.record_message_processing_end("message 1")
state.store_message(reply)
names = [tree.object_id]
send = lambda message, tree, seconds: (set(names), "session")
place._push_messages(state=state, object_store=store, send=send, push_object=lambda *words: None)
print(json.dumps([now[0], len(waits), len(state.msg_store)]))
"""


def test_a_reply_whose_rest_nobody_brings_is_given_up(flower: Path) -> None:
    said = said_by(flower, CUT_OFF)
    seconds, waits, left = json.loads(said.splitlines()[-1])
    assert 30 < seconds < 40
    assert waits == seconds / 0.5
    assert left == 0
    assert "Failed to send message" in said
