"""The gateway with everything turned round: another port and a name, few networks, and one without TLS."""

import http.client
import json
import socket
import ssl
import time
from typing import Any

import pytest

from tests.ansible.molecule.fixtures import FOLDER, Machine, machine

FLEET = "/v1/fleet/no-such-call"
ASK = "import http.client as h, ssl; c = h.HTTPSConnection('{}', 8443, context=ssl._create_unverified_context()); "
ASK += "c.request('GET', '/v1/fleet/no-such-call'); print(c.getresponse().status)"


@pytest.fixture
def alone() -> Machine:
    return machine("alone")


def connect(address: str, name: str) -> ssl.SSLSocket:
    context = ssl.create_default_context(cafile=str(FOLDER / "ca" / "ca.crt"))
    return context.wrap_socket(socket.create_connection((address, 8443), timeout=10), server_hostname=name)


def answer(address: str, path: str) -> int:
    connection = http.client.HTTPConnection(address, 8080, timeout=10)
    connection.request("GET", path)
    return connection.getresponse().status


def test_its_certificate_is_for_the_name_that_sites_call_it(coordinator: Machine) -> None:
    with connect(coordinator.address, "flower.example.org") as secure:
        end = ssl.cert_time_to_seconds(secure.getpeercert()["notAfter"])
    assert (end - time.time()) / 86400 <= 40
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(coordinator.address, coordinator.address)


def test_it_answers_the_networks_that_are_allowed(coordinator: Machine) -> None:
    with connect(coordinator.address, "flower.example.org") as secure:
        secure.sendall(f"GET {FLEET} HTTP/1.1\r\nHost: flower.example.org\r\nConnection: close\r\n\r\n".encode())
        assert secure.recv(4096).startswith(b"HTTP/1.1 404")


def asked(coordinator: Machine, latest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3, **headers: str) -> int:
    """The status of a request to the Fleet API, with these headers."""
    context = ssl.create_default_context(cafile=str(FOLDER / "ca" / "ca.crt"))
    context.check_hostname = False
    context.maximum_version = latest
    connection = http.client.HTTPSConnection(coordinator.address, 8443, context=context, timeout=10)
    connection.request("POST", FLEET, headers={name.replace("_", "-"): value for name, value in headers.items()})
    return connection.getresponse().status


def logged(coordinator: Machine) -> dict[str, Any]:
    noted = coordinator.host.check_output("journalctl --sync; journalctl --identifier=flower_gateway --output=cat")
    return dict(json.loads(noted.splitlines()[-1]))


def test_it_speaks_tls_1_2_where_one_says_so_and_then_logs_every_request(coordinator: Machine) -> None:
    assert asked(coordinator, ssl.TLSVersion.TLSv1_2) == 404
    assert (logged(coordinator)["status"], logged(coordinator)["tls"]) == (404, "TLSv1.2")


def test_it_refuses_a_blocked_key_and_names_its_site(coordinator: Machine) -> None:
    nodes = coordinator.host.file("/etc/flower/gateway/nodes.map").content_string
    header = nodes.splitlines()[1].split('"')[1]
    assert asked(coordinator, flwr_public_key=header) == 401
    assert (logged(coordinator)["status"], logged(coordinator)["site"]) == (401, "hospital-b")


def test_a_larger_request_than_one_may_send_is_refused(coordinator: Machine) -> None:
    assert asked(coordinator, content_length=str(2**20 + 1)) == 413


def test_an_address_that_asks_too_often_is_told_to_come_again(coordinator: Machine) -> None:
    assert 503 in [asked(coordinator) for _ in range(30)]


def test_it_refuses_all_other_networks(coordinator: Machine, alone: Machine) -> None:
    asked = alone.host.check_output("python3 -c %s", ASK.format(coordinator.address))
    assert asked == "403"


def test_above_port_1024_it_has_no_right_at_all(coordinator: Machine) -> None:
    rights = coordinator.inside("flower-gateway")["capabilities"]
    assert {int(value, 16) for value in rights.values()} == {0}


def test_without_tls_it_passes_the_fleet_api_and_nothing_else(alone: Machine) -> None:
    assert answer(alone.address, FLEET) == 503  # passed on, and nothing is there: SuperNodes ask again after 503 alone
    assert answer(alone.address, "/v1/control/list-runs") == 403


def test_without_tls_it_needs_no_release_and_no_key(alone: Machine) -> None:
    assert not alone.host.file("/opt/flower/releases").exists
    assert alone.inside("flower-gateway")["credentials"] == {}
