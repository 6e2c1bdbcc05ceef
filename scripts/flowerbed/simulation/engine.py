"""A SuperLink on this machine's loopback that simulates the sites."""

import contextlib
import json
import os
import secrets
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from flowerbed.errors import WorkFailed
from flowerbed.paths import ANSIBLE
from flowerbed.runs import flwr, transfer
from flowerbed.runs.connection import Connection
from flowerbed.simulation.environment import PROCESS, Environment
from flowerbed.simulation.sites import Site

_KEEPER = Path(__file__).with_name("keeper.py")
_REPLIES = ANSIBLE / "roles" / "common" / "files" / "replies.py"
_MARK = "FLOWERBED_SIMULATION_MARK"
_START_SECONDS = 90.0
# Bytes; what does not fit goes to the folder of the simulation.
_OBJECT_STORE = 512 << 20


@dataclass(frozen=True)
class ThisMachine:
    """The simulation's files; satisfies the driver's `Remote`. A simulation leaves no trace on any coordinator."""

    def fetch(self, path: str, into: Path) -> None:
        """Copy what is in the folder `path`, checked as if it came from afar."""
        transfer.receive(transfer.send_command(path), path, into)

    def record(self, event: str, message: str, fields: Mapping[str, str]) -> None:
        """There is no audit trail to write to."""


@dataclass(frozen=True)
class Engine:
    """A SuperLink that simulates."""

    connection: Connection
    results: Path
    """What the ServerApp knows as FLOWERBED_RESULTS."""


@contextmanager
def running(environment: Environment, sites: Sequence[Site]) -> Iterator[Engine]:
    """Start the SuperLink while the context lasts; then keeper.py ends all of its processes, and its folder goes.

    Raises WorkFailed with the SuperLink's last words when it does not start.
    """
    # In /tmp, whatever TMPDIR says: the engine's sockets allow no long path.
    with tempfile.TemporaryDirectory(prefix="flowerbed-", dir="/tmp", ignore_cleanup_errors=True) as folder:
        work = Path(folder)
        mark = secrets.token_hex(16)
        port = _free_port()
        _describe(work, environment, sites)
        log = work / "superlink.log"
        words = [sys.executable, "-P", str(_KEEPER), str(work), f"{_MARK}={mark}"]
        words += [str(environment.python.with_name("flower-superlink")), "--insecure", "--simulation"]
        words += ["--host", "127.0.0.1", "--port", str(port), "--database", str(work / "superlink.db")]
        words += ["--disable-runtime-dependency-installation"]
        with log.open("wb") as out:
            keeper = subprocess.Popen(
                words,
                cwd=work,
                env=_environment(work, environment, mark),
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us to handle
            )
        try:
            _wait_for(keeper, port, log)
            yield Engine(Connection(f"127.0.0.1:{port}", None, insecure=True), work / "results")
        finally:
            _end(keeper)


def _describe(work: Path, environment: Environment, sites: Sequence[Site]) -> None:
    """Write what the SuperLink's children need: the sites, and our program in front of Flower's."""
    engine = {
        "num_cpus": max(1, min(len(sites), os.cpu_count() or 1)),
        "object_store_memory": _OBJECT_STORE,
        "include_dashboard": False,
        "log_to_driver": False,
        "logging_level": "ERROR",
        "_temp_dir": str(work / "ray"),
    }
    for name in ("results", "bin", "clients"):
        (work / name).mkdir()
    description = {
        "sites": [asdict(site) for site in sites],
        "engine": engine,
        "replies": str(_REPLIES),
        "work": str(work / "clients"),
    }
    (work / "simulation.json").write_text(json.dumps(description), encoding="utf-8")
    program = work / "bin" / "flwr-simulation"
    program.write_text(f'#!/bin/sh\nexec "{environment.python}" -P "{PROCESS}" "$@"\n', encoding="utf-8")
    program.chmod(0o700)


def _environment(work: Path, environment: Environment, mark: str) -> dict[str, str]:
    inherited = flwr.environment(work / "home")
    for name in ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"):
        inherited.pop(name, None)
    path = [str(work / "bin"), str(environment.python.parent), os.environ.get("PATH", os.defpath)]
    return inherited | {
        "PATH": os.pathsep.join(path),
        "FLOWERBED_RESULTS": str(work / "results"),
        "FLOWERBED_SIMULATION": str(work / "simulation.json"),
        "RAY_USAGE_STATS_ENABLED": "0",
        # Workers that are started ahead lack the runtime environment that Flower asks for: nobody would use them.
        "RAY_prestart_worker_first_driver": "0",
        "RAY_enable_worker_prestart": "0",
        _MARK: mark,
    }


def _wait_for(keeper: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while True:
        with contextlib.suppress(urllib.error.URLError, OSError):
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(f"http://127.0.0.1:{port}/health", timeout=2):
                return
        if keeper.poll() is not None or time.monotonic() > deadline:
            said = " ".join(log.read_text(encoding="utf-8", errors="replace").split())[-400:]
            raise WorkFailed(f"the simulation's SuperLink does not start: {said or 'it said nothing'}")
        time.sleep(0.1)


def _end(keeper: "subprocess.Popen[bytes]") -> None:
    """Let go of the keeper, and wait until it has ended everything."""
    if keeper.stdin is not None:
        keeper.stdin.close()
    keeper.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
