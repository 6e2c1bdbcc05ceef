"""What is put into the SuperLink works in each supported version of Flower."""

import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

from flowerbed.paths import ANSIBLE

FILES = ANSIBLE / "roles" / "common" / "files"
# Flower's own database of a SuperLink, of the version that is first among the folders.
_SCRIPT = """
import importlib, sys
sys.path.insert(0, sys.argv[1])
import superlink
place = importlib.import_module(superlink.PLACE)
superlink.wait_longer(place)
from flwr.supercore.object_store.sql_object_store import SqlObjectStore
store = SqlObjectStore(sys.argv[2])
store.initialize()
print(store.query("PRAGMA busy_timeout")[0], store.query("PRAGMA journal_mode")[0], flush=True)
sys.stdin.readline()
store.query("CREATE TABLE written (one INTEGER)")
print("written", flush=True)
"""
# Notes a run as the SuperLink does when one is submitted, and says when the bell was rung before and after.
_NOTE = """
import importlib, inspect, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import superlink
from flwr.superlink.federation import NoOpFederationManager
from flwr.supercore.object_store.sql_object_store import SqlObjectStore
noter = getattr(importlib.import_module(superlink.STATE), superlink.NOTER)
bell = superlink.polls.Bell(Path(sys.argv[2]) / "begun")
superlink.tell_of_runs(noter, bell)
before = bell.rung()
time.sleep(0.1)
database = str(Path(sys.argv[2]) / "superlink.db")
store = SqlObjectStore(database)
store.initialize()
state = noter(database, NoOpFederationManager(), store)
state.initialize()
words = {"override_config": {}, "federation_id": "", "primary_task_type": "flwr-serverapp"}
needed = [one.name for one in inspect.signature(state.create_run).parameters.values() if one.default is one.empty]
assert bell.rung() == before
run = state.create_run(**{name: words.get(name) for name in needed})
print(bool(run), before is not None, bell.rung() > before)
"""
# Serves as Flower's SuperLink does, which names no time for which it keeps a connection.
_SERVE = """
import sys
sys.path.insert(0, sys.argv[1])
import superlink, uvicorn
superlink.keep_connections(uvicorn.run)
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})
uvicorn.run(app=app, fd=int(sys.argv[2]), log_level="error")
"""
UNUSED_FOR = 7.0
"""Seconds; Flower's web server itself closes a connection that was unused for five."""
LOCKED_FOR = 6.0
"""Seconds; Flower itself gives up after five."""


def test_a_write_waits_longer_than_flowers_own_five_seconds(flower: Path, tmp_path: Path) -> None:
    database = tmp_path / "superlink.db"
    with subprocess.Popen(
        [sys.executable, "-c", _SCRIPT, str(FILES), str(database)],
        env={"PYTHONPATH": str(flower), "FLWR_TELEMETRY_ENABLED": "0", "HOME": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None and process.stdout is not None
        assert process.stdout.readline().split() == ["{'timeout':", "60000}", "{'journal_mode':", "'wal'}"]
        other = sqlite3.connect(database, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        process.stdin.write("\n")
        process.stdin.flush()
        time.sleep(LOCKED_FOR)
        other.execute("ROLLBACK")
        other.close()
        assert process.stdout.readline() == "written\n"
    assert process.returncode == 0


def test_who_waits_for_a_run_is_told_when_one_is_submitted(flower: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _NOTE, str(FILES), str(tmp_path)],
        env={"PYTHONPATH": str(flower), "FLWR_TELEMETRY_ENABLED": "0", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.splitlines()[-1:] == ["True True True"], done.stderr


def test_a_connection_that_the_gateway_keeps_is_not_closed_under_its_next_request(flower: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        script = [sys.executable, "-c", _SERVE, str(FILES), str(listener.fileno())]
        environment = {"PYTHONPATH": str(flower), "HOME": str(tmp_path)}
        with subprocess.Popen(script, env=environment, pass_fds=[listener.fileno()]) as process:
            try:
                with socket.create_connection(listener.getsockname(), timeout=60) as kept:
                    for wait in (0.0, UNUSED_FOR):
                        time.sleep(wait)
                        kept.sendall(b"GET / HTTP/1.1\r\nHost: superlink\r\n\r\n")
                        assert kept.recv(1000).startswith(b"HTTP/1.1 200")
            finally:
                process.terminate()
