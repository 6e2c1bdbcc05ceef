"""The form of the roles: what their documentation, names and style promise to those who use them."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.ansible.support import BIN, ROOT

ANSIBLE = ROOT / "ansible"
ROLES = sorted(ANSIBLE.glob("roles/*"))
PUBLIC = [role for role in ROLES if role.name != "common"]
NO_VALUE = object()

every_role = pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
every_public_role = pytest.mark.parametrize("role", PUBLIC, ids=lambda role: role.name)


def defaults(role: Path) -> dict[str, Any]:
    return dict(yaml.safe_load((role / "defaults" / "main.yml").read_text()))


def options(role: Path) -> dict[str, Any]:
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())
    return dict(specs["argument_specs"]["main"]["options"])


def sources(role: Path) -> list[Path]:
    """The role's own files: without its scenarios, which stand outside of it, and its documentation."""
    folders = [role / name for name in ("defaults", "meta", "tasks", "templates", "vars", "handlers")]
    return [file for folder in folders for file in sorted(folder.rglob("*")) if file.is_file()]


def values_of(key: str, document: Any) -> Iterator[Any]:
    """Every value that stands under a key, at any depth."""
    if isinstance(document, dict):
        for name, value in document.items():
            if name == key:
                yield value
            yield from values_of(key, value)
    elif isinstance(document, list):
        for item in document:
            yield from values_of(key, item)


# Documentation


@every_public_role
def test_argument_specs_and_defaults_name_the_same_variables_with_the_same_values(role: Path) -> None:
    assert {name: option.get("default", NO_VALUE) for name, option in options(role).items()} == defaults(role)


@every_public_role
def test_every_option_has_a_type_and_a_description(role: Path) -> None:
    inner = [option for outer in options(role).values() for option in outer.get("options", {}).values()]
    for option in [*options(role).values(), *inner]:
        assert option["type"]
        assert option["description"]


@every_public_role
def test_every_default_says_above_it_what_the_argument_specs_say(role: Path) -> None:
    comments: list[str] = []
    said: dict[str, str] = {}
    for line in (role / "defaults" / "main.yml").read_text().splitlines()[1:]:
        if line.startswith("# "):
            comments.append(line.removeprefix("# "))
        elif match := re.match(r"(\w+):", line):
            # The line that shows an example of the variable itself is no description.
            said[match[1]] = " ".join(comment for comment in comments if not comment.startswith(f"{match[1]}:"))
            comments = []
    described = {name: " ".join(option["description"]) for name, option in options(role).items()}
    assert {name: comment.replace('"', "'") for name, comment in said.items()} == described


@every_public_role
def test_every_default_that_is_an_empty_list_or_dictionary_has_an_example(role: Path) -> None:
    lines = (role / "defaults" / "main.yml").read_text().splitlines()
    empty = [name for name, value in defaults(role).items() if value in ([], {})]
    assert [name for name in empty if not any(line.startswith(f"# {name}: ") for line in lines)] == []


def test_the_readmes_are_those_that_the_argument_specs_give() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "readmes"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


@every_public_role
def test_what_is_secret_is_marked_so(role: Path) -> None:
    secret = {name for name in defaults(role) if name.endswith(("_passphrase", "_password", "_secrets"))}
    assert secret == {name for name, option in options(role).items() if option.get("no_log")}


# Names


@every_role
def test_every_variable_bears_its_roles_name(role: Path) -> None:
    names: set[str] = set()
    for file in sources(role):
        if file.suffix != ".yml" or file.parent.name == "meta":
            continue
        document = yaml.safe_load(file.read_text()) or {}
        if file.parent.name in ("defaults", "vars"):
            names |= set(document)
        for given in [*values_of("vars", document), *values_of("ansible.builtin.set_fact", document)]:
            names |= set(given)
        names |= {str(name) for name in values_of("register", document)}
        names |= {str(name) for name in values_of("loop_var", document)}
    # What the internal role takes is named after it, as a function's parameters are.
    allowed = re.compile(rf"_?{role.name}_\w+|_common_\w+|ansible_python_interpreter")
    assert [name for name in sorted(names) if not allowed.fullmatch(name)] == []


@every_public_role
def test_public_variables_are_all_in_the_defaults(role: Path) -> None:
    used = {name for file in sources(role) for name in re.findall(rf"\b{role.name}_\w+", file.read_text())}
    programs = {"superlink_api", "supernode_api"}
    assert used - programs <= set(defaults(role))


@every_role
def test_no_role_knows_the_inventorys_groups(role: Path) -> None:
    knows = re.compile(r"\bgroups\s*[\[.]|\bgroup_names\b|\bhostvars\b|\bansible_play_hosts")
    assert [file.name for file in sources(role) if knows.search(file.read_text())] == []


@every_public_role
def test_main_is_a_table_of_contents_where_there_is_more_than_one_page(role: Path) -> None:
    pages = [file.name for file in (role / "tasks").iterdir()]
    tasks = yaml.safe_load((role / "tasks" / "main.yml").read_text())
    includes = {"ansible.builtin.include_tasks", "ansible.builtin.include_role"}
    assert pages == ["main.yml"] or all(includes & set(task) for task in tasks)


def test_the_internal_role_refuses_direct_use(tmp_path: Path) -> None:
    playbook = tmp_path / "play.yml"
    tasks = [{"ansible.builtin.include_role": {"name": "flowerbed.federation.common"}}]
    playbook.write_text(yaml.safe_dump([{"hosts": "localhost", "gather_facts": False, "tasks": tasks}]))
    done = subprocess.run(
        [str(BIN / "ansible-playbook"), "--inventory", "localhost,", "--connection", "local", str(playbook)],
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert "common is internal: use the roles superlink, gateway or supernode" in done.stdout


# Style


def environment() -> dict[str, str]:
    return {
        "PATH": f"{BIN}:/usr/bin:/bin",
        "HOME": str(Path.home()),
        "LC_ALL": "C.UTF-8",
        "ANSIBLE_CONFIG": str(ANSIBLE / "ansible.cfg"),
        "NO_COLOR": "1",
    }


def test_ansible_lint_finds_nothing_in_the_repository_by_its_strictest_profile() -> None:
    command = [str(BIN / "ansible-lint"), "--strict"]
    done = subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True, check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "Passed: 0 failure(s), 0 warning(s)" in said
    assert "Profile 'production' was required, and it passed" in said


def test_nothing_is_kept_from_ansible_lint() -> None:
    config = yaml.safe_load((ROOT / ".ansible-lint").read_text())
    assert config.keys() == {"profile", "offline", "exclude_paths"}
    # What is made here, what leads back to the collection, and what is not Ansible's.
    assert set(config["exclude_paths"]) == {
        *(".ansible/", ".venv/", "build/", "runs/"),
        *("ansible/collections/", "terraform/"),
    }
    assert not (ROOT / ".ansible-lint-ignore").exists()
    files = [file for folder in (ANSIBLE, ROOT / "tests" / "ansible") for file in folder.rglob("*.yml")]
    assert [file for file in files if "noqa" in file.read_text()] == []


def test_yamllint_finds_nothing() -> None:
    folders = ["ansible/roles", "ansible/playbooks", "ansible/plugins", "ansible/meta", "tests/ansible", "inventories"]
    files = ["ansible/galaxy.yml", ".ansible-lint", ".yamllint", ".config/molecule/config.yml"]
    command = [str(BIN / "yamllint"), "--strict", *folders, *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
