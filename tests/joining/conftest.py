"""A federation with one site that the operator reaches by SSH, and two hospitals that let nobody in.

The hospitals' machines open to a key of their own administrator's alone; the test is that administrator there.
"""

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from flowerbed import lab
from flowerbed.federation import FederationFolder
from flowerbed.inventory import Host
from flowerbed.paths import REPOSITORY
from flowerbed.ssh import Shell
from tests.e2e.conftest import Standing, make, up

NAME = "test-joining"
NETWORK = "10.121.0.0/16"
HOSPITALS = {"hospital-d": "10.121.0.31", "hospital-e": "10.121.0.32"}
REACHED = "hospital-a"
# All that a program could have left: of folders their names, of files their times too.
EVERYTHING = (
    (
        "find / -xdev ( -path /proc -o -path /sys -o -path /run -o -path /tmp -o -path /var/log ) -prune "
        "-o -type d -printf '%p %m\\n' -o -printf '%p %m %s %T@ %l\\n' | sort; "
        "cat /etc/passwd /etc/group; systemctl list-unit-files --no-legend --no-pager"
    )
    .replace("(", "\\(")
    .replace(")", "\\)")
)


def readme(title: str) -> list[str]:
    """The commands of a section of the README, the operator's and the hospital's."""
    section = (REPOSITORY / "README.md").read_text().split(f"### {title}\n")[1].split("\n### ")[0]
    return re.findall(r"^\$ (.*)$", section, re.MULTILINE)


BUILD, SUM, UNPACK, CHECK, JOIN, APPROVE = readme("A hospital joins")
LEAVE = readme("A site leaves")[1]


@dataclass
class Hospital:
    """A hospital's machine, and its administrator."""

    name: str
    shell: Shell
    ca_fingerprint: str = ""

    def on(self, script: str) -> str:
        """Run a script as root; what it prints."""
        return self.shell.run(["sh", "-c", script]).strip()

    def says(self, command: str) -> subprocess.CompletedProcess[str]:
        """Run a command of the README's, as it stands there, in the folder of the kit."""
        here = command.replace("hospital-d", self.name)
        here = re.sub(r"--ca-fingerprint \S+", f"--ca-fingerprint {self.ca_fingerprint}", here)
        done = self.shell.command(["sh", "-c", f"cd; cd {self.name} 2>/dev/null; {here}"])
        return subprocess.run(done, capture_output=True, text=True, check=False)

    def receive(self, file: Path) -> None:
        """Bring a file to the machine, by whatever way."""
        with file.open("rb") as content:
            subprocess.run(self.shell.command(["sh", "-c", f"cat >~/{file.name}"]), stdin=content, check=True)

    def everything(self) -> list[str]:
        """What there is on the machine."""
        return self.on(EVERYTHING).splitlines()


@dataclass
class Joining:
    """The federation, and the hospitals that join it."""

    standing: Standing
    hospitals: dict[str, Hospital] = field(default_factory=dict)

    def operator(self, command: str, name: str, fingerprint: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command of the README's on the operator's machine."""
        here = command.replace("./my-federation", self.standing.path).replace("hospital-d", name)
        here = re.sub(r"--fingerprint \S+", f"--fingerprint {fingerprint}", here)
        return self.standing.flowerbed(*here.split()[1:])


def _hospital(folder: Path, name: str, data: Path) -> Hospital:
    """A machine with its data, and the folder of its administrator's key."""
    own = FederationFolder(folder / f"of-{name}")
    own.ssh_key.parent.mkdir(parents=True, mode=0o700)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", own.ssh_key], check=True)
    public = own.ssh_key.with_suffix(".pub").read_text().strip()
    lab.create(lab.HostSpec(NAME, name, HOSPITALS[name], NETWORK, public, str(own.path), str(data)))
    own.known_hosts.write_text(f"{HOSPITALS[name]} {(own.path / f'{name}.pub').read_text()}")
    return Hospital(name, Shell(own, Host(name=name, address=HOSPITALS[name])))


@pytest.fixture(scope="session")
def joining(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Joining]:
    """Everything before the first kit; taken away afterwards, also after a failure."""
    folder = tmp_path_factory.mktemp("joining")
    made = Joining(make(folder, NAME, [REACHED, *HOSPITALS], NETWORK))
    made.standing.set_sites([REACHED])
    try:
        with up(made.standing):
            data = made.standing.federation.data
            made.hospitals = {name: _hospital(folder, name, data / name) for name in HOSPITALS}
            yield made
    finally:
        for name in HOSPITALS:
            lab.destroy(NAME, name)
