"""The roles keep the collection's conventions."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from flowerbed.paths import ANSIBLE, REPOSITORY

ROLES = sorted(role for role in (ANSIBLE / "roles").iterdir() if (role / "meta" / "argument_specs.yml").is_file())
NAMES = [role.name for role in ROLES]


def load(file: Path) -> Any:
    return yaml.safe_load(file.read_text())


@pytest.mark.parametrize("role", ROLES, ids=NAMES)
def test_argument_specs_equal_the_defaults(role: Path) -> None:
    options = load(role / "meta" / "argument_specs.yml")["argument_specs"]["main"]["options"]
    specified = {name: option.get("default") for name, option in options.items()}
    assert specified == load(role / "defaults" / "main.yml")


@pytest.mark.parametrize("role", ROLES, ids=NAMES)
def test_every_option_has_a_type_and_says_what_to_set(role: Path) -> None:
    options = load(role / "meta" / "argument_specs.yml")["argument_specs"]["main"]["options"]
    for name, option in options.items():
        assert option["type"], name
        assert option["description"], name


@pytest.mark.parametrize("role", ROLES, ids=NAMES)
def test_every_default_has_its_line_that_says_what_to_set(role: Path) -> None:
    lines = (role / "defaults" / "main.yml").read_text().splitlines()
    for before, line in zip(lines, lines[1:], strict=False):
        if re.match(r"[a-z_]+:", line):
            assert before.startswith("# "), line


@pytest.mark.parametrize("role", ROLES, ids=NAMES)
def test_variables_bear_the_roles_name(role: Path) -> None:
    public = load(role / "defaults" / "main.yml")
    internal = load(role / "vars" / "main.yml") if (role / "vars" / "main.yml").exists() else {}
    assert [name for name in public if not name.startswith(f"{role.name}_")] == []
    assert [name for name in internal if not name.startswith(f"_{role.name}_")] == []


@pytest.mark.parametrize("role", ROLES, ids=NAMES)
def test_no_group_is_named_inside_a_role(role: Path) -> None:
    for file in [*role.glob("tasks/*"), *role.glob("templates/*"), *role.glob("vars/*"), *role.glob("defaults/*")]:
        assert not re.search(r"groups\[|group_names", file.read_text()), file


@pytest.mark.parametrize("role", ROLES, ids=NAMES)
def test_main_is_a_table_of_contents_where_there_is_more_than_one_page(role: Path) -> None:
    tasks = load(role / "tasks" / "main.yml")
    if [file.name for file in (role / "tasks").iterdir()] == ["main.yml"]:
        return
    assert all({"ansible.builtin.include_tasks", "ansible.builtin.include_role"} & set(task) for task in tasks)


def test_the_readmes_match_the_argument_specs() -> None:
    command = [sys.executable, str(REPOSITORY / "scripts" / "readmes"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


def test_the_collection_meets_ansible_lints_production_profile() -> None:
    lint = Path(sys.executable).with_name("ansible-lint")
    done = subprocess.run(
        [lint, "--offline", "--profile=production", "--strict", "--nocolor"],
        cwd=REPOSITORY,
        env={**os.environ, "ANSIBLE_CONFIG": str(ANSIBLE / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
