"""What the officer's page says is what is on the hosts."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from tests.e2e.conftest import SECRETS, SITES, Standing

HOSTS = ["coordinator", *SITES]


@pytest.fixture(scope="module")
def written(standing: Standing, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with page.html, page.cdx.json and, for this test, the same facts in facts.json."""
    folder = tmp_path_factory.mktemp("dossier")
    facts = standing.succeed("dossier", standing.path, "--out", str(folder / "page.html"))
    (folder / "facts.json").write_text(json.dumps(facts))
    return folder


@pytest.fixture(scope="module")
def machines(written: Path) -> dict[str, dict[str, Any]]:
    """The facts about each host."""
    facts = json.loads((written / "facts.json").read_text())
    return {machine["name"]: machine for machine in facts["machines"]}


@pytest.mark.parametrize("name", HOSTS)
def test_the_ports_are_those_that_flowers_services_listen_on(
    standing: Standing, machines: dict[str, dict[str, Any]], name: str
) -> None:
    lines = standing.host(name).check_output("ss -ltnpH").splitlines()
    listening = {line.split()[3] for line in lines if '"sshd"' not in line and '"systemd' not in line}
    assert {f"{port['address']}:{port['port']}" for port in machines[name]["ports"]} == listening


@pytest.mark.parametrize("name", HOSTS)
def test_the_users_are_those_that_exist_and_run_what_is_said(
    standing: Standing, machines: dict[str, dict[str, Any]], name: str
) -> None:
    host, machine = standing.host(name), machines[name]
    there = set(re.findall(r"^(flower-[a-z]+):", host.check_output("getent passwd"), re.MULTILINE))
    assert machine["users"].keys() == there
    for unit in machine["units"]:
        if "@" not in unit["name"] and unit["name"].endswith(".service") and "WantedBy" in unit["directives"]:
            assert host.check_output(f"systemctl show --property=User --value {unit['name']}") == unit["user"]
            assert host.check_output(f"systemctl is-enabled {unit['name']}") == "enabled"
    files = host.check_output("cd /etc/systemd/system && ls -d flower-*.service flower-*.socket flower-*.timer || true")
    assert {unit["name"] for unit in machine["units"]} == set(files.split())


@pytest.mark.parametrize("name", HOSTS)
def test_the_files_are_those_that_exist_with_their_owners_and_modes(
    standing: Standing, machines: dict[str, dict[str, Any]], name: str
) -> None:
    places = {place["path"]: place for place in machines[name]["places"]}
    said = {path: f"{place['owner']} {int(place['mode'], 8):o}" for path, place in places.items()}
    host = standing.host(name)
    stat = host.check_output(f"stat --format='%n %U %a' {' '.join(places)}")
    assert dict(line.split(" ", 1) for line in stat.splitlines()) == said
    there = host.check_output("find /etc/flower /etc/systemd/system/flower-* -type f").split()
    assert set(there) <= places.keys()
    secret = {path for path, place in places.items() if place["kind"] in ("key", "secret")}
    assert secret == {key["path"] for key in machines[name]["keys"]}


@pytest.mark.parametrize("name", HOSTS)
def test_who_is_said_to_read_a_key_reads_it(standing: Standing, machines: dict[str, dict[str, Any]], name: str) -> None:
    places = "/run/credentials/flower-*.service $(ls -d /run/flower-gateway/server.key 2>/dev/null)"
    found = standing.host(name).check_output(f"find {places} -type f -printf '%f %u\\n'")
    handed = {tuple(line.split()) for line in found.splitlines()}
    said = {(Path(key["path"]).name, user) for key in machines[name]["keys"] for user in key["readers"]}
    # An app is handed its own for as long as its message lasts, and root needs none to be handed.
    standing_units = {(file, user) for file, user in said if user not in ("root", "flower-app")}
    assert standing_units == {(file, user) for file, user in handed if user != "flower-app"}


def test_the_packages_are_those_that_are_installed(standing: Standing, written: Path) -> None:
    facts = json.loads((written / "facts.json").read_text())
    ((release, packages),) = facts["releases"].items()
    code = "from importlib.metadata import distributions as d; print(*sorted({f'{x.name}=={x.version}' for x in d()}))"
    for name in HOSTS:
        host = standing.host(name)
        assert host.check_output("readlink -f /opt/flower/current").endswith(release)
        installed = host.check_output(f'/opt/flower/current/bin/python -c "{code}"').split()
        known = {re.sub(r"[-_.]+", "-", package).lower() for package in installed}
        assert known <= {f"{re.sub(r'[-_.]+', '-', one['name'] + '==' + one['version'])}" for one in packages}


def test_the_bill_of_materials_is_valid_and_lists_every_package_with_its_hash(written: Path) -> None:
    text = (written / "page.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    ((_, packages),) = json.loads((written / "facts.json").read_text())["releases"].items()
    listed = {(one["name"], one["version"], one["hashes"][0]["content"]) for one in json.loads(text)["components"]}
    assert listed == {(one["name"], one["version"], one["sha256"]) for one in packages}


def test_the_page_needs_no_network_and_shows_every_fact_but_no_secret(
    standing: Standing, written: Path, machines: dict[str, dict[str, Any]]
) -> None:
    page = (written / "page.html").read_text()
    assert not re.search(r"(src|href)=[\"'](?!#)", page)
    assert "url(" not in page
    for machine in machines.values():
        shown = [place["path"] for place in machine["places"]] + [unit["name"] for unit in machine["units"]]
        shown += [f"{port['address']}:{port['port']}" for port in machine["ports"]]
        assert not [text for text in shown if text not in page]
    read = re.findall(r"read, never written</th><td>(.*?)</td>", page)
    assert read and set(read) == {"<code>&#34;/srv/hospital&#34;</code><br>"}
    gateway = f"ip daddr {standing.gateway} tcp dport 443"
    assert gateway in machines[SITES[0]]["outgoing"]["/etc/flower/egress/supernode.nft"]
    for name in SECRETS.values():
        assert (standing.federation.secrets / name).read_text() not in page


def test_a_site_that_is_unknown_is_named(standing: Standing) -> None:
    done = standing.flowerbed("dossier", standing.path, "--site", "atlantis")
    assert done.returncode == 2
    assert "site 'atlantis' is unknown" in done.stderr
