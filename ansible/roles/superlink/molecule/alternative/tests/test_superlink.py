"""The SuperLink turned round: a test federation without TLS or keys, ServerApps inside the SuperLink."""

from typing import Any

import pytest

from tests.ansible.molecule.fixtures import REFUSED, Machine, machine


@pytest.fixture(scope="module")
def inside() -> Any:
    return machine("coordinator").inside(
        "flower-superlink",
        read=["/srv/models/weights", "/etc/flower/superlink/secrets/tracking_token"],
        write=["/srv/models/weights", "/srv/models/new", "/srv/shared/new"],
        connect=["127.0.0.1:8001"],
    )


def test_it_answers_without_tls(coordinator: Machine) -> None:
    ask = "import urllib.request as u; print(u.urlopen('http://127.0.0.1:8001/health').status)"
    assert coordinator.host.check_output("python3 -c %s", ask) == "200"


def test_serverapps_run_as_the_superlinks_user(inside: Any) -> None:
    assert inside["user"] == "flower-superlink"
    assert inside["environment"]["FLOWERBED_RESULTS"] == "/var/lib/flower/results"


def test_serverapps_find_their_environment_to_the_letter(inside: Any) -> None:
    assert inside["environment"]["OMP_NUM_THREADS"] == "2"
    assert inside["environment"]["GREETING"] == "\"100 %n\" of $HOME \\ 'quoted'\nand a second line"


def test_serverapps_read_their_secrets_as_credentials_alone(inside: Any) -> None:
    assert inside["credentials"]["tracking_token"] == "only-for-serverapps"
    assert inside["credentials"].keys() == {"tracking_token", "superexec.secret"}
    assert inside["read"]["/etc/flower/superlink/secrets/tracking_token"] in REFUSED


def test_other_users_read_no_secret(coordinator: Machine) -> None:
    token = "/etc/flower/superlink/secrets/tracking_token"
    assert coordinator.host.check_output(f"cat {token}") == "only-for-serverapps"
    assert coordinator.host.run(f"setpriv --reuid=flower-app --clear-groups cat {token}").rc == 1


def test_a_volume_is_read_only_and_under_another_name(inside: Any) -> None:
    assert inside["read"]["/srv/models/weights"] == "done"
    assert inside["write"]["/srv/models/weights"] in REFUSED
    assert inside["write"]["/srv/models/new"] in REFUSED


def test_a_volume_can_be_written_where_asked(coordinator: Machine, inside: Any) -> None:
    assert inside["write"]["/srv/shared/new"] == "done"
    assert coordinator.host.file("/srv/shared/new").user == "flower-superlink"


def test_serverapps_are_limited(coordinator: Machine) -> None:
    # What systemd was told: inside a lab host no controller enforces it, so there is no effect to measure.
    wanted = {"MemoryMax": str(1 << 30), "MemorySwapMax": "0", "CPUQuotaPerSecUSec": "1.500000s", "TasksMax": "256"}
    shown = coordinator.host.check_output(f"systemctl show flower-superlink --property={','.join(wanted)}")
    assert dict(line.split("=") for line in shown.splitlines()) == wanted


def test_there_is_no_user_key_or_certificate_that_nothing_needs(coordinator: Machine) -> None:
    assert not coordinator.host.file("/etc/flower/superlink/server.key").exists
    assert not coordinator.host.file("/etc/flower/ca.crt").exists
