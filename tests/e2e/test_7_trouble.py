"""What goes wrong in a standing federation is named in one line with the remedy, and mended by `up`."""

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flowerbed import control, lab
from tests.e2e.conftest import Standing
from tests.e2e.expiry import expire


def error_line(standing: Standing, *words: str, code: int, env: dict[str, str] | None = None) -> str:
    """The one line that a command says, with this exit code and no traceback."""
    done = standing.flowerbed(*words, env=env)
    assert done.returncode == code, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    return line


def test_a_wrong_passphrase_is_named_and_changes_nothing(standing: Standing) -> None:
    wrong = {"FLOWERBED_CA_PASSPHRASE": "not the passphrase"}
    assert "passphrase" in error_line(standing, "up", standing.path, code=1, env=wrong)
    again = standing.succeed("up", standing.path)
    assert set(again["hosts_changed"].values()) == {0}


def test_missing_data_is_named_before_anything_is_changed(standing: Standing) -> None:
    file = standing.federation.path / "host_vars" / "hospital-a.yml"
    before = file.read_text()
    file.write_text(f"{before}supernode_data_path: /srv/not-there\n")
    try:
        line = error_line(standing, "up", standing.path, code=1)
    finally:
        file.write_text(before)
    assert "hospital-a" in line
    assert "/srv/not-there does not exist" in line
    assert "supernode_data_path" in line


def test_a_port_in_use_is_named_with_the_variable_that_chooses_another(standing: Standing) -> None:
    host = standing.host("hospital-a")
    file = standing.federation.path / "host_vars" / "hospital-a.yml"
    before = file.read_text()
    file.write_text(f"{before}supernode_port: 9555\n")
    host.check_output("systemd-run --unit=in-the-way --collect python3 -m http.server --bind 127.0.0.1 9555")
    host.run("for i in $(seq 50); do (echo > /dev/tcp/127.0.0.1/9555) 2>/dev/null && break; sleep 0.1; done")
    try:
        line = error_line(standing, "up", standing.path, code=1)
    finally:
        file.write_text(before)
        host.check_output("systemctl stop in-the-way")
    assert "hospital-a" in line
    assert "port 9555 is in use" in line
    assert "supernode_port" in line


@pytest.fixture
def expired(standing: Standing) -> Iterator[None]:
    """The SuperLink presents a certificate that ended yesterday."""
    expire(standing, "coordinator", "/etc/flower/superlink/server.crt")
    host = standing.host("coordinator")
    host.check_output("systemctl restart flower-superlink")
    host.run("for i in $(seq 100); do (echo > /dev/tcp/127.0.0.1/8000) 2>/dev/null && break; sleep 0.2; done")
    yield
    if standing.flowerbed("runs", standing.path).returncode:  # the test did not come as far as its own up
        assert standing.flowerbed("up", standing.path).returncode == 0


@pytest.mark.usefixtures("expired")
def test_an_expired_certificate_is_named_and_renewed_by_up(standing: Standing) -> None:
    line = error_line(standing, "runs", standing.path, code=1)
    assert "certificate has expired" in line
    assert "flowerbed up" in line
    assert standing.flowerbed("up", standing.path).returncode == 0
    assert standing.succeed("runs", standing.path)["runs"]


def test_a_coordinator_that_does_not_answer_is_named_and_its_sites_come_back(standing: Standing) -> None:
    lab.cut("e2e", "coordinator", everything=True)
    try:
        lines = [error_line(standing, command, standing.path, code=1) for command in ("runs", "up")]
    finally:
        lab.restore("e2e", "coordinator")
    for line in lines:
        assert "coordinator" in line
        assert "ssh" in line.lower()
    assert standing.flowerbed("up", standing.path).returncode == 0
    assert standing.succeed("status", standing.path)["healthy"]


def test_a_broken_app_is_refused_before_it_is_sent(standing: Standing, tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nname = "broken"\nversion = "1.0.0"\n[tool.flwr.app]\npublisher = "me"\n'
        '[tool.flwr.app.components]\nserverapp = "broken:server"\nclientapp = "broken:client"\n'
    )
    (tmp_path / "broken.py").write_text("def client(:\n")
    line = error_line(standing, "run", str(tmp_path), "--federation", standing.path, code=2)
    assert "broken.py" in line


def test_a_dropped_ssh_line_is_opened_again_on_the_same_port(standing: Standing) -> None:
    with control.open_way(standing.federation) as way:
        address = way.connection.address
        lines = subprocess.run(["pgrep", "-f", f"ssh .*-L {address}:"], capture_output=True, text=True, check=True)
        (pid,) = lines.stdout.split()
        os.kill(int(pid), signal.SIGKILL)
        host, port = address.split(":")
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=5):
                return
            time.sleep(0.2)
    pytest.fail("the line was not opened again")
