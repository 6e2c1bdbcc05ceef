"""The way to a host: the same options for the driver and for Ansible, over a jump host too."""

import shlex
from pathlib import Path

import pytest

from flowerbed import ssh_options
from flowerbed.errors import UsageError
from flowerbed.federation import Federation
from flowerbed.inventory import Host
from flowerbed.ssh import Shell


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    """A folder with pinned keys and a key of its own, whose name would break a careless line."""
    made = Federation(tmp_path / "a b%h")
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


def test_a_jump_host_is_asked_for_the_same_keys(federation: Federation) -> None:
    options = ssh_options.options(federation.known_hosts, federation.ssh_key, "admin@bastion:2222")
    direct = ssh_options.options(federation.known_hosts, federation.ssh_key)
    assert options[: len(direct)] == direct
    command = options[-1].removeprefix("ProxyCommand=").removesuffix(" -W [%h]:%p")
    words = shlex.split(command.replace("%%", "%"))
    assert [word for word in direct if word not in words] == []
    assert words[-3:] == ["-p", "2222", "admin@bastion"]
    assert shlex.split(ssh_options.join(options)) == options


def test_without_keys_of_its_own_the_users_count(tmp_path: Path) -> None:
    bare = Federation(tmp_path)
    assert ssh_options.options(bare.known_hosts, bare.ssh_key) == ["-o", "StrictHostKeyChecking=yes"]


@pytest.mark.parametrize(("user", "words"), [("root", "id -u"), ("admin", "sudo -n -- id -u")])
def test_commands_run_as_root_whoever_logs_in(federation: Federation, user: str, words: str) -> None:
    host = Host(name="north", address="192.0.2.1", port=2222, user=user)
    command = Shell(federation, host).command(["id", "-u"])
    assert command[-4:] == ["-p", "2222", f"{user}@192.0.2.1", words]
