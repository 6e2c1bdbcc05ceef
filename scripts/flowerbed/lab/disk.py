"""A lab host's disk: what differs between the base image and this one host.

It is a file system of the host's own in a file that takes as much of this machine as the host has written. So it has a
journal, as a real machine's has, whatever this machine's own is like, and it is gone at once.
"""

import shutil
import uuid
from contextlib import suppress
from pathlib import Path

from flowerbed.errors import UsageError, WorkFailed
from flowerbed.lab.spec import HostSpec, Places
from flowerbed.lab.system import is_mounted, run

_FILE_SYSTEM = "ext4"
_OPTIONS = "lazy_itable_init=1,lazy_journal_init=1"  # nothing is written that is not needed yet
_JOURNAL_MB = 32  # what it holds is written twice
_BLOCK_DEVICES = Path("/dev/loop-control")
_HOST_KEY = "etc/ssh/ssh_host_ed25519_key"


def prepare(spec: HostSpec) -> None:
    """Make the disk, with the host's name, address, machine id, SSH host key and the key that may log in."""
    places = Places(spec.federation, spec.name)
    _make(places)
    attach(places)
    upper = places.files / "upper"
    _write(upper / "etc/hostname", f"{spec.name}\n")
    _write(upper / "etc/hosts", f"127.0.0.1 localhost\n{spec.address} {spec.name}\n")
    _write(upper / "etc/machine-id", uuid.uuid4().hex + "\n", mode=0o444)
    _write(
        upper / "etc/systemd/network/10-host0.network",
        "[Match]\nName=host0\n\n[Network]\n"
        f"Address={spec.address}/{spec.cidr.prefixlen}\n"
        "LinkLocalAddressing=no\nIPv6AcceptRA=no\nLLDP=no\nEmitLLDP=no\n",
    )
    _write(upper / "root/.ssh/authorized_keys", f"{spec.ssh_key}\n", mode=0o600)
    for folder in (upper / "root", upper / "root/.ssh"):
        folder.chmod(0o700)
    (upper / _HOST_KEY).parent.mkdir()
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", upper / _HOST_KEY])
    (places.files / "work").mkdir()


def attach(places: Places) -> None:
    """Mount the disk; one that is mounted stays so."""
    if not places.image.exists() or is_mounted(places.files):
        return
    run(["mount", "-o", "loop", places.image, places.files])
    device = run(["findmnt", "--noheadings", "--output=SOURCE", places.files]).strip()
    with suppress(WorkFailed):  # where it cannot be, all that a host reads and writes is in memory twice
        run(["losetup", "--direct-io=on", device])


def detach(places: Places) -> None:
    """Unmount the disk, if it is mounted."""
    if is_mounted(places.files):
        run(["umount", places.files])


def _make(places: Places) -> None:
    """An empty disk as large as what this machine has left; a mere folder where it has no block devices of files."""
    places.files.mkdir()
    if not _BLOCK_DEVICES.exists():
        return
    with places.image.open("wb") as image:
        image.truncate(shutil.disk_usage(places.disk).free)
    run([f"mkfs.{_FILE_SYSTEM}", "-q", "-m", "0", "-J", f"size={_JOURNAL_MB}", "-E", _OPTIONS, places.image])


def publish_host_key(spec: HostSpec) -> None:
    """Write the public half of the host's SSH key (type and key, no comment) where the operator reads it."""
    public = Places(spec.federation, spec.name).files / "upper" / f"{_HOST_KEY}.pub"
    target = spec.published_key
    line = " ".join(public.read_text().split()[:2]) + "\n"
    partial = target.with_name(f".{target.name}.partial")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(line)
        partial.replace(target)
    except OSError as error:
        raise UsageError(f"keys-dir {target.parent} cannot be written: {error.strerror}") from None


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
