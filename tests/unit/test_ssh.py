"""The way to a host: the same options for the driver and for Ansible, over a jump host too."""

import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from flowerbed import deploy, inventory, ssh_options
from flowerbed.console import Steps
from flowerbed.errors import EnvironmentLacks, UsageError
from flowerbed.federation import FederationFolder
from flowerbed.inventory import Host, Instance
from flowerbed.paths import INVENTORIES
from flowerbed.ssh import Shell

KEPT_OUT = shutil.ignore_patterns("hosts.json", "secrets", ".state", "data")


@pytest.fixture
def federation(tmp_path: Path) -> FederationFolder:
    """A folder with pinned keys and a key of its own, whose name would break a careless line."""
    made = FederationFolder(tmp_path / "a b%h")
    made.ssh_key.parent.mkdir(parents=True)
    made.ssh_key.touch()
    made.known_hosts.touch()
    return made


@pytest.mark.parametrize(
    ("text", "user", "host", "port"),
    [
        ("bastion", "", "bastion", 22),
        ("admin@bastion.example.org:2222", "admin", "bastion.example.org", 2222),
        ("192.0.2.1:22", "", "192.0.2.1", 22),
        ("admin@[2001:db8::1]:2200", "admin", "2001:db8::1", 2200),
    ],
)
def test_a_jump_host_is_read_into_its_parts(text: str, user: str, host: str, port: int) -> None:
    assert ssh_options.parse_jump(text) == ssh_options.Jump(user, host, port)


@pytest.mark.parametrize("text", ["", "a b", "-oProxyCommand=x", "a@-b", "a:0", "a:65536", "a@b@c", "a;b", "a:b"])
def test_what_is_no_jump_host_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="is no jump host: write"):
        ssh_options.parse_jump(text)


def test_a_jump_host_is_asked_for_the_same_keys(federation: FederationFolder) -> None:
    options = ssh_options.options(federation.known_hosts, federation.ssh_key, "admin@bastion:2222")
    direct = ssh_options.options(federation.known_hosts, federation.ssh_key)
    assert options[: len(direct)] == direct
    command = options[-1].removeprefix("ProxyCommand=").removesuffix(" -W [%h]:%p")
    words = shlex.split(command.replace("%%", "%"))
    assert [word for word in direct if word not in words] == []
    assert words[-3:] == ["-p", "2222", "admin@bastion"]
    assert shlex.split(ssh_options.join(options)) == options


def test_without_keys_of_its_own_the_users_count(tmp_path: Path) -> None:
    bare = FederationFolder(tmp_path)
    assert ssh_options.options(bare.known_hosts, bare.ssh_key) == ["-o", "StrictHostKeyChecking=yes"]


def test_nobody_is_told_that_up_would_start_a_machine_that_it_does_not_make(federation: FederationFolder) -> None:
    shell = Shell(federation, Host(name="north", address="192.0.2.1", user="admin"))
    assert shell.unreachable("No route to host\n") == (
        "north (192.0.2.1:22) does not answer by SSH: No route to host; "
        "see that it is on, that it lets admin in, and that its key is in known_hosts"
    )
    (federation.path / "lab.tfvars").touch()
    assert "`flowerbed up a b%h` brings it back" in shell.unreachable("")


@pytest.mark.parametrize(("user", "words"), [("root", "id -u"), ("admin", "sudo -n -- id -u")])
def test_commands_run_as_root_whoever_logs_in(federation: FederationFolder, user: str, words: str) -> None:
    host = Host(name="north", address="192.0.2.1", port=2222, user=user)
    command = Shell(federation, host).command(["id", "-u"])
    assert command[-4:] == ["-p", "2222", f"{user}@192.0.2.1", words]


def test_a_machine_without_an_open_port_is_reached_through_session_manager(federation: FederationFolder) -> None:
    instance = Instance(id="i-0123456789abcdef0", region="eu-west-3")
    shell = Shell(federation, Host(name="hospital-a", address="203.0.113.7", user="admin", session=instance))
    shown = subprocess.run(
        ["ssh", "-G", *shell.options(), "203.0.113.7"], capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert (
        "proxycommand aws ssm start-session --region eu-west-3 --target i-0123456789abcdef0 "
        "--document-name AWS-StartSSHSession --parameters portNumber=%p"
    ) in shown
    assert "stricthostkeychecking true" in shown
    of_ansible = ssh_options.join(
        ssh_options.options(federation.known_hosts, federation.ssh_key, session=instance.model_dump())
    )
    assert set(shlex.split(of_ansible)) <= set(shell.options())


def test_session_manager_travels_from_the_platform_to_the_driver(tmp_path: Path) -> None:
    federation = FederationFolder(tmp_path / "cloud")
    federation.path.mkdir()
    (federation.path / "aws.tfvars").touch()
    machine = {"instance": {"id": "i-1", "region": "eu-west-3"}, "session_manager": True, "user": "admin"}
    output = {"schema": 1, "coordinator": {"address": "203.0.113.7", **machine}, "sites": {}}
    inventory.write(inventory.parse(output, "platform aws"), federation)
    assert inventory.read(federation).coordinator.session == Instance(id="i-1", region="eu-west-3")


def test_without_amazons_programs_up_says_what_to_install_before_anything_is_done(tmp_path: Path) -> None:
    federation = FederationFolder(Path(shutil.copytree(INVENTORIES / "lab", tmp_path / "cloud", ignore=KEPT_OUT)))
    (federation.path / "lab.tfvars").unlink()
    hosts = federation.hosts_file
    hosts.write_text(
        "all:\n  children:\n"
        "    superlink: {hosts: {coordinator: {ansible_host: 203.0.113.7}}}\n"
        "    gateway: {hosts: {coordinator: {}}}\n"
        "    supernode: {hosts: {south: {ansible_host: 203.0.113.8, "
        "flowerbed_session: {id: i-1, region: eu-west-3}}}}\n"
    )
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDXm9xj3c1GZSmJ8yqVIkrNRZc2Fkmpq4BMrG4PH9CRW"
    federation.known_hosts.write_text(f"203.0.113.7 {key}\n203.0.113.8 {key}\n")
    with pytest.raises(EnvironmentLacks, match=r"Session Manager is the way to south, and .* is not installed: in"):
        deploy.up(federation, Steps())
    assert not federation.state.exists()
