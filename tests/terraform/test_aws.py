"""A federation on AWS over its life, by the real provider against a server that answers as AWS does.

The tests build on each other. What a machine is and who reaches whom is asked from the server, never from Terraform.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from flowerbed import inventory, machines
from flowerbed.errors import UsageError, WorkFailed
from flowerbed.federation import FederationFolder
from flowerbed.paths import INVENTORIES, PLATFORMS
from tests.terraform import aws

IMAGE = 'image = "ami-1e749f67"'  # an Ubuntu that the server has in every region; it has none of Debian's newest
HOME, ABROAD = aws.REGIONS


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[aws.Account]:
    """An account of its own for these tests, which Terraform and boto3 take for AWS."""
    consoles = tmp_path_factory.mktemp("consoles")
    with pytest.MonkeyPatch.context() as patch, aws.server(consoles) as environment:
        for name, value in environment.items():
            patch.setenv(name, value)
        patch.setenv("TF_CLI_CONFIG_FILE", str(aws.cli_config(tmp_path_factory.mktemp("terraform"))))
        ec2 = boto3.client("ec2", region_name=HOME)
        vpc = ec2.create_vpc(CidrBlock="192.168.0.0/24")["Vpc"]["VpcId"]
        subnet = ec2.create_subnet(VpcId=vpc, CidrBlock="192.168.0.0/24")["Subnet"]["SubnetId"]
        yield aws.Account(environment["AWS_ENDPOINT_URL"], vpc, subnet)


@pytest.fixture(scope="module")
def before(account: aws.Account) -> dict[str, set[str]]:
    """What was in the account before any federation."""
    return account.all()


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory, before: dict[str, set[str]]) -> FederationFolder:
    """A federation with its operator's key, and no machine yet."""
    federation = FederationFolder(tmp_path_factory.mktemp("federations") / "test-aws")
    federation.ssh_key.parent.mkdir(parents=True)
    key = PLATFORMS / "aws" / "tests" / "federation" / "secrets" / "ssh" / "id_ed25519.pub"
    shutil.copy(key, federation.ssh_key.with_suffix(".pub"))
    return federation


def write(federation: FederationFolder, sites: dict[str, str], **others: str) -> None:
    """Write the federation's variables; every machine has an image that the server knows."""
    entries = "".join(f"  {name} = {{ {', '.join([IMAGE, values])} }}\n" for name, values in sites.items())
    lines = [f"sites = {{\n{entries}}}", f"coordinator = {{ {IMAGE} }}", *(f"{k} = {v}" for k, v in others.items())]
    (federation.path / "aws.tfvars").write_text("\n".join(lines) + "\n")


def flowerbed(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command line as the operator does."""
    command = [str(Path(sys.executable).with_name("flowerbed")), *words]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, check=False)


def parsed(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The one JSON document that a command printed."""
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def resources(federation: FederationFolder) -> dict[str, str]:
    """Every resource in the federation's state, and its id."""
    state = json.loads((federation.state / "terraform" / "terraform.tfstate").read_text())
    return {
        f"{resource.get('module', '')}.{resource['type']}.{resource['name']}.{one.get('index_key', '')}": one[
            "attributes"
        ]["id"]
        for resource in state["resources"]
        if resource["mode"] == "managed"
        for one in resource["instances"]
    }


def plan(federation: FederationFolder, *words: str) -> str:
    """What Terraform itself would do."""
    return aws.terraform(
        PLATFORMS / "aws",
        "plan",
        f"-var=federation={federation.name}",
        f"-var=federation_dir={federation.path}",
        f"-var-file={federation.platform_file}",
        *words,
        environment={"TF_DATA_DIR": str(federation.state / "terraform" / "data")},
    )


@pytest.fixture(scope="module")
def raised(federation: FederationFolder, account: aws.Account) -> subprocess.CompletedProcess[str]:
    """The first up: one site that sets nothing, and one in a network that the hospital has already."""
    existing = f'vpc_id = "{account.vpc}", subnet_id = "{account.subnet}", ssh_from = "198.51.100.0/24"'
    dns = '{ cidr = "192.168.0.53/32", port = 53, protocol = "udp", description = "name server" }'
    sites = {"hospital-a": 'labels = { ward = "3" }', "hospital-b": f"{existing}, egress = [{dns}]"}
    write(federation, sites, gateway_clients='{ clinic = "203.0.113.8" }')
    for name in ("release.in", "release.lock"):  # the lab's release is there already, or will be of use
        shutil.copy(INVENTORIES / "lab" / name, federation.path)
    federation.ca_passphrase_file.write_text("of the test\n")
    return flowerbed("up", str(federation.path), "--boot-seconds", "0")


@pytest.fixture(scope="module")
def made(federation: FederationFolder, raised: subprocess.CompletedProcess[str]) -> machines.Changes:
    """What a second look says of the machines that the first up made."""
    return machines.planned(federation)


def test_up_says_plainly_that_the_machines_are_there_and_cannot_be_reached(
    raised: subprocess.CompletedProcess[str], federation: FederationFolder
) -> None:
    assert raised.returncode == WorkFailed.exit_code, raised.stderr
    (line,) = [line for line in raised.stderr.splitlines() if line.startswith("error:")]
    assert "the machines exist, but coordinator (i-" in line
    assert "cannot be reached: no SSH host key in the instance's console output" in line
    assert not federation.hosts_file.exists()


def test_up_keeps_the_contract(made: machines.Changes) -> None:
    described = inventory.parse(made.inventory, "platform aws")
    assert set(described.sites) == {"hospital-a", "hospital-b"}
    assert described.sites["hospital-a"].labels == {"ward": "3"}
    assert {name: machine.session_manager for name, machine in described.machines.items()} == {
        "coordinator": True,
        "hospital-a": True,
        "hospital-b": False,
    }


def test_a_second_look_finds_nothing_to_change(made: machines.Changes) -> None:
    assert (made.add, made.change, made.destroy, made.pending) == (0, 0, 0, False)


def test_a_machine_that_is_made_afresh_keeps_its_address_and_no_rule_changes(
    made: machines.Changes, federation: FederationFolder
) -> None:
    machine = 'module.sites_eu_central_1["hospital-a"]'
    said = plan(federation, f"-replace={machine}.module.machine.aws_instance.this")
    assert re.findall(r"# (\S+) (?:will|must) be", said) == [
        f"{machine}.aws_eip_association.this[0]",
        f"{machine}.module.machine.aws_instance.this",
    ]


def test_every_machine_has_a_disk_with_a_key_of_its_own_and_credentials_that_do_not_leave_it(
    made: machines.Changes, account: aws.Account
) -> None:
    keys = set()
    for machine in [made.inventory["coordinator"], *made.inventory["sites"].values()]:
        one = account.machine(machine["instance"])
        assert one["MetadataOptions"]["HttpTokens"] == "required"
        assert one["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
        (mapping,) = one["BlockDeviceMappings"]
        region = machine["instance"]["region"]
        (volume,) = account.client("ec2", region).describe_volumes(VolumeIds=[mapping["Ebs"]["VolumeId"]])["Volumes"]
        assert (volume["Encrypted"], volume["VolumeType"], volume["Size"]) == (True, "gp3", 30)
        assert account.client("kms", region).get_key_rotation_status(KeyId=volume["KmsKeyId"])["KeyRotationEnabled"]
        keys.add(volume["KmsKeyId"])
    assert len(keys) == 3


def test_every_machine_is_at_an_elastic_address_of_its_own(made: machines.Changes, account: aws.Account) -> None:
    for machine in [made.inventory["coordinator"], *made.inventory["sites"].values()]:
        ec2 = account.client("ec2", machine["instance"]["region"])
        (address,) = ec2.describe_addresses(PublicIps=[machine["address"]])["Addresses"]
        assert address["InstanceId"] == machine["instance"]["id"]


def test_the_coordinator_takes_the_gateways_port_from_the_sites_alone(
    made: machines.Changes, account: aws.Account
) -> None:
    addresses = [site["address"] for site in made.inventory["sites"].values()]
    rules = account.rules_of(made.inventory["coordinator"])
    assert {rule for rule in rules if rule[0] == "in"} == {
        ("in", "tcp", 443, f"{address}/32") for address in [*addresses, "203.0.113.8"]
    }


def test_a_site_takes_nothing_and_reaches_the_gateway_and_session_manager_alone(
    made: machines.Changes, account: aws.Account
) -> None:
    site = made.inventory["sites"]["hospital-a"]
    network = account.machine(site["instance"])["VpcId"]
    (endpoints,) = account.client("ec2").describe_security_groups(
        Filters=[
            {"Name": "vpc-id", "Values": [network]},
            {"Name": "description", "Values": ["Session Manager endpoints"]},
        ]
    )["SecurityGroups"]
    s3 = next(rule[3] for rule in account.rules_of(site) if rule[3].startswith("pl-"))
    assert account.rules_of(site) == {
        ("out", "tcp", 443, f"{made.inventory['coordinator']['address']}/32"),
        ("out", "tcp", 443, endpoints["GroupId"]),
        ("out", "tcp", 443, s3),
    }
    assert account.rules(HOME, endpoints["GroupId"]) == {("in", "tcp", 443, "10.81.0.0/16")}


def test_a_site_in_the_hospitals_own_network_takes_ssh_from_the_one_network_that_is_named(
    made: machines.Changes, account: aws.Account
) -> None:
    site = made.inventory["sites"]["hospital-b"]
    assert account.machine(site["instance"])["VpcId"] == account.vpc
    assert account.rules_of(site) == {
        ("in", "tcp", 22, "198.51.100.0/24"),
        ("out", "tcp", 443, f"{made.inventory['coordinator']['address']}/32"),
        ("out", "udp", 53, "192.168.0.53/32"),
    }
    assert "IamInstanceProfile" not in account.machine(site["instance"])


def test_session_manager_is_reached_without_the_internet(made: machines.Changes, account: aws.Account) -> None:
    points = account.endpoints(HOME)
    assert set(points) == {"ssm", "ssmmessages", "ec2messages", "s3"}
    policy = json.loads(points["s3"]["PolicyDocument"])
    assert [statement["Resource"] for statement in policy["Statement"]] == [f"arn:aws:s3:::amazon-ssm-{HOME}/*"]
    profile = account.machine(made.inventory["sites"]["hospital-a"]["instance"])["IamInstanceProfile"]["Arn"]
    role = profile.rsplit("/", 1)[1]
    attached = account.client("iam").list_attached_role_policies(RoleName=role)["AttachedPolicies"]
    assert [policy["PolicyName"] for policy in attached] == ["AmazonSSMManagedInstanceCore"]


def test_a_network_of_ours_lets_nothing_through_by_default(made: machines.Changes, account: aws.Account) -> None:
    network = account.machine(made.inventory["sites"]["hospital-a"]["instance"])["VpcId"]
    (default,) = account.client("ec2").describe_security_groups(
        Filters=[{"Name": "vpc-id", "Values": [network]}, {"Name": "group-name", "Values": ["default"]}]
    )["SecurityGroups"]
    assert account.rules(HOME, default["GroupId"]) == set()


def test_neither_state_nor_user_data_hold_a_key_or_a_setting(
    federation: FederationFolder, made: machines.Changes
) -> None:
    state = (federation.state / "terraform" / "terraform.tfstate").read_text()
    assert "PRIVATE KEY" not in state
    data = [
        one["attributes"]["user_data"]
        for resource in json.loads(state)["resources"]
        if resource["type"] == "aws_instance"
        for one in resource["instances"]
    ]
    assert len(data) == 3
    assert not any("ssh-ed25519" in text or "ward" in text for text in data)


def test_the_audit_of_what_terraform_made_finds_nothing(federation: FederationFolder, made: machines.Changes) -> None:
    done = flowerbed("audit", "cloud", str(federation.path), "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, {"differences": []}), done.stderr


def test_the_audit_finds_a_foreign_rule_an_altered_one_and_the_old_metadata_service(
    federation: FederationFolder, made: machines.Changes, account: aws.Account
) -> None:
    site, ec2 = made.inventory["sites"]["hospital-b"]["instance"]["id"], account.client("ec2")
    (group,) = account.machine(made.inventory["sites"]["hospital-b"]["instance"])["SecurityGroups"]
    found = ec2.describe_security_group_rules(Filters=[{"Name": "group-id", "Values": [group["GroupId"]]}])
    ssh = next(rule for rule in found["SecurityGroupRules"] if not rule["IsEgress"])
    wide = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "CidrIpv4": "198.51.0.0/16"}
    change = {"SecurityGroupRuleId": ssh["SecurityGroupRuleId"], "SecurityGroupRule": wide}
    world = {"IpProtocol": "tcp", "FromPort": 8000, "ToPort": 8000, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
    foreign = ec2.authorize_security_group_ingress(GroupId=group["GroupId"], IpPermissions=[world])
    ec2.modify_security_group_rules(GroupId=group["GroupId"], SecurityGroupRules=[change])
    ec2.modify_instance_metadata_options(InstanceId=site, HttpTokens="optional")

    done = flowerbed("audit", "cloud", str(federation.path), "--json")
    differences = {(one["what"], one["id"]): (one["declared"], one["found"]) for one in parsed(done)["differences"]}
    assert done.returncode == 1
    assert differences == {
        ("IMDSv2", site): ("required", "optional"),
        ("rule", ssh["SecurityGroupRuleId"]): ("in from 198.51.100.0/24, tcp 22", "in from 198.51.0.0/16, tcp 22"),
        ("rule", foreign["SecurityGroupRules"][0]["SecurityGroupRuleId"]): ("none", "in from 0.0.0.0/0, tcp 8000"),
    }
    assert all("hospital-b" in one["resource"] for one in parsed(done)["differences"])


def test_a_site_that_comes_and_one_that_leaves_touch_no_other_and_labels_touch_nothing(
    federation: FederationFolder, made: machines.Changes, account: aws.Account
) -> None:
    old = resources(federation)
    sites = {
        "hospital-a": 'labels = { ward = "4" }, node_config = { partition-id = "3" }, data_path = "/srv/hospital"',
        "hospital-c": f'region = "{ABROAD}", ssh_from = "198.51.100.0/24"',
    }
    write(federation, sites, gateway_clients='{ clinic = "203.0.113.8" }')
    changed = machines.up(federation)
    new = resources(federation)
    came, left = new.keys() - old.keys(), old.keys() - new.keys()
    assert (changed.add, changed.change, changed.destroy) == (len(came), 0, len(left))
    assert {name: new[name] for name in old.keys() & new.keys()} == {name: old[name] for name in old if name in new}
    of = {
        "hospital-c": ('["hospital-c"]', "module.network_eu_west_1", ".gateway.hospital-c"),
        "hospital-b": ("hospital-b",),
    }
    assert [name for name in came if not any(part in name for part in of["hospital-c"])] == []
    assert [name for name in left if not any(part in name for part in of["hospital-b"])] == []
    assert changed.inventory["sites"]["hospital-a"]["node_config"] == {"partition-id": "3"}
    addresses = [site["address"] for site in changed.inventory["sites"].values()]
    assert {rule[3] for rule in account.rules_of(changed.inventory["coordinator"]) if rule[0] == "in"} == {
        f"{address}/32" for address in [*addresses, "203.0.113.8"]
    }


def test_what_only_a_plan_can_see_is_refused_before_anything_changes(
    federation: FederationFolder, account: aws.Account
) -> None:
    there = account.all()
    write(federation, {"hospital-a": ""}, networks='{ eu-west-1 = { cidr = "10.81.3.0/24" } }')
    with pytest.raises(
        UsageError, match=r"10\.81\.0\.0/16 of eu-central-1 and 10\.81\.3\.0/24 of eu-west-1 overlap"
    ) as refused:
        machines.up(federation)
    assert "\n" not in str(refused.value)
    assert account.all() == there


def test_down_takes_away_all_that_up_made_and_nothing_else(
    federation: FederationFolder, account: aws.Account, before: dict[str, set[str]]
) -> None:
    down = flowerbed("down", str(federation.path), "--json")
    assert (down.returncode, parsed(down)["machines"]) == (0, 3), down.stderr
    assert account.all() == before


def test_fifty_sites_are_planned(account: aws.Account, federation: FederationFolder) -> None:
    regions = ("eu-central-1", "eu-north-1", "eu-west-1", "eu-west-3")
    write(federation, {f"hospital-{number}": f'region = "{regions[number % 4]}"' for number in range(50)})
    folder = federation.state / "terraform"
    environment = {"TF_DATA_DIR": str(folder / "data")}
    aws.terraform(PLATFORMS / "aws", "init", f"-backend-config=path={folder}/state", environment=environment)
    start = time.monotonic()
    said = plan(federation)
    seconds = time.monotonic() - start
    total = next(line for line in said.splitlines() if line.startswith("Plan:"))
    print(f"50 sites in four regions: planned in {seconds:.0f} s, {total}")
    assert said.count(".module.machine.aws_instance.this will be created") == 51
