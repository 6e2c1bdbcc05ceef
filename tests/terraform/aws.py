"""What tests of the AWS platforms need: the real provider from a mirror, and a server that answers as AWS does."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PROVIDER = Path("registry.terraform.io/hashicorp/aws")
MIRRORS = (
    "/opt/tf-plugins",
    "~/.terraform.d/plugins",
    "/usr/share/terraform/plugins",
    "/usr/local/share/terraform/plugins",
)


def mirror() -> Path:
    """Return the folder that Terraform takes the provider from; without one tests are skipped, but never in CI."""
    named = os.environ.get("FLOWERBED_TERRAFORM_MIRROR")
    for folder in [Path(named)] if named else [Path(place).expanduser() for place in MIRRORS]:
        if (folder / PROVIDER).is_dir():
            return folder
    message = f"no {PROVIDER} in {named or ', '.join(MIRRORS)}: set FLOWERBED_TERRAFORM_MIRROR to a mirror with it"
    if os.environ.get("CI"):
        pytest.fail(message)
    pytest.skip(message)


def cli_config(folder: Path) -> Path:
    """Write Terraform's own configuration: providers come from the mirror, and from nowhere else."""
    file = folder / "terraform.rc"
    file.write_text(
        f"provider_installation {{\n  filesystem_mirror {{\n    path = {json.dumps(str(mirror()))}\n  }}\n}}\n"
    )
    return file


@contextmanager
def server(consoles: Path) -> Iterator[dict[str, str]]:
    """Run a server that answers as AWS does; yields the environment in which programs take it for AWS.

    What an instance has printed is the file of its id in the folder `consoles`.
    """
    environment = os.environ | {"MOTO_IAM_LOAD_MANAGED_POLICIES": "true"}
    process = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("aws_server.py"), consoles],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    try:
        yield {
            "AWS_ENDPOINT_URL": process.stdout.readline().strip(),
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_REGION": "eu-central-1",
            "AWS_DEFAULT_REGION": "eu-central-1",
        }
    finally:
        process.terminate()
        process.wait()


def terraform(folder: Path, *arguments: str, environment: dict[str, str]) -> str:
    """Run Terraform in a folder, which must succeed; returns what it said."""
    words = ["terraform", f"-chdir={folder}", *arguments, "-no-color"]
    done = subprocess.run(words, env=os.environ | environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def blocks(folder: Path, file: str) -> dict[str, str]:
    """Return the bodies of a file's variables and outputs by their names."""
    text = (folder / file).read_text()
    return dict(re.findall(r'^(?:variable|output) "(\w+)" \{\n(.*?)^\}', text, re.M | re.S))
