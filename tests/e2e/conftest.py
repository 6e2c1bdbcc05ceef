"""One federation of three hospitals on lab hosts, brought up by the command line as an operator would."""

import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import testinfra
from testinfra.host import Host

from flowerbed import inventory
from flowerbed.federation import FederationFolder
from flowerbed.paths import INVENTORIES, REPOSITORY

SITES = ["hospital-a", "hospital-b", "hospital-c"]
EXAMPLE = REPOSITORY / "examples" / "breast_cancer"
SECRETS = {"coordinator": "tracking_token", "hospital-a": "database_password"}
"""What the apps on a host may read, by its name; the operator keeps it among the federation's secrets."""
FLOWERBED = str(Path(sys.executable).with_name("flowerbed"))


@dataclass
class Standing:
    """A federation in a folder of its own, and the ways to look at it."""

    federation: FederationFolder
    work: Path
    network: str
    program: str = FLOWERBED
    example: Path = EXAMPLE
    # pytest's own folders are too long a path for a socket.
    sockets: TemporaryDirectory[str] = field(default_factory=lambda: TemporaryDirectory(prefix="ssh-"))
    _hosts: dict[str, Host] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """What the command line takes as the federation."""
        return str(self.federation.path)

    @property
    def gateway(self) -> str:
        """The coordinator's address."""
        return inventory.read(self.federation).coordinator.address

    def flowerbed(self, *words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run the command line in the working folder."""
        return subprocess.run(
            [self.program, *words],
            cwd=self.work,
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            check=False,
        )

    def succeed(self, *words: str) -> dict[str, Any]:
        """Run a command with --json that must succeed, and read its answer."""
        done = self.flowerbed(*words, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def flwr(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run Flower's own command line against the federation."""
        return self.flowerbed("connect", self.path, "--", "flwr", *words)

    def host(self, name: str) -> Host:
        """A host, as testinfra sees it through pinned SSH."""
        if name not in self._hosts:
            known = inventory.read(self.federation)
            machine = known.sites.get(name, known.coordinator)
            config = self.work / f"ssh_{name}"
            config.write_text(
                f"Host {machine.address}\n  User root\n  IdentityFile {self.federation.ssh_key}\n"
                f"  IdentitiesOnly yes\n  StrictHostKeyChecking yes\n"
                f"  UserKnownHostsFile {self.federation.known_hosts}\n"
                f"  ControlMaster auto\n  ControlPath {self.sockets.name}/%C\n  ControlPersist 30s\n"
            )
            self._hosts[name] = testinfra.get_host(f"ssh://root@{machine.address}", ssh_config=str(config))
        return self._hosts[name]

    def forget_hosts(self) -> None:
        """Forget connections to hosts that were replaced."""
        self._hosts.clear()

    def set_sites(self, sites: list[str]) -> None:
        """Write the platform's file with these hospitals, one entry each."""
        entries = "\n".join(f'  {site} = {{ labels = {{ region = "north" }} }}' for site in sites)
        (self.federation.path / "lab.tfvars").write_text(f'network = "{self.network}"\n\nsites = {{\n{entries}\n}}\n')

    def run_example(self, *words: str) -> dict[str, Any]:
        """Run the example app and read run.json's content."""
        return self.succeed("run", str(EXAMPLE), "--federation", self.path, *words)


def make(folder: Path, name: str, sites: list[str], network: str) -> Standing:
    """Copy the lab's federation folder under another name, with its own network and data."""
    path = folder / name
    shutil.copytree(INVENTORIES / "lab", path, ignore=shutil.ignore_patterns("hosts.json", "secrets", ".state", "data"))
    work = folder / "work"
    work.mkdir()
    standing = Standing(FederationFolder(path), work, network)
    standing.set_sites(sites)
    prepare_data(standing, sites)
    return standing


def prepare_data(standing: Standing, sites: list[str]) -> None:
    """Give every hospital its own part of the data."""
    command = [sys.executable, str(EXAMPLE / "prepare.py"), str(standing.federation.data), *sites]
    subprocess.run(command, check=True, capture_output=True)


def give_secrets(standing: Standing) -> None:
    """Let the apps on two of the hosts have a secret."""
    standing.federation.secrets.mkdir(mode=0o700)
    variables = standing.federation.path / "host_vars"
    variables.mkdir()
    for host, name in SECRETS.items():
        file = standing.federation.secrets / name
        file.touch(mode=0o600)
        file.write_text(secrets.token_urlsafe(24))
        role = "superlink" if host == "coordinator" else "supernode"
        lookup = f"{{{{ lookup('ansible.builtin.file', inventory_dir ~ '/secrets/{name}') }}}}"
        (variables / f"{host}.yml").write_text(f'{role}_secrets: {{{name}: "{lookup}"}}\n')


@contextmanager
def up(made: Standing) -> Iterator[Standing]:
    """Bring the federation up, and take it down afterwards, also after a failure."""
    try:
        raised = made.flowerbed("up", made.path)
        assert raised.returncode == 0, raised.stdout + raised.stderr
        yield made
    finally:
        down = made.flowerbed("down", made.path)
        made.sockets.cleanup()
        assert down.returncode == 0, down.stdout + down.stderr


@pytest.fixture(scope="session")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """A federation with three hospitals; taken down afterwards, also after a failure."""
    made = make(tmp_path_factory.mktemp("e2e"), "e2e", SITES, "10.79.0.0/16")
    give_secrets(made)
    (made.federation.path / "host_vars" / "hospital-c.yml").write_text("supernode_warm: false\n")
    with up(made):
        yield made
