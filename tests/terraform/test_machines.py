"""A federation's machines over their life: made, changed, found dead, taken away. The tests build on each other."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flowerbed import inventory, lab, machines, terraform
from flowerbed.errors import EnvironmentLacks, UsageError
from flowerbed.federation import FederationFolder
from flowerbed.lab.spec import Places
from flowerbed.paths import ANSIBLE, INVENTORIES, PLATFORMS
from tests.terraform.conftest import write


def ansible_inventory(source: Path) -> dict[str, Any]:
    """What Ansible makes of an inventory; text that is no template counts as plain text."""
    command = [str(Path(sys.executable).with_name("ansible-inventory")), "--inventory", str(source), "--list"]
    environment = {**os.environ, "ANSIBLE_CONFIG": str(ANSIBLE / "ansible.cfg")}
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    plain: dict[str, Any] = json.loads(
        done.stdout, object_hook=lambda one: one["__ansible_unsafe"] if one.keys() == {"__ansible_unsafe"} else one
    )
    return plain


def boots(federation: FederationFolder) -> dict[str, str]:
    """Tell one boot of each living host from any other."""
    living = [host.name for host in lab.hosts(federation.name) if host.alive]
    return {name: (Places(federation.name, name).running / "pid").read_text() for name in living}


def test_up_makes_the_machines_and_keeps_the_contract(federation: FederationFolder) -> None:
    made = machines.up(federation)
    assert (made.add, made.change, made.destroy) == (3, 0, 0)
    described = inventory.parse(dict(made.inventory), "platform lab")
    assert set(described.sites) == {"hospital-a", "hospital-b"}
    assert described.coordinator.host_key.startswith("ssh-ed25519 ")
    assert described.sites["hospital-a"].data_path == "/srv/hospital"
    assert set(boots(federation)) == {"coordinator", "hospital-a", "hospital-b"}


def test_ansible_finds_in_the_state_the_hosts_that_hosts_json_names(federation: FederationFolder) -> None:
    described = inventory.parse(dict(machines.planned(federation).inventory), "platform lab")
    inventory.write(described, federation)
    shutil.copy(INVENTORIES / "lab" / "terraform.flowerbed.yml", federation.path)
    from_state = ansible_inventory(federation.path / "terraform.flowerbed.yml")
    assert from_state["_meta"]["hostvars"]["hospital-a"]["supernode_data_path"] == "/srv/hospital"
    assert from_state == ansible_inventory(federation.hosts_file)
    for file in (federation.hosts_file, federation.known_hosts, federation.path / "terraform.flowerbed.yml"):
        file.unlink()


def test_ansible_is_told_in_one_line_that_there_is_no_state(second: FederationFolder) -> None:
    source = shutil.copy(INVENTORIES / "lab" / "terraform.flowerbed.yml", second.path)
    with pytest.raises(subprocess.CalledProcessError) as failed:
        ansible_inventory(Path(source))
    assert "terraform.tfstate does not exist: make the machines first" in failed.value.stderr


def test_the_login_key_is_the_operators_alone(federation: FederationFolder) -> None:
    assert federation.ssh_key.stat().st_mode & 0o777 == 0o600
    assert federation.ssh_key.parent.stat().st_mode & 0o777 == 0o700


def test_a_second_up_changes_nothing(federation: FederationFolder) -> None:
    before = boots(federation)
    again = machines.up(federation)
    assert (again.add, again.change, again.destroy, again.pending) == (0, 0, 0, False)
    assert boots(federation) == before


def test_nothing_of_terraform_lands_in_the_platforms_folder(federation: FederationFolder) -> None:
    folder = PLATFORMS / "lab"
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    machines.up(federation)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    assert (federation.state / "terraform" / "terraform.tfstate").exists()


def test_a_new_hospital_is_one_entry_and_touches_no_other(federation: FederationFolder) -> None:
    before = boots(federation)
    write(federation, "sites = { hospital-0 = {}, hospital-a = {}, hospital-b = {} }")
    assert machines.planned(federation).pending
    made = machines.up(federation)
    assert (made.add, made.change, made.destroy) == (1, 0, 0)
    assert boots(federation).items() > before.items()


def test_labels_and_node_config_change_without_a_machine(federation: FederationFolder) -> None:
    before = boots(federation)
    settings = '{ labels = { region = "north" }, node_config = { partition-id = "3" } }'
    write(federation, f"sites = {{ hospital-0 = {settings}, hospital-a = {{}}, hospital-b = {{}} }}")
    made = machines.up(federation)
    assert (made.add, made.change, made.destroy, made.pending) == (0, 0, 0, True)
    assert made.inventory["sites"]["hospital-0"]["labels"] == {"region": "north"}
    assert made.inventory["sites"]["hospital-0"]["node_config"] == {"partition-id": "3"}
    assert boots(federation) == before


def test_a_hospital_that_leaves_touches_no_other(federation: FederationFolder) -> None:
    before = boots(federation)
    write(federation, "sites = { hospital-a = {}, hospital-b = {} }")
    made = machines.up(federation)
    assert (made.add, made.change, made.destroy) == (0, 0, 1)
    assert set(made.inventory["sites"]) == {"hospital-a", "hospital-b"}
    assert boots(federation) == {name: boot for name, boot in before.items() if name != "hospital-0"}


def test_a_host_that_died_is_noticed_and_made_afresh(federation: FederationFolder) -> None:
    before = boots(federation)
    keys = machines.planned(federation).inventory
    lab.kill(federation.name, "hospital-b")
    assert machines.planned(federation).pending
    made = machines.up(federation)
    assert (made.add, made.destroy) == (1, 1)
    assert made.inventory["sites"]["hospital-b"]["host_key"] != keys["sites"]["hospital-b"]["host_key"]
    after = boots(federation)
    assert {name: after[name] == boot for name, boot in before.items()} == {
        "coordinator": True,
        "hospital-a": True,
        "hospital-b": False,
    }
    assert not machines.planned(federation).pending


def test_a_data_folder_that_is_none_is_refused_before_any_machine_is_made_and_the_next_up_goes_on(
    federation: FederationFolder,
) -> None:
    before = boots(federation)
    write(federation, 'sites = { hospital-a = {}, hospital-b = { data = "lab.tfvars" } }')
    with pytest.raises(UsageError, match=r"data: .*/lab\.tfvars of hospital-b is no folder"):
        machines.up(federation)
    assert boots(federation) == before
    write(federation, "sites = { hospital-a = {}, hospital-b = {} }")
    machines.up(federation)
    assert set(boots(federation)) == {"coordinator", "hospital-a", "hospital-b"}
    assert not machines.planned(federation).pending


def test_a_copied_folder_does_not_touch_the_first_ones_machines(federation: FederationFolder, tmp_path: Path) -> None:
    copy = FederationFolder(Path(shutil.copytree(federation.path, tmp_path / "test-second")))
    with pytest.raises(UsageError, match=r"describes the machines of .*/test-terraform: in a copied folder remove it"):
        machines.up(copy)


def test_a_second_federation_shares_the_platform_and_nothing_else(
    federation: FederationFolder, second: FederationFolder
) -> None:
    before = boots(federation)
    machines.up(second)
    assert set(boots(second)) == {"coordinator"}
    assert machines.down(second) == 1
    assert boots(federation) == before
    assert not machines.planned(federation).pending


def test_down_takes_away_all_that_up_made_and_nothing_else(federation: FederationFolder) -> None:
    (federation.data / "hospital-a").mkdir(parents=True, exist_ok=True)
    (federation.data / "hospital-a" / "records.csv").write_text("1,2\n")
    assert machines.down(federation) == 3
    assert lab.hosts(federation.name) == []
    left = sorted(str(path.relative_to(federation.path)) for path in federation.path.rglob("*") if path.is_file())
    keys = ["secrets/ssh/id_ed25519", "secrets/ssh/id_ed25519.pub"]
    assert left == ["data/hospital-a/records.csv", "lab.tfvars", *keys]
    assert machines.down(federation) == 0


def test_without_terraform_the_user_is_told_so(second: FederationFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    machines.planned(second)
    monkeypatch.setenv("PATH", "/nonexistent")
    monkeypatch.setattr(terraform, "embedded", lambda: False)
    with pytest.raises(EnvironmentLacks, match="terraform is not installed"):
        machines.planned(second)


def test_machines_that_exist_already_are_not_terraforms(second: FederationFolder) -> None:
    (second.path / "lab.tfvars").unlink()
    assert machines.platform(second) is None
    with pytest.raises(UsageError, match=r"has no \*\.tfvars file"):
        machines.up(second)


def test_an_unknown_platform_is_refused_by_name(second: FederationFolder) -> None:
    (second.path / "lab.tfvars").rename(second.path / "moon.tfvars")
    with pytest.raises(UsageError, match=r"moon\.tfvars names the platform 'moon', which does not exist .*lab"):
        machines.up(second)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('network = "lab"', "network: 'lab' is no IPv4 network"),
        ('network = "10.94.0.0/28"', "network: '10.94.0.0/28' is no IPv4 network"),
        ('network = "10.94.0.5/16"', "network: '10.94.0.5/16' is a host's address: write 10.94.0.0/16"),
        ('suite = "sid"', "suite: 'sid' is unknown"),
        ('ssh_public_key_file = "/nowhere.pub"', "ssh_public_key_file: '/nowhere.pub' holds no public key: ssh-keygen"),
        ('coordinator = { name = "Centre" }', "coordinator.name: 'Centre' is no host name"),
        ('coordinator = { name = "gateway" }', "coordinator.name: 'gateway' is reserved"),
        (
            'coordinator = { adress = "10.94.0.4" }',
            "lab.tfvars: coordinator.adress is unknown: there are address, name",
        ),
        (
            'coordinator = { address = "10.99.0.4" }',
            "address: 10.99.0.4 of coordinator is no IPv4 address of the network",
        ),
        ("sites = { Hospital_A = {} }", "sites: 'Hospital_A' is no host name"),
        ("sites = { coordinator = {} }", "sites: 'coordinator' is reserved"),
        ("sites = { a = null }", "sites: a is null"),
        ("sites = { a = { lables = {} } }", "sites.a.lables is unknown: there are address, data, labels, node_config"),
        ('sites = { a = { data = "" } }', "sites: data of a is empty"),
        ('sites = { a = { labels = { "x y" = "1" } } }', "sites: label 'x y' of a is no key"),
        ('sites = { a = { labels = { x = "{{ y }}" } } }', "sites: labels.x of a is null or holds a template marker"),
        ('sites = { a = { node_config = { "x.y" = "1" } } }', "sites: node_config 'x.y' of a is no key"),
        ('sites = { a = { node_config = { data-path = "/" } } }', "sites: node_config 'data-path' of a is set by"),
        ('sites = { a = { node_config = { x = "\\"" } } }', "sites: node_config.x of a holds a double quote"),
        ('sites = { a = { address = "10.94.0.1" } }', "address: 10.94.0.1 of a is reserved"),
        ('sites = { a = { address = "10.94.0.10" } }', "address: a and coordinator have 10.94.0.10"),
        ('sites = { a = { address = "10.94.0.7" }, b = { address = "10.94.0.7" } }', "address: a and b have 10.94.0.7"),
        ("sites = 5", "sites: map of object required"),
        ("sites = {", "lab.tfvars:2: "),
        ("site = {}", "lab.tfvars: site is unknown"),
    ],
)
def test_a_wrong_value_is_refused_by_its_key_in_one_line(second: FederationFolder, text: str, message: str) -> None:
    write(second, text)
    with pytest.raises(UsageError) as refused:
        machines.up(second)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    assert lab.hosts(second.name) == []
