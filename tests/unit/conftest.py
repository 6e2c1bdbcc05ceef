"""The versions of Flower that are supported."""

import subprocess
import sys
from pathlib import Path

import pytest

VERSIONS = ("1.40.0", "1.41.0", "1.42.0")


@pytest.fixture(scope="session", params=VERSIONS)
def flower(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with this version of Flower; what it needs is that of the tests' environment."""
    folder = tmp_path_factory.mktemp("flower")
    command = [Path(sys.prefix) / "bin" / "uv", "pip", "install", "--quiet", "--no-deps", "--target", folder]
    subprocess.run([*command, f"flwr=={request.param}"], check=True)
    return folder
