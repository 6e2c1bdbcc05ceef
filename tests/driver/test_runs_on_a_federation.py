"""What a run on a real federation promises: the truth about its end, and its results at home."""

import csv
import getpass
import html
import importlib.metadata
import os
import re
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from dropping_proxy import DroppingProxy
from loopback import LoopbackFederation, free_port

from flowerbed import journal
from flowerbed.errors import UsageError, WorkFailed
from flowerbed.runs import RunResult, follow, submit_and_follow
from flowerbed.runs.connection import Connection
from flowerbed.runs.events import Event, NotRecorded, Reconnecting, RunEnded, RunLeft, RunSubmitted, SitesMissing
from flowerbed.runs.follow import AppError, PhaseDone, PhaseStarted, Waiting
from flowerbed.runs.transfer import receive, send_command


@dataclass
class ThisMachine:
    """The coordinator's files and audit trail where the coordinator is this machine, which may have no journal."""

    entries: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    broken: str = ""

    def fetch(self, path: str, into: Path) -> None:
        receive(send_command(path), path, into)

    def record(self, event: str, message: str, fields: Mapping[str, str]) -> None:
        if self.broken:
            raise WorkFailed(self.broken)
        self.entries.append((event, {**fields, "message": message}))

    def of(self, run_id: str) -> list[tuple[str, dict[str, str]]]:
        """The entries about a run."""
        return [(event, fields) for event, fields in self.entries if fields["run"] == run_id]


COORDINATOR = ThisMachine()


def report(result: RunResult) -> str:
    """The words of a run's report."""
    assert result.folder is not None
    words = re.sub(r"<style>.*?</style>|<[^>]*>", " ", (result.folder / "report.html").read_text(), flags=re.DOTALL)
    return " ".join(html.unescape(words).split())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs come home."""
    return tmp_path_factory.mktemp("runs")


@pytest.fixture(scope="module")
def run(standing: LoopbackFederation, apps: Path, home: Path) -> Callable[..., RunResult]:
    """Submits the tiny app; keyword arguments as for submit_and_follow."""

    def submit(config: dict[str, object], **options: object) -> RunResult:
        connection = options.pop("connection", standing.connection)
        coordinator = options.pop("coordinator", COORDINATOR)
        return submit_and_follow(
            connection,  # type: ignore[arg-type] - it may be one of the options, which are of any type
            coordinator,  # type: ignore[arg-type] - the same
            apps / "tiny",
            config,
            deployed=standing.deployed,
            into=home,
            **options,  # type: ignore[arg-type]
        )

    return submit


@pytest.fixture(scope="module")
def detached(run: Callable[..., RunResult]) -> RunResult:
    """A run of which one client fails, left to itself."""
    return run({"behaviour": "client-error"}, detach=True)


@pytest.fixture(scope="module")
def events() -> list[Event]:
    """What the run beside it told."""
    return []


@pytest.fixture(scope="module")
def beside(
    standing: LoopbackFederation, run: Callable[..., RunResult], detached: RunResult, events: list[Event]
) -> Iterator[RunResult]:
    """A run that goes well, beside the detached one, over a way that breaks while it trains."""
    proxy = DroppingProxy(standing.port)

    def listen(event: Event) -> None:
        events.append(event)
        if isinstance(event, PhaseStarted) and event.phase.kind == "train":
            proxy.drop()

    way = Connection(f"127.0.0.1:{proxy.port}", standing.connection.root_certificates)
    yield run({"learning-rate": 0.25}, connection=way, expected_sites=2, on_event=listen)
    proxy.close()


def test_a_detached_run_is_submitted_and_says_how_to_come_back(detached: RunResult) -> None:
    assert (detached.verdict.status, detached.exit_code, detached.folder) == ("running", 0, None)
    assert f"`flowerbed wait {detached.run_id} --federation loopback`" in detached.verdict.reason


def test_a_run_with_every_reply_is_complete(beside: RunResult) -> None:
    assert (beside.verdict.status, beside.verdict.reason) == ("completed", "1 round, all 4 replies")
    assert beside.exit_code == 0


def test_a_way_that_breaks_costs_nothing_of_the_log(beside: RunResult, events: list[Event]) -> None:
    kinds = [type(event) for event in events]
    assert Reconnecting in kinds
    assert [kinds.count(kind) for kind in (RunSubmitted, PhaseStarted, PhaseDone, RunEnded)] == [1, 2, 2, 1]
    assert beside.folder is not None
    log = (beside.folder / "log.txt").read_text().splitlines()
    assert len([line for line in log if "configure_train: Sampled 2 nodes" in line]) == 1
    assert "Strategy execution finished" in "".join(log)


def test_overrides_reach_the_app(beside: RunResult) -> None:
    assert beside.folder is not None
    # One step from 0 towards 1 and 2, weighted with 10 and 11 examples.
    weight = 0.25 * (10 * 1 + 11 * 2) / 21
    assert np.load(beside.folder / "files" / "checkpoints" / "final.npy") == pytest.approx([weight] * 3)
    assert beside.record["overrides"] == {"learning-rate": 0.25}
    assert beside.record["config"]["num-server-rounds"] == 1


def test_the_results_come_home_in_a_dated_folder(beside: RunResult, home: Path) -> None:
    assert beside.folder is not None and beside.folder.parent.parent == home
    assert (home / "latest").resolve().parent.parent == home
    assert sorted(entry.name for entry in beside.folder.iterdir()) == [
        *("files", "log.txt", "metrics.csv", "metrics.json", "replies.jsonl", "report.html", "run.json")
    ]
    rows = list(csv.DictReader((beside.folder / "metrics.csv").open()))
    by_site = {row["site"]: row["value"] for row in rows if row["metric"] == "accuracy"}
    assert set(by_site) == {"", "hospital-a", "hospital-b"}
    assert (by_site["hospital-a"], by_site["hospital-b"]) == ("0.5", "0.75")


def test_the_record_names_the_fab_the_sites_and_the_times(beside: RunResult, standing: LoopbackFederation) -> None:
    record = beside.record
    assert record["app"]["name"] == "tiny" and len(record["app"]["fab_hash"]) == 64
    assert record["sites"] == standing.sites
    assert record["seconds"] > 0 and record["submitted"] < record["started"] < record["finished"]
    assert (record["by"], record["versions"]["flower"]) == (journal.operator(), importlib.metadata.version("flwr"))
    assert set(record["versions"]["packages"]) == {"flwr", "numpy"}
    # The way broke while they trained, so nobody here saw how long that took: the coordinator noted it.
    assert all(record["rounds"][0][phase]["seconds"] > 0 for phase in ("train", "evaluate"))


def test_what_each_site_replied_and_when_is_known_without_the_apps_help(beside: RunResult) -> None:
    (entry,) = beside.record["rounds"]
    # The app tells of its evaluations alone; what it tells is what the coordinator noted.
    assert entry["sites"]["train"] == {
        "hospital-a": {"loss": 0.25, "num-examples": 10},
        "hospital-b": {"loss": 0.5, "num-examples": 11},
    }
    for phase in ("train", "evaluate"):
        replies = entry[phase]["replies"]
        assert {site: one["outcome"] for site, one in replies.items()} == {
            "hospital-a": "result",
            "hospital-b": "result",
        }
        assert all(0 < one["created"] <= one["seconds"] + 1 and one["to_site"] > 0 for one in replies.values())
    timings = beside.record["timings"]["sites"]["hospital-a"]
    assert timings["train"]["mean"] == entry["train"]["replies"]["hospital-a"]["seconds"]
    assert timings["evaluate"]["from_site"] == 0 < timings["train"]["from_site"]


def test_a_run_whose_messages_nobody_notes_comes_home_as_well(
    standing: LoopbackFederation, run: Callable[..., RunResult]
) -> None:
    standing.record(False)
    try:
        result = run({"evaluate": False})
    finally:
        standing.record(True)
    assert (result.verdict.status, result.verdict.reason) == ("completed", "1 round, all 2 replies")
    assert result.record["recorded"] is False and "No message was noted" in report(result)


def test_the_audit_trail_says_who_ran_which_app_and_how_it_ended(beside: RunResult, resumed: RunResult) -> None:
    (_, submitted), (_, finished) = COORDINATOR.of(beside.run_id)
    who = f"{getpass.getuser()}@{socket.gethostname()}"
    shared = {"federation": "loopback", "run": beside.run_id, "app": "flowerbed/tiny 1.2.3", "by": who}
    shared["app_hash"] = beside.record["app"]["fab_hash"]
    assert submitted.items() >= shared.items()
    assert finished.items() >= {**shared, "result": "completed", "detail": "rounds: 1, replies: 4"}.items()
    assert [event for event, _ in COORDINATOR.of(resumed.run_id)] == ["run.submitted", "run.finished"]
    assert "no column" not in str(COORDINATOR.of(resumed.run_id)), "what an app says may be data"


@pytest.fixture(scope="module")
def resumed(standing: LoopbackFederation, detached: RunResult, beside: RunResult, home: Path) -> RunResult:
    """The detached run, followed after the other."""
    return follow(standing.connection, COORDINATOR, detached.run_id, deployed=standing.deployed, into=home)


def test_a_failing_client_makes_a_run_incomplete_and_its_site_is_named(resumed: RunResult) -> None:
    assert (resumed.verdict.status, resumed.exit_code) == ("incomplete", 1)
    assert resumed.verdict.reason == (
        "round 1 train: 1 of 2 replies (hospital-b failed with ValueError: no column 'age' in the data of partition 1)"
    )
    assert resumed.record["flower_status"] == "finished:completed", "Flower itself calls this a success"


def test_the_report_of_a_half_failed_run_says_so_and_who(resumed: RunResult) -> None:
    text = report(resumed)
    assert "Incomplete. round 1 train: 1 of 2 replies" in text
    assert "1 train hospital-b failed: ValueError: no column 'age' in the data of partition 1" in text
    assert "round 1 train, hospital-b: failed" in text, "on the timeline"


def test_a_resumed_run_comes_home_with_the_config_it_was_submitted_with(resumed: RunResult, home: Path) -> None:
    assert resumed.record["overrides"] == {"behaviour": "client-error"}
    assert not list((home / ".submitted").iterdir())


def test_two_runs_at_once_keep_apart(resumed: RunResult, beside: RunResult) -> None:
    assert resumed.run_id != beside.run_id
    assert resumed.folder != beside.folder
    assert resumed.record["submitted"] < beside.record["finished"]


def test_a_run_that_is_home_is_not_brought_home_twice(
    standing: LoopbackFederation, resumed: RunResult, home: Path
) -> None:
    nobody = Connection(f"127.0.0.1:{free_port()}", None, insecure=True)
    again = follow(nobody, COORDINATOR, resumed.run_id, deployed=standing.deployed, into=home)
    assert (again.folder, again.verdict) == (resumed.folder, resumed.verdict)
    assert again.record == resumed.record


def test_a_server_app_that_raises_fails_the_run(run: Callable[..., RunResult]) -> None:
    events: list[Event] = []
    no_journal = ThisMachine(broken="it has no journal")
    result = run({"behaviour": "server-error"}, coordinator=no_journal, on_event=events.append)
    assert (result.verdict.status, result.exit_code) == ("failed", 1)
    assert result.verdict.reason == "RuntimeError: the checkpoint to start from does not exist"
    assert AppError(result.verdict.reason) in events
    assert result.folder is not None and "Traceback" in (result.folder / "log.txt").read_text()
    assert "Failed. RuntimeError: the checkpoint to start from does not exist" in report(result)
    assert "Never asked: hospital-a, hospital-b." not in report(result), "nobody noted whom it asked"
    # What the audit trail lacks is said, and changes nothing.
    assert NotRecorded("it has no journal") in events
    assert result.to_json()["audit_error"] == "it has no journal"


def test_a_run_that_waits_for_nodes_is_stopped_in_time_and_says_for_whom(
    standing: LoopbackFederation, run: Callable[..., RunResult]
) -> None:
    standing.register("hospital-c")
    events: list[Event] = []
    try:
        result = run({"min-nodes": 3}, node_timeout=8, on_event=events.append)
    finally:
        standing.forget("hospital-c")
    assert Waiting(2, 3) in events and SitesMissing(("hospital-c",)) in events
    assert (result.verdict.status, result.exit_code) == ("timed-out", 1)
    assert result.verdict.reason.endswith("of waiting for nodes, 2 of 3 online: hospital-c not online")
    assert standing.control.run(result.run_id).status == "finished:stopped"
    assert f"Timed out. {result.verdict.reason}" in report(result)


def test_a_run_that_is_stopped_in_time_says_who_was_still_missing(run: Callable[..., RunResult]) -> None:
    result = run({"behaviour": "slow", "slow.seconds": 300.0}, timeout=30)
    assert (result.verdict.status, result.exit_code) == ("timed-out", 1)
    outcomes = {site: one["outcome"] for site, one in result.record["rounds"][0]["train"]["replies"].items()}
    assert outcomes == {"hospital-a": "result", "hospital-b": "missing"}
    text = report(result)
    assert "Timed out. stopped after" in text and "1 train hospital-b no reply came" in text


@pytest.fixture
def interruptible() -> Iterator[None]:
    """A shell has what it starts in the background ignore Ctrl-C; a test of it must not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_leaves_the_run_going_and_stop_ends_it(
    standing: LoopbackFederation, run: Callable[..., RunResult], home: Path
) -> None:
    told: list[Event] = []

    def interrupt(event: Event) -> None:
        told.append(event)
        if isinstance(event, PhaseStarted):
            os.kill(os.getpid(), signal.SIGINT)

    left = run({"behaviour": "slow", "slow.seconds": 300.0}, on_event=interrupt)
    assert (left.verdict.status, left.exit_code, left.folder) == ("running", 130, None)
    assert left.verdict.reason.startswith(f"left going; `flowerbed wait {left.run_id}")
    assert told[-1] == RunLeft(left.verdict)
    assert standing.control.run(left.run_id).status == "running"

    standing.control.stop(left.run_id)
    ended = follow(standing.connection, COORDINATOR, left.run_id, deployed=standing.deployed, into=home)
    assert (ended.verdict.status, ended.verdict.reason, ended.exit_code) == ("stopped", "somebody stopped it", 1)
    assert "Stopped. somebody stopped it" in report(ended)


def test_a_run_that_is_not_known_is_wrong_input(standing: LoopbackFederation, home: Path) -> None:
    with pytest.raises(UsageError, match="the federation has no such run"):
        follow(standing.connection, COORDINATOR, "4711", deployed=standing.deployed, into=home)


def test_a_superlink_that_does_not_answer_is_named(standing: LoopbackFederation, run: Callable[..., RunResult]) -> None:
    nobody = Connection(f"127.0.0.1:{free_port()}", standing.connection.root_certificates)
    with pytest.raises(WorkFailed, match=r"cannot submit tiny: the SuperLink does not answer on 127\.0\.0\.1:"):
        run({}, connection=nobody)
