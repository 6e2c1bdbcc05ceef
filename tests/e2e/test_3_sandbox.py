"""What code that the federation pushes can do at a site, tried by a real app through the real way."""

import json
from pathlib import Path
from typing import Any

import pytest

from flowerbed.paths import REPOSITORY
from tests.e2e.conftest import SITES, Standing

PROBE = REPOSITORY / "tests" / "apps" / "probe"
UNITS = {
    "coordinator": [
        "flower-superlink",
        "flower-superexec-serverapp",
        "flower-gateway",
        "flower-egress@superlink",
        "flower-egress@gateway",
    ],
    "hospital-a": ["flower-supernode", "flower-superexec-clientapp", "flower-egress@supernode"],
}
REFUSED = ("PermissionError", "OSError", "FileNotFoundError", "CalledProcessError")


@pytest.fixture(scope="module")
def attempts(standing: Standing) -> Any:
    """Run the probe app on all sites and read what each attempt came to."""
    standing.host("hospital-a").check_output("mkdir -p /srv/other-hospital && touch /srv/other-hospital/patients")
    for site in SITES:  # so that nothing but the sandbox stands in the way of writing
        standing.host(site).check_output("chmod -R a+w /srv/hospital")
    peer = standing.host("hospital-b").run("hostname -I").stdout.split()[0]
    targets = f"{standing.gateway}:443 {standing.gateway}:22 {peer}:22 192.0.2.1:443"
    done = standing.succeed("run", str(PROBE), "--federation", standing.path, "-c", f'targets="{targets}"')
    return json.loads((Path(standing.work) / done["folder"] / "files" / "attempts.json").read_text())


@pytest.mark.parametrize("site", SITES)
def test_an_app_reads_its_sites_data_and_cannot_change_it(attempts: Any, site: str) -> None:
    assert attempts[site]["read own data"] == "done"
    assert attempts[site]["write into own data"] == "OSError"
    assert attempts[site]["change own data"] == "OSError"


@pytest.mark.parametrize("site", SITES)
def test_an_app_cannot_read_keys_or_the_supernodes_state(attempts: Any, site: str) -> None:
    assert attempts[site]["read the node key"] == "PermissionError"
    assert attempts[site]["read the superexec secret"] == "PermissionError"
    assert attempts[site]["list the SuperNode's state"] == "PermissionError"


def test_an_app_cannot_see_another_sites_data_on_the_same_host(attempts: Any) -> None:
    assert attempts["hospital-a"]["list another folder of /srv"] == "FileNotFoundError"


@pytest.mark.parametrize("place", [*SITES, "coordinator"])
def test_an_app_writes_into_its_own_state_folder_alone(attempts: Any, place: str) -> None:
    assert attempts[place]["write to the state folder"] == "done"
    assert attempts[place]["write to /tmp"] == "done"
    for what in ("write outside the state folder", "write to /etc", "write to /var/lib"):
        assert attempts[place][what] in ("OSError", "PermissionError"), what


@pytest.mark.parametrize("place", [*SITES, "coordinator"])
def test_what_an_app_writes_to_tmp_nobody_else_sees(standing: Standing, attempts: Any, place: str) -> None:
    assert attempts[place]["write to /tmp"] == "done"
    assert not standing.host(place).file("/tmp/flowerbed-probe").exists  # noqa: S108


@pytest.mark.parametrize("place", [*SITES, "coordinator"])
def test_an_app_has_no_privilege_and_gains_none(attempts: Any, place: str) -> None:
    assert attempts[place]["capabilities"] == "0" * 16
    assert attempts[place]["new privileges"] == "1"
    assert attempts[place]["become root"] == "PermissionError"
    assert attempts[place]["make a user namespace"] in REFUSED


@pytest.mark.parametrize("place", [*SITES, "coordinator"])
def test_an_app_opens_no_foreign_socket_families(attempts: Any, place: str) -> None:
    assert attempts[place]["open a packet socket"] in REFUSED
    assert attempts[place]["open a netlink socket"] in REFUSED


@pytest.mark.parametrize("place", [*SITES, "coordinator"])
def test_an_app_reaches_no_address_of_the_network(attempts: Any, place: str) -> None:
    connections = {what: came for what, came in attempts[place].items() if what.startswith("connect to ")}
    assert len(connections) == 4
    assert not [what for what, came in connections.items() if came == "done"]


@pytest.mark.parametrize("place", [*SITES, "coordinator"])
def test_an_app_sees_no_process_of_another_user(attempts: Any, place: str) -> None:
    assert attempts[place]["see other processes"] == "none"


@pytest.mark.parametrize(("name", "unit"), [(name, unit) for name, units in UNITS.items() for unit in units])
def test_every_unit_is_exposed_to_two_of_ten_at_most(standing: Standing, name: str, unit: str) -> None:
    said = standing.host(name).check_output(f"systemd-analyze security --no-pager {unit}.service | tail -1")
    exposure = float(said.split("service:")[1].split()[0])
    assert exposure <= 2.0


def test_the_list_of_units_is_complete(standing: Standing) -> None:
    for name, units in UNITS.items():
        listed = standing.host(name).check_output("systemctl list-units 'flower-*' --plain --no-legend").splitlines()
        assert {line.split()[0].removesuffix(".service") for line in listed} == set(units)
