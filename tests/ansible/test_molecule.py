"""Every role on real hosts, by its molecule scenarios, one after another."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flowerbed import lab

ROOT = Path(__file__).parents[2]
ROLES = ROOT / "ansible" / "roles"
SCENARIOS = sorted(file.parent for file in ROLES.glob("*/molecule/*/molecule.yml"))
TAIL = 120  # lines of molecule's output that a failure shows
# common is internal; the firewall needs other hosts that try to get in, so tests/e2e/test_4_firewall.py has it; a
# backup and what monitoring shows need a federation that trained, so tests/recovery and tests/monitoring have them.
WITHOUT = {"backup", "common", "firewall", "monitoring"}


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda path: f"{path.parents[1].name}-{path.name}")
def test_the_role_does_what_it_promises(scenario: Path, tmp_path: Path) -> None:
    role, name = scenario.parents[1], scenario.name
    command = ["molecule", "--base-config", str(ROOT / ".config" / "molecule" / "config.yml"), "test"]
    environment = {
        **os.environ,
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"], "/usr/sbin", "/sbin"]),
        "MOLECULE_EPHEMERAL_DIRECTORY": str(tmp_path),
        "NO_COLOR": "1",
    }
    try:
        done = subprocess.run(
            [*command, "--scenario-name", name],
            cwd=role,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, "\n".join(done.stdout.splitlines()[-TAIL:])
        assert lab.hosts(f"mol-{role.name}-{name}") == []
    finally:
        lab.destroy_all(f"mol-{role.name}-{name}")


def test_every_role_has_a_default_and_an_alternative_scenario() -> None:
    roles = {path.name for path in ROLES.iterdir()} - WITHOUT
    assert {(path.parents[1].name, path.name) for path in SCENARIOS} == {
        (role, scenario) for role in roles for scenario in ("default", "alternative")
    }
