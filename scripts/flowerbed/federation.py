"""A federation's folder: everything about a federation is in it, and copying it makes a second one."""

import re
from dataclasses import dataclass
from pathlib import Path

from flowerbed.errors import UsageError
from flowerbed.paths import INVENTORIES

DEFAULT_PYTHON = "3.11"
"""Debian 12's; a host with another one says so in its variable `flowerbed_python`."""
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


@dataclass(frozen=True)
class FederationFolder:
    """The folder of one federation and what lies where in it."""

    path: Path

    @property
    def name(self) -> str:
        """The federation's name is its folder's."""
        return self.path.name

    @property
    def platform_file(self) -> Path | None:
        """The machines; the file's name is the platform. None: the machines exist already."""
        files = sorted(self.path.glob("*.tfvars"))
        if len(files) > 1:
            names = ", ".join(file.name for file in files)
            raise UsageError(f"{self.path} holds {names}: keep one, its name chooses the platform")
        return files[0] if files else None

    @property
    def hosts_file(self) -> Path:
        """The inventory for Ansible: written from Terraform's output, or by hand."""
        return self.path / ("hosts.json" if self.platform_file else "hosts.yml")

    @property
    def secrets(self) -> Path:
        """CA, passphrases and SSH keys; never in git."""
        return self.path / "secrets"

    @property
    def ssh_key(self) -> Path:
        """The private SSH key that opens the hosts, where Flowerbed made one."""
        return self.secrets / "ssh" / "id_ed25519"

    @property
    def ca_passphrase_file(self) -> Path:
        """The passphrase of the CA's key, where it does not come from the environment."""
        return self.secrets / "ca_passphrase"

    @property
    def ca_certificate(self) -> Path:
        """The CA's certificate; two of them while the CA is replaced by another."""
        return self.secrets / "ca" / "trust.crt"

    @property
    def approved_file(self) -> Path:
        """The sites that joined by kit; public data only."""
        return self.path / "approved.json"

    @property
    def revoked_file(self) -> Path:
        """The public keys that never get in again."""
        return self.path / "revoked.json"

    @property
    def removed_file(self) -> Path:
        """The names of the sites that were removed, as long as they still have an entry; public."""
        return self.path / "removed.json"

    @property
    def backup_key(self) -> Path:
        """The key that opens backups, encrypted with the CA's passphrase; its certificate is beside it."""
        return self.secrets / "backup" / "backup.key"

    @property
    def backups(self) -> Path:
        """The backups that were brought home; never in git."""
        return self.path / "backups"

    @property
    def state(self) -> Path:
        """Terraform's state, known hosts and flwr's configuration; never in git."""
        return self.path / ".state"

    @property
    def known_hosts(self) -> Path:
        """The pinned SSH host keys: written from what the platform says, or by hand."""
        return (self.state if self.platform_file else self.path) / "known_hosts"

    @property
    def held(self) -> Path:
        """The locks that the hosts stay with until the next upgrade, after a rollback; missing otherwise."""
        return self.state / "releases" / "held"

    @property
    def release_before(self) -> Path:
        """The locks that a rollback goes back to; missing where nothing was upgraded."""
        return self.state / "releases" / "before"

    @property
    def switch_file(self) -> Path:
        """There while the hosts go from one release to another."""
        return self.state / "releases" / "switch.json"

    @property
    def data(self) -> Path:
        """In the lab: one folder per site that stands for the hospital's own data."""
        return self.path / "data"

    @property
    def blocked_file(self) -> Path:
        """The names of the sites that the gateway refuses; public."""
        return self.path / "blocked.json"

    @property
    def lock(self) -> Path:
        """The federation's release, locked by hash."""
        return self.lock_for(DEFAULT_PYTHON)

    def lock_for(self, python: str) -> Path:
        """The release for hosts with another Python: `release-3.13.lock`."""
        return self.path / ("release.lock" if python == DEFAULT_PYTHON else f"release-{python}.lock")

    def release_for(self, python: str) -> Path:
        """Where the playbooks find the release for hosts with this Python."""
        return self.state / f"release-{python}.tar"


def find(name_or_path: str | Path) -> FederationFolder:
    """Find a federation by its name under `inventories/` or by its folder's path.

    Raises UsageError when there is none, naming those that exist.
    """
    given = Path(name_or_path)
    path = given if "/" in str(name_or_path) else INVENTORIES / given  # Path itself would drop a leading "./"
    path = path.expanduser().resolve()
    if not path.is_dir():
        known = ", ".join(one.name for one in every())
        raise UsageError(f"federation '{name_or_path}' is unknown: {path} does not exist (there are: {known})")
    if not _NAME.fullmatch(path.name):
        raise UsageError(f"federation folder '{path.name}': use lower-case letters, digits and dashes, 32 at most")
    return FederationFolder(path)


def every() -> list[FederationFolder]:
    """The federations under `inventories/`."""
    return [FederationFolder(folder) for folder in sorted(INVENTORIES.iterdir()) if folder.is_dir()]
