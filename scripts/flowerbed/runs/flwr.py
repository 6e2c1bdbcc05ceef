"""The `flwr` command behind typed functions.

Every call is a process, so there is no polling here: one call submits, one follows the log, one asks for the end.
"""

import codecs
import contextlib
import json
import os
import selectors
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import tomli_w

from flowerbed.errors import EnvironmentLacks, UsageError, WorkFailed
from flowerbed.runs.connection import Connection
from flowerbed.runs.flwr_process import Call, Flwr

ConfigValue = bool | int | float | str

CONNECTION_NAME = "flowerbed"
_UNREACHABLE = "Connection to the SuperLink is unavailable"
_PREAMBLE = "Using SuperLink: "
# A log server sends what it has every 0.5 s: silence of half of that ends the backlog.
_SILENCE = 0.25


@dataclass(frozen=True)
class RunInfo:
    """A run as the SuperLink knows it; times are UTC, None: not yet."""

    run_id: str
    app: str
    """Publisher and name, as in `flowerbed/example`."""
    version: str
    fab_hash: str
    status: str
    """`pending`, `starting`, `running`, or `finished:` with `completed`, `failed` or `stopped`."""
    details: str
    submitted: datetime | None
    started: datetime | None
    finished: datetime | None
    received_bytes: int
    """From the sites to the coordinator."""
    sent_bytes: int
    """From the coordinator to the sites."""
    client_seconds: float
    """Compute time of all ClientApps."""

    @property
    def is_finished(self) -> bool:
        """Whether nothing more will happen to this run."""
        return self.status.startswith("finished")


@dataclass(frozen=True)
class Node:
    """A SuperNode as the SuperLink knows it."""

    node_id: str
    status: str
    """`registered`, `online` or `offline`."""


@dataclass(frozen=True)
class Line:
    """One line of a run's log."""

    text: str
    at: float | None
    """Seconds of the monotonic clock at which it arrived; None: it was in the log before we looked."""


class Control:
    """The Control API of one federation, through `flwr` with a private FLWR_HOME."""

    def __init__(self, home: Path, connection: Connection) -> None:
        """Write `home`/config.toml for the connection; `flwr` would make one for a simulation."""
        self.home = home
        self.connection = connection
        self._flwr = connection.flwr or Flwr(environment(home))
        write_config(home, connection)

    def submit(self, app: Path, config: Mapping[str, ConfigValue]) -> str:
        """Pack the app's folder, start a run of it, and give the run's id; `config` overrides the run config.

        Flower may rewrite the pyproject.toml of an older app: `app` should be a copy, in a folder of its own. Raises
        WorkFailed with Flower's own reason when the SuperLink refuses.
        """
        command = ["run", str(app), CONNECTION_NAME]
        if config:
            overrides = app.with_suffix(".toml")
            overrides.write_text(tomli_w.dumps(_nested(config)), encoding="utf-8")
            command += ["--run-config", str(overrides)]
        return str(self._json(command, f"submit {app.name}")["run-id"])

    def runs(self, limit: int | None = None) -> list[RunInfo]:
        """List the newest runs first, `limit` at most."""
        answer = self._json(["list", CONNECTION_NAME, *(["--limit", str(limit)] if limit else [])], "list the runs")
        return [_run(entry) for entry in answer["runs"]]

    def run(self, run_id: str) -> RunInfo:
        """Look one run up; UsageError when the SuperLink does not know it."""
        return _run(
            self._json(["list", CONNECTION_NAME, "--run-id", checked(run_id)], f"look up run {run_id}")["runs"][0]
        )

    def stop(self, run_id: str) -> None:
        """Stop a run; WorkFailed when it is already finished."""
        self._json(["stop", checked(run_id), CONNECTION_NAME], f"stop run {run_id}")

    def nodes(self) -> list[Node]:
        """List the registered nodes."""
        answer = self._json(["supernode", "list", CONNECTION_NAME], "list the nodes")
        return [Node(node_id=str(entry["node-id"]), status=str(entry["status"])) for entry in answer["nodes"]]

    def register(self, public_key: Path, name: str) -> str:
        """Register a SuperNode by its public key and return its node id."""
        key = str(public_key.resolve())
        answer = self._json(["supernode", "register", key, CONNECTION_NAME, "--name", name], f"register {name}")
        return str(answer["node-id"])

    def log(self, run_id: str, *, live: bool = False, follow: bool = True) -> "LogStream":
        """Give a run's log from its start to the run's end, or without `follow` as far as it is.

        `live`: the run has just been submitted, so even the first lines count as arriving now.
        """
        command = ["log", checked(run_id), CONNECTION_NAME, "--stream" if follow else "--show"]
        return LogStream(self._start(command), live=live)

    def _json(self, command: list[str], purpose: str) -> dict[str, Any]:
        said, complained = self._start([*command, "--format", "json"]).output()
        return parse_answer(said, complained, purpose, self.connection.address)

    def _start(self, command: list[str]) -> Call:
        # In its home: elsewhere a folder named like the connection would be taken for an app.
        return self._flwr.start(command, self.home)

    def close(self) -> None:
        """End the process that the calls are forked from, unless it is the connection's."""
        if self.connection.flwr is None:
            self._flwr.close()


class LogStream:
    """A run's log as it comes; a context manager that ends its process."""

    def __init__(self, process: "Call | subprocess.Popen[bytes]", *, live: bool) -> None:
        """Take over a started `flwr log` with both output streams piped."""
        self._process = process
        self._live = live
        self._seen = False
        self._selector = selectors.DefaultSelector()
        self._errors: list[bytes] = []
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                os.set_blocking(stream.fileno(), False)
                self._selector.register(stream, selectors.EVENT_READ)

    def __enter__(self) -> Self:
        """Give the stream itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End the process and close its pipes."""
        self._selector.close()
        if self._process.poll() is None:
            self._process.kill()  # it only reads
            self._process.wait()
        for stream in (self._process.stdout, self._process.stderr):
            if stream is not None:
                stream.close()

    @property
    def failure(self) -> str | None:
        """Why the stream broke off, after it ended; None: the server closed it in order."""
        if self._process.wait() == 0:
            return None
        return _one_line(b"".join(self._errors).decode(errors="replace")) or "flwr log ended without a reason"

    def lines(self, deadline: Callable[[], float | None] = lambda: None) -> Iterator[Line]:
        """Give the lines to the log's end.

        `deadline` gives the time of the monotonic clock at which to give up (None: never), and may change its mind
        with every line. Raises TimeoutError then.
        """
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        rest = ""
        while self._selector.get_map():
            for chunk in self._read(deadline()):
                self._seen = True
                *whole, rest = (rest + decoder.decode(chunk)).split("\n")
                at = time.monotonic() if self._live else None
                yield from (Line(text, at) for text in whole if not text.startswith(_PREAMBLE))
        if rest and self.failure is None:  # half a line of a broken stream comes again, whole
            yield Line(rest, time.monotonic() if self._live else None)

    def _read(self, deadline: float | None) -> Iterator[bytes]:
        left = None if deadline is None else deadline - time.monotonic()
        if left is not None and left <= 0:
            raise TimeoutError
        in_backlog = self._seen and not self._live
        wait = left if not in_backlog else _SILENCE if left is None else min(left, _SILENCE)
        ready = self._selector.select(wait)
        if not ready and in_backlog:
            self._live = True
        for key, _ in ready:
            chunk = os.read(key.fd, 1 << 16)
            if not chunk:
                self._selector.unregister(key.fileobj)
            elif key.fileobj is self._process.stdout:
                yield chunk
            else:
                self._errors.append(chunk)


@contextlib.contextmanager
def control(connection: Connection) -> Iterator[Control]:
    """Give the Control API of a federation, with an FLWR_HOME that lives as long as the context."""
    with contextlib.ExitStack() as stack:
        home = connection.home
        if home is None:
            home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flowerbed-flwr-")))
        yield stack.enter_context(contextlib.closing(Control(home, connection)))


@contextlib.contextmanager
def warm() -> Iterator[tuple[Path, Flwr]]:
    """Start a process that calls of `flwr` can be forked from, with an FLWR_HOME; they live as long as the context.

    Raises EnvironmentLacks when Flower is not installed.
    """
    flwr_command()
    with contextlib.ExitStack() as stack:
        home = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flowerbed-flwr-")))
        yield home, stack.enter_context(contextlib.closing(Flwr(environment(home))))


def write_config(home: Path, connection: Connection) -> None:
    """Write `home`/config.toml with the connection as `flwr`'s default one."""
    entry: dict[str, Any] = {"address": connection.address}
    if connection.insecure:
        entry["insecure"] = True
    if connection.root_certificates is not None:
        entry["root-certificates"] = str(connection.root_certificates.resolve())
    home.mkdir(parents=True, exist_ok=True)
    config = {"superlink": {"default": CONNECTION_NAME, CONNECTION_NAME: entry}}
    (home / "config.toml").write_text(tomli_w.dumps(config), encoding="utf-8")


def environment(home: Path) -> dict[str, str]:
    """The environment of a `flwr` process: its home, no calls to anyone, plain and unbuffered output."""
    inherited = {key: value for key, value in os.environ.items() if key not in ("FORCE_COLOR", "FLWR_LOG_LEVEL")}
    here = str(Path(sys.executable).parent)
    direct = ",".join(filter(None, ["127.0.0.1,localhost", os.environ.get("no_proxy", os.environ.get("NO_PROXY"))]))
    return inherited | {
        "PATH": os.pathsep.join([here, os.environ.get("PATH", os.defpath)]),
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONUTF8": "1",
        "NO_COLOR": "1",
        "no_proxy": direct,  # the way to the coordinator is a port on this machine: never through a proxy
        "NO_PROXY": direct,
    }


def flwr_command() -> str:
    """The `flwr` beside the running interpreter; EnvironmentLacks when it is not installed there."""
    command = Path(sys.executable).parent / "flwr"
    if not command.is_file():
        raise EnvironmentLacks(f"{command} does not exist: install flowerbed with its dependencies (uv sync)")
    return str(command)


def checked(run_id: str) -> str:
    """Refuse what cannot be a run id."""
    if not run_id.isdecimal():
        raise UsageError(f"run id '{run_id}' is not a number: `flowerbed runs` lists them")
    return run_id


def parse_answer(stdout: str, stderr: str, purpose: str, address: str) -> dict[str, Any]:
    """Read the JSON of a `flwr` command; its exit code says nothing, `success` does.

    Raises UsageError for an unknown run, WorkFailed with Flower's reason for everything else.
    """
    try:
        answer = json.loads(stdout)
    except json.JSONDecodeError:
        reason = _one_line(stderr) or _one_line(stdout) or "flwr printed nothing"
        raise WorkFailed(f"cannot {purpose}: {reason}") from None
    if isinstance(answer, dict) and answer.get("success") is True:
        return answer
    message = _one_line(str(answer.get("error-message", "") if isinstance(answer, dict) else answer))
    if _UNREACHABLE in message:
        raise WorkFailed(f"cannot {purpose}: the SuperLink does not answer on {address}; is the coordinator up?")
    if "Run ID not found" in message:
        raise UsageError(f"cannot {purpose}: the federation has no such run; `flowerbed runs` lists them")
    raise WorkFailed(f"cannot {purpose}: {message or 'flwr gave no reason'}")


def _one_line(text: str) -> str:
    lines = (line.strip(" │╭╰─╮╯") for line in text.splitlines())
    kept = (line for line in lines if line and not line.startswith(_PREAMBLE) and line not in ("Error", "Error:"))
    return " ".join(kept)[:500]


def _nested(config: Mapping[str, ConfigValue]) -> dict[str, Any]:
    """Turn dotted keys into tables, as Flower flattens them."""
    nested: dict[str, Any] = {}
    for key, value in config.items():
        *parents, last = key.split(".")
        table = nested
        for parent in parents:
            table = table.setdefault(parent, {})
        table[last] = value
    return nested


def _run(entry: Mapping[str, Any]) -> RunInfo:
    traffic = entry.get("network-traffic", {})
    details = str(entry.get("status-details", ""))
    return RunInfo(
        run_id=str(entry["run-id"]),
        app=str(entry["fab-id"]),
        version=str(entry["fab-version"]),
        fab_hash=str(entry.get("fab-hash", "")),
        status=str(entry["status"]),
        details="" if details == "N/A" else details,
        submitted=_time(entry.get("pending-at")),
        started=_time(entry.get("running-at")),
        finished=_time(entry.get("finished-at")),
        received_bytes=int(traffic.get("inbound-bytes", 0)),
        sent_bytes=int(traffic.get("outbound-bytes", 0)),
        client_seconds=float(entry.get("compute-time", {}).get("clientapp-seconds", 0.0)),
    )


def _time(text: object) -> datetime | None:
    if not isinstance(text, str) or text in ("", "N/A"):
        return None
    time_ = datetime.fromisoformat(text.replace("Z", "+00:00"))
    return time_ if time_.tzinfo else time_.replace(tzinfo=UTC)
