"""A federation's machines: made, compared and taken down by the platform that its *.tfvars file names."""

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowerbed import aws, lab
from flowerbed.errors import EnvironmentLacks, UsageError
from flowerbed.federation import FederationFolder
from flowerbed.inventory import Inventory
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


def platform(federation: FederationFolder) -> str | None:
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


def up(federation: FederationFolder) -> Changes:
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


def planned(federation: FederationFolder) -> Changes:
    """Compare the machines with what the *.tfvars file says, and change nothing; `pending` tells of drift."""
    terraform = _terraform(federation)
    return _changes(terraform.plan(_dead(federation, terraform)), terraform)


def drift(federation: FederationFolder) -> list[tuple[str, str]]:
    """Compare the machines with what Terraform declares, in a cloud what it does not look at, too; changes nothing.

    Returns a name and what is otherwise, for each difference; an empty list for machines that exist already.

    Raises:
        UsageError: a value is wrong, or no machine was ever made.
        EnvironmentLacks, WorkFailed: Terraform or the account cannot be asked.
    """
    name = platform(federation)
    if name is None:
        return []
    terraform = _terraform(federation)
    found = [(address, "its machine is dead or gone") for address in _dead(federation, terraform)]
    plan = terraform.plan()
    found += [(address, f"terraform would {action} it") for address, action in plan.resources]
    if plan.changes and not plan.resources:
        found.append(("outputs", "terraform would change them"))
    if name != LAB:
        found += [
            (one.resource, f"{one.what} ({one.id}): declared {one.declared}, found {one.found}")
            for one in aws.audit(terraform.state())
        ]
    return found


def validate(federation: FederationFolder) -> None:
    """Let Terraform judge the *.tfvars file as if nothing had been made; neither its state nor a machine changes.

    Raises:
        UsageError: a value is wrong; the message names its key.
    """
    name, file = platform(federation), federation.platform_file
    if name is None or file is None:
        return
    with tempfile.TemporaryDirectory(prefix="flowerbed-check-") as scratch:
        variables = {"federation": federation.name, "federation_dir": str(federation.path)}
        if not federation.ssh_key.with_suffix(".pub").exists():
            stand_in = Path(scratch) / "id_ed25519.pub"
            stand_in.write_text("ssh-ed25519 made-by-up\n")
            variables["ssh_public_key_file"] = str(stand_in)
        terraform = Terraform(PLATFORMS / name, Path(scratch), variables, file, {"FLOWERBED_PYTHON": sys.executable})
        terraform.init()
        terraform.plan()


def with_host_keys(
    inventory: Inventory,
    federation: FederationFolder,
    patience: float = BOOT_SECONDS,
    progress: Callable[[str], None] = lambda what: None,
) -> Inventory:
    """Return the inventory with the SSH host keys that only the cloud account knows, each learned once and pinned.

    Args:
        inventory: as the platform describes it.
        federation: where the learned keys are kept.
        patience: how long, in seconds, a new machine may take to boot.
        progress: hears whose key is awaited.

    Raises:
        WorkFailed: a machine showed no key in time; the same call continues.
        EnvironmentLacks: the account cannot be asked from here.
    """
    unknown = {name: one.instance for name, one in inventory.machines.items() if one.instance and not one.host_key}
    if not unknown:
        return inventory
    return inventory.with_host_keys(aws.learn(unknown, federation.state / "host_keys", patience, progress))


def audit(federation: FederationFolder) -> list[aws.Difference]:
    """Compare the cloud account with what Terraform declares; an empty list if nothing differs.

    Raises:
        UsageError: the federation's platform is no cloud account.
        EnvironmentLacks, WorkFailed: the account cannot be asked, or does not answer.
    """
    name = platform(federation)
    if name is None or name == LAB:
        kind = "the lab" if name else "machines that exist already"
        raise UsageError(f"{federation.name} is made of {kind}: audit compares a cloud account with Terraform's state")
    state = _terraform(federation).state()
    if not state.get("values"):
        raise UsageError(f"{federation.name} has no machines yet: flowerbed up {federation.name}")
    return aws.audit(state)


def down(federation: FederationFolder) -> int:
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
    return len(inventory["sites"]) + ("coordinator" in inventory) if inventory else plan.destroy


def _terraform(federation: FederationFolder) -> Terraform:
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


def _folder(federation: FederationFolder) -> Path:
    return federation.state / "terraform"


def _refuse_foreign_state(federation: FederationFolder, folder: Path) -> None:
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


def _dead(federation: FederationFolder, terraform: Terraform) -> list[str]:
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
