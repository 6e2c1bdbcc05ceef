"""A federation of machines that Terraform knows nothing of: two hospitals behind a border with a proxy.

    operator ── coordinator ── border ── hospital-a   Debian 12, sshd on 2222, no root login, reached over the border
                                    └─── hospital-b   Debian 13, its proxy asks for a password

Both hospitals' direct way to the coordinator is cut.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flowerbed import inventory, lab
from flowerbed.federation import FederationFolder
from flowerbed.inventory import Host
from flowerbed.paths import REPOSITORY
from flowerbed.runs import review
from flowerbed.ssh import Shell

NAME = "test-existing"
NETWORK = "10.120.0.0/16"
ADDRESSES = {
    "border": "10.120.0.20",
    "coordinator": "10.120.0.10",
    "hospital-a": "10.120.0.11",
    "hospital-b": "10.120.0.12",
}
PASSWORD = "not-for-apps.4711"

HOSTS = f"""\
---
all:
  vars:
    federation_gateway: {ADDRESSES["coordinator"]}
    ansible_user: flower-admin
  children:
    superlink:
      hosts:
        coordinator:
          ansible_host: {ADDRESSES["coordinator"]}
    gateway:
      hosts:
        coordinator: {{}}
    supernode:
      hosts:
        hospital-a:
          ansible_host: {ADDRESSES["hospital-a"]}
          ansible_port: 2222
          flowerbed_jump: visitor@{ADDRESSES["border"]}:2200
        hospital-b:
          ansible_host: {ADDRESSES["hospital-b"]}
          ansible_user: root
          flowerbed_python: "3.13"
"""
TINY = REPOSITORY / "tests" / "apps" / "tiny"
HOST_VARS = {
    # Another port than Flower's own for the SuperLink: the driver asks for it, and the gateway is told.
    "coordinator": {"superlink_port": 8123, "gateway_superlink": "127.0.0.1:8123"},
    "hospital-a": {
        "supernode_data_path": "/srv/hospital",
        "supernode_node_config": {"partition-id": 0},
        "supernode_devices": ["/dev/net/tun"],
        "supernode_proxy": f"http://{ADDRESSES['border']}:3128",
        "supernode_apps": "enforce",
        "supernode_approved_apps": [{"hash": review.read(str(TINY)).hash, "name": "tiny"}],
    },
    "hospital-b": {
        "supernode_data_path": "/srv/hospital",
        "supernode_node_config": {"partition-id": 1},
        "supernode_proxy": f"http://{ADDRESSES['border']}:3129",
        "supernode_proxy_user": "flower",
        "supernode_proxy_password": "{{ lookup('ansible.builtin.env', 'TEST_PROXY_PASSWORD') }}",
    },
}

ADD_USER = """
useradd --create-home --shell /bin/bash {user}
install -d -o {user} -m 0700 /home/{user}/.ssh
install -o {user} -m 0600 ~root/.ssh/authorized_keys /home/{user}/.ssh/authorized_keys
"""
ADD_ADMIN = (
    ADD_USER.format(user="flower-admin")
    + "echo 'flower-admin ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/flower-admin\n"
    + "echo 'PermitRootLogin no' >/etc/ssh/sshd_config.d/05-admin.conf\n"
)
SETUP = {
    "border": ADD_USER.format(user="visitor")
    + "printf 'Port 22\\nPort 2200\\n' >/etc/ssh/sshd_config.d/05-ports.conf\nsystemctl restart ssh\n",
    "coordinator": ADD_ADMIN
    + f"""
nft 'table inet border {{
  chain input {{
    type filter hook input priority filter; policy accept;
    ip saddr {{ {ADDRESSES["hospital-a"]}, {ADDRESSES["hospital-b"]} }} counter drop
  }}
}}'
systemctl restart ssh
""",
    "hospital-a": ADD_ADMIN
    + f"""
echo 'Port 2222' >/etc/ssh/sshd_config.d/06-port.conf
nft 'table inet border {{
  chain input {{
    type filter hook input priority filter; policy accept;
    tcp dport 2222 ip saddr != {ADDRESSES["border"]} drop
  }}
}}'
systemctl restart ssh
""",
    "hospital-b": "true",
}
PROXY = """\
User nobody
Group nogroup
Listen 0.0.0.0
Timeout 600
MaxClients 50
LogLevel Connect
ConnectPort 443
"""


def readme(federation: Path) -> list[str]:
    """The commands that the README says of existing machines, for this folder."""
    section = (REPOSITORY / "README.md").read_text().split("### Existing machines")[1]
    block = section.split("```bash\n")[1].split("```")[0]
    lines = [line.split("#")[0].strip() for line in block.splitlines()]
    return [re.sub(r"(\./)?my-federation", str(federation), line) for line in lines]


@dataclass(frozen=True)
class Existing:
    """The federation, and what its operator and its hospitals can do."""

    federation: FederationFolder
    work: Path

    @property
    def path(self) -> str:
        return str(self.federation.path)

    def flowerbed(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run the command line as the operator does."""
        return subprocess.run(
            ["flowerbed", *words], cwd=self.work, env=environment(), capture_output=True, text=True, check=False
        )

    def succeed(self, *words: str) -> dict[str, Any]:
        """Run a command with --json that must succeed, and read its answer."""
        done = self.flowerbed(*words, "--json")
        assert done.returncode == 0, done.stdout + done.stderr
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def shell(self, name: str) -> Shell:
        """The driver's own way to a host."""
        known = inventory.read(self.federation)
        return Shell(self.federation, known.sites.get(name, known.coordinator))

    def on(self, name: str, script: str) -> str:
        """Run a script as root on a host of the federation."""
        return self.shell(name).run(["sh", "-c", script]).strip()

    def on_border(self, script: str) -> str:
        """Run a script as root on the machine between the hospitals and the world."""
        return _as_root(self.federation, "border").run(["sh", "-c", script]).strip()


def environment() -> dict[str, str]:
    """The operator's, with what only the operator knows."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "FLOWERBED_CA_PASSPHRASE": "correct horse", "TEST_PROXY_PASSWORD": PASSWORD}


def by_hand(command: str) -> None:
    """Run a command of the README."""
    done = subprocess.run(
        ["bash", "-c", command], cwd=REPOSITORY, env=environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _as_root(federation: FederationFolder, name: str) -> Shell:
    return Shell(federation, Host(name=name, address=ADDRESSES[name]))


def _pin(federation: FederationFolder, keys: Path) -> None:
    ports = {"border": (22, 2200), "coordinator": (22,), "hospital-a": (22, 2222), "hospital-b": (22,)}
    lines = []
    for name, address in ADDRESSES.items():
        key = (keys / f"{name}.pub").read_text().strip()
        lines += [f"{address if port == 22 else f'[{address}]:{port}'} {key}" for port in ports[name]]
    federation.known_hosts.write_text("\n".join(lines) + "\n")


def _tinyproxy(folder: Path) -> bytes:
    """The program out of Debian's package; the lab's hosts have no package index, and need nothing else of it."""
    folder.mkdir()
    folder.chmod(0o755)
    fetch = ["apt-get", "download", "-qq", "tinyproxy-bin"]
    if subprocess.run(fetch, cwd=folder, capture_output=True, check=False).returncode:
        subprocess.run(["apt-get", "update", "-qq"], check=True, capture_output=True)
        subprocess.run(fetch, cwd=folder, capture_output=True, check=True)
    (package,) = folder.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", package, folder / "unpacked"], check=True)
    return (folder / "unpacked/usr/bin/tinyproxy").read_bytes()


def _start_proxies(border: Shell, program: bytes) -> None:
    """One on port 3128 for everybody, one on port 3129 for those who know the password."""
    copy = border.command(["sh", "-c", "cat >/usr/local/bin/tinyproxy && chmod 755 /usr/local/bin/tinyproxy"])
    subprocess.run(copy, input=program, check=True, capture_output=True)
    for name, own in (("open", "Port 3128\n"), ("asking", f"Port 3129\nBasicAuth flower {PASSWORD}\n")):
        config = f"/etc/tinyproxy-{name}.conf"
        subprocess.run(border.command(["sh", "-c", f"cat >{config}"]), input=(PROXY + own).encode(), check=True)
        border.run(["systemd-run", "--quiet", f"--unit=proxy-{name}", "/usr/local/bin/tinyproxy", "-d", "-c", config])


def make(folder: Path) -> Existing:
    """The folder of the federation, from the example, and its machines."""
    federation = FederationFolder(folder / NAME)
    copy, _, _ = readme(federation.path)
    by_hand(copy)
    for left in ("secrets", ".state"):  # somebody may have tried the example itself
        shutil.rmtree(federation.path / left, ignore_errors=True)
    federation.hosts_file.write_text(HOSTS)
    shutil.rmtree(federation.path / "host_vars")
    (federation.path / "host_vars").mkdir()
    for name, variables in HOST_VARS.items():
        (federation.path / "host_vars" / f"{name}.yml").write_text(json.dumps(variables))
    federation.ssh_key.parent.mkdir(parents=True, mode=0o700)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", federation.ssh_key], check=True)
    public = federation.ssh_key.with_suffix(".pub").read_text().strip()
    for name, address in ADDRESSES.items():
        suite = "trixie" if name == "hospital-b" else "bookworm"
        lab.create(lab.HostSpec(NAME, name, address, NETWORK, public, str(folder / "keys"), suite=suite))
    _pin(federation, folder / "keys")
    for name, script in SETUP.items():
        _as_root(federation, name).run(["sh", "-ec", script])
    _start_proxies(_as_root(federation, "border"), _tinyproxy(folder / "proxy"))
    (folder / "work").mkdir()
    return Existing(federation, folder / "work")


@pytest.fixture(scope="session")
def existing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Existing]:
    """The federation, brought up; taken away afterwards, also after a failure."""
    lab.destroy_all(NAME)
    try:
        made = make(tmp_path_factory.mktemp("existing"))
        _, check, up = readme(made.federation.path)
        by_hand(check)
        by_hand(up)
        yield made
    finally:
        for host in lab.hosts(NAME):
            lab.kill(NAME, host.name)  # an orderly shutdown would wait for what the others no longer answer
        lab.destroy_all(NAME)
