"""Every command of the README works as it stands there; `./scripts/demo` has a test of its own in tests/bench."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flowerbed import lab
from flowerbed.paths import REPOSITORY
from tests.e2e.conftest import Standing

ELSEWHERE = ("./scripts/demo", "./scripts/test", "source .venv/bin/activate")
# What is said of existing machines is done by tests/existing. No bash block says how a hospital joins, which is done by
# tests/joining, how an app is simulated, by tests/simulation, and how one is run in every way, by tests/seeds.
EXISTING = "my-federation"


def commands() -> list[str]:
    """The command lines of the README's bash blocks, without their comments; the last one takes it down."""
    blocks = re.findall(r"```bash\n(.*?)```", (REPOSITORY / "README.md").read_text(), re.DOTALL)
    lines = [re.sub(r"\s+#.*", "", line) for block in blocks for line in block.splitlines()]
    found = [line for line in lines if line and line not in ELSEWHERE and EXISTING not in line]
    return sorted(found, key=lambda line: line == "flowerbed down")


@pytest.mark.parametrize("command", commands())
def test_a_command_of_the_readme_works(standing: Standing, command: str, tmp_path: Path) -> None:
    here = command.replace("../inventories/lab", standing.path).replace("connect lab", f"connect {standing.path}")
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", here],
        cwd=REPOSITORY,
        env={**os.environ, "PATH": path, "FLOWERBED_FEDERATION": standing.path, "TF_DATA_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_down_leaves_nothing_on_the_machine(standing: Standing) -> None:
    assert [host for host in lab.hosts() if host.federation == standing.federation.name] == []
    left = [folder / standing.federation.name for folder in (lab.system.RUN, lab.system.DISKS)]
    assert not [path for path in left if path.exists()]
    mounts = Path("/proc/mounts").read_text()
    assert f"/{standing.federation.name}/" not in mounts
