"""A host is settled only while nothing that its roles read on this machine has changed, and for a day at most."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flowerbed import inventory, settled
from flowerbed.federation import FederationFolder

SITES = ["hospital-a", "hospital-b"]
EVERYONE = {"coordinator", *SITES}
MEMBERS = "who belongs to the federation"


@pytest.fixture
def federation(tmp_path: Path) -> FederationFolder:
    """A folder with everything that a playbook reads of a federation."""
    folder = tmp_path / "one"
    for name in ("group_vars", "host_vars", "secrets/ca", "secrets/backup", ".state/packages"):
        (folder / name).mkdir(parents=True)
    (folder / "lab.tfvars").touch()
    (folder / "group_vars" / "supernode.yml").write_text(
        "supernode_gateway: \"{{ hostvars[groups['gateway'] | first].ansible_host }}:443\"\n"
        "supernode_secrets: {token: \"{{ lookup('ansible.builtin.file', inventory_dir ~ '/secrets/token') }}\"}\n"
        "passphrase: \"{{ lookup('ansible.builtin.env', 'FLOWERBED_CA_PASSPHRASE') }}\"\n"
    )
    for name in ("secrets/token", "secrets/ca/trust.crt", "secrets/ca/ca.crt", "revoked.json", "approved.json"):
        (folder / name).write_text(name)
    write(FederationFolder(folder), SITES)
    return FederationFolder(folder)


def write(federation: FederationFolder, sites: list[str], **of_first: object) -> None:
    """The inventory with these sites."""
    hosts = {name: {"ansible_host": f"192.0.2.{number}"} for number, name in enumerate(sites, 1)}
    hosts[sites[0]] |= {name: str(value) for name, value in of_first.items()}
    groups = {
        "superlink": {"hosts": {"coordinator": {"ansible_host": "192.0.2.99"}}},
        "gateway": {"hosts": {"coordinator": {}}},
        "supernode": {"hosts": hosts},
    }
    federation.hosts_file.write_text(json.dumps({"all": {"vars": {"flowerbed_schema": 1}, "children": groups}}))


def read(federation: FederationFolder) -> tuple[dict[str, str], dict[str, str], dict[str, str]]:
    """What the roles read for each host, what they have written before, and who belongs to the federation."""
    known = inventory.read(federation)
    found = settled.find(federation, known, look=False)
    return (
        found.inputs,
        {name: settled._written(federation, known, name) for name in found.inputs},
        {MEMBERS: found.members},
    )


def changed(federation: FederationFolder, change: Callable[[], object]) -> set[str]:
    """The hosts that a change on this machine concerns."""
    before = read(federation)
    change()
    after = read(federation)
    names = EVERYONE | {MEMBERS}
    return {name for name in names for old, new in zip(before, after, strict=True) if old.get(name) != new.get(name)}


def test_what_nobody_touched_is_as_it_was(federation: FederationFolder) -> None:
    assert changed(federation, lambda: None) == set()
    assert set(read(federation)[0]) == EVERYONE


def test_another_process_comes_to_the_same(federation: FederationFolder) -> None:
    for name in ("coordinator", "hospital-a"):
        secret = f"{{{{ lookup('ansible.builtin.file', inventory_dir ~ '/secrets/{name}') }}}}"
        (federation.secrets / name).write_text(name)
        (federation.path / "host_vars" / f"{name}.yml").write_text(f'a: "{secret}"\n')
    program = (
        "import sys; from flowerbed import inventory, settled; from flowerbed.federation import FederationFolder; "
    )
    program += "from pathlib import Path; one = FederationFolder(Path(sys.argv[1])); "
    program += "print(settled.find(one, inventory.read(one), look=False).inputs)"
    said = {
        subprocess.check_output(
            [sys.executable, "-c", program, federation.path], env=os.environ | {"PYTHONHASHSEED": str(seed)}
        )
        for seed in range(8)
    }
    assert len(said) == 1


@pytest.mark.parametrize(
    ("file", "concerned"),
    [
        ("group_vars/supernode.yml", EVERYONE),
        ("group_vars/all/more.yml", EVERYONE),
        ("host_vars/hospital-a.yml", {"hospital-a"}),
        ("host_vars/hospital-a/more.yml", {"hospital-a"}),
        ("secrets/token", EVERYONE),
        ("secrets/new", EVERYONE),
        ("secrets/ca/trust.crt", EVERYONE),
        ("secrets/ca/ca.crt", {"coordinator"}),
        ("secrets/backup/backup.crt", {"coordinator"}),
        ("revoked.json", EVERYONE),
        ("approved.json", {MEMBERS}),
        ("blocked.json", {"coordinator"}),
        (".state/packages/hospital-a.tar", EVERYONE),
        ("README.md", set()),
        ("runs/latest/run.json", set()),
    ],
)
def test_a_changed_file_concerns_the_hosts_whose_roles_read_it(
    federation: FederationFolder, file: str, concerned: set[str]
) -> None:
    def change() -> None:
        path = federation.path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as stream:
            stream.write("# changed\n")

    assert changed(federation, change) == concerned


def test_another_release_concerns_every_host(federation: FederationFolder) -> None:
    link = federation.state / "release-3.11.tar"
    link.symlink_to("releases/1.tar")

    def other() -> None:
        link.unlink()
        link.symlink_to("releases/2.tar")

    assert changed(federation, other) == EVERYONE


def test_a_hospital_more_or_another_data_path_concerns_no_other_host(federation: FederationFolder) -> None:
    assert changed(federation, lambda: write(federation, [*SITES, "hospital-c"])) == {MEMBERS}
    assert changed(federation, lambda: write(federation, SITES, supernode_data_path="/srv/other")) == {
        "hospital-a",
        MEMBERS,
    }


def test_a_variable_of_the_environment_that_is_read_counts(
    federation: FederationFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert changed(federation, lambda: monkeypatch.setenv("FLOWERBED_CA_PASSPHRASE", "another")) == EVERYONE
    assert changed(federation, lambda: monkeypatch.setenv("ANSIBLE_FORKS", "3")) == EVERYONE
    assert changed(federation, lambda: monkeypatch.setenv("EDITOR", "vi")) == set()


def test_a_file_elsewhere_that_a_variable_names_counts(federation: FederationFolder, tmp_path: Path) -> None:
    elsewhere = tmp_path / "trust.crt"
    elsewhere.write_text("one")
    (federation.path / "host_vars" / "hospital-b.yml").write_text(f"supernode_ca_certificate: {elsewhere}\n")
    assert changed(federation, lambda: elsewhere.write_text("another")) == {"hospital-b"}


@pytest.mark.parametrize(
    "value",
    [
        "{{ lookup('ansible.builtin.pipe', 'pass show token') }}",
        "{{ lookup('ansible.builtin.file', '/run/user/token') }}",
        "{{ lookup('ansible.builtin.file', inventory_dir ~ '/tokens/' ~ inventory_hostname) }}",
        "{{ {'a': {'b': 1}} | combine({'c': lookup('ansible.builtin.pipe', 'date')}) }}",
        "{{ '%s' | strftime }}",
        "$ANSIBLE_VAULT;1.1;AES256",
        "{{ query('ansible.builtin.url', 'https://vault.example') }}",
        "{{ now() }}",
        "{{ hostvars['hospital-b'].supernode_labels }}",
        "{% if groups['supernode'] | length > 3 %}x{% endif %}",
    ],
)
def test_a_host_whose_variables_read_what_cannot_be_foreseen_is_never_settled(
    federation: FederationFolder, value: str
) -> None:
    (federation.path / "host_vars" / "hospital-a.yml").write_text(f'supernode_labels: {{a: "{value}"}}\n')
    assert set(read(federation)[0]) == {"coordinator", "hospital-b"}
    (federation.path / "group_vars" / "all.yml").write_text(f'a: "{value}"\n')
    assert read(federation)[0] == {}


@pytest.mark.parametrize(
    "text", ["# of about ~30 sites", "a: x/~nobody-of-this-name/y", f"a: /{'x' * 300}", "a: /lost+found/of/somebody"]
)
def test_what_only_looks_like_a_path_is_none(federation: FederationFolder, text: str) -> None:
    (federation.path / "group_vars" / "all.yml").write_text(f"{text}\n")
    assert set(read(federation)[0]) == EVERYONE


def test_a_link_to_nothing_is_passed_over_and_one_to_a_folder_is_followed(
    federation: FederationFolder, tmp_path: Path
) -> None:
    (federation.path / "group_vars" / ".#all.yml").symlink_to("somebody@somewhere")
    shared = tmp_path / "shared"
    shared.mkdir()
    (federation.path / "group_vars" / "all").symlink_to(shared)
    assert changed(federation, lambda: (shared / "more.yml").write_text("a: 1\n")) == EVERYONE


def test_what_cannot_be_read_makes_nobody_settled_and_ends_nothing(
    federation: FederationFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert settled.find(federation, inventory.read(federation), look=False) == settled.Settled({}, "")


def test_the_coordinators_variables_concern_every_host(federation: FederationFolder) -> None:
    file = federation.path / "host_vars" / "coordinator.yml"
    assert changed(federation, lambda: file.write_text("gateway_port: 8443\n")) == EVERYONE


def test_who_writes_of_lookups_and_groups_in_a_comment_reads_nothing(federation: FederationFolder) -> None:
    (federation.path / "group_vars" / "all.yml").write_text("# now() and lookup('x') for hosts of all groups\n")
    assert set(read(federation)[0]) == EVERYONE


def test_after_a_day_a_host_is_looked_at_anew(federation: FederationFolder, capfd: pytest.CaptureFixture[str]) -> None:
    inputs, written, _ = read(federation)
    rest = {"fingerprint": "", "members": "", "warnings": []}
    entries = {
        name: {"inputs": inputs[name], "written": written[name], "at": at, **rest}
        for name, at in zip(inputs, (time.time() - settled.SECONDS - 1, time.time() + 60, 0.0), strict=True)
    }
    (federation.state / "settled.json").write_text(json.dumps(entries))
    assert settled.find(federation, inventory.read(federation), look=True).hosts == []


@pytest.mark.parametrize("record", ["", "{", "[]", '{"hospital-a": 7}', '{"hospital-a": {}}'])
def test_a_record_that_cannot_be_read_is_none(federation: FederationFolder, record: str) -> None:
    (federation.state / "settled.json").write_text(record)
    assert settled.find(federation, inventory.read(federation), look=True).hosts == []
