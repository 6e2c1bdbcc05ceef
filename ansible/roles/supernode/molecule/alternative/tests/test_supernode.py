"""The SuperNode turned round: a test federation without TLS or keys, ClientApps inside the SuperNode."""

import tomllib
from typing import Any

import pytest

from tests.ansible.molecule.fixtures import REFUSED, Machine, machine, online_nodes

DATA = "/data/registry/patients.csv"
SECRET = "/etc/flower/supernode/secrets/database_password"


@pytest.fixture(scope="module")
def app() -> Any:
    """What a ClientApp can do, which is what the SuperNode can do."""
    return machine("hospital").inside(
        "flower-supernode",
        read=[DATA, SECRET, "/srv/models/weights", "/home/alice/reference/ranges", "/home/alice/private"],
        write=[DATA, "/data/registry/new", "/srv/models/weights", "/data/scratch/new", "/home/alice/reference/ranges"],
        list=["/data/other", "/srv/pretrained"],
        connect=["10.146.0.10:8080", "10.146.0.10:22"],
    )


def test_the_coordinator_sees_it_online(coordinator: Machine) -> None:
    assert online_nodes(coordinator, "127.0.0.1:8000") == 1


def test_clientapps_read_through_the_datas_group_what_others_cannot(hospital: Machine, app: Any) -> None:
    assert app["read"][DATA] == "done"
    assert hospital.host.run(f"setpriv --reuid=65534 --clear-groups cat {DATA}").rc == 1


def test_clientapps_cannot_change_the_data_that_its_group_could(hospital: Machine, app: Any) -> None:
    assert {app["write"][DATA], app["write"]["/data/registry/new"]} == {"Read-only file system"}
    assert hospital.host.file(DATA).content_string == "1,2,3"


def test_clientapps_do_not_see_other_data_on_the_host(app: Any) -> None:
    assert set(app["list"].values()) == {"FileNotFoundError"}


def test_clientapps_find_their_environment_to_the_letter(app: Any) -> None:
    assert app["environment"]["OMP_NUM_THREADS"] == "4"
    assert app["environment"]["GREETING"] == "100 %n of $HOME"


def test_clientapps_read_their_secrets_as_credentials_alone(app: Any) -> None:
    assert app["credentials"]["database_password"] == "only-for-clientapps"
    assert app["credentials"].keys() == {"database_password", "superexec.secret"}
    assert app["read"][SECRET] in REFUSED


def test_a_volume_is_read_only_and_under_another_name(app: Any) -> None:
    assert app["read"]["/srv/models/weights"] == "done"
    assert app["write"]["/srv/models/weights"] == "Read-only file system"


def test_a_volume_can_be_written_where_asked(hospital: Machine, app: Any) -> None:
    assert app["write"]["/data/scratch/new"] == "done"
    assert hospital.host.file("/data/scratch/new").user == "flower-supernode"


def test_a_volume_may_lie_in_a_home_whose_rest_stays_hidden(app: Any) -> None:
    assert app["read"]["/home/alice/reference/ranges"] == "done"
    assert app["write"]["/home/alice/reference/ranges"] == "Read-only file system"
    assert app["read"]["/home/alice/private"] == "FileNotFoundError"


def test_it_reaches_the_gateway_and_no_other_port(app: Any) -> None:
    assert app["connect"] == {"10.146.0.10:8080": "done", "10.146.0.10:22": "ConnectionRefusedError"}


def test_clientapps_are_limited(hospital: Machine) -> None:
    # What systemd was told: inside a lab host no controller enforces it, so there is no effect to measure.
    wanted = {"MemoryMax": str(2 << 30), "MemorySwapMax": "0", "CPUQuotaPerSecUSec": "500ms", "TasksMax": "300"}
    shown = hospital.host.check_output(f"systemctl show flower-supernode --property={','.join(wanted)}")
    assert dict(line.split("=") for line in shown.splitlines()) == wanted


def test_the_node_config_keeps_types_and_names_the_site_its_labels_and_its_data(hospital: Machine) -> None:
    # Read as Flower reads it; that apps find it is seen by the end-to-end tests.
    assert tomllib.loads(hospital.host.file("/etc/flower/supernode/node_config.toml").content_string) == {
        "site": "north",
        "data-path": "/data/registry",
        "label-region": "north",
        "partition-id": 1,
        "ratio": 0.5,
        "note": 'a "quoted" word',
    }


def test_there_is_no_key_or_certificate_that_nothing_needs(hospital: Machine) -> None:
    assert hospital.host.check_output("find /etc/flower -name '*key*' -o -name '*.crt'") == ""
