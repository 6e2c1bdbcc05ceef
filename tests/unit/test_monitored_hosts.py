"""Which hosts are monitored is said in one place, by a platform or by hand, and their packages are what they lack."""

import io
import json
import sys
import tarfile
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from flowerbed import check, dashboard, inventory, monitored, packages, ssh
from flowerbed.errors import EnvironmentLacks, UsageError, WorkFailed
from flowerbed.federation import FederationFolder
from flowerbed.paths import ANSIBLE

sys.path.insert(0, str(ANSIBLE / "collections"))

from ansible_collections.flowerbed.federation.plugins.modules import packages as module

HOST = {"address": "192.0.2.1", "port": 22, "user": "root", "host_key": "ssh-ed25519 AAAA", "python": "3.11"}


def output(*monitored: str) -> dict[str, Any]:
    """What a platform says."""
    sites = {"north": HOST | {"address": "192.0.2.2"}, "south": HOST | {"address": "192.0.2.3"}}
    return {"schema": 1, "coordinator": HOST | {"name": "coordinator"}, "sites": sites, "monitoring": list(monitored)}


@pytest.fixture
def federation(tmp_path: Path) -> FederationFolder:
    (tmp_path / "fed").mkdir()
    (tmp_path / "fed" / "lab.tfvars").touch()
    return FederationFolder(tmp_path / "fed")


def test_what_a_platform_names_is_the_group_and_is_read_again(federation: FederationFolder) -> None:
    inventory.write(inventory.parse(output("coordinator", "north"), "platform"), federation)
    groups = json.loads(federation.hosts_file.read_text())["all"]["children"]
    assert groups["monitoring"] == {"hosts": {"coordinator": {}, "north": {}}}
    assert [host.name for host in inventory.read(federation).monitored] == ["coordinator", "north"]
    assert [str(one) for one in check.examine_files(federation)] == []


def test_a_federation_without_monitoring_has_no_such_group(federation: FederationFolder) -> None:
    inventory.write(inventory.parse(output(), "platform"), federation)
    assert "monitoring" not in json.loads(federation.hosts_file.read_text())["all"]["children"]
    assert inventory.read(federation).monitored == []


def test_a_name_that_is_no_machine_is_refused() -> None:
    with pytest.raises(UsageError, match="monitoring names 'west', which is no machine: there are coordinator, north"):
        inventory.parse(output("west"), "platform")


def test_a_host_that_is_in_no_other_group_is_named(tmp_path: Path) -> None:
    federation = FederationFolder(tmp_path)
    federation.hosts_file.write_text(
        "all:\n  children:\n    superlink: {hosts: {coordinator: {ansible_host: 192.0.2.1}}}\n"
        "    gateway: {hosts: {coordinator: {}}}\n    monitoring:\n      hosts:\n"
        "        coordinator: {}\n        stranger: {ansible_host: 192.0.2.9}\n"
    )
    found = [str(one).removeprefix(f"{tmp_path}/") for one in check.examine_files(federation)]
    assert "hosts.yml:8: stranger: is monitored alone: it is no host of this federation" in found
    assert not [one for one in found if "coordinator: is" in one]


def test_a_host_that_was_monitored_is_remembered_until_it_is_no_more(federation: FederationFolder) -> None:
    def up(*names: str) -> list[str]:
        inventory.write(inventory.parse(output(*names), "platform"), federation)
        hosts = inventory.read(federation)
        left = monitored.no_longer(federation, hosts)
        monitored.remember(federation, hosts)
        return left

    assert up() == []
    assert not (federation.state / "monitored.json").exists()
    assert up("coordinator", "north") == []
    assert up("north") == ["coordinator"]
    assert up() == ["north"]
    assert up() == []


# Packages


def test_a_machine_without_apt_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentLacks, match="apt-get is not on this machine"):
        packages.fetch(["prometheus"], "", "bookworm", "amd64", tmp_path / "packages.tar")
    assert not (tmp_path / "packages.tar").exists()


def test_of_an_archive_the_packages_are_taken_by_their_names_alone(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "packages.tar", "w:") as tar:
        for name in ("a.deb", "../../b.deb", "/c.deb", "evil.sh"):
            member = tarfile.TarInfo(name)
            member.size = 1
            tar.addfile(member, io.BytesIO(b"x"))
        link = tarfile.TarInfo("link.deb")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/shadow"
        tar.addfile(link)
    into = tmp_path / "in" / "to"
    into.mkdir(parents=True)
    files = module.unpack(str(tmp_path / "packages.tar"), into)
    assert files == [str(into / name) for name in ("a.deb", "b.deb", "c.deb")]
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [
        "a.deb",
        "b.deb",
        "c.deb",
        "packages.tar",
    ]


# The page


class _Answer(BaseHTTPRequestHandler):
    status, age = 200, timedelta()

    def do_HEAD(self) -> None:
        self.send_response(self.status)
        self.send_header("Last-Modified", format_datetime(datetime.now(UTC) - self.age, usegmt=True))
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def served() -> Iterator[int]:
    server = HTTPServer(("127.0.0.1", 0), _Answer)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


@pytest.fixture
def shell(tmp_path: Path) -> ssh.Shell:
    return ssh.Shell(FederationFolder(tmp_path / "fed"), inventory.Host(name="coordinator", address="192.0.2.1"))


@pytest.mark.parametrize(
    ("status", "minutes", "said"),
    [
        (200, 0, ""),
        (200, 90, "it is 90 minutes old: see `journalctl -u flower-page-maker`"),
        (503, 0, "it is not made yet"),
    ],
)
def test_a_page_that_is_old_or_not_there_is_told(
    served: int, shell: ssh.Shell, monkeypatch: pytest.MonkeyPatch, status: int, minutes: int, said: str
) -> None:
    monkeypatch.setattr(_Answer, "status", status)
    monkeypatch.setattr(_Answer, "age", timedelta(minutes=minutes))
    assert dashboard._look(shell, served).startswith(said)
    assert bool(said) == bool(dashboard._look(shell, served))


def test_something_else_at_the_port_is_no_page(served: int, shell: ssh.Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Answer, "status", 404)
    with pytest.raises(WorkFailed, match="the status page on coordinator is answered with 404"):
        dashboard._look(shell, served)
