"""Real playbooks on this machine, and a real SuperLink for them to talk to."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.ansible.support import BIN, ROOT, Direct, Play, Result, SuperLink, listens, make_certificates, public_key


@pytest.fixture(scope="session")
def play(tmp_path_factory: pytest.TempPathFactory) -> Play:
    """Run tasks as one playbook on this machine; gives each task's result, failed ones included."""

    def run(*tasks: dict[str, Any]) -> list[Result]:
        folder = tmp_path_factory.mktemp("play")
        steps = [{**task, "register": f"result_{number}", "ignore_errors": True} for number, task in enumerate(tasks)]
        answers = ", ".join(f"result_{number}" for number in range(len(tasks)))
        out = folder / "results.json"
        keep = {"ansible.builtin.copy": {"dest": str(out), "content": f"{{{{ [{answers}] | to_json }}}}"}}
        playbook = [{"hosts": "localhost", "gather_facts": False, "tasks": [*steps, keep]}]
        file = folder / "play.json"
        file.write_text(json.dumps(playbook))
        command = [str(BIN / "ansible-playbook"), "--inventory", "localhost,", "--connection", "local"]
        done = subprocess.run(
            [*command, "--extra-vars", json.dumps({"ansible_python_interpreter": sys.executable}), str(file)],
            env=os.environ | {"ANSIBLE_CONFIG": str(ROOT / "ansible" / "ansible.cfg")},
            cwd=folder,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Traceback" not in done.stdout + done.stderr
        results: list[Result] = json.loads(out.read_text())
        return results

    return run


@pytest.fixture(scope="session")
def direct(tmp_path_factory: pytest.TempPathFactory) -> Direct:
    """Run one module as Ansible does on a host, without a playbook around it."""

    def run(name: str, **options: object) -> Result:
        arguments = {"ANSIBLE_MODULE_ARGS": {"_ansible_remote_tmp": str(tmp_path_factory.mktemp("tmp")), **options}}
        done = subprocess.run(
            [sys.executable, "-m", f"ansible_collections.flowerbed.federation.plugins.modules.{name}"],
            env=os.environ | {"PYTHONPATH": str(ROOT / "ansible" / "collections")},
            input=json.dumps(arguments),
            capture_output=True,
            text=True,
            check=False,
        )
        assert "Traceback" not in done.stdout + done.stderr
        result: Result = json.loads(done.stdout)
        return result

    return run


@pytest.fixture(scope="session")
def superlink(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SuperLink]:
    folder = tmp_path_factory.mktemp("superlink")
    make_certificates(folder)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [str(BIN / "flower-superlink"), "--host", "127.0.0.1", "--port", str(port)]
    command += ["--database", str(folder / "superlink.db"), "--ssl-ca-certfile", "ca.crt"]
    command += ["--ssl-certfile", "server.crt", "--ssl-keyfile", "server.key"]
    # Process isolation starts no SuperExec: these tests run no app.
    command += ["--enable-supernode-auth", "--isolation", "process", "--superexec-auth-secret-file", "secret"]
    (folder / "secret").write_bytes(b"0" * 32)
    quiet = {"FLWR_TELEMETRY_ENABLED": "0", "FLWR_DISABLE_UPDATE_CHECK": "1", "FLWR_HOME": str(folder / "home")}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=os.environ | quiet, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 60
        while not listens(port):
            assert process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < deadline, "the SuperLink does not listen after 60 s"
            time.sleep(0.2)
        yield SuperLink(f"127.0.0.1:{port}", folder / "ca.crt", folder / "superlink.db")
    finally:
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@pytest.fixture
def new_key() -> Callable[[], str]:
    """Makes public keys of nodes."""
    return public_key
