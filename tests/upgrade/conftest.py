"""A federation of two hospitals that goes from one release to another and back."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import Standing, make, up

SITES = ["hospital-a", "hospital-b"]
HOSTS = ["coordinator", *SITES]
NETWORK = "10.101.0.0/16"
VERSIONS = ("1.40.0", "1.41.0", "1.42.0")
"""Every minor version that is supported, with the latest that the index has."""


def wish(standing: Standing, version: str) -> str:
    """Let the federation's lock name this version of Flower; the id of its release."""
    standing.succeed("release", "add", standing.path, f"flwr=={version}")
    built: str = standing.succeed("release", "build", standing.path)["id"]
    assert built.startswith(f"{version}-")
    return built


def active(standing: Standing) -> set[str]:
    """The releases that the hosts' services run from."""
    found = set()
    for name in HOSTS:
        link = standing.host(name).file("/opt/flower/current").linked_to
        unit = "flower-superlink" if name == "coordinator" else "flower-supernode"
        pid = standing.host(name).check_output(f"systemctl show --property=MainPID --value {unit}")
        command = standing.host(name).check_output(f"tr '\\0' ' ' </proc/{pid}/cmdline")
        # The interpreter is named by the release's own path.
        assert (
            Path(link).name in standing.host(name).check_output(f"cat /proc/{pid}/environ /proc/{pid}/maps") + command
        )
        found.add(Path(link).name)
    return found


def history(standing: Standing) -> dict[str, str]:
    """Each run's status by its id."""
    return {run["run_id"]: run["status"] for run in standing.succeed("runs", standing.path)["runs"]}


def nodes(standing: Standing) -> str:
    """Whose node is which, as the coordinator has noted it."""
    return standing.host("coordinator").file("/var/lib/flower/nodes.json").content_string


@pytest.fixture(scope="session")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """The federation, with the oldest supported Flower; taken down afterwards, also after a failure."""
    made = make(tmp_path_factory.mktemp("upgrade"), "upg-test", SITES, NETWORK)
    wish(made, VERSIONS[0])
    with up(made) as standing:
        yield standing
