"""The gateway with the role's defaults: port 443 with TLS, the Fleet API and nothing else."""

import http.client
import json
import ssl

import pytest

from tests.ansible.molecule.fixtures import FOLDER, REFUSED, Machine

SECRETS = [
    "/etc/flower/gateway/server.key",
    "/etc/flower/superlink/server.key",
    "/etc/flower/superlink/superexec.secret",
    "/run/credentials/flower-superlink.service/server.key",
    "/var/lib/flower/superlink/superlink.db",
]


def ask(address: str, path: str, latest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> http.client.HTTPResponse:
    """Ask the gateway as a site does: over TLS, with the federation's authority alone."""
    context = ssl.create_default_context(cafile=str(FOLDER / "ca" / "ca.crt"))
    context.maximum_version = latest
    connection = http.client.HTTPSConnection(address, 443, context=context, timeout=10)
    connection.request("POST", path, body=b"")
    return connection.getresponse()


def test_it_passes_the_fleet_api_to_the_superlink(coordinator: Machine) -> None:
    answer = ask(coordinator.address, "/v1/fleet/no-such-call")
    assert (answer.status, answer.getheader("content-type")) == (404, "application/json")


@pytest.mark.parametrize("path", ["/", "/health", "/docs", "/v1/control/list-runs", "/v1/fleet/../control/list-runs"])
def test_it_answers_403_to_all_else(coordinator: Machine, path: str) -> None:
    assert ask(coordinator.address, path).status == 403


def test_it_writes_down_what_it_refused(coordinator: Machine) -> None:
    assert ask(coordinator.address, "/v1/control/to-be-noted").status == 403
    noted = coordinator.host.check_output("journalctl --sync; journalctl --identifier=flower_gateway --output=cat")
    (line,) = [line for line in noted.splitlines() if "/v1/control/to-be-noted" in line]
    entry = json.loads(line)
    assert (entry["address"], entry["status"]) == (coordinator.address.rsplit(".", 1)[0] + ".1", 403)


def test_it_speaks_the_latest_tls_alone(coordinator: Machine) -> None:
    with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
        ask(coordinator.address, "/", ssl.TLSVersion.TLSv1_2)
    plain = http.client.HTTPConnection(coordinator.address, 443, timeout=10)
    plain.request("GET", "/v1/fleet/")
    assert plain.getresponse().status == 400


def test_it_does_not_tell_its_version(coordinator: Machine) -> None:
    assert ask(coordinator.address, "/").getheader("server") == "nginx"


def test_it_holds_its_own_key_and_reads_no_other(coordinator: Machine) -> None:
    inside = coordinator.inside("flower-gateway", read=SECRETS)
    assert inside["user"] == "flower-gateway"
    key = coordinator.host.file("/run/flower-gateway/server.key")
    assert (key.user, key.mode) == ("flower-gateway", 0o400)
    assert set(inside["read"].values()) <= REFUSED


def test_its_one_right_is_the_port_below_1024(coordinator: Machine) -> None:
    rights = coordinator.inside("flower-gateway", read=SECRETS)["capabilities"]
    assert {int(value, 16) for value in rights.values()} == {1 << 10}


def test_it_opens_connections_to_the_loopback_alone(coordinator: Machine) -> None:
    outside, superlink = f"{coordinator.address}:22", "127.0.0.1:8000"
    connect = coordinator.inside("flower-gateway", connect=[outside, superlink])["connect"]
    assert connect == {outside: "ConnectionRefusedError", superlink: "done"}


def test_it_may_open_as_many_files_as_its_connections_need(coordinator: Machine) -> None:
    worker = coordinator.host.check_output("pgrep -u flower-gateway -f 'worker process' | head -1")
    limits = coordinator.host.check_output(f"cat /proc/{worker}/limits").splitlines()
    soft = next(line.split()[3] for line in limits if line.startswith("Max open files"))
    assert int(soft) > 4096
