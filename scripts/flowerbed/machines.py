"""A federation's machines: made, compared and taken down by the platform that its *.tfvars file names."""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowerbed import lab
from flowerbed.errors import EnvironmentLacks, UsageError
from flowerbed.federation import Federation
from flowerbed.paths import PLATFORMS
from flowerbed.terraform import Plan, Terraform

LAB = "lab"
BOOT_SECONDS = 600.0
"""How long a new machine may take until its account shows its SSH host key."""


@dataclass(frozen=True)
class Changes:
    """What was, or would be, made, changed and taken away; and the platform's output `inventory` (contract 1)."""

    add: int = 0
    change: int = 0
    destroy: int = 0
    inventory: Mapping[str, Any] = field(default_factory=dict)
    pending: bool = False
    """Something would change, be it only a label."""


def platform(federation: Federation) -> str | None:
    """Return the name of the federation's platform, or None if its machines exist without Flowerbed.

    Raises:
        UsageError: there is no such platform.
    """
    file = federation.platform_file
    if file is None:
        return None
    if not (PLATFORMS / file.stem / "outputs.tf").is_file():
        known = ", ".join(sorted(folder.name for folder in PLATFORMS.iterdir() if folder.is_dir()))
        raise UsageError(f"{file} names the platform {file.stem!r}, which does not exist (there are: {known})")
    return file.stem


def up(federation: Federation) -> Changes:
    """Make the machines what the *.tfvars file says; a second call only looks.

    In the lab a host that died is made afresh.

    Raises:
        UsageError: a value is wrong; the message names its key. Or the federation has no platform.
        EnvironmentLacks: a program is missing.
        WorkFailed: a machine could not be made; the same call continues.
    """
    terraform = _terraform(federation)
    plan = terraform.plan(_dead(federation, terraform))
    if plan.changes:
        terraform.apply()
    return _changes(plan, terraform)


def planned(federation: Federation) -> Changes:
    """Compare the machines with what the *.tfvars file says, and change nothing; `pending` tells of drift."""
    terraform = _terraform(federation)
    return _changes(terraform.plan(_dead(federation, terraform)), terraform)


from collections.abc import Mapping


def down(federation: Federation) -> int:
    """Take away every machine that `up` made; returns their number."""
    terraform = _terraform(federation)
    inventory = terraform.output("inventory")
    plan = terraform.plan(destroy=True)
    if plan.changes:
        terraform.apply()
    if platform(federation) == LAB:
        lab.destroy_all(federation.name)  # hosts whose making was interrupted are in no state
    shutil.rmtree(_folder(federation))
    for key in (federation.state / "host_keys").glob("*.pub"):
        key.unlink()
    for left in (federation.state / "host_keys", federation.data):
        with suppress(OSError):  # it is not there, or holds something that is the user's
            left.rmdir()
    return 1 + len(inventory["sites"]) if inventory else plan.destroy


def _terraform(federation: Federation) -> Terraform:
    name, file = platform(federation), federation.platform_file
    if name is None or file is None:
        raise UsageError(f"{federation.path} has no *.tfvars file: its machines exist without Flowerbed")
    folder = _folder(federation)
    _refuse_foreign_state(federation, folder)
    variables = {"federation": federation.name, "federation_dir": str(federation.path)}
    _ensure_ssh_key(federation.ssh_key)
    terraform = Terraform(PLATFORMS / name, folder, variables, file, {"FLOWERBED_PYTHON": sys.executable})
    terraform.init()
    return terraform


def _folder(federation: Federation) -> Path:
    return federation.state / "terraform"


def _refuse_foreign_state(federation: Federation, folder: Path) -> None:
    """A copied folder with its .state would change the machines of the federation it was copied from."""
    owner = folder / "federation"
    if owner.exists():
        if owner.read_text().strip() != str(federation.path):
            raise UsageError(
                f"{federation.state} describes the machines of {owner.read_text().strip()}: "
                "in a copied folder remove it, a moved folder move back"
            )
        return
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    owner.write_text(f"{federation.path}\n")


def _ensure_ssh_key(key: Path) -> None:
    if key.exists() and key.with_suffix(".pub").exists():
        return
    key.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    key.unlink(missing_ok=True)
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "flowerbed", "-f", str(key)]
    try:
        subprocess.run(command, check=True)
    except FileNotFoundError:
        raise EnvironmentLacks("ssh-keygen is not installed: apt-get install openssh-client") from None


def _dead(federation: Federation, terraform: Terraform) -> list[str]:
    """Return the addresses of the lab's hosts that Terraform believes alive and are not: it does not look."""
    inventory = terraform.output("inventory") if platform(federation) == LAB else None
    if not inventory:
        return []
    alive = {host.name for host in lab.hosts(federation.name) if host.alive}
    resources = {inventory["coordinator"]["name"]: "module.coordinator.terraform_data.host"}
    resources |= {site: f'module.site["{site}"].terraform_data.host' for site in inventory["sites"]}
    return [address for name, address in resources.items() if name not in alive]


def _changes(plan: Plan, terraform: Terraform) -> Changes:
    inventory = terraform.output("inventory") or {}
    return Changes(plan.add, plan.change, plan.destroy, inventory, plan.changes)
