"""A federation of two hospitals that know their coordinator by its name, and a name server that they ask."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flowerbed import inventory, lab
from flowerbed.federation import FederationFolder
from flowerbed.paths import INVENTORIES, REPOSITORY
from flowerbed.ssh import Shell
from tests.recovery.names import NameServer

NAME = "backup-test"
NETWORK = "10.111.0.0/16"
NAME_SERVER = "10.111.0.1"
GATEWAY = "flower.backup-test.example"
FIRST, SECOND = "10.111.0.10", "10.111.0.99"
SITES = {"hospital-a": "10.111.0.21", "hospital-b": "10.111.0.22"}
TINY = str(REPOSITORY / "tests" / "apps" / "tiny")
PASSPHRASE = "correct horse battery"


@dataclass
class Federation:
    """The federation, and what its operator and the world can do to it."""

    federation: FederationFolder
    work: Path
    names: NameServer

    @property
    def path(self) -> str:
        """What the command line takes as the federation."""
        return str(self.federation.path)

    def flowerbed(self, *words: str, passphrase: str = PASSPHRASE) -> subprocess.CompletedProcess[str]:
        """Run the command line as the operator does."""
        program = str(Path(sys.executable).with_name("flowerbed"))
        environment = {**os.environ, "FLOWERBED_CA_PASSPHRASE": passphrase}
        return subprocess.run(
            [program, *words], cwd=self.work, env=environment, capture_output=True, text=True, check=False
        )

    def succeed(self, *words: str) -> dict[str, Any]:
        """Run a command with --json that must succeed, and read its answer."""
        done = self.flowerbed(*words, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def run(self) -> str:
        """Run the tiny app on all sites; gives the run's id."""
        return str(self.succeed("run", TINY, "--federation", self.path)["run_id"])

    def submit(self, *config: str) -> str:
        """Submit the tiny app and leave it; gives the run's id."""
        words = [word for value in config for word in ("-c", value)]
        return str(self.succeed("run", TINY, "--federation", self.path, "--detach", *words)["run_id"])

    def backup(self) -> Path:
        """Make a backup and bring it home."""
        return Path(self.succeed("backup", self.path)["file"])

    def refused(self, *words: str, passphrase: str = PASSPHRASE) -> tuple[int, str]:
        """The exit code of a command that must fail, and the one line that it says."""
        done = self.flowerbed(*words, passphrase=passphrase)
        lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, done.stdout + done.stderr
        return done.returncode, lines[0]

    def started(self, name: str, unit: str) -> str:
        """When a unit of a host was started."""
        return self.on(name, f"systemctl show --property=ActiveEnterTimestampMonotonic {unit}")

    def runs(self) -> dict[str, str]:
        """The runs that the federation remembers, and how they ended."""
        return {str(one["run_id"]): str(one["status"]) for one in self.succeed("runs", self.path)["runs"]}

    def status(self) -> dict[str, Any]:
        """What `flowerbed status` says, whatever its exit code."""
        answer: dict[str, Any] = json.loads(self.flowerbed("status", self.path, "--json").stdout)
        return answer

    def online(self) -> list[str]:
        """The sites that are online."""
        return [host["name"] for host in self.status()["hosts"] if host["node"] == "online"]

    def shell(self, name: str) -> Shell:
        """The driver's own way to a host."""
        known = inventory.read(self.federation)
        return Shell(self.federation, known.sites.get(name, known.coordinator))

    def on(self, name: str, script: str) -> str:
        """Run a script as root on a host."""
        return self.shell(name).run(["sh", "-c", script]).strip()

    def make_coordinator(self, address: str) -> None:
        """An empty machine for the coordinator, as the operator enters it into the inventory."""
        self._make("coordinator", address)
        self.federation.hosts_file.write_text(hosts(address))
        self.pin()

    def make_sites(self) -> None:
        """The hospitals' machines, which ask the lab's name server."""
        for name, address in SITES.items():
            self._make(name, address)

    def _make(self, name: str, address: str) -> None:
        public = self.federation.ssh_key.with_suffix(".pub").read_text().strip()
        lab.create(lab.HostSpec(NAME, name, address, NETWORK, public, str(self.work)))

    def pin(self) -> None:
        """The operator learns the hosts' SSH keys, as the machines' owners tell them."""
        addresses = {host.name: host.address for host in lab.hosts(NAME)}
        lines = [f"{address} {(self.work / f'{name}.pub').read_text().strip()}" for name, address in addresses.items()]
        self.federation.known_hosts.write_text("\n".join(lines) + "\n")


def hosts(coordinator: str) -> str:
    """hosts.yml with the coordinator at this address, under the name that stays."""
    return json.dumps(
        {
            "all": {
                "vars": {"federation_gateway": GATEWAY},
                "children": {
                    "superlink": {"hosts": {"coordinator": {"ansible_host": coordinator}}},
                    "gateway": {"hosts": {"coordinator": {}}},
                    "backup": {"hosts": {"coordinator": {}}},
                    "supernode": {
                        "hosts": {
                            name: {"ansible_host": address, "supernode_node_config": {"partition-id": number}}
                            for number, (name, address) in enumerate(SITES.items())
                        }
                    },
                },
            }
        },
        indent=1,
    )


def make_folder(path: Path) -> FederationFolder:
    """A federation's folder from the example for machines that exist already."""
    kept = shutil.ignore_patterns("host_vars", "secrets", ".state", "backups", "known_hosts")
    shutil.copytree(INVENTORIES / "existing", path, ignore=kept)
    federation = FederationFolder(path)
    federation.ssh_key.parent.mkdir(parents=True, mode=0o700)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", federation.ssh_key], check=True)
    return federation


@pytest.fixture(scope="session")
def recovery(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """The federation, brought up; taken away afterwards, also after a failure."""
    folder = tmp_path_factory.mktemp("recovery")
    lab.destroy_all(NAME)
    work = folder / "work"
    work.mkdir()
    federation = make_folder(folder / NAME)
    names: NameServer | None = None
    try:
        public = federation.ssh_key.with_suffix(".pub").read_text().strip()
        lab.create(lab.HostSpec(NAME, "coordinator", FIRST, NETWORK, public, str(work)))
        names = NameServer(NAME_SERVER, GATEWAY, FIRST)
        made = Federation(federation, work, names)
        made.make_coordinator(FIRST)
        made.make_sites()
        made.pin()
        for name in SITES:
            made.on(name, f"echo nameserver {NAME_SERVER} >/etc/resolv.conf")
        made.succeed("up", made.path)
        yield made
    finally:
        if names:
            names.close()
        for host in lab.hosts(NAME):
            lab.kill(NAME, host.name)
        lab.destroy_all(NAME)
