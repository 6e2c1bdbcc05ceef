"""What tests of the AWS platforms need: the real provider from a mirror, and a server that answers as AWS does."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

REGIONS = ("eu-central-1", "eu-west-1")
# Every provider process reads a schema of many megabytes: collecting garbage less often saves a quarter of its time.
THRIFTY = {"GOGC": "400"}
PROVIDER = Path("registry.terraform.io/hashicorp/aws")
# Where Terraform itself looks without being told.
MIRRORS = (
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


@dataclass(frozen=True)
class Account:
    """The account as its owner sees it, and the network, if any, that was there before."""

    url: str
    vpc: str = ""
    subnet: str = ""

    def client(self, service: str, region: str = REGIONS[0]) -> Any:
        return boto3.client(service, region_name=region, endpoint_url=self.url)

    def machine(self, instance: dict[str, str]) -> dict[str, Any]:
        """An instance as EC2 describes it."""
        found = self.client("ec2", instance["region"]).describe_instances(InstanceIds=[instance["id"]])
        return dict(found["Reservations"][0]["Instances"][0])

    def rules(self, region: str, group: str) -> set[tuple[str, str, int, str]]:
        """Every rule of a security group: direction, protocol, port, and whom it lets through."""
        given = self.client("ec2", region).describe_security_group_rules(
            Filters=[{"Name": "group-id", "Values": [group]}]
        )
        return {
            (
                "out" if rule["IsEgress"] else "in",
                rule["IpProtocol"],
                rule["FromPort"] if rule["FromPort"] == rule["ToPort"] else -1,
                rule.get("CidrIpv4")
                or rule.get("CidrIpv6")
                or rule.get("PrefixListId")
                or rule["ReferencedGroupInfo"]["GroupId"],
            )
            for rule in given["SecurityGroupRules"]
        }

    def rules_of(self, machine: dict[str, Any]) -> set[tuple[str, str, int, str]]:
        """Every rule that a machine is under."""
        (group,) = self.machine(machine["instance"])["SecurityGroups"]
        return self.rules(machine["instance"]["region"], group["GroupId"])

    def endpoints(self, region: str) -> dict[str, dict[str, Any]]:
        """A region's VPC endpoints by the service that they lead to."""
        found = self.client("ec2", region).describe_vpc_endpoints()["VpcEndpoints"]
        return {point["ServiceName"].split(".")[-1]: point for point in found if point["State"] != "deleted"}

    def all(self) -> dict[str, set[str]]:
        """Everything that Flowerbed may have made and that Amazon would charge for or let somebody in by."""
        found: dict[str, set[str]] = {"role": {role["RoleName"] for role in self.client("iam").list_roles()["Roles"]}}
        for region in REGIONS:
            ec2, kms = self.client("ec2", region), self.client("kms", region)
            instances = [one for some in ec2.describe_instances()["Reservations"] for one in some["Instances"]]
            keys = [kms.describe_key(KeyId=key["KeyId"])["KeyMetadata"] for key in kms.list_keys()["Keys"]]
            found |= {
                f"{region} instance": {i["InstanceId"] for i in instances if i["State"]["Name"] != "terminated"},
                f"{region} volume": {one["VolumeId"] for one in ec2.describe_volumes()["Volumes"]},
                f"{region} address": {one["PublicIp"] for one in ec2.describe_addresses()["Addresses"]},
                f"{region} group": {one["GroupId"] for one in ec2.describe_security_groups()["SecurityGroups"]},
                f"{region} network": {one["VpcId"] for one in ec2.describe_vpcs()["Vpcs"]},
                f"{region} gateway": {
                    one["InternetGatewayId"] for one in ec2.describe_internet_gateways()["InternetGateways"]
                },
                f"{region} endpoint": set(self.endpoints(region)),
                f"{region} login key": {one["KeyName"] for one in ec2.describe_key_pairs()["KeyPairs"]},
                f"{region} disk key": {key["KeyId"] for key in keys if key["KeyState"] == "Enabled"},
            }
        return found


@contextmanager
def server(consoles: Path = Path(os.devnull)) -> Iterator[dict[str, str]]:
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
            **THRIFTY,
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
