"""The collection as others get it: built, installed without a network, and used by its full names."""

import json
import os
import re
import subprocess
import tarfile
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.ansible.support import BIN, ROOT

ANSIBLE = ROOT / "ansible"
NAME = "flowerbed.federation"
KINDS = {"module": "modules", "filter": "filter", "callback": "callback", "inventory": "inventory"}
PLAYBOOK = """\
- name: Use the collection
  hosts: localhost
  gather_facts: false
  tasks:
    - name: Keep an authority
      ansible.builtin.include_role:
        name: flowerbed.federation.authority
      vars:
        authority_path: "{{ folder }}/ca"
        authority_passphrase: correct horse battery

    - name: Make a key
      flowerbed.federation.certificate_request:
        key_path: "{{ folder }}/server.key"
        certificate_path: "{{ folder }}/server.crt"
        owner: "{{ owner }}"
        group: "{{ owner }}"
        common_name: coordinator
        dns_names: [localhost]
      register: request

    - name: Sign it
      flowerbed.federation.certificate:
        authority: "{{ folder }}/ca"
        passphrase: correct horse battery
        csr: "{{ request.csr }}"
        current: "{{ request.certificate }}"
        dns_names: [localhost]
      register: certificate
      when: not ansible_check_mode

    - name: Write the certificate, and a node config
      flowerbed.federation.layout:
        files:
          - {path: "{{ folder }}/server.crt", content: "{{ certificate.certificate | default('') }}"}
          - {path: "{{ folder }}/node.toml", content: "{{ {'partition-id': 0} | flowerbed.federation.node_config }}"}
"""


@dataclass(frozen=True)
class Installed:
    """A collection in a folder of its own, and no other way to one."""

    archive: Path
    folder: Path
    home: Path

    @property
    def root(self) -> Path:
        return self.folder / "ansible_collections" / "flowerbed" / "federation"

    def run(self, program: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one of Ansible's programs as somebody who has only the installed collection."""
        environment = {
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "LC_ALL": "C.UTF-8",
            "ANSIBLE_COLLECTIONS_PATH": str(self.folder),
            "ANSIBLE_CONFIG": str(self.home / "none.cfg"),
            "ANSIBLE_NOCOLOR": "1",
        }
        command = [str(BIN / program), *words]
        return subprocess.run(command, cwd=self.home, env=environment, capture_output=True, text=True, check=False)

    def succeed(self, program: str, *words: str) -> str:
        """Run a program that must succeed without a warning; gives what it printed."""
        done = self.run(program, *words)
        assert done.returncode == 0, done.stdout + done.stderr
        assert not [word for word in ("WARN", "DEPRECAT", "ERROR") if word in done.stdout + done.stderr], done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    built = tmp_path_factory.mktemp("built")
    version = yaml.safe_load((ANSIBLE / "galaxy.yml").read_text())["version"]
    home = tmp_path_factory.mktemp("home")
    (home / "none.cfg").touch()
    made = Installed(built / f"flowerbed-federation-{version}.tar.gz", tmp_path_factory.mktemp("collections"), home)
    made.succeed("ansible-galaxy", "collection", "build", str(ANSIBLE), "--output-path", str(built))
    made.succeed("ansible-galaxy", "collection", "install", str(made.archive), "-p", str(made.folder), "--offline")
    return made


@pytest.fixture(scope="module")
def names(installed: Installed) -> list[str]:
    with tarfile.open(installed.archive) as archive:
        return archive.getnames()


def test_the_archive_holds_what_runs_and_its_documentation(names: list[str]) -> None:
    for wanted in ("README.md", "CHANGELOG.md", "meta/runtime.yml", "playbooks/site.yml", "roles/supernode/README.md"):
        assert wanted in names
    plugins = [f"plugins/{file.relative_to(ANSIBLE / 'plugins')}" for file in (ANSIBLE / "plugins").rglob("*.py")]
    assert sorted(plugins) == sorted(name for name in names if name.startswith("plugins/") and name.endswith(".py"))


def test_the_archive_holds_nothing_that_only_the_repository_needs(names: list[str]) -> None:
    parts = {part for name in names for part in name.split("/")}
    assert not parts & {"molecule", "collections", "ansible.cfg", "tests", "__pycache__"}
    assert [part for part in parts if part.startswith(".")] == []


def test_a_playbook_uses_a_role_modules_and_a_filter_by_their_full_names(installed: Installed, tmp_path: Path) -> None:
    playbook = tmp_path / "play.yml"
    playbook.write_text(PLAYBOOK)
    words = ["--inventory", "localhost,", "--connection", "local", "--extra-vars"]
    interpreter = {
        "ansible_python_interpreter": str(BIN / "python"),
        "folder": str(tmp_path),
        "owner": tmp_path.owner(),
    }
    words += [json.dumps(interpreter), str(playbook)]
    installed.succeed("ansible-playbook", *words, "--check")
    assert not (tmp_path / "ca").exists()
    installed.succeed("ansible-playbook", *words)
    assert (tmp_path / "ca" / "ca.key").read_text().startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert (tmp_path / "node.toml").read_text() == "partition-id = 0\n"
    assert "changed=0" in installed.succeed("ansible-playbook", *words)[-200:]


def test_the_playbook_of_a_federation_has_a_name_of_its_own(installed: Installed, tmp_path: Path) -> None:
    hosts = tmp_path / "hosts.yml"
    groups = {"superlink": "coordinator", "gateway": "coordinator", "supernode": "hospital-a"}
    hosts.write_text(yaml.safe_dump({group: {"hosts": {host: {}}} for group, host in groups.items()}))
    words = ["--inventory", str(hosts), "--list-tasks", f"{NAME}.site"]
    assert "Register those that came" in installed.succeed("ansible-playbook", *words)


@pytest.mark.parametrize("kind", KINDS)
def test_every_plugin_documents_each_of_its_options(installed: Installed, kind: str) -> None:
    listed = json.loads(installed.succeed("ansible-doc", "--json", "--list", "--type", kind, NAME))
    folder = installed.root / "plugins" / KINDS[kind]
    suffix = "*.yml" if kind == "filter" else "*.py"
    assert sorted(listed) == sorted(f"{NAME}.{file.stem}" for file in folder.glob(suffix))
    documents = json.loads(installed.succeed("ansible-doc", "--json", "--type", kind, *listed))
    for name, document in documents.items():
        assert document["doc"]["short_description"], name
        assert all(_described(option) for option in document["doc"].get("options", {}).values()), name
        if kind != "callback":
            assert document["examples"], name
            assert all(value["description"] for value in (document["return"] or {}).values()), name


def _described(option: dict[str, object]) -> bool:
    inner = option.get("suboptions") or {}
    assert isinstance(inner, dict)
    return bool(option["description"]) and all(_described(value) for value in inner.values())


def test_every_filter_that_exists_is_documented(installed: Installed) -> None:
    folder = installed.root / "plugins" / "filter"
    lines = [line for file in folder.glob("*.py") for line in file.read_text().splitlines()]
    defined = [line.split('"')[1] for line in lines if re.match(r' {12}"\w+": ', line)]
    assert sorted(defined) == sorted(file.stem for file in folder.glob("*.yml"))


def test_every_role_but_the_internal_one_documents_its_options(installed: Installed) -> None:
    roles = {file.name for file in (installed.root / "roles").iterdir()} - {"common"}
    documents = json.loads(
        installed.succeed("ansible-doc", "--json", "--type", "role", *(f"{NAME}.{role}" for role in roles))
    )
    assert documents.keys() == {f"{NAME}.{role}" for role in roles}
    for name, document in documents.items():
        described = document["entry_points"]["main"]["options"]
        assert described and all(option["description"] for option in described.values()), name
