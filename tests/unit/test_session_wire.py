"""What a session's two ends say to each other arrives as it was, and what is hostile is refused in one line."""

import io
import json
import struct
import subprocess
import sys
from collections.abc import Sequence
from typing import IO, Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

from flowerbed.session import wire
from flowerbed.session.line import Broken, Line


def sent(header: dict[str, Any], records: Sequence[RecordDict] = ()) -> io.BytesIO:
    stream = io.BytesIO()
    wire.write(stream, header, records)
    stream.seek(0)
    return stream


def raw(header: object, *blobs: bytes) -> io.BytesIO:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return io.BytesIO(struct.pack(">I", len(text)) + text + b"".join(blobs))


def test_records_arrive_as_they_were_in_their_order() -> None:
    records = RecordDict(
        {
            "z": ArrayRecord({"later": Array(np.eye(3)), "earlier": Array(np.array([], dtype=np.int8))}),
            "a": MetricRecord({"n": 2**63 - 1, "x": -0.5, "many": [1.0, 2.0]}),
            "m": ConfigRecord({"flag": False, "raw": b"\x00", "texts": [], "number": 1}),
            "empty": ArrayRecord(),
        }
    )
    frame = wire.read(sent({"id": 7, "to": {"1": 0}}, [records]))
    assert frame is not None
    assert frame.header == {"id": 7, "to": {"1": 0}}
    (came,) = frame.records
    assert list(came) == ["z", "a", "m", "empty"]
    assert came == records


def test_an_array_that_goes_to_many_sites_travels_once() -> None:
    model = np.random.default_rng(0).random(100_000)
    one = sent({}, [RecordDict({"arrays": ArrayRecord([model])})])
    three = sent({}, [RecordDict({"arrays": ArrayRecord([model]), "own": MetricRecord({"n": n})}) for n in range(3)])
    assert len(three.getvalue()) < len(one.getvalue()) + 1000


def test_an_array_of_objects_is_no_array() -> None:
    harmful = Array("object", (1,), "numpy.ndarray", b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'shape': (1,)}")
    frame = wire.read(sent({}, [RecordDict({"arrays": ArrayRecord({"0": harmful})})]))
    assert frame is not None
    with pytest.raises(ValueError):
        frame.records[0]["arrays"].to_numpy_ndarrays()


@pytest.mark.parametrize(
    "stream",
    [
        io.BytesIO(struct.pack(">I", wire.HEADER_LIMIT + 1)),
        raw(b"\x80\x04pickle"),
        raw(b"[" * 100_000),
        raw(["no", "object"]),
        raw({"blobs": [-1]}),
        raw({"blobs": ["1"]}),
        raw({"blobs": 3}),
        raw({"blobs": [wire.FRAME_LIMIT, 1]}),
        raw({"records": 3}),
        raw({"records": [[["name", "pickle", []]]]}),
        raw({"records": [[["name", "metrics", [["key", "text"]]]]]}),
        raw({"records": [[["name", "metrics", [["key", {"bytes": "!"}]]]]]}),
        raw({"records": [[["name", "config", [[{}, 1]]]]]}),
        raw({"records": [[["name", "arrays", [["0", "float64", [1], "numpy.ndarray", 0]]]]]}),
        raw({"records": [[["name", "arrays", [["0", "float64", [1], "numpy.ndarray", -1]]]]], "blobs": [1]}, b"x"),
        raw({"records": [[["name", "arrays", [["0", 1, "x", [], 0]]]]], "blobs": [1]}, b"x"),
    ],
)
def test_what_is_no_frame_is_refused_in_one_line(stream: io.BytesIO) -> None:
    with pytest.raises(wire.Hostile) as refused:
        wire.read(stream)
    assert "\n" not in str(refused.value)


def test_a_frame_that_ends_early_is_a_broken_line_and_no_end() -> None:
    whole = sent({}, [RecordDict({"arrays": ArrayRecord([np.zeros(10)])})]).getvalue()
    assert wire.read(io.BytesIO()) is None
    for length in (1, 10, len(whole) - 1):
        with pytest.raises(EOFError):
            wire.read(io.BytesIO(whole[:length]))


def test_what_is_too_large_is_refused_before_it_is_sent() -> None:
    with pytest.raises(ValueError, match="send arrays instead"):
        wire.write(io.BytesIO(), {}, [RecordDict({"m": ConfigRecord({"raw": bytes(wire.HEADER_LIMIT)})})])


class Says:
    """A coordinator that says the same to everything, and exits."""

    def __init__(self, said: bytes, complaint: str = "", code: int = 0) -> None:
        self.program = f"import os, sys; os.write(1, {said!r}); sys.stderr.write({complaint!r}); sys.exit({code})"
        self.started: list[subprocess.Popen[bytes]] = []

    def pipe(self, command: Sequence[str], errors: IO[bytes]) -> "subprocess.Popen[bytes]":
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
        self.started.append(subprocess.Popen([sys.executable, "-c", self.program], stderr=errors, **pipes))
        return self.started[-1]


@pytest.mark.parametrize(
    ("coordinator", "why"),
    [
        (Says(b"Welcome to Ubuntu\nlast login: today\n"), "what answers is no session"),
        (Says(wire.MAGIC + sent({"is": "something else"}).getvalue()), "what answers is no session"),
        (Says(wire.MAGIC + b"\x00\x00\x00\x04true"), "a header that is no object"),
        (Says(b"", "Permission denied\n", 255), "Permission denied"),
        (Says(b""), "what answers is no session"),
    ],
)
def test_who_answers_otherwise_than_a_session_is_left(coordinator: Says, why: str) -> None:
    with pytest.raises((Broken, wire.Hostile), match=why):
        Line(coordinator, "/folder", "session", "key", 0)  # type: ignore[arg-type] - it is asked for nothing else
    assert [process.poll() is not None for process in coordinator.started] == [True]
