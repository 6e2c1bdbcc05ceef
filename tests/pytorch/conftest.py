"""Three hospitals on lab hosts that train with PyTorch, each in its own way."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flowerbed.paths import REPOSITORY
from tests.e2e.conftest import SITES, Standing, make, up

EXAMPLE = REPOSITORY / "examples" / "pytorch_hospitals"
# PyTorch's CPU build is on no usual index; where this machine's configuration names no place for it, this one has it.
_INDEX = "https://download.pytorch.org/whl/cpu"
_TORCH = "2.13.0+cpu"
_PLACES = ("FIND_LINKS", "EXTRA_INDEX_URL")
_MACHINES = """network = "10.84.0.0/16"

sites = {
  hospital-a = { labels = { region = "north" } }
  hospital-b = { labels = { region = "north" }, node_config = { batch-size = "32", learning-rate = "0.03" } }
  hospital-c = { labels = { region = "south" }, node_config = { augment = "true" } }
}
"""


@dataclass
class Hospitals:
    """The federation, and what one does with the example on it."""

    standing: Standing

    def run(self, *words: str) -> dict[str, Any]:
        """Run the example on the hosts."""
        return self.standing.succeed("run", str(EXAMPLE), "--federation", self.standing.path, *words)

    def simulate(self, *words: str) -> dict[str, Any]:
        """Run the example in a simulation of the hosts."""
        return self.standing.succeed("simulate", str(EXAMPLE), "--federation", self.standing.path, *words)

    def files(self, run: dict[str, Any]) -> Path:
        """What the ServerApp wrote, at home."""
        return self.standing.work / run["folder"] / "files"


@pytest.fixture(scope="session")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospitals]:
    """The federation, standing; taken down afterwards, also after a failure."""
    made = make(tmp_path_factory.mktemp("pytorch"), "pytorch", SITES, "10.84.0.0/16")
    (made.federation.path / "lab.tfvars").write_text(_MACHINES)
    configured = any(os.environ.get(f"{tool}_{name}") for tool in ("PIP", "UV") for name in _PLACES)
    index = "" if configured else f"--extra-index-url {_INDEX}\n"
    made.federation.lock.unlink()
    made.federation.lock.with_suffix(".in").write_text(f"{index}numpy\ntorch=={_TORCH}\n")
    command = [sys.executable, str(EXAMPLE / "prepare.py"), str(made.federation.data), *SITES]
    subprocess.run(command, check=True, capture_output=True)
    with up(made):
        yield Hospitals(made)
