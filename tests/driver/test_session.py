"""What a session promises: each site's reply, its error or its absence, and nothing left behind."""

import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from flwr.app import ArrayRecord, ConfigRecord, MetricRecord, RecordDict
from here import Here
from loopback import LoopbackFederation

from flowerbed.errors import UsageError, WorkFailed
from flowerbed.session import Session, bridge, open_session
from flowerbed.session.line import Broken, Line

NEVER_STARTED = "hospital-z"


@pytest.fixture(scope="module")
def here() -> Here:
    return Here()


@pytest.fixture(scope="module")
def session(
    standing: LoopbackFederation, here: Here, apps: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Session]:
    """A session with two sites that are there and one that is not."""
    with open_session(
        standing.connection,
        here,
        apps / "answers.py",
        deployed=replace(standing.deployed, sites={**standing.sites, NEVER_STARTED: "1234567890123456789"}),
        config={"greeting": "good morning"},
        into=tmp_path_factory.mktemp("runs"),
    ) as opened:
        yield opened


def test_a_session_knows_which_sites_are_online(session: Session) -> None:
    assert session.sites == ("hospital-a", "hospital-b")


def test_records_travel_both_ways_as_they_are_and_a_site_that_is_not_there_is_absent(session: Session) -> None:
    numbers = MetricRecord({"one": 1, "half": 0.5, "none": float("nan"), "many": [1, 2**62], "few": [float("inf")]})
    settings = ConfigRecord({"text": "grüße", "flag": True, "raw": b"\x00\xff", "texts": ["a", "b"], "raws": [b"\x01"]})
    arrays = ArrayRecord([np.arange(6, dtype=np.float32).reshape(2, 3), np.zeros(0), np.array(7)])
    content = RecordDict({"arrays": arrays, "numbers": numbers, "settings": settings})
    replies = session.broadcast_and_wait("train", content)
    assert replies.absent == {NEVER_STARTED: "offline"}
    assert replies.errors == {}
    for added, site in enumerate(("hospital-a", "hospital-b")):
        there = replies[site]
        assert str(there["numbers"]) == str(numbers)  # one of them is not equal to itself
        assert there["settings"] == settings
        sent, came = arrays.to_numpy_ndarrays(), there["arrays"].to_numpy_ndarrays()
        for before, after in zip(sent, came, strict=True):
            assert after.shape == before.shape
            assert np.array_equal(after, before + added)


def test_each_site_can_be_sent_its_own(session: Session) -> None:
    each = {"hospital-a": {"arrays": np.zeros(2)}, "hospital-b": {"arrays": [np.ones(3)]}}
    replies = session.broadcast_and_wait("train", each)
    came = {site: records["arrays"].to_numpy_ndarrays()[0].tolist() for site, records in replies.all().items()}
    assert came == {"hospital-a": [0, 0], "hospital-b": [2, 2, 2]}


def test_the_error_of_one_site_is_one_line_and_leaves_the_others_alone(session: Session) -> None:
    replies = session.broadcast_and_wait("query.fail", sites=["hospital-a", "hospital-b"])
    assert replies["hospital-a"]["metrics"] == {"site": 0}
    assert replies.errors == {"hospital-b": "ValueError: no column 'age' [31min this data"}
    with pytest.raises(WorkFailed, match="hospital-b failed: ValueError: no column 'age'"):
        replies["hospital-b"]["metrics"]
    with pytest.raises(WorkFailed, match="hospital-b failed"):
        replies.all()


def test_a_line_that_breaks_costs_no_reply(session: Session, here: Here) -> None:
    before = len(here.lines)
    timer = threading.Timer(1, here.cut)
    timer.start()
    replies = session.broadcast_and_wait("query", sites=["hospital-a", "hospital-b"])
    timer.join()
    assert {site: records["who"]["run-config"] for site, records in replies.all().items()} == {
        "hospital-a": "good morning",
        "hospital-b": "good morning",
    }
    assert len(here.lines) == before + 1


def test_a_late_reply_is_no_part_of_a_later_call(session: Session) -> None:
    seconds = {"config": {"seconds-0": 0.0, "seconds-1": 3.0}}
    replies = session.broadcast_and_wait("query.slow", seconds, sites=["hospital-b"], timeout=0.5)
    assert replies.absent == {"hospital-b": "no reply within 0.5 s"}
    again = session.broadcast_and_wait("query", sites=["hospital-b"])
    assert list(again["hospital-b"].records or {}) == ["who"]


def test_whoever_lacks_the_key_is_not_served(session: Session, standing: LoopbackFederation, here: Here) -> None:
    with pytest.raises(Broken):
        Line(here, str(standing.results / session.run_id), bridge.SOCKET, "guessed", 0)
    assert session.sites == ("hospital-a", "hospital-b")


def test_what_cannot_be_asked_is_refused_at_once(session: Session) -> None:
    def ask(task: str, *records: object, **options: object) -> None:
        session.broadcast_and_wait(task, *records, **options)  # type: ignore[arg-type] - they are wrong on purpose

    for pattern, call in {
        "'hospital-x' is no site of this federation: it has hospital-a": lambda: ask("query", sites=["hospital-x"]),
        "'fit' is no task": lambda: ask("fit"),
        "give a list": lambda: ask("query", sites="hospital-a"),
        "no sites are asked": lambda: ask("query", sites=[]),
        "timeout=0": lambda: ask("query", timeout=0),
        r"records\['model'\] is a str": lambda: ask("train", {"model": "net"}),
        r"records\['a'\] cannot travel": lambda: ask("train", {"a": np.array([object()])}),
        "no records for hospital-b": lambda: ask("train", {"hospital-a": {}}, sites=["hospital-a", "hospital-b"]),
    }.items():
        with pytest.raises(UsageError, match=pattern):
            call()


def test_a_task_without_a_handler_says_what_to_write(session: Session) -> None:
    with pytest.raises(UsageError, match=r"no handler for 'query.count': write one below @app.query\(\"count\"\)"):
        session.broadcast_and_wait("query.count", sites=["hospital-a"])


def test_a_closed_session_leaves_nothing_but_its_run(
    session: Session, standing: LoopbackFederation, here: Here
) -> None:
    result = session.close()
    assert (result.verdict.status, result.exit_code) == ("completed", 0)
    assert result.folder is not None
    assert "call 1: train to 3 sites" in (result.folder / "log.txt").read_text()
    assert list((standing.results / session.run_id).iterdir()) == []
    assert [line.poll() is None for line in here.lines] == [False] * len(here.lines)
    assert not [thread for thread in threading.enumerate() if "flowerbed" in str(getattr(thread, "_target", ""))]
    with pytest.raises(WorkFailed, match="the session is closed"):
        session.broadcast_and_wait("query")
    with pytest.raises(WorkFailed, match="the session is closed"):
        _ = session.sites
    assert session.close() is result
