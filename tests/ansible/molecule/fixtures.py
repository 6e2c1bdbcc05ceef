"""What the scenarios' tests share; molecule's verifier loads it as a pytest plugin."""

import base64
import functools
import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import testinfra
import yaml
from testinfra.host import Host

from tests.ansible.molecule import attempts

HERE = Path(__file__).parent
FOLDER = Path(os.environ["MOLECULE_EPHEMERAL_DIRECTORY"])
ROLE = Path(os.environ["MOLECULE_PROJECT_DIRECTORY"]).name
INVENTORY = Path(os.environ["MOLECULE_INVENTORY_FILE"])
SCENARIO: dict[str, Any] = yaml.safe_load(Path(os.environ["MOLECULE_FILE"]).read_text())
HOSTS: list[dict[str, Any]] = [host for host in SCENARIO["platforms"] if "address" in host]
MACHINES = [host for host in HOSTS if "units" in host]  # those that carry the role under test
CONVERGE = Path(SCENARIO["ansible"]["playbooks"]["converge"])


@dataclass(frozen=True)
class Machine:
    """A lab host of the scenario: what molecule.yml says of it, and the way to it."""

    name: str
    address: str
    units: dict[str, Any]
    instances: dict[str, Any]
    listens: list[str]
    host: Host

    def inside(self, unit: str, **request: list[str]) -> Any:
        """What attempts.py finds and can do in the sandbox of a unit, tried by a unit with the same settings.

        `unit` is a service, or a template with its @ at the end, whose instances are meant.
        `request` has lists of paths to `read`, `write` and `list`, and of targets to `connect` to.
        """
        return _inside(self.name, unit, json.dumps(request))

    def changed_since_prepared(self) -> list[str]:
        """Paths of the host that were made, changed or removed after prepare.yml had ended."""
        # What every login and every running service leaves: logs, Ansible's own folder, compiled Python.
        ours = r"^/(var/log|root/\.ansible|root$|tmp$|run|var/lib/flower/)|__pycache__"
        return self.host.check_output(f"find / -xdev -cnewer /run/prepared | grep -vE '{ours}' || true").splitlines()


# An attempt that came to one of these was refused; what is not shown at all cannot be read either.
REFUSED = {"PermissionError", "FileNotFoundError", "Read-only file system"}


@functools.cache
def machine(name: str) -> Machine:
    """The scenario's host of this name."""
    wanted = next(host for host in HOSTS if host["name"] == name)
    host = testinfra.get_host(f"ssh://{name}", ssh_config=str(FOLDER / "ssh_config"))
    return Machine(
        name, wanted["address"], wanted.get("units", {}), wanted.get("instances", {}), wanted.get("listens", []), host
    )


@pytest.fixture
def coordinator() -> Machine:
    return machine("coordinator")


@pytest.fixture
def hospital() -> Machine:
    return machine("hospital")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test of `each_machine` all hosts of the scenario, and one of `service` also each of their services."""
    if "service" in metafunc.fixturenames:
        pairs = [
            (host["name"], unit)
            for host in MACHINES
            for unit, has in {**host["units"], **host.get("instances", {})}.items()
            if "writes" in has
        ]
        metafunc.parametrize(("each_machine", "service"), pairs, indirect=["each_machine"])
    elif "each_machine" in metafunc.fixturenames:
        metafunc.parametrize("each_machine", [host["name"] for host in MACHINES], indirect=True)


@pytest.fixture
def each_machine(request: pytest.FixtureRequest) -> Machine:
    return machine(request.param)


# The sandbox from inside ----------------------------------------------------------------------------------


@functools.cache
def _inside(name: str, unit: str, request: str) -> Any:
    host = machine(name).host
    # Its name makes the drop-ins of the unit apply to it as well.
    probe = f"{unit}probe" if unit.endswith("@") else f"{unit}-probe"
    original = probe if unit.endswith("@") else unit
    text = host.check_output(f"cat $(systemctl show --property=FragmentPath --value {original}.service)")
    folder = f"/opt/flowerbed-probe/{probe}"
    command = f"/usr/bin/python3 -I {folder}/attempts.py {folder}/request.json"
    files = {
        f"{folder}/attempts.py": (HERE / "attempts.py").read_text(),
        f"{folder}/request.json": request,
        f"/run/systemd/system/{probe}.service": _probe_unit(text, command, folder),
    }
    script = [f"mkdir -p {folder}", f"install -m 4755 /usr/bin/id {attempts.SETUID_PROGRAM}"]
    script += [f"touch {' '.join(attempts.LEFT_BY_OTHERS)}"]
    for path, content in files.items():
        script.append(f"echo {base64.b64encode(content.encode()).decode()} | base64 -d > {path}")
    script += ["systemctl daemon-reload", f"systemctl start {probe}.service; code=$?"]
    script += [f"rm /run/systemd/system/{probe}.service {' '.join(attempts.LEFT_BY_OTHERS)}", "systemctl daemon-reload"]
    script += [f"cat {folder}/out", f"cat {folder}/err >&2; exit $code"]
    done = host.run("\n".join(script))
    assert done.rc == 0, f"{text}\n{done.stderr}\n{host.run(f'journalctl -n 20 -u {probe}').stdout}"
    return json.loads(done.stdout)


def _probe_unit(text: str, command: str, folder: str) -> str:
    """The unit with another program."""
    text = re.sub(r"^Exec\w+=(.*\\\n)*.*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^(Type|Restart|RemainAfterExit|SuccessExitStatus|Standard\w+)=.*\n", "", text, flags=re.MULTILINE)
    # The folder below /run is the running service's own: it must outlive the probe.
    more = f"Type=oneshot\nExecStart={command}\nRuntimeDirectoryPreserve=yes\n"
    more += f"StandardOutput=truncate:{folder}/out\nStandardError=truncate:{folder}/err\n"
    return text.replace("[Service]\n", f"[Service]\n{more}", 1)


# Playbooks ------------------------------------------------------------------------------------------------


def play(playbook: Path, *words: str) -> list[dict[str, Any]]:
    """Run a playbook on the scenario's hosts; gives the events of the collection's own callback."""
    done = subprocess.run(
        ["ansible-playbook", "--inventory", str(INVENTORY.parent), *words, str(playbook)],
        env={**os.environ, "ANSIBLE_STDOUT_CALLBACK": "flowerbed.federation.events", "ANSIBLE_NOCOLOR": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"event"')]
    assert events and events[-1]["event"] == "stats", done.stdout + done.stderr
    return events


def refused(cases: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Run the role under test once for each case's variables, all at once; gives each failure's message.

    Each case is an inventory host of its own that is the role's first host under another name.
    """
    hosts = yaml.safe_load(INVENTORY.read_text())[ROLE]["hosts"]
    first = next(iter(hosts.values()))
    more = FOLDER / "refused.json"
    more.write_text(json.dumps({ROLE: {"hosts": {case: {**first, **values} for case, values in cases.items()}}}))
    events = play(HERE / "converge.yml", "--inventory", str(more), "--limit", ",".join(cases))
    assert not [event for event in events if event["event"] == "changed"]
    return {event["host"]: event["message"] for event in events if event["event"] == "failed"}


# Flower ---------------------------------------------------------------------------------------------------


def online_nodes(coordinator: Machine, superlink: str, root_certificates: str = "") -> int:
    """How many SuperNodes the SuperLink says are online, asked with the release's own `flwr`."""
    security = f'root-certificates = "{root_certificates}"' if root_certificates else "insecure = true"
    config = f'[superlink]\ndefault = "here"\n[superlink.here]\naddress = "{superlink}"\n{security}\n'
    coordinator.host.check_output("mkdir -p /run/flwr && echo %s > /run/flwr/config.toml", config)
    environment = "cd /run/flwr && FLWR_HOME=/run/flwr FLWR_TELEMETRY_ENABLED=0 FLWR_DISABLE_UPDATE_CHECK=1"
    said = coordinator.host.check_output(
        f"{environment} /opt/flower/current/bin/flwr supernode list here --format json"
    )
    return sum(node["status"] == "online" for node in json.loads(said)["nodes"])
