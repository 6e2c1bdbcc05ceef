"""What is wrong with an AWS federation's values is said in words: the machine's name, the key, and what to do.

A folder's tests/variables is its variables.tf alone, a root without a provider, so that each case takes a moment.
"""

import os
import re
import subprocess
from pathlib import Path

import pytest

from flowerbed.paths import INVENTORIES, PLATFORMS
from tests.terraform.aws import blocks

MODULES = PLATFORMS.parent / "modules"
KEY = "ssh-ed25519 AAAA"
OWN_NETWORK = 'vpc_id = "vpc-0123456789abcdef0", subnet_id = "subnet-0123456789abcdef0"'
DNS = '{ cidr = "198.51.100.7/32", port = 53, description = "DNS" }'

MACHINE = [
    ('os = "windows"', "os of hospital-a: 'windows' is unknown: use debian-12, debian-13 or ubuntu-24.04."),
    ('instance_type = "big"', "instance_type of hospital-a: 'big' is none: use one such as t3.medium."),
    ('gpu = true, instance_type = "m7i.large"', "instance_type of hospital-a: 'm7i.large' has no GPU"),
    ("disk_size = 4", "disk_size of hospital-a: 4 is no whole number of GB from 8 to 16384."),
    ("disk_size = 30.5", "disk_size of hospital-a: 30.5 is no whole number"),
    ('image = "debian"', "image of hospital-a: 'debian' is no AMI id"),
    ('vpc_id = "main", subnet_id = "subnet-0123456789abcdef0"', "vpc_id of hospital-a: 'main' is no VPC's id"),
    ('vpc_id = "vpc-0123456789abcdef0", subnet_id = "x"', "subnet_id of hospital-a: 'x' is no subnet's id"),
    ('vpc_id = "vpc-0123456789abcdef0"', "subnet_id of hospital-a is missing: an existing network takes both"),
    ('subnet_id = "subnet-0123456789abcdef0"', "vpc_id of hospital-a is missing"),
    ('ssh_from = "office"', "ssh_from of hospital-a: 'office' is no IPv4 network"),
    ('ssh_from = "::/0"', "ssh_from of hospital-a: '::/0' is no IPv4 network"),
    ('ssh_from = "0.0.0.0/0"', "ssh_from of hospital-a: '0.0.0.0/0' is wider than /16: name the one network"),
    ('ssh_from = "10.0.0.0/15"', "ssh_from of hospital-a: '10.0.0.0/15' is wider than /16"),
    ('ssh_from = "198.51.100.7/24"', "'198.51.100.7/24' is a host's address: write 198.51.100.0/24."),
    ('egress = [{ cidr = "dns", port = 53, description = "x" }]', "egress of hospital-a: 'dns' is no IPv4 network"),
    ('egress = [{ cidr = "10.0.0.0/8", port = 0, description = "x" }]', "egress of hospital-a: port 0 is no port"),
    (
        'egress = [{ cidr = "10.0.0.0/8", port = 53, protocol = "-1", description = "x" }]',
        "egress of hospital-a: protocol '-1' is unknown: use tcp or udp.",
    ),
    ('egress = [{ cidr = "10.0.0.0/8", port = 53, description = "" }]', "egress of hospital-a: description '' is not"),
    (f"egress = [{DNS}, {DNS}]", "egress of hospital-a: tcp 198.51.100.7/32 53 stands there twice: remove one."),
]
SITE = [
    ('name = "Hospital_A"', "name: 'Hospital_A' is no host name"),
    ('name = "localhost"', "name: 'localhost' is reserved"),
    (
        f'outbound_address = "nat"\nmachine = {{ {OWN_NETWORK} }}',
        "outbound_address of hospital-a: 'nat' is no IPv4 address.",
    ),
    ('outbound_address = "203.0.113.7"', "outbound_address of hospital-a is for a network that exists: set vpc_id"),
    ('data_path = "srv/hospital"', "data_path of hospital-a: 'srv/hospital' is no absolute path"),
    ('data_path = "/srv/{{ x }}"', "data_path of hospital-a: '/srv/{{ x }}' is no absolute path, or holds a template"),
    ('labels = { "x y" = "1" }', "label 'x y' of hospital-a is no key"),
    ('labels = { "" = "1" }', "label '' of hospital-a is no key"),
    ("labels = { region = null }", "labels.region of hospital-a is null or holds a template marker"),
    ('labels = { x = "{{ y }}" }', "labels.x of hospital-a is null or holds a template marker"),
    ('node_config = { "x.y" = "1" }', "node_config 'x.y' of hospital-a is no key"),
    ('node_config = { data-path = "/" }', "node_config 'data-path' of hospital-a is set by Flowerbed"),
    ('node_config = { x = "{% raw %}" }', "node_config.x of hospital-a is null or holds a template marker"),
    ('node_config = { x = "\\"" }', "node_config.x of hospital-a holds a double quote"),
]
COORDINATOR = [
    ('name = "Centre"', "name: 'Centre' is no host name"),
    ('name = "gateway"', "name: 'gateway' is reserved"),
    ("gateway_port = 70000", "gateway_port of hospital-a: 70000 is no port from 1 to 65535."),
]
COMMON = [
    ('federation = "My_Federation"', "federation: 'My_Federation' is no host name"),
    ('federation_dir = "inventories/aws"', "federation_dir: 'inventories/aws' is no absolute path."),
    ('ssh_public_key_file = "/nowhere.pub"', "ssh_public_key_file: '/nowhere.pub' holds no ed25519 or RSA public key"),
]
AWS = [
    *COMMON,
    ('coordinator = { region = "Frankfurt" }', "coordinator.region: 'Frankfurt' is no region"),
    ('coordinator = { network = "10.0.0.0/8" }', "coordinator.network: '10.0.0.0/8' is no IPv4 network from /16"),
    ('coordinator = { network = "10.80.0.7/24" }', "'10.80.0.7/24' is a host's address: write 10.80.0.0/24."),
    ('networks = { us-east-1 = { cidr = "10.9.0.0/16" } }', "networks: region 'us-east-1' is unknown: there are eu-c"),
    ('networks = { eu-west-1 = { cidr = "here" } }', "networks: cidr of eu-west-1 is no IPv4 network"),
    ('networks = { eu-west-1 = { cidr = "10.9.0.7/16" } }', "networks: cidr of eu-west-1 is a host's address"),
    ('gateway_clients = { "Clinic 1" = "203.0.113.7" }', "gateway_clients: 'Clinic 1' is no host name"),
    (
        'sites = { a = {} }\ngateway_clients = { a = "203.0.113.7" }',
        "gateway_clients: 'a' is a site, whose address is known: remove it.",
    ),
    ('gateway_clients = { clinic = "0.0.0.0" }', "gateway_clients: '0.0.0.0' of clinic is no IPv4 address"),
    ('gateway_clients = { clinic = "203.0.113.0/24" }', "'203.0.113.0/24' of clinic is no IPv4 address"),
    ("sites = { a = null }", "sites: a is null: write {} for a site with nothing to set."),
    ("sites = { coordinator = {} }", "sites: 'coordinator' is reserved"),
    (
        'sites = { a = { region = "us-east-1" }, b = {} }',
        "sites: region 'us-east-1' of a is unknown: there are eu-central-1, eu-north-1, eu-west-1, eu-west-3",
    ),
]
AWS_SITE = [
    *COMMON,
    ('region = "Frankfurt"', "region: 'Frankfurt' is no region"),
    ('gateway = { address = "gateway.example.org" }', "gateway.address: 'gateway.example.org' is no IPv4 address"),
    ('gateway = { address = "203.0.113.7", port = 0 }', "gateway.port: 0 is no port"),
    ('network = { cidr = "here" }', "network.cidr: 'here' is no IPv4 network"),
    ('network = { cidr = "10.81.0.7/24" }', "network.cidr: '10.81.0.7/24' is a host's address: write 10.81.0.0/24."),
]
CASES = {
    MODULES / "aws_machine": [(f"machine = {{ {text} }}", message) for text, message in MACHINE],
    MODULES / "aws_site": SITE,
    MODULES / "aws_coordinator": COORDINATOR,
    PLATFORMS / "aws": AWS,
    PLATFORMS / "aws_site": AWS_SITE,
}
GIVEN = {
    "federation": '"test"',
    "name": '"hospital-a"',
    "ssh_public_key": f'"{KEY}"',
    "gateway": '{ address = "198.51.100.7" }',
}


@pytest.mark.parametrize(
    ("folder", "text", "message"),
    [
        pytest.param(folder, text, message, id=f"{folder.name}-{text}")
        for folder, cases in CASES.items()
        for text, message in cases
    ],
)
def test_a_wrong_value_is_refused_by_the_machines_name_and_the_key(
    folder: Path, text: str, message: str, tmp_path: Path
) -> None:
    assert message in refusal(folder, text, tmp_path)


@pytest.mark.parametrize("folder", CASES, ids=lambda folder: folder.name)
def test_right_values_are_not_refused(folder: Path, tmp_path: Path) -> None:
    assert refusal(folder, "", tmp_path) == ""


def test_the_example_and_what_its_comments_offer_are_right(tmp_path: Path) -> None:
    example = (INVENTORIES / "aws" / "aws.tfvars").read_text()
    offered = re.sub(
        r"^#   ?", "", example[example.index("#   hospital-d") : example.index("# labels, node_config")], flags=re.M
    )
    assert "hospital-d = {" in offered
    assert refusal(PLATFORMS / "aws", example.replace("sites = {", f"sites = {{\n{offered}", 1), tmp_path) == ""


@pytest.mark.parametrize("folder", CASES, ids=lambda folder: folder.name)
def test_every_refusal_has_a_case(folder: Path) -> None:
    rules = sum(body.count("  validation {") for body in blocks(folder, "variables.tf").values())
    assert len(CASES[folder]) >= rules


def refusal(folder: Path, text: str, place: Path) -> str:
    """Return what Terraform refuses of the values, in one line."""
    key = place / "key.pub"
    key.write_text(f"{KEY}\n")
    given = {**GIVEN, "federation_dir": f'"{place}"', "ssh_public_key_file": f'"{key}"'}
    known = blocks(folder, "variables.tf")
    values = [f"{name} = {value}" for name, value in given.items() if name in known and f"{name} = " not in text]
    file = place / "case.tfvars"
    file.write_text("\n".join([*values, text]) + "\n")
    root = folder / "tests" / "variables"
    words = [
        "terraform",
        f"-chdir={root}",
        "plan",
        "-no-color",
        "-lock=false",
        f"-state={place}/state",
        f"-var-file={file}",
    ]
    environment = os.environ | {"TF_DATA_DIR": str(place / "data")}
    done = subprocess.run(words, capture_output=True, text=True, check=False, env=environment)
    return " ".join(done.stderr.split()) if done.returncode else ""
