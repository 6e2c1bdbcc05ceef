"""The SuperNode with the role's defaults: a key of its own, TLS, and ClientApps as another user without a network."""

from typing import Any

import pytest

from tests.ansible.molecule.fixtures import REFUSED, Machine, machine, online_nodes

GATEWAY = f"{machine('coordinator').address}:443"
SSH = f"{machine('coordinator').address}:22"
SECRETS = [
    "/etc/flower/supernode/node_key",
    "/etc/flower/supernode/runtime.key",
    "/etc/flower/supernode/superexec.secret",
    "/run/credentials/flower-supernode.service/node_key",
]
DATA = "/srv/hospital/patients.csv"


@pytest.fixture(scope="module")
def app() -> Any:
    """What a ClientApp can do."""
    return machine("hospital").inside(
        "flower-clientapp@",
        read=[*SECRETS, DATA, "/srv/other/patients.csv"],
        write=[DATA, "/srv/hospital/new", "/srv/new"],
        list=["/var/lib/flower/supernode", "/srv/other"],
        connect=[GATEWAY, SSH, "127.0.0.1:9094"],
    )


@pytest.fixture(scope="module")
def node() -> Any:
    """What the SuperNode can do."""
    return machine("hospital").inside("flower-supernode", read=[DATA, SECRETS[0]], connect=[GATEWAY, SSH])


def test_the_coordinator_sees_it_online(coordinator: Machine) -> None:
    assert online_nodes(coordinator, "127.0.0.1:8000", "/etc/flower/ca.crt") == 1


def test_the_node_key_is_roots_alone_and_reaches_the_supernode_alone(hospital: Machine, node: Any, app: Any) -> None:
    file = hospital.host.file(SECRETS[0])
    assert (file.user, file.group, file.mode) == ("root", "root", 0o600)
    assert "BEGIN OPENSSH PRIVATE KEY" in node["credentials"]["node_key"]
    assert node["read"][SECRETS[0]] in REFUSED
    assert app["credentials"] == {}


def test_clientapps_are_another_user_and_read_no_secret_and_no_state(node: Any, app: Any) -> None:
    assert (node["user"], app["user"]) == ("flower-supernode", "flower-app")
    assert {app["read"][path] for path in SECRETS} <= REFUSED
    assert app["list"]["/var/lib/flower/supernode"] in REFUSED


def test_clientapps_read_the_sites_data_and_cannot_change_it(hospital: Machine, app: Any) -> None:
    assert app["read"][DATA] == "done"
    assert set(app["write"].values()) == {"Read-only file system"}
    assert hospital.host.file(DATA).content_string == "1,2,3"


def test_clientapps_do_not_see_other_data_on_the_host(app: Any) -> None:
    assert app["read"]["/srv/other/patients.csv"] == "FileNotFoundError"
    assert app["list"]["/srv/other"] == "FileNotFoundError"


def test_superexec_holds_its_secret_as_a_third_user_and_sees_no_data(hospital: Machine) -> None:
    inside = hospital.inside("flower-superexec-clientapp", read=[*SECRETS, DATA], connect=[GATEWAY, "127.0.0.1:9094"])
    assert inside["user"] == "flower-superexec"
    assert inside["credentials"].keys() == {"superexec.secret"}
    assert {inside["read"][path] for path in [*SECRETS, DATA]} <= REFUSED
    assert inside["connect"] == {GATEWAY: "ConnectionRefusedError", "127.0.0.1:9094": "done"}


def test_the_supernode_does_not_see_the_data(node: Any) -> None:
    assert node["read"][DATA] in REFUSED


def test_clientapps_reach_the_supernode_and_no_network(app: Any) -> None:
    assert app["connect"] == {
        GATEWAY: "ConnectionRefusedError",
        SSH: "ConnectionRefusedError",
        "127.0.0.1:9094": "done",
    }


def test_the_supernode_reaches_the_gateway_and_no_other_port(node: Any) -> None:
    assert node["connect"] == {GATEWAY: "done", SSH: "ConnectionRefusedError"}
