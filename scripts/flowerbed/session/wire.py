"""What a session and its bridge say to each other: frames of a JSON header and raw bytes, and nothing that runs code.

A frame is four bytes with the header's length, the header, and the blobs whose lengths the header names. Flower's
records stand in the header, with their arrays as numbers of blobs; equal arrays travel once. This module is sent to
the coordinator together with the bridge: it imports nothing but Python's own library and Flower's records.
"""

import base64
import hashlib
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from flwr.app import Array, ArrayRecord, ConfigRecord, MetricRecord, RecordDict

HEADER_LIMIT = 16 * 1024 * 1024
"""Bytes of a header at most."""
FRAME_LIMIT = 4 * 1024 * 1024 * 1024
"""Bytes of all blobs of a frame at most."""
MAGIC = b"flowerbed session 1\n"
"""What the bridge says first."""
_LENGTH = struct.Struct(">I")


class Hostile(ValueError):
    """The other side sent what no session sends; the text says what."""


@dataclass(frozen=True)
class Frame:
    """One frame as it came."""

    header: dict[str, Any]
    records: list[RecordDict] = field(default_factory=list)

    def text(self, key: str) -> str:
        """A value of the header that must be a text."""
        return str(self._of(key, str))

    def number(self, key: str) -> float:
        """A value of the header that must be a number."""
        return float(self._of(key, int, float))

    def _of(self, key: str, *types: type) -> Any:
        value = self.header.get(key)
        if type(value) not in types:
            raise Hostile(f"a frame has no proper '{key}'")
        return value


def write(stream: IO[bytes], header: dict[str, Any], records: Sequence[RecordDict] = ()) -> None:
    """Write a frame, and flush it; ValueError when it exceeds the limits."""
    blobs = _Blobs()
    described = [_describe(one, blobs) for one in records]
    document = {**header, "records": described, "blobs": [len(blob) for blob in blobs.found]}
    text = json.dumps(document, separators=(",", ":")).encode()
    if len(text) > HEADER_LIMIT:
        raise ValueError(f"metrics and settings take {len(text)} bytes, {HEADER_LIMIT} at most: send arrays instead")
    if sum(document["blobs"]) > FRAME_LIMIT:
        raise ValueError(f"the arrays take {sum(document['blobs'])} bytes, {FRAME_LIMIT} at most")
    stream.write(_LENGTH.pack(len(text)))
    stream.write(text)
    for blob in blobs.found:
        stream.write(blob)
    stream.flush()


def read(stream: IO[bytes]) -> Frame | None:
    """Read the next frame; None where the stream ends between two frames.

    Raises Hostile for what is no frame, EOFError where the stream ends within one.
    """
    begun = stream.read(_LENGTH.size)
    if not begun:
        return None
    length = int(_LENGTH.unpack(begun + _exactly(stream, _LENGTH.size - len(begun)))[0])
    if length > HEADER_LIMIT:
        raise Hostile(f"a header of {length} bytes")
    header = _parse(_exactly(stream, length))
    described, sizes = header.pop("records", []), header.pop("blobs", [])
    if not isinstance(sizes, list) or not all(type(size) is int and size >= 0 for size in sizes):
        raise Hostile("lengths that are none")
    if sum(sizes) > FRAME_LIMIT:
        raise Hostile(f"arrays of {sum(sizes)} bytes")
    blobs = [_exactly(stream, size) for size in sizes]
    try:
        return Frame(header, [_records(one, blobs) for one in described])
    except (TypeError, ValueError, KeyError, IndexError, AttributeError) as error:
        raise Hostile(f"records that are none ({' '.join(str(error).split())[:200]})") from None


@dataclass
class _Blobs:
    """The bytes of arrays, each once."""

    found: list[bytes] = field(default_factory=list)
    _known: dict[bytes, int] = field(default_factory=dict)

    def number(self, blob: bytes) -> int:
        key = hashlib.sha256(blob).digest()
        if key not in self._known:
            self._known[key] = len(self.found)
            self.found.append(blob)
        return self._known[key]


def _parse(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except (ValueError, RecursionError):
        raise Hostile("a header that is no JSON") from None
    if not isinstance(header, dict):
        raise Hostile("a header that is no object")
    return header


def _exactly(stream: IO[bytes], length: int) -> bytes:
    data = stream.read(length)
    if len(data) != length:
        raise EOFError
    return data


def _describe(records: RecordDict, blobs: _Blobs) -> list[Any]:
    described: list[Any] = []
    for name, record in records.items():
        items: list[Any]
        if isinstance(record, ArrayRecord):
            kind = "arrays"
            items = [
                [key, array.dtype, list(array.shape), array.stype, blobs.number(array.data)]
                for key, array in record.items()
            ]
        else:
            kind = "metrics" if isinstance(record, MetricRecord) else "config"
            items = [[key, _plain(value)] for key, value in record.items()]
        described.append([name, kind, items])
    return described


def _records(described: Any, blobs: list[bytes]) -> RecordDict:
    records = RecordDict()
    for name, kind, items in described:
        if kind == "arrays":
            arrays = ArrayRecord()
            for key, dtype, shape, stype, blob in items:
                if type(blob) is not int or blob < 0:
                    raise ValueError("an array without bytes")
                arrays[key] = Array(dtype, tuple(shape), stype, blobs[blob])
            records[name] = arrays
        elif kind == "metrics":
            records[name] = MetricRecord({key: _value(value) for key, value in items})
        elif kind == "config":
            records[name] = ConfigRecord({key: _value(value) for key, value in items})
        else:
            raise ValueError(f"no kind of record: {str(kind)[:40]}")
    return records


def _plain(value: Any) -> Any:
    """JSON has no bytes."""
    if isinstance(value, bytes):
        return {"bytes": base64.b64encode(value).decode()}
    return [_plain(each) for each in value] if isinstance(value, list) else value


def _value(value: Any) -> Any:
    if isinstance(value, dict):
        return base64.b64decode(value["bytes"], validate=True)
    return [_value(each) for each in value] if isinstance(value, list) else value
