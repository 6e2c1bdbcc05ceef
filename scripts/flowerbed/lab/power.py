"""A lab host's power: on, off, and whether it is on."""

import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from flowerbed.errors import WorkFailed
from flowerbed.lab import cgroup, disk, network
from flowerbed.lab.spec import HostSpec, Places
from flowerbed.lab.system import DISKS, RUN, is_mounted, run, slot

STARTS_AT_A_TIME = 8
_SSH_WITHIN = 60.0  # seconds from power-on to the SSH server's greeting
_STOP_WITHIN = 20.0  # seconds for an orderly shutdown
_INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
_HOSTS_PER_INOTIFY_LIMIT = 12  # 128 instances, the usual limit, are used up by about 20 hosts
_INOTIFY_FOR_MANY = 8192
_CONSOLE_LINES = 3
_CLEANING = "Attempted to remove disk file system"  # nspawn's last words at every end where /run is on a disk
_NSPAWN_RUN = Path("/run/systemd/nspawn")


def on(spec: HostSpec, image: Path) -> None:
    """Boot a host from its disk on the base image, and wait until its SSH server answers.

    Raises:
        WorkFailed: the base image is gone, or the host did not start; the message holds the console's end.
    """
    places = Places(spec.federation, spec.name)
    if not image.is_dir():
        raise WorkFailed(f"the base image {image} of host {spec.name} is gone: destroy and create the host again")
    root = places.running / "root"
    root.mkdir(parents=True, exist_ok=True)
    places.running.parent.parent.chmod(0o700)  # other users of this machine have no business in a host's files
    layers = f"lowerdir={image},upperdir={places.files / 'upper'},workdir={places.files / 'work'}"
    with slot(RUN / "starting", STARTS_AT_A_TIME):
        disk.attach(places)
        run(["mount", "-t", "overlay", "overlay", "-o", layers, root])
        _raise_inotify_limit()
        console = places.running / "console.log"
        pid = _launch(spec, places, root, console)
        (places.running / "pid").write_text(f"{pid} {_start_time(pid)}")
        _wait_for_ssh(spec, places, console)


def off(places: Places, *, orderly: bool) -> None:
    """End all of a host's processes and unmount its disk, from whatever state it is in.

    Args:
        places: the host.
        orderly: let the host shut itself down; otherwise everything ends at once, as in a power cut.
    """
    if orderly and (pid := _living_pid(places)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_WITHIN
        while _living_pid(places) and time.monotonic() < deadline:
            time.sleep(0.05)
    if _pid1_is_systemd():
        for command in (["kill", "--signal=SIGKILL"], ["stop"], ["reset-failed"]):
            subprocess.run(["systemctl", *command, places.unit], capture_output=True, check=False)
    else:
        cgroup.kill(places.federation, places.name)
        cgroup.remove(places.federation, places.name)
    network.unplug(places.federation, places.interface)
    root = places.running / "root"
    if is_mounted(root):
        at = root.stat()
        run(["umount", root])
        (_NSPAWN_RUN / "locks" / f"inode-{at.st_dev}:{at.st_ino}").unlink(missing_ok=True)
    disk.detach(places)
    for leftover in ("propagate", "unix-export"):
        shutil.rmtree(_NSPAWN_RUN / leftover / places.machine, ignore_errors=True)
    shutil.rmtree(places.running, ignore_errors=True)


def is_on(places: Places) -> bool:
    """Tell whether the host's supervising process lives."""
    return _living_pid(places) is not None


def _launch(spec: HostSpec, places: Places, root: Path, console: Path) -> int:
    """Boot the container and return its supervisor's process id, whatever this machine's PID 1 is."""
    command = [
        "nsenter",
        f"--net={network.namespace(spec.federation)}",
        "systemd-nspawn",
        "--quiet",
        "--boot",
        "--keep-unit",
        "--register=no",
        "--settings=no",
        f"--directory={root}",
        f"--machine={places.machine}",
        f"--hostname={spec.name}",
        f"--network-bridge={network.BRIDGE}",
        "--link-journal=no",
        "--resolv-conf=off",
        "--timezone=off",
        "--console=read-only",
        *([f"--bind={spec.data}:/srv/hospital"] if spec.data else []),
    ]
    if _pid1_is_systemd():
        settings = [
            "Delegate=yes",
            "KillMode=mixed",
            f"CPUWeight={spec.cpu_weight}",
            f"StandardOutput=file:{console}",
            f"StandardError=file:{console}",
        ]
        run(
            ["systemd-run", "--quiet", "--collect", f"--unit={places.unit}"]
            + [f"--property={setting}" for setting in settings]
            + command
        )
        return int(run(["systemctl", "show", "--property=MainPID", "--value", places.unit]))
    groups = [str(group) for group in cgroup.make(spec.federation, spec.name, spec.cpu_weight)]
    enter = 'while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs" || exit 1; shift; done; shift; exec "$@"'
    with console.open("wb") as log:
        process = subprocess.Popen(
            ["sh", "-c", enter, "sh", *groups, "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )
    return process.pid


def _pid1_is_systemd() -> bool:
    return Path("/run/systemd/system").is_dir()


def _living_pid(places: Places) -> int | None:
    try:
        pid, started = (places.running / "pid").read_text().split()
    except (FileNotFoundError, ValueError):
        return None
    return int(pid) if _start_time(int(pid)) == started else None


def _start_time(pid: int) -> str:
    """Return a living process's start time, which tells it from a later one of its number; else ""."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _wait_for_ssh(spec: HostSpec, places: Places, console: Path) -> None:
    deadline = time.monotonic() + _SSH_WITHIN
    while time.monotonic() < deadline and is_on(places):
        try:
            with socket.create_connection((spec.address, 22), timeout=1) as connection:
                connection.settimeout(5)
                if connection.recv(4) == b"SSH-":
                    return
        except OSError:
            time.sleep(0.05)
    said = [line.strip() for line in console.read_text(errors="replace").splitlines() if line.strip()]
    said = [line for line in said if _CLEANING not in line] or ["nothing"]
    end = " / ".join(said[-_CONSOLE_LINES:])
    raise WorkFailed(f"host {spec.name} of federation {spec.federation} did not start; its console says: {end}")


def _raise_inotify_limit() -> None:
    count = sum(1 for _ in DISKS.glob("*/*/host.json"))
    if count > _HOSTS_PER_INOTIFY_LIMIT and int(_INOTIFY.read_text()) < _INOTIFY_FOR_MANY:
        _INOTIFY.write_text(str(_INOTIFY_FOR_MANY))
