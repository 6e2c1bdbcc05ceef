"""Lab hosts: real machines to their users, systemd-nspawn containers to this one."""

import ipaddress
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import time
import uuid
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flowerbed.errors import UsageError, WorkFailed
from flowerbed.lab import cgroup, image, network
from flowerbed.lab.system import DISKS, RUN, is_mounted, locked, preflight, run, slot

STARTS_AT_A_TIME = 8
_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")
_SSH_WITHIN = 60.0  # seconds from power-on to the SSH server's greeting
_STOP_WITHIN = 20.0  # seconds for an orderly shutdown
_MANY_HOSTS = 20
_INOTIFY = Path("/proc/sys/fs/inotify/max_user_instances")
_INOTIFY_FOR_MANY = 8192


@dataclass(frozen=True)
class HostSpec:
    """What a lab host is.

    Attributes:
        federation: the federation's name; hosts of one federation share a network.
        name: the host's name, as a host name: lowercase letters, digits and hyphens, 32 characters at most.
        address: its IPv4 address, inside `network`.
        network: the federation's network as a CIDR.
        ssh_key: the public key that may log in as root, one line.
        keys_dir: folder of this machine that receives `<name>.pub`, the public half of the host's SSH key.
        data: folder of this machine that the host sees as /srv/hospital, or "" for an empty one.
        suite: the Debian suite.
    """

    federation: str
    name: str
    address: str
    network: str
    ssh_key: str
    keys_dir: str
    data: str = ""
    suite: str = "bookworm"


@dataclass(frozen=True)
class HostState:
    """A host as it is now: `cut` is "" or what it is cut off from, `peers` or `all`."""

    federation: str
    name: str
    address: str
    alive: bool
    cut: str


def create(spec: HostSpec) -> None:
    """Make a host and wait until its SSH server answers; a living host of the same spec is left as it is.

    A host that died is made afresh. If the host cannot be started, nothing of it is left.

    Raises:
        UsageError: the spec is wrong, its address or network is taken, or a living host of that name differs.
        EnvironmentLacks: this machine cannot carry lab hosts.
        WorkFailed: the host did not start; the message holds its console's last line.
    """
    preflight()
    _check(spec)
    base = image.ensure(spec.suite)
    with _host_lock(spec.federation, spec.name):
        if _is_alive(spec.federation, spec.name):
            if _read_spec(spec.federation, spec.name) == spec:
                _publish_host_key(spec)
                return
            raise UsageError(
                f"host {spec.name} of federation {spec.federation} exists already and differs: "
                f"python -m flowerbed.lab destroy --federation {spec.federation} --name {spec.name}"
            )
        _destroy(spec.federation, spec.name)
        with _federation_lock(spec.federation):
            _refuse_taken_address(spec)
            network.ensure(spec.federation, ipaddress.IPv4Network(spec.network))
            _disk(spec.federation, spec.name).mkdir(parents=True)
            _spec_file(spec.federation, spec.name).write_text(json.dumps(asdict(spec) | {"image": str(base)}))
        try:
            _prepare_disk(spec)
            _publish_host_key(spec)
            _start(spec, base)
        except BaseException:
            _destroy(spec.federation, spec.name)
            raise


def destroy(federation: str, name: str) -> None:
    """Shut a host down and remove all of it; the federation's network goes with the last one. Unknown hosts are no error."""
    preflight()
    with _host_lock(federation, name):
        _destroy(federation, name)


def destroy_all(federation: str) -> None:
    """Destroy every host of a federation, and its network."""
    preflight()
    for name in _names(federation):
        destroy(federation, name)
    with _federation_lock(federation):
        _remove_network_without_hosts(federation)


def stop(federation: str, name: str) -> None:
    """Shut a host down in order; its disk stays. Stopping a stopped host does nothing."""
    preflight()
    with _host_lock(federation, name):
        _known(federation, name)
        _power_off(federation, name, orderly=True)


def kill(federation: str, name: str) -> None:
    """Cut a host's power: every process ends at once; its disk stays as it is."""
    preflight()
    with _host_lock(federation, name):
        _known(federation, name)
        _power_off(federation, name, orderly=False)


def start(federation: str, name: str) -> None:
    """Power a host on again, with its disk as it was; a living host is left as it is.

    Raises:
        UsageError: there is no such host.
        WorkFailed: the host did not start.
    """
    preflight()
    with _host_lock(federation, name):
        spec = _known(federation, name)
        if _is_alive(federation, name):
            return
        with _federation_lock(federation):
            network.ensure(federation, ipaddress.IPv4Network(spec.network))
        _power_off(federation, name, orderly=False)
        _start(spec, Path(json.loads(_spec_file(federation, name).read_text())["image"]))


def cut(federation: str, name: str, *, everything: bool = False) -> None:
    """Cut a host off from its peers; SSH from this machine stays, unless `everything` is cut. Lasts until `restore`."""
    preflight()
    _known(federation, name)
    with _federation_lock(federation):
        network.cut(federation, _interface(federation, name), everything=everything)


def restore(federation: str, name: str) -> None:
    """Undo `cut`."""
    preflight()
    _known(federation, name)
    with _federation_lock(federation):
        network.restore(federation, _interface(federation, name))


def hosts(federation: str | None = None) -> list[HostState]:
    """Return the hosts of a federation, or of all, sorted by federation and name."""
    federations = [federation] if federation else sorted(path.name for path in DISKS.glob("*"))
    found = []
    for one in federations:
        names = _names(one)
        cuts = network.cuts(one) if names and os.geteuid() == 0 else {}
        for name in names:
            spec = _read_spec(one, name)
            if spec is not None:
                cut_from = cuts.get(_interface(one, name), "")
                found.append(HostState(one, name, spec.address, _is_alive(one, name), cut_from))
    return found


# ---------------------------------------------------------------------------------------------- names and places


def _machine(federation: str, name: str) -> str:
    """A name that is unique on this machine and, as nspawn's `vb-<machine>`, fits an interface's 15 characters."""
    return f"{name[:6].strip('-')}-{network.digest(f'{federation}/{name}', 5)}"


def _interface(federation: str, name: str) -> str:
    return f"vb-{_machine(federation, name)}"


def _disk(federation: str, name: str) -> Path:
    return DISKS / federation / name


def _spec_file(federation: str, name: str) -> Path:
    return _disk(federation, name) / "host.json"


def _run_folder(federation: str, name: str) -> Path:
    return RUN / federation / "hosts" / name


def _names(federation: str) -> list[str]:
    return sorted(path.name for path in (DISKS / federation).glob("*") if path.is_dir())


def _host_lock(federation: str, name: str) -> Any:
    return locked(RUN / f"{federation}.{name}.lock")


def _federation_lock(federation: str) -> Any:
    return locked(RUN / f"{federation}.lock")


def _read_spec(federation: str, name: str) -> HostSpec | None:
    try:
        values = json.loads(_spec_file(federation, name).read_text())
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    values.pop("image", None)
    return HostSpec(**values)


def _known(federation: str, name: str) -> HostSpec:
    spec = _read_spec(federation, name)
    if spec is None:
        known = ", ".join(_names(federation)) or "none"
        raise UsageError(f"federation {federation} has no lab host {name} (hosts: {known})")
    return spec


# ---------------------------------------------------------------------------------------------- checks


def _check(spec: HostSpec) -> None:
    for key, value in (("federation", spec.federation), ("name", spec.name)):
        if not _NAME.fullmatch(value):
            raise UsageError(
                f"{key} {value!r} is no host name: lowercase letters, digits and inner hyphens, 32 characters at most"
            )
    try:
        net = ipaddress.IPv4Network(spec.network)
    except ValueError as error:
        raise UsageError(f"network {spec.network!r} is no IPv4 network: {error}") from None
    try:
        address = ipaddress.IPv4Address(spec.address)
    except ValueError:
        raise UsageError(f"address {spec.address!r} of host {spec.name} is no IPv4 address") from None
    if address not in net or address in (net.network_address, network.gateway_address(net), net.broadcast_address):
        raise UsageError(f"address {address} of host {spec.name} is not a free host address of network {net}")
    if spec.data and not (Path(spec.data).is_absolute() and Path(spec.data).is_dir()):
        raise UsageError(f"data {spec.data!r} of host {spec.name} is no folder (give an absolute path)")
    if not re.match(r"(ssh-|ecdsa-|sk-)\S+ \S+", spec.ssh_key):
        raise UsageError(f"the SSH key of host {spec.name} is no public key line")


def _refuse_taken_address(spec: HostSpec) -> None:
    for name in _names(spec.federation):
        other = _read_spec(spec.federation, name)
        if other is not None and name != spec.name and other.address == spec.address:
            raise UsageError(f"address {spec.address} of host {spec.name} is taken by host {name}")


# ---------------------------------------------------------------------------------------------- disk


def _prepare_disk(spec: HostSpec) -> None:
    disk = _disk(spec.federation, spec.name)
    upper = disk / "upper"
    _write(upper / "etc/hostname", f"{spec.name}\n")
    _write(upper / "etc/hosts", f"127.0.0.1 localhost\n{spec.address} {spec.name}\n")
    _write(upper / "etc/machine-id", uuid.uuid4().hex + "\n", mode=0o444)
    prefix = ipaddress.IPv4Network(spec.network).prefixlen
    _write(
        upper / "etc/systemd/network/10-host0.network",
        "[Match]\nName=host0\n\n[Network]\n"
        f"Address={spec.address}/{prefix}\nLinkLocalAddressing=no\nIPv6AcceptRA=no\nLLDP=no\nEmitLLDP=no\n",
    )
    _write(upper / "root/.ssh/authorized_keys", spec.ssh_key.strip() + "\n", mode=0o600)
    for folder in (upper / "root", upper / "root/.ssh"):
        folder.chmod(0o700)
    (upper / "etc/ssh").mkdir(exist_ok=True)
    key = upper / "etc/ssh/ssh_host_ed25519_key"
    run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", key])
    (disk / "work").mkdir()


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def _publish_host_key(spec: HostSpec) -> None:
    public = _disk(spec.federation, spec.name) / "upper/etc/ssh/ssh_host_ed25519_key.pub"
    keys = Path(spec.keys_dir)
    keys.mkdir(parents=True, exist_ok=True)
    partial = keys / f".{spec.name}.pub.partial"
    partial.write_text(" ".join(public.read_text().split()[:2]) + "\n")
    partial.replace(keys / f"{spec.name}.pub")


# ---------------------------------------------------------------------------------------------- power


def _start(spec: HostSpec, base: Path) -> None:
    folder = _run_folder(spec.federation, spec.name)
    root = folder / "root"
    root.mkdir(parents=True, exist_ok=True)
    if not base.is_dir():
        raise WorkFailed(f"the base image {base} of host {spec.name} is gone: destroy the host and create it again")
    disk = _disk(spec.federation, spec.name)
    layers = f"lowerdir={base},upperdir={disk / 'upper'},workdir={disk / 'work'}"
    with slot(RUN / "starting", STARTS_AT_A_TIME):
        run(["mount", "-t", "overlay", "overlay", "-o", layers, root])
        _raise_inotify_limit()
        pid = _launch(spec, root, folder / "console.log")
        (folder / "pid").write_text(f"{pid} {_start_time(pid)}")
        _wait_for_ssh(spec, folder / "console.log")


def _launch(spec: HostSpec, root: Path, console: Path) -> int:
    """Boot the container and return its supervisor's process id, whatever this machine's PID 1 is."""
    machine = _machine(spec.federation, spec.name)
    nspawn = [
        "systemd-nspawn",
        "--quiet",
        "--boot",
        "--keep-unit",
        "--register=no",
        "--settings=no",
        f"--directory={root}",
        f"--machine={machine}",
        f"--hostname={spec.name}",
        f"--network-bridge={network.BRIDGE}",
        "--link-journal=no",
        "--resolv-conf=off",
        "--timezone=off",
        "--console=read-only",
    ]
    if spec.data:
        nspawn.append(f"--bind={spec.data}:/srv/hospital")
    if _pid1_is_systemd():
        unit = _unit(spec.federation, spec.name)
        settings = {
            "Delegate": "yes",
            "KillMode": "mixed",
            "NetworkNamespacePath": str(network.namespace(spec.federation)),
            "StandardOutput": f"file:{console}",
            "StandardError": f"file:{console}",
        }
        run(
            ["systemd-run", "--quiet", "--collect", f"--unit={unit}"]
            + [f"--property={key}={value}" for key, value in settings.items()]
            + nspawn
        )
        return int(run(["systemctl", "show", "--property=MainPID", "--value", unit]))
    groups = cgroup.make(spec.federation, spec.name)
    enter = 'while [ "$1" != -- ]; do echo $$ > "$1/cgroup.procs" || exit 1; shift; done; shift; exec "$@"'
    into_network = ["nsenter", f"--net={network.namespace(spec.federation)}"]
    with console.open("wb") as log:
        process = subprocess.Popen(
            ["sh", "-c", enter, "sh", *[str(group) for group in groups], "--", *into_network, *nspawn],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )
    return process.pid


def _power_off(federation: str, name: str, *, orderly: bool) -> None:
    """End all of a host's processes and unmount its disk, from whatever state it is in."""
    folder = _run_folder(federation, name)
    if orderly and (pid := _living_pid(federation, name)):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_WITHIN
        while _living_pid(federation, name) and time.monotonic() < deadline:
            time.sleep(0.05)
    if _pid1_is_systemd():
        unit = _unit(federation, name)
        for command in (["kill", "--signal=SIGKILL", unit], ["stop", unit], ["reset-failed", unit]):
            subprocess.run(["systemctl", *command], capture_output=True, check=False)
    else:
        cgroup.kill(federation, name)
        cgroup.remove(federation, name)
    root = folder / "root"
    if is_mounted(root):
        run(["umount", root])
    for leftover in ("propagate", "unix-export"):
        shutil.rmtree(Path("/run/systemd/nspawn", leftover, _machine(federation, name)), ignore_errors=True)
    shutil.rmtree(folder, ignore_errors=True)


def _destroy(federation: str, name: str) -> None:
    spec = _read_spec(federation, name)
    _power_off(federation, name, orderly=True)
    if network.exists(federation):
        network.restore(federation, _interface(federation, name))
    if spec is not None:
        (Path(spec.keys_dir) / f"{name}.pub").unlink(missing_ok=True)
    with _federation_lock(federation):
        shutil.rmtree(_disk(federation, name), ignore_errors=True)
        _remove_network_without_hosts(federation)


def _remove_network_without_hosts(federation: str) -> None:
    if _names(federation):
        return
    network.remove(federation)
    shutil.rmtree(RUN / federation, ignore_errors=True)
    shutil.rmtree(DISKS / federation, ignore_errors=True)
    if not list(DISKS.glob("*")):
        with suppress(OSError):
            DISKS.rmdir()


def _unit(federation: str, name: str) -> str:
    return f"flowerbed-lab-{_machine(federation, name)}.service"


def _pid1_is_systemd() -> bool:
    return Path("/run/systemd/system").is_dir() and Path("/proc/1/comm").read_text().strip() == "systemd"


def _start_time(pid: int) -> str:
    """Return the kernel's start time of a living process, which tells it from a later one of the same number; else ""."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def _living_pid(federation: str, name: str) -> int | None:
    try:
        pid, started = (_run_folder(federation, name) / "pid").read_text().split()
    except (FileNotFoundError, ValueError):
        return None
    return int(pid) if _start_time(int(pid)) == started else None


def _is_alive(federation: str, name: str) -> bool:
    return _living_pid(federation, name) is not None


def _wait_for_ssh(spec: HostSpec, console: Path) -> None:
    deadline = time.monotonic() + _SSH_WITHIN
    while time.monotonic() < deadline and _is_alive(spec.federation, spec.name):
        try:
            with socket.create_connection((spec.address, 22), timeout=1) as connection:
                connection.settimeout(5)
                if connection.recv(4) == b"SSH-":
                    return
        except OSError:
            time.sleep(0.05)
    said = console.read_text(errors="replace").strip().splitlines() or ["nothing"]
    raise WorkFailed(f"host {spec.name} of federation {spec.federation} did not start; its console says: {said[-1]}")


def _raise_inotify_limit() -> None:
    """Every systemd uses several inotify instances of root's: the usual 128 are used up by about 20 hosts."""
    count = sum(1 for _ in DISKS.glob("*/*/host.json"))
    if count > _MANY_HOSTS - STARTS_AT_A_TIME and int(_INOTIFY.read_text()) < _INOTIFY_FOR_MANY:
        _INOTIFY.write_text(str(_INOTIFY_FOR_MANY))
