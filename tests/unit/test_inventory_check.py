"""What is wrong in a federation's files is named with file, line and key, and nothing is changed for it."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flowerbed import check, deploy, inventory
from flowerbed.console import Steps
from flowerbed.errors import UsageError
from flowerbed.federation import FederationFolder
from flowerbed.paths import INVENTORIES

FLOWERBED = str(Path(sys.executable).with_name("flowerbed"))
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0c5lP0q3sFfXo0o9VY0m1l8n8Yb3m1Jx2dF1gkq8Zb"
GOOD = """\
all:
  children:
    superlink:
      hosts:
        coordinator: {ansible_host: 192.0.2.1}
    gateway:
      hosts:
        coordinator:
    supernode:
      hosts:
        north: {ansible_host: 192.0.2.2}
        south:
          ansible_host: south.example.org
          ansible_port: 2222
          ansible_user: admin
          flowerbed_jump: bastion.example.org
          flowerbed_python: "3.13"
"""
KNOWN = f"""\
192.0.2.1 {KEY}
192.0.2.2 {KEY}
[south.example.org]:2222 {KEY}
bastion.example.org {KEY}
"""


@pytest.fixture
def federation(tmp_path: Path) -> FederationFolder:
    """A federation in which nothing is wrong."""
    made = FederationFolder(tmp_path / "by-hand")
    shutil.copytree(INVENTORIES / "existing" / "group_vars", made.path / "group_vars")
    made.hosts_file.write_text(GOOD)
    made.known_hosts.write_text(KNOWN)
    return made


def said(federation: FederationFolder) -> list[str]:
    """The findings, without the folder."""
    return [str(one).removeprefix(f"{federation.path}/") for one in check.examine(federation)]


def test_what_is_right_is_found_right(federation: FederationFolder) -> None:
    assert said(federation) == []


def test_the_example_lacks_nothing_but_the_keys_of_its_machines() -> None:
    existing = FederationFolder(INVENTORIES / "existing")
    findings = check.examine(existing)
    assert {Path(one.file).name for one in findings} == {"known_hosts"}
    assert [one.key for one in findings] == [
        *("coordinator", "hospital-north", "hospital-south", "hospital-west"),
        "hospital-west.flowerbed_jump",
    ]


def test_the_driver_reads_what_the_example_says() -> None:
    known = inventory.read(FederationFolder(INVENTORIES / "existing"))
    assert known.pythons == ["3.11", "3.12", "3.13"]
    south, west = known.sites["hospital-south"], known.sites["hospital-west"]
    assert (south.address, south.port, south.user) == ("flower.hospital-south.example", 2222, "flower-admin")
    assert (west.jump, west.port) == ("visitor@border.hospital-west.example:2200", 22)


def test_what_the_driver_writes_itself_is_right(tmp_path: Path) -> None:
    lab = FederationFolder(tmp_path / "lab")
    shutil.copytree(INVENTORIES / "lab" / "group_vars", lab.path / "group_vars")
    (lab.path / "lab.tfvars").touch()
    site = {"address": "192.0.2.2", "labels": {"a": "b"}, "node_config": {"x": "1"}, "data_path": "/srv/hospital"}
    output = {"schema": 1, "coordinator": {"address": "192.0.2.1"}, "sites": {"a": site}}
    gateway = {"schema": 1, "gateway": {"address": "192.0.2.1"}, "sites": {"a": site}}
    for one in (output, gateway):
        inventory.write(inventory.parse(one, "platform"), lab)
        assert check.examine_files(lab) == []


def test_a_groups_way_counts_for_its_hosts(federation: FederationFolder) -> None:
    shared = GOOD.replace("    supernode:\n", "    supernode:\n      vars: {ansible_user: admin, ansible_port: 2200}\n")
    federation.hosts_file.write_text(shared)
    sites = inventory.read(federation).sites
    assert {name: (site.user, site.port) for name, site in sites.items()} == {
        "north": ("admin", 2200),
        "south": ("admin", 2222),
    }


@pytest.mark.parametrize(
    ("old", "new", "finding"),
    [
        (
            "supernode:",
            "supernodes:",
            "hosts.yml:9: all.children.supernodes: is no group of a federation: did you mean",
        ),
        ("{ansible_host: 192.0.2.2}", "{}", "hosts.yml:11: north.ansible_host: is missing"),
        ("192.0.2.2", "192.0.2.1", "hosts.yml:11: north.ansible_host: is the address of coordinator too"),
        ("north:", "North_1:", "hosts.yml:11: North_1: is no host name"),
        ("north:", "gateway:", "hosts.yml:11: gateway: is reserved"),
        ("north:", "south:", "hosts.yml:12: all.children.supernode.hosts.south: is there twice, the first in line 11"),
        ("north:", "coordinator:", "hosts.yml:5: coordinator: is the coordinator: a site is a machine of its own"),
        ("ansible_port:", "ansible_prot:", "hosts.yml:14: south.ansible_prot: is unknown: did you mean ansible_port?"),
        ("ansible_user:", "supernode_lables:", "south.supernode_lables: is unknown: did you mean supernode_labels?"),
        (
            "ansible_user:",
            "supernode_wholly_other:",
            "south.supernode_wholly_other: is unknown; the nearest variable is supernode_",
        ),
        ("2222", "65536", "hosts.yml:14: south.ansible_port: 65536 is no port: 1 to 65535"),
        ("2222", "ssh", "hosts.yml:14: south.ansible_port: must be a whole number and is text"),
        ("ansible_user: admin", "supernode_labels: north", "south.supernode_labels: must be a mapping and is text"),
        ("ansible_user: admin", "supernode_labels: {a: [b]}", "south.supernode_labels.a: must be text"),
        ("ansible_user: admin", "supernode_start: 3", "south.supernode_start: must be true or false and is a number"),
        ("ansible_user: admin", "supernode_isolation: none", "'none' is not possible: use process or subprocess"),
        ("ansible_user: admin", "supernode_volumes: [{}]", "south.supernode_volumes[0].source: is missing"),
        ("ansible_user: admin", "supernode_resources: {cpu: 1}", "south.supernode_resources.cpu: is unknown"),
        ("ansible_user: admin", "supernode_data_path: srv", "south.supernode_data_path: must be an absolute path"),
        (
            "ansible_user: admin",
            "supernode_proxy: proxy:3128",
            "south.supernode_proxy: must be http://address:port",
        ),
        ("user: admin", "user: '{{ me }}'", "hosts.yml:15: south.ansible_user: holds a template marker"),
        ("user: admin", "user: root@x", "hosts.yml:15: south.ansible_user: must be a user's name"),
        ("bastion.example.org", "a@b@c", "hosts.yml:16: south.flowerbed_jump: 'a@b@c' is no jump host: write [user@]"),
        ("bastion.example.org", "b:99999", "hosts.yml:16: south.flowerbed_jump: 'b:99999' is no jump host"),
        ('"3.13"', "3.13", "hosts.yml:17: south.flowerbed_python: must be text and is a number (quote it)"),
        ('"3.13"', '"3.9"', "hosts.yml:17: south.flowerbed_python: '3.9' is not possible: use 3.11 or 3.12 or 3.13"),
        ("  children:", "  hosts: {}\n  children:", "hosts.yml:2: all.hosts: put each host into its group"),
        ("all:", "everything:", "hosts.yml:1: everything: is unknown here"),
        ("    superlink:", "    - superlink:", "hosts.yml:6: it is no YAML"),
        (GOOD, "", "hosts.yml: it is empty"),
        (GOOD, "- a\n", "hosts.yml:1: must be a mapping"),
    ],
)
def test_a_mistake_is_named_with_its_line_and_key(
    federation: FederationFolder, old: str, new: str, finding: str
) -> None:
    assert old in GOOD
    federation.hosts_file.write_text(GOOD.replace(old, new, 1))
    assert [one for one in said(federation) if finding in one], said(federation)


def test_a_coordinator_in_two_parts_is_refused(federation: FederationFolder) -> None:
    federation.hosts_file.write_text(GOOD.replace("coordinator:\n", "other: {ansible_host: 192.0.2.9}\n"))
    assert any("other: is another host than the SuperLink's, coordinator" in one for one in said(federation))


def test_a_host_whose_key_nobody_compared_is_named_with_the_way_to_it(federation: FederationFolder) -> None:
    federation.known_hosts.write_text(KNOWN.replace("bastion", "other").replace("192.0.2.2", "192.0.2.3"))
    assert said(federation) == [
        "known_hosts: north: no SSH host key of 192.0.2.2: `ssh-keyscan -p 22 192.0.2.2`, and compare it",
        "known_hosts: south.flowerbed_jump: no SSH host key of bastion.example.org: "
        "`ssh-keyscan -p 22 bastion.example.org`, and compare it",
    ]


def test_variables_in_files_of_their_own_are_checked_too(federation: FederationFolder) -> None:
    folder = federation.path / "host_vars"
    folder.mkdir()
    (folder / "nrth.yml").write_text("---\n")
    (folder / "north.yml").write_text("---\nsupernode_label: {}\nansible_port: 22\n")
    (folder / "south.yml").write_text("---\nsupernode_port: x\nsupernode_name: '{{ inventory_hostname }}'\n")
    assert said(federation) == [
        "host_vars/north.yml:2: supernode_label: is unknown: did you mean supernode_labels?",
        "host_vars/north.yml:3: ansible_port: belongs into the hosts file: the driver reads it there",
        "host_vars/nrth.yml: nrth: no host or group has this name: did you mean north?",
        "host_vars/south.yml:2: supernode_port: must be a whole number and is text",
    ]


def test_encrypted_values_and_files_are_left_to_ansible(federation: FederationFolder) -> None:
    vault = "!vault |\n  $ANSIBLE_VAULT;1.1;AES256\n  3132\n"
    (federation.path / "host_vars" / "south").mkdir(parents=True)
    (federation.path / "host_vars" / "south" / "main.yml").write_text(f"supernode_proxy_password: {vault}")
    (federation.path / "host_vars" / "north.yml").write_text("$ANSIBLE_VAULT;1.1;AES256\n3132\n")
    assert said(federation) == []


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("jump", "a b", "sites.a.jump: .*is no jump host"), ("python", "3", "sites.a.python: string should match")],
)
def test_a_platform_may_name_the_way_and_the_python_too(key: str, value: str, message: str) -> None:
    site = {"address": "192.0.2.2", "jump": "me@bastion", "python": "3.13"}
    output = {"schema": 1, "coordinator": {"address": "192.0.2.1"}, "sites": {"a": site}}
    groups = inventory.ansible_form(inventory.parse(output, "platform"), "lab")["all"]["children"]
    variables = groups["supernode"]["hosts"]["a"]
    assert (variables["flowerbed_jump"], variables["flowerbed_python"]) == ("me@bastion", "3.13")
    assert "flowerbed_jump" not in groups["superlink"]["hosts"]["coordinator"]
    with pytest.raises(UsageError, match=message):
        inventory.parse({**output, "sites": {"a": {**site, key: value}}}, "platform")


def test_up_refuses_before_anything_is_changed(federation: FederationFolder) -> None:
    federation.hosts_file.write_text(GOOD.replace("ansible_port", "ansible_prot").replace("192.0.2.2", "192.0.2.1"))
    with pytest.raises(UsageError, match=r"hosts\.yml:11: north.*\(and \d more: `flowerbed inventory check by-hand`\)"):
        deploy.up(federation, Steps())
    assert not federation.state.exists()


def test_the_command_prints_a_line_for_each_and_one_json_document(federation: FederationFolder) -> None:
    federation.hosts_file.write_text(GOOD.replace("2222", "0").replace("north", "North"))
    command = [FLOWERBED, "inventory", "check", str(federation.path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "40"})
    assert done.returncode == UsageError.exit_code
    assert [line.split(": ")[1] for line in done.stdout.splitlines()] == [
        *("North", "south.ansible_port"),
        "south",
    ]
    listed = subprocess.run([*command, "--json"], capture_output=True, text=True, check=False)
    assert listed.returncode == UsageError.exit_code
    assert [one["line"] for one in json.loads(listed.stdout)["findings"]] == [11, 14, 0]


def test_a_platforms_file_is_judged_by_terraform_and_nothing_is_made(tmp_path: Path) -> None:
    lab = FederationFolder(tmp_path / "of-terraform")
    shutil.copytree(INVENTORIES / "lab" / "group_vars", lab.path / "group_vars")
    (lab.path / "lab.tfvars").write_text('sites = { hospital-a = { address = "192.0.2.7" } }\n')
    (finding,) = check.examine(lab)
    assert (finding.file, finding.line) == (str(lab.platform_file), 0)
    assert finding.message.startswith("address: 192.0.2.7 of hospital-a is no IPv4 address")
    (lab.path / "lab.tfvars").write_text("\nsites = {")
    assert check.examine(lab)[0].line == 2
    (lab.path / "lab.tfvars").write_text("site = {}\n")
    assert check.examine(lab)[0].message.startswith("site is unknown: ")
    (lab.path / "lab.tfvars").write_text("sites = { hospital-a = {} }\n")
    assert check.examine(lab) == []
    assert sorted(path.name for path in lab.path.iterdir()) == ["group_vars", "lab.tfvars"]


def test_without_a_hosts_file_the_example_is_named(federation: FederationFolder) -> None:
    federation.hosts_file.unlink()
    with pytest.raises(UsageError, match=r"hosts\.yml does not exist: name the machines there"):
        check.examine(federation)
