"""A federation of two hospitals, whose hosts were looked at before anything of Flowerbed was on them."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from testinfra.host import Host

from flowerbed import custody, inventory, machines
from flowerbed.paths import REPOSITORY
from tests.e2e.conftest import Standing, make, up
from tests.leaving import snapshot

NAME = "drift-leaving"
NETWORK = "10.141.0.0/16"
SITES = ["hospital-a", "hospital-b"]
TINY = REPOSITORY / "tests" / "apps" / "tiny"


@dataclass
class Known:
    """The federation, and its hosts as they were before."""

    standing: Standing
    hosts: dict[str, Host]
    """By name, also when they have left."""
    before: dict[str, dict[str, list[str]]]

    def differences(self, name: str) -> list[str]:
        """What is otherwise on a host than it was before anything of Flowerbed was there."""
        return snapshot.differences(self.before[name], snapshot.take(self.hosts[name]))

    def drift(self) -> tuple[int, dict[str, Any]]:
        """What `flowerbed drift` says, and its exit code."""
        done = self.standing.flowerbed("drift", self.standing.path, "--json")
        assert done.stdout, done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        assert "clean" in answer, answer
        return done.returncode, answer


def write_platform(standing: Standing, sites: list[str]) -> None:
    """The platform's file with these hospitals."""
    entries = "".join(f'  {site} = {{ node_config = {{ partition-id = "{SITES.index(site)}" }} }}\n' for site in sites)
    (standing.federation.path / "lab.tfvars").write_text(f'network = "{standing.network}"\n\nsites = {{\n{entries}}}\n')


def wait_until(holds: Callable[[], bool], seconds: float) -> bool:
    """Wait for what must come; returns whether it came."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(1)
    return True


@pytest.fixture(scope="session")
def known(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Known]:
    """The federation; taken down afterwards, also after a failure."""
    standing = make(tmp_path_factory.mktemp("leaving"), NAME, SITES, NETWORK)
    write_platform(standing, SITES)
    try:
        custody.make(standing.federation)
        made = machines.up(standing.federation)
        inventory.write(inventory.parse(made.inventory, "lab"), standing.federation)
        hosts = {name: standing.host(name) for name in ("coordinator", *SITES)}
        before = {name: snapshot.take(host) for name, host in hosts.items()}
    except BaseException:
        standing.flowerbed("down", standing.path)
        raise
    with up(standing):
        yield Known(standing, hosts, before)
