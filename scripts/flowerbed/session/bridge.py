"""The ServerApp of a session: passes an operator's calls on to the sites, and their replies back.

It runs on the coordinator like every ServerApp, and listens on a Unix socket in its results folder. Who connects
shows the key whose hash stands in the run config. The latest connection is the operator's; one before it is closed.

The operator says `call` (a task, and which records go to which nodes), `again` (after the line broke: what is known of
a call already), `drop` (a call's replies are no longer wanted), `nodes`, `alive` and `close`. The bridge answers with
one `reply` for each node of a call, whatever became of it: records, an error, or the reason of its absence. It keeps
each until the call is dropped, in files without a name. It ends when it is told to, or has heard nobody for a while.
"""

import contextlib
import hashlib
import hmac
import io
import os
import queue
import shutil
import socket
import struct
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from flwr.app import DEFAULT_TTL, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from . import wire

SOCKET = "session"
"""The socket's name in the run's results folder."""
# Flower's error codes for a message, a reply and a node that are not there any more.
_ABSENT = {3: "its reply is not to be had", 4: "its reply came too late", 5: "went offline"}
_TTL_GRACE = 60.0  # seconds by which a site's clock may differ before its reply counts as late
_IN_MEMORY = 1 << 20
_SEND_SECONDS = 60
_QUICKEST, _SLOWEST, _PER_NODE = 0.2, 1.0, 0.02

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Serve one operator until told to close, or left alone for `session-patience` seconds."""
    folder = Path(os.environ["FLOWERBED_RESULTS"]) / str(context.run_id)
    folder.mkdir(parents=True, exist_ok=True)
    with Door(folder, str(context.run_config["session-key-sha256"])) as door:
        Bridge(grid, door, folder, float(context.run_config["session-patience"])).serve()


@dataclass
class Call:
    """One call: what is awaited of it, and what came."""

    task: str
    began: float
    timeout: float | None
    waiting: dict[str, int] = field(default_factory=dict)
    """Message id to node id."""
    came: dict[int, IO[bytes]] = field(default_factory=dict)
    """Node id to its whole reply frame."""


class Bridge:
    """Knows the calls; the only one to use the grid."""

    def __init__(self, grid: Grid, door: "Door", folder: Path, patience: float) -> None:
        self._grid = grid
        self._door = door
        self._folder = folder
        self._patience = patience
        self._calls: dict[int, Call] = {}
        self._began = time.monotonic()

    def serve(self) -> None:
        """Do what the operator says until the end."""
        print("the session is open", flush=True)
        while time.monotonic() - self._door.heard < self._patience:
            try:
                frame = self._door.frames.get(timeout=self._pause())
            except queue.Empty:
                pass
            else:
                if frame.header.get("do") == "close":
                    self._door.send({"is": "closed"})
                    print("the session was closed", flush=True)
                    return
                self._obey(frame)
                del frame  # it may hold much
            self._collect()
        print(f"the session heard nobody for {self._patience:g} s and ends", flush=True)

    def _pause(self) -> float:
        waiting = [call for call in self._calls.values() if call.waiting]
        if not waiting:
            return _SLOWEST
        youngest = max(call.began for call in waiting)
        nodes = sum(len(call.waiting) for call in waiting)
        return max(min(_SLOWEST, _QUICKEST + (time.monotonic() - youngest) / 10), nodes * _PER_NODE)

    def _obey(self, frame: wire.Frame) -> None:
        match frame.header.get("do"):
            case "call":
                self._call(frame)
            case "again":
                self._again(int(frame.number("id")), {int(node) for node in frame.header["have"]})
            case "drop":
                for came in self._calls.pop(int(frame.number("id")), Call("", 0, None)).came.values():
                    came.close()
            case "nodes":
                nodes = [str(node) for node in self._grid.get_node_ids()]
                self._door.send({"is": "nodes", "id": frame.header["id"], "nodes": nodes})

    def _call(self, frame: wire.Frame) -> None:
        number = int(frame.number("id"))
        if number in self._calls:
            self._again(number, set())
            return
        timeout = None if frame.header["timeout"] is None else frame.number("timeout")
        call = self._calls[number] = Call(frame.text("task"), time.monotonic(), timeout)
        nodes = {int(node): frame.records[index] for node, index in frame.header["to"].items()}
        print(f"call {number}: {call.task} to {len(nodes)} sites", flush=True)
        online = set(self._grid.get_node_ids())
        ttl = DEFAULT_TTL if timeout is None else min(DEFAULT_TTL, timeout + _TTL_GRACE)
        messages = [
            Message(records, node, call.task, ttl=ttl, group_id=str(number))
            for node, records in nodes.items()
            if node in online
        ]
        try:
            ids = list(self._grid.push_messages(messages)) if messages else []
        except Exception as error:  # whatever it is, the session goes on and says so
            ids, reason = [], f"the SuperLink did not take it: {error}"
        else:
            reason = "the SuperLink did not take it"
        for message, message_id in zip(messages, [*ids, *[""] * (len(messages) - len(ids))], strict=True):
            if message_id:
                call.waiting[message_id] = message.metadata.dst_node_id
            else:
                self._keep(number, message.metadata.dst_node_id, {"absent": reason})
        for node in nodes:
            if node not in online:
                self._keep(number, node, {"absent": "offline"})

    def _again(self, number: int, have: set[int]) -> None:
        call = self._calls.get(number)
        if call is None:
            self._door.send({"is": "unknown", "id": number})
            return
        for node, came in call.came.items():
            if node not in have:
                self._door.pass_on(came)

    def _collect(self) -> None:
        """Take what came, one reply at a time: each may be as large as memory allows."""
        for number, call in self._calls.items():
            for message_id, node in list(call.waiting.items()):
                for reply in self._grid.pull_messages([message_id]):
                    if call.waiting.pop(message_id, None) is not None:
                        self._take(number, node, reply)
            if call.timeout is not None and time.monotonic() - call.began > call.timeout:
                for node in call.waiting.values():
                    self._keep(number, node, {"absent": f"no reply within {call.timeout:g} s"})
                call.waiting.clear()

    def _take(self, number: int, node: int, reply: Message) -> None:
        if not reply.has_error():
            self._keep(number, node, {}, reply.content)
            return
        reason = reply.error.reason or f"Flower's error {reply.error.code}"
        absent = _ABSENT.get(reply.error.code)
        self._keep(number, node, {"error": reason} if absent is None else {"absent": absent})

    def _keep(self, number: int, node: int, outcome: dict[str, str], records: RecordDict | None = None) -> None:
        """Keep what became of a call at a node until the operator has it, and send it."""
        call = self._calls[number]
        seconds = time.monotonic() - call.began
        header = {"is": "reply", "id": number, "node": str(node), "seconds": seconds, **outcome}
        kept = tempfile.SpooledTemporaryFile(_IN_MEMORY, dir=str(self._folder))  # noqa: SIM115 - closed when dropped
        wire.write(kept, header, [] if records is None else [records])
        call.came[node] = kept
        said = next(iter(outcome.items()), ("reply", f"after {seconds:.1f} s"))
        print(f"call {number}: node {node} {said[0]}: {' '.join(said[1].split())[:300]}", flush=True)
        self._door.pass_on(call.came[node])


class Door:
    """The socket, and the operator who is there now."""

    def __init__(self, folder: Path, key_sha256: str) -> None:
        self.frames: queue.Queue[wire.Frame] = queue.Queue()
        self.heard = time.monotonic()
        self._key_sha256 = key_sha256
        self._file = folder / SOCKET
        self._lock = threading.Lock()
        self._operator: socket.socket | None = None
        self._file.unlink(missing_ok=True)
        self._server = socket.socket(socket.AF_UNIX)
        at = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._server.bind(f"/proc/self/fd/{at}/{SOCKET}")  # a socket's path has 107 characters at most
        finally:
            os.close(at)
        self._file.chmod(0o600)
        self._server.listen()

    def __enter__(self) -> "Door":
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._file.unlink(missing_ok=True)
        self._server.close()
        self._show_out(self._operator)

    def send(self, header: dict[str, Any]) -> None:
        """Tell the operator; who is not there asks again later."""
        frame = io.BytesIO()
        wire.write(frame, header)
        self.pass_on(frame)

    def pass_on(self, frame: IO[bytes]) -> None:
        """Send a whole frame to the operator; who is not there asks again later."""
        operator = self._operator
        if operator is None:
            return
        frame.seek(0)
        try:
            with operator.makefile("wb") as stream:
                shutil.copyfileobj(frame, stream, 1 << 20)
        except (OSError, ValueError):
            self._show_out(operator)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._server.accept()
                threading.Thread(target=self._attend, args=(connection,), daemon=True).start()

    def _attend(self, connection: socket.socket) -> None:
        """Read what one connection says; nothing counts before its key."""
        # A line that takes nothing for a minute is broken.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", _SEND_SECONDS, 0))
        stream = io.BufferedReader(_Heard(connection, self), 1 << 16)
        try:
            greeting = wire.read(stream)
            if greeting is None or not self._knows(greeting.text("key")):
                connection.close()
                return
            with connection.makefile("wb") as out:
                out.write(wire.MAGIC)
                wire.write(out, {"is": "open"})
            with self._lock:
                before, self._operator = self._operator, connection
            self._show_out(before)
            while (frame := wire.read(stream)) is not None:
                self.frames.put(frame)
                del frame
        except (OSError, EOFError, ValueError) as error:
            print(f"the operator's line broke: {type(error).__name__} {error}", flush=True)
        self._show_out(connection)

    def _knows(self, key: str) -> bool:
        return hmac.compare_digest(hashlib.sha256(key.encode()).hexdigest(), self._key_sha256)

    def _show_out(self, connection: socket.socket | None) -> None:
        if connection is None:
            return
        with self._lock:
            if self._operator is connection:
                self._operator = None
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()


class _Heard(io.RawIOBase):
    """A connection's bytes; each of the operator's is a sign of life."""

    def __init__(self, connection: socket.socket, door: Door) -> None:
        self._connection = connection
        self._door = door

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._connection.recv_into(buffer)
        if self._door._operator is self._connection:
            self._door.heard = time.monotonic()
        return count
