"""The SuperLink with the role's defaults: TLS and node keys, on the loopback, ServerApps as another user."""

import pytest

from tests.ansible.molecule.fixtures import REFUSED, Machine, refused

ASK = """python3 -c '
import ssl, urllib.request
context = ssl.create_default_context({})
print(urllib.request.urlopen("https://127.0.0.1:8000/health", context=context).status)
'"""
SECRETS = [
    "/etc/flower/superlink/server.key",
    "/etc/flower/superlink/superexec.secret",
    "/run/credentials/flower-superlink.service/server.key",
    "/var/lib/flower/superlink/superlink.db",
]


def test_it_answers_with_a_certificate_of_the_federations_authority(coordinator: Machine) -> None:
    assert coordinator.host.check_output(ASK.format('cafile="/etc/flower/ca.crt"')) == "200"
    assert "CERTIFICATE_VERIFY_FAILED" in coordinator.host.run(ASK.format("")).stderr


def test_it_lets_no_supernode_without_a_key_in(coordinator: Machine) -> None:
    node = "/opt/flower/current/bin/flower-supernode --superlink 127.0.0.1:8000 --root-certificates /etc/flower/ca.crt"
    environment = "env PATH=/opt/flower/current/bin:/usr/bin:/bin FLWR_HOME=/run/no-key FLWR_TELEMETRY_ENABLED=0"
    done = coordinator.host.run(f"{environment} FLWR_DISABLE_UPDATE_CHECK=1 timeout 60 {node} --port 9999")
    assert done.rc == 1
    assert "SuperNode authentication is enabled" in done.stdout + done.stderr


def test_the_users_are_three_that_nobody_can_log_in_as(coordinator: Machine) -> None:
    for name in ("flower-superlink", "flower-superexec", "flower-app"):
        user = coordinator.host.user(name)
        assert (user.shell, user.home, user.groups) == ("/usr/sbin/nologin", "/nonexistent", [name])
        assert not coordinator.host.file(user.home).exists


@pytest.mark.parametrize("path", SECRETS)
def test_serverapps_read_no_secret_and_no_state_of_the_superlink(coordinator: Machine, path: str) -> None:
    inside = coordinator.inside("flower-serverapp@", read=SECRETS)
    assert inside["user"] == "flower-app"
    assert inside["read"][path] in REFUSED


def test_serverapps_find_the_folder_for_their_results(coordinator: Machine) -> None:
    inside = coordinator.inside("flower-serverapp@", read=SECRETS)
    assert inside["environment"]["FLOWERBED_RESULTS"] == "/var/lib/flower/results"
    assert inside["credentials"] == {}


@pytest.mark.parametrize("unit", ["flower-superlink", "flower-serverapp@", "flower-superexec-serverapp"])
def test_it_reaches_the_loopback_and_no_address_of_the_network(coordinator: Machine, unit: str) -> None:
    outside, loopback = f"{coordinator.address}:22", "127.0.0.1:8000"
    connect = coordinator.inside(unit, connect=[outside, loopback])["connect"]
    assert connect == {outside: "ConnectionRefusedError", loopback: "done"}


def test_a_port_of_another_program_is_refused_while_it_runs_too() -> None:
    message = refused({"port-in-use": {"superlink_port": 22}})["port-in-use"]
    assert "port 22 is in use by another program: stop that program or set superlink_port" in message
