"""What the lab needs from the machine it runs on: root, programs, locks."""

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from flowerbed.errors import EnvironmentLacks, WorkFailed

CACHE = Path("/var/cache/flowerbed")
RUN = Path("/run/flowerbed-lab")
DISKS = Path("/var/lib/flowerbed-lab")

PACKAGE_OF = {
    "systemd-nspawn": "systemd-container",
    "mmdebstrap": "mmdebstrap",
    "ip": "iproute2",
    "nft": "nftables",
    "nsenter": "util-linux",
    "mkfs.ext4": "e2fsprogs",
    "ssh-keygen": "openssh-client",
}


def require_root() -> None:
    """Raise EnvironmentLacks if this process is not root's."""
    if os.geteuid() != 0:
        raise EnvironmentLacks("the lab's hosts are systemd-nspawn containers of root's: use sudo")


def preflight() -> None:
    """Check that this machine can carry lab hosts.

    Raises:
        EnvironmentLacks: not root, or programs are missing; the message holds the command that installs them.
    """
    require_root()
    missing = [program for program in PACKAGE_OF if shutil.which(program) is None]
    if missing:
        packages = " ".join(PACKAGE_OF[program] for program in missing)
        raise EnvironmentLacks(f"the lab needs {', '.join(missing)}: apt-get install {packages}")


def run(command: Sequence[str | Path], stdin: str | None = None) -> str:
    """Run a program and return its standard output.

    Raises:
        WorkFailed: the program failed; the message holds the command and the last line of its error output.
    """
    words = [str(part) for part in command]
    done = subprocess.run(words, input=stdin, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()
        raise WorkFailed(f"{' '.join(words)}: {said[-1]}")
    return done.stdout


def is_mounted(path: Path) -> bool:
    """Tell whether something is mounted on `path`, a folder or (as a network namespace) a file."""
    return any(line.split()[1] == str(path) for line in Path("/proc/self/mounts").read_text().splitlines())


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock between processes; its file goes with the holder, its folder if empty."""
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            handle = path.open("w")
        except FileNotFoundError:  # another process has just removed the empty folder
            continue
        fcntl.flock(handle, fcntl.LOCK_EX)
        if _is_same_file(handle.fileno(), path):
            break
        handle.close()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        with suppress(OSError):
            path.parent.rmdir()
        handle.close()


@contextmanager
def slot(folder: Path, count: int) -> Iterator[None]:
    """Hold one of `count` places, so that no more than `count` processes do the same thing at a time."""
    folder.mkdir(parents=True, exist_ok=True)
    handles = [(folder / f"slot-{number}").open("w") for number in range(count)]
    try:
        for handle in handles:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            break
        else:
            fcntl.flock(handles[os.getpid() % count], fcntl.LOCK_EX)
        yield
    finally:
        for handle in handles:
            handle.close()


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False
