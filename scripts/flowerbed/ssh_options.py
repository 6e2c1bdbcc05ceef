"""The options by which a host is reached: by the driver's own ssh, and by Ansible's, through a filter."""

import re
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from flowerbed.errors import UsageError

_JUMP = re.compile(
    r"(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]*)@)?"
    r"(?P<host>\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_][A-Za-z0-9_.-]*)"
    r"(?::(?P<port>[0-9]{1,5}))?"
)
PORT = 22
"""Where an SSH server listens unless somebody says otherwise."""
_HIGHEST_PORT = 65535


@dataclass(frozen=True)
class Jump:
    """A host on the way to another one; without a user it is the one that ssh chooses."""

    user: str
    host: str
    port: int

    @property
    def target(self) -> str:
        """What ssh takes as its destination."""
        return f"{self.user}@{self.host}" if self.user else self.host


def parse_jump(text: str) -> Jump:
    """Read a jump host from [user@]host[:port]; UsageError when it is none."""
    found = _JUMP.fullmatch(text)
    port = int(found["port"] or 22) if found else 0
    if not found or not 1 <= port <= _HIGHEST_PORT:
        raise UsageError(f"'{text}' is no jump host: write [user@]host[:port], as in admin@bastion.example.org:2222")
    return Jump(found["user"] or "", found["host"].strip("[]"), port)


def options(known_hosts: Path, key: Path, jump: str = "", session: Mapping[str, str] | None = None) -> list[str]:
    """Give ssh's options for a host of a federation; the same keys are pinned and offered on a jump host.

    Args:
        known_hosts: the federation's pinned host keys; where there is no such file, the user's own count.
        key: the federation's SSH key; where there is no such file, the user's own keys or agent serve.
        jump: the host on the way, as [user@]host[:port].
        session: `id` and `region` of the instance that Session Manager opens, where no port of it is open.

    Raises:
        UsageError: `jump` is no host.
    """
    shared = ["-o", "StrictHostKeyChecking=yes"]
    if known_hosts.exists():
        shared += ["-o", f'UserKnownHostsFile="{_escaped(known_hosts)}"']
    if key.exists():
        shared += ["-o", f'IdentityFile="{_escaped(key)}"', "-o", "IdentitiesOnly=yes"]
    if session:
        words = ["aws", "ssm", "start-session", "--region", session["region"], "--target", session["id"]]
        words += ["--document-name", "AWS-StartSSHSession", "--parameters", "portNumber=%p"]
        return [*shared, "-o", f"ProxyCommand={shlex.join(words)}"]
    if not jump:
        return shared
    # ProxyJump would hand none of these options on to the connection to the jump host.
    way = parse_jump(jump)
    words = ["ssh", "-o", "BatchMode=yes", "-o", "ConnectTimeout=10", *shared, "-p", str(way.port), way.target]
    return [*shared, "-o", f"ProxyCommand={shlex.join(words).replace('%', '%%')} -W [%h]:%p"]


def known_as(address: str, port: int) -> str:
    """Write a host as known_hosts names it."""
    with suppress(ValueError):  # a name stays as it is
        address = str(ip_address(address))
    return address if port == PORT else f"[{address}]:{port}"


def join(words: list[str]) -> str:
    """Write options as one line that a shell, or Ansible, splits into the same words."""
    return shlex.join(words)


def _escaped(path: Path) -> str:
    """A path as ssh's configuration takes it, where a percent sign begins a token."""
    return str(path).replace("%", "%%")
