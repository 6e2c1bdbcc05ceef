"""Real lab hosts for the tests, in federations and networks of their own, taken down whatever happens."""

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from flowerbed import lab

FEDERATION = "test-lab"
NETWORK = "10.91.0.0/16"


@dataclass(frozen=True)
class Bench:
    """What a test needs to make hosts and to log in."""

    folder: Path
    federation: str = FEDERATION
    network: str = NETWORK

    @property
    def key(self) -> Path:
        return self.folder / "id_ed25519"

    def spec(self, name: str, address: str) -> lab.HostSpec:
        public = self.key.with_suffix(".pub").read_text().strip()
        return lab.HostSpec(self.federation, name, address, self.network, public, str(self.folder / "keys"))

    def ssh(self, name: str, command: str, *, key: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Log in to a host as root, its SSH key pinned to the one that the lab published."""
        address = next(host.address for host in lab.hosts(self.federation) if host.name == name)
        known_hosts = self.folder / f"known_hosts.{name}"
        known_hosts.write_text(f"{address} {(self.folder / 'keys' / f'{name}.pub').read_text()}")
        options = [f"UserKnownHostsFile={known_hosts}", "StrictHostKeyChecking=yes", "GlobalKnownHostsFile=none"]
        options += ["BatchMode=yes", "IdentitiesOnly=yes", "ConnectTimeout=2"]
        words = ["ssh", "-i", str(key or self.key), *[word for option in options for word in ("-o", option)]]
        return subprocess.run([*words, f"root@{address}", command], capture_output=True, text=True, check=False)

    def said(self, name: str, command: str) -> str:
        done = self.ssh(name, command)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def reaches(self, name: str, address: str, port: int = 22) -> bool:
        """Tell whether a host can open a connection; patient, for the machine may be busy."""
        return self.ssh(name, f"timeout 10 bash -c '</dev/tcp/{address}/{port}'").returncode == 0

    def is_cut_from(self, name: str, address: str) -> bool:
        """Tell whether a host's packets are dropped, so that nothing comes back within a second."""
        return self.ssh(name, f"timeout 1 bash -c '</dev/tcp/{address}/22'").returncode == 124


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lab")
    for name in ("id_ed25519", "stranger"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    return folder


@pytest.fixture(scope="session")
def bench(folder: Path) -> Iterator[Bench]:
    """Two hosts, `a` and `b`, that every test of the session may use and leaves as it found them."""
    bench = Bench(folder)
    lab.destroy_all(FEDERATION)
    try:
        for name, address in (("a", "10.91.1.1"), ("b", "10.91.1.2")):
            lab.create(bench.spec(name, address))
        yield bench
    finally:
        lab.destroy_all(FEDERATION)


@pytest.fixture
def other(folder: Path) -> Iterator[Bench]:
    """An empty federation of the test's own."""
    bench = replace(Bench(folder), federation="test-other", network="10.92.0.0/16")
    lab.destroy_all(bench.federation)
    yield bench
    lab.destroy_all(bench.federation)
