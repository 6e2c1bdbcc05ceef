"""Attempts at what the sandbox forbids; each tells what happened in one word or the error's name."""

import ctypes
import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

SECRETS = {
    "node key": "/etc/flower/supernode/node_key",
    "superexec secret": "/etc/flower/supernode/superexec.secret",
    "runtime key": "/etc/flower/supernode/runtime.key",
    "proxy's password": "/etc/flower/supernode/proxy.env",
    "node key given to the SuperNode": "/run/credentials/flower-supernode.service/node_key",
    "secret given to SuperExec": "/run/credentials/flower-superexec-clientapp.service/superexec.secret",
    "passwords": "/etc/shadow",
}
# What would be run again by somebody, at a login, at a start, or by the next message's Python.
LEFT = {
    "a cron job": "/etc/cron.d/flowerbed-left",
    "a user's cron job": "/var/spool/cron/crontabs/flower-app",
    "a unit": "/etc/systemd/system/flowerbed-left.service",
    "a unit of the user's": "~/.config/systemd/user/flowerbed-left.service",
    "a login script": "~/.profile",
    "a module for every Python": "/opt/flower/current/lib/python3.11/site-packages/flowerbed_left.pth",
    "a module for this user's Python": "~/.local/lib/python3.11/site-packages/flowerbed_left.pth",
    "an app beside Flower's": "~/.flwr/apps/flowerbed-left",
    "a file in /tmp": "/tmp/flowerbed-left",  # noqa: S108 - whether it is private is the question
    "a file in /var/tmp": "/var/tmp/flowerbed-left",  # noqa: S108 - whether it is private is the question
    "a file in shared memory": "/dev/shm/flowerbed-left",  # noqa: S108 - whether it is private is the question
}
# Detaches itself in every way there is and ignores what it can, then waits for the next message.
DAEMON = """
import os, signal, time
for one in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(one, signal.SIG_IGN)
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(3600)
"""
FORKS = """
import os, signal
count = 0
try:
    while count < 5000:
        if os.fork() == 0:
            signal.pause()
        count += 1
except OSError:
    pass
print(count, flush=True)
os.killpg(0, signal.SIGKILL)
"""
_LIBC = ctypes.CDLL(None, use_errno=True)
_ATTACH = 16
_NEW_MOUNTS = 0x00020000


def attempt(action: Callable[[], object]) -> str:
    """Run an action: "done" if nothing stopped it, else the error's name."""
    try:
        action()
    except Exception as error:
        return type(error).__name__
    return "done"


def at_site(data: str, targets: list[str]) -> dict[str, str]:
    """All attempts of a ClientApp; `data` is the site's data folder."""
    first = next(Path(data).iterdir())
    return {
        "read own data": attempt(first.read_bytes),
        "write into own data": attempt(lambda: Path(data, "x").write_text("x")),
        "change own data": attempt(lambda: first.open("a").write("x")),
        **{f"read {what}": attempt(Path(path).read_bytes) for what, path in SECRETS.items()},
        "list another folder of /srv": attempt(lambda: list(Path("/srv/other-hospital").iterdir())),
        "list the SuperNode's state": attempt(lambda: list(Path("/var/lib/flower/supernode").iterdir())),
        "start a message of its own": attempt(lambda: _connect_unix("/run/flower/clientapp.sock")),
        "have a message forked": attempt(lambda: _connect_unix("/run/flower/clientapp-warm.sock")),
        **everywhere(targets),
        **last(),
    }


def everywhere(targets: list[str]) -> dict[str, str]:
    """Attempts of any app."""
    return {
        "write outside the state folder": attempt(lambda: Path("/opt/flower/x").write_text("x")),
        "write to /etc": attempt(lambda: Path("/etc/x").write_text("x")),
        "write to /var/lib": attempt(lambda: Path("/var/lib/x").write_text("x")),
        "write to the state folder": attempt(lambda: Path(os.environ["HOME"], "x").write_text("x")),
        "write to /tmp": attempt(lambda: Path("/tmp/flowerbed-probe").write_text("x")),  # noqa: S108 - it is private
        "open a packet socket": attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
        "open a netlink socket": attempt(lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)),
        "open a raw socket": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)),
        "talk to another program's socket": ", ".join(_answering_sockets()) or "none",
        "parent's number": str(os.getppid()) if Path(f"/proc/{os.getppid()}").exists() else "unseen",
        "become root": attempt(lambda: os.setuid(0)),
        "make a user namespace": attempt(_unshare),
        "make a mount namespace": attempt(lambda: _system_call("unshare", _NEW_MOUNTS)),
        "mount": attempt(lambda: _system_call("mount", b"tmpfs", b"/tmp", b"tmpfs", 0, None)),
        "take back a capability": attempt(_take_capability),
        "trace a process": attempt(lambda: _trace(os.getppid())),
        "see other processes": "done" if _foreign_processes() else "none",
        "signal other processes": ", ".join(map(str, _signalled())) or "none",
        "new privileges": _status("NoNewPrivs"),
        "capabilities": _status("CapEff"),
        **{f"connect to {target}": attempt(lambda target=target: _connect(target)) for target in targets},
        "ask a name server": attempt(lambda: _send("127.0.0.53", 53)),
        "ask a name server of the network": attempt(lambda: _send("192.0.2.53", 53)),
    }


def last() -> dict[str, str]:
    """What leaves things behind or uses up the host: these come last, in this order."""
    return {
        **{f"leave {what}": attempt(partial(_leave, path)) for what, path in LEFT.items()},
        "leave a process": attempt(lambda: subprocess.run([sys.executable, "-I", "-S", "-c", DAEMON], check=True)),
        "fork without end": subprocess.run(
            [sys.executable, "-I", "-S", "-c", FORKS], capture_output=True, text=True, process_group=0, check=False
        ).stdout.strip(),
        "fill /tmp": str(_fill("/tmp/fill")),  # noqa: S108 - its limit is the question
        "fill shared memory": str(_fill("/dev/shm/fill")),  # noqa: S108 - whether it is private is the question
    }


def afterwards() -> dict[str, str]:
    """What a later message finds of the attempts before it."""
    left = [what for what, path in LEFT.items() if Path(path).expanduser().exists()]
    known = (os.getpid(), os.getppid())  # a fork's parent is the first process of the fork's own namespace
    others = [entry.name for entry in Path("/proc").glob("[0-9]*") if int(entry.name) not in known]
    return {"left": ", ".join(left) or "none", "processes": ", ".join(others) or "none"}


def _leave(path: str) -> None:
    file = Path(path).expanduser()
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("x")


def _fill(path: str) -> int:
    """Write until the space ends; gives how many megabytes there were."""
    written = 0
    try:
        with Path(path).open("wb", buffering=0) as file:
            while written < 1 << 31:
                written += file.write(b"x" * (1 << 20))
    except OSError:
        pass
    Path(path).unlink()
    return written >> 20


def _connect(target: str) -> None:
    address, port = target.rsplit(":", 1)
    socket.create_connection((address.strip("[]"), int(port)), timeout=3).close()


def _connect_unix(path: str) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


def _send(address: str, port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.sendto(b"x", (address, port))


def _answering_sockets() -> Iterator[str]:
    """Unix sockets with a name that let this process connect."""
    for line in Path("/proc/net/unix").read_text().splitlines()[1:]:
        path = line.split()[7] if len(line.split()) > 7 else ""
        for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
            with socket.socket(socket.AF_UNIX, kind) as client:
                if path.startswith("/") and client.connect_ex(path) == 0:
                    yield path


def _unshare() -> None:
    subprocess.run(["unshare", "--user", "true"], check=True, capture_output=True)


def _trace(pid: int) -> None:
    _system_call("ptrace", _ATTACH, pid, 0, 0)


def _take_capability() -> None:
    """Ask for CAP_SYS_ADMIN."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    _system_call("capset", header, (ctypes.c_uint32 * 6)(1 << 21, 1 << 21, 0, 0, 0, 0))


def _system_call(name: str, *arguments: object) -> None:
    if getattr(_LIBC, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), name)


def _signalled() -> Iterator[int]:
    """Processes of other users that take its signals; those of other apps, which have the same user, do."""
    for pid in range(1, 1 << 16):
        try:
            os.kill(pid, 0)
        except OSError:
            continue
        if not _own(pid):
            yield pid


def _own(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}").stat().st_uid == os.getuid()
    except OSError:
        return False  # of another user, who cannot be seen


def _foreign_processes() -> list[str]:
    found = [entry for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [entry.name for entry in found if entry.stat().st_uid != os.getuid()]


def _status(key: str) -> str:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(key))


if __name__ == "__main__":
    print(json.dumps(everywhere(sys.argv[1:])))
