"""One monitored federation on lab hosts, a browser, and Prometheus' own tool for testing rules."""

import json
import subprocess
from collections.abc import Callable, Iterator

import pytest
from testinfra.host import Host

from flowerbed import packages
from flowerbed.lab import image
from tests.e2e.conftest import Standing, make, up
from tests.pages.conftest import browser

__all__ = ["browser"]
SITES = ["hospital-a", "hospital-b"]
PROMETHEUS = "http://127.0.0.1:1004"


@pytest.fixture(scope="session")
def promtool(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Promtool of the very package that hosts get, unpacked and not installed."""
    folder = tmp_path_factory.mktemp("prometheus")
    status = (image.ensure() / "var/lib/dpkg/status").read_text()
    machine = subprocess.run(
        ["dpkg", "--print-architecture"], check=True, capture_output=True, text=True
    ).stdout.strip()
    packages.fetch(["prometheus"], status, "bookworm", machine, folder / "packages.tar")
    subprocess.run(["tar", "-xf", "packages.tar"], cwd=folder, check=True)
    (package,) = folder.glob("prometheus_*.deb")
    subprocess.run(["dpkg-deb", "--extract", str(package), str(folder / "root")], check=True)
    return str(folder / "root" / "usr" / "bin" / "promtool")


@pytest.fixture(scope="session")
def monitored(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """Two hospitals; the coordinator and one of them are monitored."""
    made = make(tmp_path_factory.mktemp("monitoring"), "monitoring", SITES, "10.131.0.0/16")
    platform = made.federation.path / "lab.tfvars"
    platform.write_text(platform.read_text() + 'monitored = ["coordinator", "hospital-a"]\n')
    shorter = made.federation.path / "group_vars" / "monitoring.yml"
    shorter.write_text(shorter.read_text() + "monitoring_interval_seconds: 5\nmonitoring_site_offline_minutes: 1\n")
    with up(made):
        yield made


@pytest.fixture
def coordinator(monitored: Standing) -> Host:
    return monitored.host("coordinator")


@pytest.fixture
def query(coordinator: Host) -> Callable[[str], dict[str, float]]:
    """Asks Prometheus; gives the values by their labels, of which `of` names the one that counts."""

    def ask(expression: str, of: str = "site") -> dict[str, float]:
        answer = get(coordinator, f"{PROMETHEUS}/api/v1/query?query={expression}")
        return {one["metric"].get(of, ""): float(one["value"][1]) for one in json.loads(answer)["data"]["result"]}

    return ask


def get(host: Host, url: str, user: str = "root") -> str:
    """What a host's own loopback answers; an HTTP status that is no success, or why there was no answer."""
    program = (
        "import sys, urllib.error, urllib.parse, urllib.request\n"
        "where, _, query = sys.argv[1].partition('?query=')\n"
        "url = where + ('?query=' + urllib.parse.quote(query) if query else '')\n"
        "try: print(urllib.request.urlopen(url, timeout=10).read().decode())\n"
        "except urllib.error.HTTPError as error: print(error.code)\n"
        "except OSError as error: print(error)\n"
    )
    return str(host.check_output(f"setpriv --reuid={user} --clear-groups python3 -c %s %s", program, url)).strip()
