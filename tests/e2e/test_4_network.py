"""What can be reached from where: the gateway's Fleet API, and nothing else."""

import json
from typing import Any

import pytest

from tests.e2e.conftest import Standing

ASK = r"""
import http.client, json, ssl, sys
address, paths = sys.argv[1], sys.argv[2:]
context = ssl.create_default_context(cafile="/etc/flower/ca.crt")
answers = {}
for path in paths:
    connection = http.client.HTTPSConnection(address, 443, context=context, timeout=10)
    connection.request("POST", path, body=b"")
    answers[path] = connection.getresponse().status
print(json.dumps(answers))
"""

CONNECT = r"""
import json, socket, sys
answers = {}
for target in sys.argv[1:]:
    address, port = target.rsplit(":", 1)
    try:
        socket.create_connection((address, int(port)), timeout=3).close()
        answers[target] = "open"
    except ConnectionRefusedError:
        answers[target] = "refused"
    except OSError as error:
        answers[target] = type(error).__name__
print(json.dumps(answers))
"""


def ask(standing: Standing, program: str, *words: str, user: str = "root") -> Any:
    """Run a Python program on hospital-a as a user and read its answer."""
    host = standing.host("hospital-a")
    command = ["setpriv", f"--reuid={user}", "--clear-groups", "python3", "-c", program, *words]
    return json.loads(host.check_output(" ".join(["%s"] * len(command)), *command))


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/health",
        "/docs",
        "/openapi.json",
        "/v1/control/list-runs",
        "/v1/control/list-nodes",
        "/v1/runtime/acquire-task",
        "/v1/fleet/../control/list-runs",
        "/v1/fleet/..%2fcontrol/list-runs",
        "/v1/fleet/%2e%2e/control/list-runs",
        "//v1/control/list-runs",
        "/v1/fleet",
    ],
)
def test_the_gateway_answers_403_to_all_but_the_fleet_api(standing: Standing, path: str) -> None:
    assert ask(standing, ASK, standing.gateway, path) == {path: 403}


def test_the_gateway_passes_the_fleet_api_to_the_superlink(standing: Standing) -> None:
    path = "/v1/fleet/no-such-call"
    assert ask(standing, ASK, standing.gateway, path) == {path: 404}


def test_a_path_that_means_the_fleet_api_means_it_to_the_superlink_too(standing: Standing) -> None:
    path = "/v1/control/..%2ffleet/no-such-call"
    assert ask(standing, ASK, standing.gateway, path) == {path: 404}


def test_the_superlink_is_closed_to_the_network(standing: Standing) -> None:
    target = f"{standing.gateway}:8000"
    assert ask(standing, CONNECT, target) == {target: "TimeoutError"}  # the firewall answers nothing


def test_the_supernode_reaches_the_gateway_alone(standing: Standing) -> None:
    peer = standing.host("hospital-b").run("hostname -I").stdout.split()[0]
    gateway, ssh = f"{standing.gateway}:443", f"{standing.gateway}:22"
    answers = ask(standing, CONNECT, gateway, ssh, f"{peer}:22", user="flower-supernode")
    assert answers == {gateway: "open", ssh: "refused", f"{peer}:22": "refused"}


@pytest.mark.parametrize("user", ["flower-app", "flower-superexec"])
def test_apps_and_superexec_reach_the_supernodes_port_and_no_other(standing: Standing, user: str) -> None:
    peer = standing.host("hospital-b").run("hostname -I").stdout.split()[0]
    targets = [f"{standing.gateway}:443", f"{standing.gateway}:22", f"{peer}:22", "127.0.0.1:22"]
    answers = ask(standing, CONNECT, *targets, "127.0.0.1:9094", user=user)
    assert answers == {**dict.fromkeys(targets, "refused"), "127.0.0.1:9094": "open"}


def test_nobody_else_on_the_host_reaches_the_supernodes_port(standing: Standing) -> None:
    answers = ask(standing, CONNECT, "127.0.0.1:9094", "127.0.0.1:22", user="nobody")
    assert answers == {"127.0.0.1:9094": "refused", "127.0.0.1:22": "open"}


def test_root_on_the_site_is_not_hindered(standing: Standing) -> None:
    target = f"{standing.gateway}:22"
    assert ask(standing, CONNECT, target) == {target: "open"}


@pytest.mark.parametrize("user", ["flower-superlink", "flower-superexec", "flower-app", "flower-gateway"])
def test_the_coordinators_services_open_no_connection_to_the_network(standing: Standing, user: str) -> None:
    host = standing.host("coordinator")
    peer = standing.host("hospital-b").run("hostname -I").stdout.split()[0]
    command = ["setpriv", f"--reuid={user}", "--clear-groups", "python3", "-c", CONNECT, f"{peer}:22"]
    answer = json.loads(host.check_output(" ".join(["%s"] * len(command)), *command))
    assert answer == {f"{peer}:22": "refused"}


def test_sites_have_no_route_to_the_internet(standing: Standing) -> None:
    assert standing.host("hospital-a").run("ip route show default").stdout == ""
