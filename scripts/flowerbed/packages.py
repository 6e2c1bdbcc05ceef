"""Debian packages for hosts without a package source: fetched here, once, and taken along by the playbooks.

apt on this machine is asked as if it were the host: with the host's list of installed packages, and with this machine's
own sources and their keys. So exactly that is fetched which the host lacks, and its signatures are checked.
"""

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from flowerbed import inventory, ssh
from flowerbed.errors import EnvironmentLacks, UsageError, WorkFailed
from flowerbed.federation import FederationFolder
from flowerbed.inventory import Host
from flowerbed.lab import image
from flowerbed.lab.system import CACHE, locked

OF_SITE = ("prometheus-node-exporter",)
OF_COORDINATOR = (*OF_SITE, "prometheus", "prometheus-blackbox-exporter")
_ASK = [
    "sh",
    "-c",
    '. /etc/os-release; echo "$ID $VERSION_CODENAME $(dpkg --print-architecture)"; cat /var/lib/dpkg/status',
]


@dataclass(frozen=True)
class Bundle:
    """Packages in one archive."""

    host: str
    archive: Path
    packages: list[str]


def archive_of(federation: FederationFolder, host: str) -> Path:
    """Where the playbooks find a host's packages."""
    return federation.state / "packages" / f"{host}.tar"


def bring(federation: FederationFolder, hosts: Sequence[Host], on_step: Callable[[str], None]) -> list[Bundle]:
    """Fetch for each host the packages that it lacks; one that lacks none gets no archive.

    Raises:
        WorkFailed: a host does not answer, or apt could not fetch.
        UsageError: a host is no Debian.
        EnvironmentLacks: this machine has no apt, or no source of Debian packages.
    """
    made = []
    coordinator = inventory.read(federation).coordinator.name
    for host in hosts:
        on_step(f"asking {host.name} what it has")
        first, _, status = ssh.Shell(federation, host).run(_ASK).partition("\n")
        kind, suite, architecture = (*first.split(), "", "", "")[:3]
        if kind != "debian":
            raise UsageError(
                f"{host.name} runs {kind}, and packages are fetched for Debian: let it use its own sources"
            )
        on_step(f"fetching for {host.name}")
        archive = archive_of(federation, host.name)
        wanted = OF_COORDINATOR if host.name == coordinator else OF_SITE
        names = fetch(wanted, status, suite, architecture, archive)
        if names:
            made.append(Bundle(host.name, archive, names))
    return made


def fetch(names: Sequence[str], status: str, suite: str, architecture: str, archive: Path) -> list[str]:
    """Fetch packages, and what they depend on, that a host with this list of installed packages lacks.

    Args:
        names: the packages.
        status: the host's /var/lib/dpkg/status.
        suite: the host's Debian suite, as bookworm.
        architecture: as dpkg names it.
        archive: the tar that is written, as a whole or not at all.

    Returns the names of the files in it; none, and no archive, where the host lacks nothing.
    """
    if shutil.which("apt-get") is None:
        raise EnvironmentLacks(
            "apt-get is not on this machine: fetch on a Debian machine, or let the host use its own sources"
        )
    with locked(CACHE / "packages.lock"), tempfile.TemporaryDirectory(prefix="flowerbed-packages-") as temporary:
        work = Path(temporary)
        work.chmod(0o755)  # apt fetches as a user of its own
        options = _apt_options(work, status, image.apt_sources(suite), suite, architecture)
        _apt([*options, "update"])
        _apt([*options, "--yes", "--no-install-recommends", "--download-only", "install", *names])
        files = sorted((work / "archives").glob("*.deb"))
        if not files:
            return []
        _pack(files, archive)
        return [file.name for file in files]


def _apt_options(work: Path, status: str, sources: str, suite: str, architecture: str) -> list[str]:
    (work / "status").write_text(status)
    (work / "sources.list").write_text(sources)
    lists = CACHE / "apt" / f"{suite}-{architecture}-{hashlib.sha256(sources.encode()).hexdigest()[:12]}"
    for folder in (work / "archives" / "partial", lists / "partial"):
        folder.mkdir(parents=True, exist_ok=True)
    return [
        f"--option=Dir::State::Status={work}/status",
        f"--option=Dir::State::Lists={lists}",
        f"--option=Dir::State::extended_states={work}/extended_states",
        f"--option=Dir::Cache={work}",
        f"--option=Dir::Cache::Archives={work}/archives",
        f"--option=Dir::Etc::SourceList={work}/sources.list",
        "--option=Dir::Etc::SourceParts=/dev/null",
        f"--option=APT::Architecture={architecture}",
        f"--option=APT::Architectures={architecture}",
        "--option=APT::Sandbox::User=root",
        "--quiet=2",
    ]


def _apt(words: list[str]) -> None:
    done = subprocess.run(["apt-get", *words], capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("E:")] or done.stderr.splitlines()[-1:]
        raise WorkFailed(
            f"apt-get could not fetch Debian's packages: {' '.join(said[:3])}; see that this machine's sources answer"
        )


def _pack(files: Sequence[Path], archive: Path) -> None:
    archive.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    new = archive.with_name(f".{archive.name}.{os.getpid()}")
    try:
        with tarfile.open(new, "w:") as tar:
            for file in files:
                tar.add(file, file.name)
        new.replace(archive)
    finally:
        new.unlink(missing_ok=True)
