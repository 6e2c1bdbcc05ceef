"""One hospital's machine in its own account: it is told an address and a port, and tells its own address."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowerbed.paths import PLATFORMS
from tests.terraform import aws

PLATFORM = PLATFORMS / "aws_site"
VALUES = """
name    = "hospital-a"
gateway = { address = "198.51.100.7", port = 8443 }
site    = { image = "ami-1e749f67", labels = { region = "north" } }
"""


class Hospital:
    """The hospital's own Terraform: its state, its credentials, its account."""

    def __init__(self, folder: Path, environment: dict[str, str]) -> None:
        config = aws.cli_config(folder)
        self.environment = environment | {"TF_DATA_DIR": str(folder / "data"), "TF_CLI_CONFIG_FILE": str(config)}
        self.account = aws.Account(environment["AWS_ENDPOINT_URL"])
        (folder / "aws_site.tfvars").write_text(VALUES)
        key = PLATFORM / "tests" / "federation" / "secrets" / "ssh" / "id_ed25519.pub"
        names = {"federation": "consortium", "federation_dir": folder, "ssh_public_key_file": key}
        self.variables = [f"-var={name}={value}" for name, value in names.items()]
        self.variables.append(f"-var-file={folder / 'aws_site.tfvars'}")
        self.run("init", f"-backend-config=path={folder / 'state'}")

    def run(self, *words: str) -> str:
        return aws.terraform(PLATFORM, *words, environment=self.environment)

    def output(self) -> dict[str, Any]:
        return {name: one["value"] for name, one in json.loads(self.run("output", "-json")).items()}


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospital]:
    """A hospital with an account and no machine yet."""
    with pytest.MonkeyPatch.context() as patch, aws.server() as environment:
        for name, value in environment.items():
            patch.setenv(name, value)
        yield Hospital(tmp_path_factory.mktemp("hospital"), environment)


def test_the_machine_reaches_the_gateway_and_is_told_to_the_consortium_by_its_address(hospital: Hospital) -> None:
    before = hospital.account.all()
    hospital.run("apply", "-auto-approve", *hospital.variables)
    output = hospital.output()
    assert output["inventory"]["gateway"] == {"address": "198.51.100.7", "port": 8443}
    ((name, site),) = output["inventory"]["sites"].items()
    assert (name, site["address"], site["labels"]) == ("hospital-a", output["address"], {"region": "north"})
    rules = hospital.account.rules_of(site)
    assert {rule for rule in rules if rule[0] == "in"} == set()
    assert {rule for rule in rules if rule[3].endswith("/32")} == {("out", "tcp", 8443, "198.51.100.7/32")}
    assert len(rules) == 3, "beside the gateway: Session Manager and its agent"
    hospital.run("plan", "-detailed-exitcode", *hospital.variables)
    hospital.run("destroy", "-auto-approve", *hospital.variables)
    assert hospital.account.all() == before
