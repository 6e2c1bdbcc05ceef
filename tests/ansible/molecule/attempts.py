"""Looks around from inside a unit's sandbox and tries what it forbids; prints what came of it as one JSON document.

Runs on a host, with its Python and nothing else: `attempts.py REQUEST`, where REQUEST is a JSON file with the lists
`read`, `write`, `list` (paths) and `connect` (address:port).
"""

import ctypes
import json
import mmap
import os
import pwd
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

SETUID_PROGRAM = "/usr/local/bin/flowerbed-setuid-id"  # a copy of `id` that belongs to root and has the setuid bit
FAMILIES = ("AF_INET", "AF_INET6", "AF_UNIX", "AF_NETLINK", "AF_PACKET", "AF_ALG", "AF_VSOCK")
LEFT_BY_OTHERS = [f"{folder}/flowerbed-left" for folder in ("/tmp", "/var/tmp", "/dev/shm", "/run/lock", "/home")]  # noqa: S108
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000
_LIBC = ctypes.CDLL(None, use_errno=True)


def attempt(action: Callable[[], object]) -> str:
    """Run an action: "done" if nothing stopped it, else the error's name."""
    try:
        action()
    except OSError as error:
        return type(error).__name__ if type(error) is not OSError else os.strerror(error.errno or 0)
    except Exception as error:
        return type(error).__name__
    return "done"


def main() -> None:
    """Try everything."""
    request = json.loads(Path(sys.argv[1]).read_text())
    print(
        json.dumps(
            {
                "user": pwd.getpwuid(os.getuid()).pw_name,
                "environment": dict(os.environ),
                "credentials": credentials(),
                "new privileges": status("NoNewPrivs"),
                "capabilities": {key: status(key) for key in ("CapEff", "CapPrm", "CapAmb", "CapBnd")},
                "own user namespace": Path("/proc/self/uid_map").read_text().split() != ["0", "0", "4294967295"],
                "setuid program": effective_user_of_setuid_program(),
                "foreign processes": foreign_processes(),
                "socket families": {family: attempt(partial(socket_of, family)) for family in FAMILIES},
                "kernel": kernel(),
                "writable": sorted(writable()),
                "left by others": [path for path in LEFT_BY_OTHERS if os.access(path, os.F_OK)],
                "read": {path: attempt(Path(path).read_bytes) for path in request.get("read", [])},
                "write": {path: attempt(partial(write, path)) for path in request.get("write", [])},
                "list": {path: attempt(partial(look_into, path)) for path in request.get("list", [])},
                "connect": {target: attempt(partial(connect, target)) for target in request.get("connect", [])},
            }
        )
    )


def credentials() -> dict[str, str]:
    """What systemd gave the unit: names and contents."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    return {file.name: file.read_bytes().decode("latin-1") for file in Path(folder).iterdir()} if folder else {}


def status(key: str) -> str:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(f"{key}:"))


def effective_user_of_setuid_program() -> str:
    done = subprocess.run([SETUID_PROGRAM, "-un"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or done.stderr.strip()


def foreign_processes() -> list[str]:
    """Command lines of other users' processes that can be seen."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.stat().st_uid != os.getuid():
            found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found


def kernel() -> dict[str, str]:
    """Calls that change the machine, gain rights, or that only programs with compiled code of their own need."""
    return {
        "become root": attempt(lambda: os.setuid(0)),
        "make a user namespace": attempt(lambda: call("unshare", CLONE_NEWUSER)),
        "make a network namespace": attempt(lambda: call("unshare", CLONE_NEWNET)),
        "mount": attempt(lambda: call("mount", b"none", b"/tmp", b"tmpfs", 0, None)),
        "set the clock": attempt(lambda: time.clock_settime(time.CLOCK_REALTIME, time.time())),
        "set the host's name": attempt(lambda: socket.sethostname("other")),
        "run in real time": attempt(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))),
        "make a setuid program": attempt(make_setuid_program),
        "change the personality": attempt(lambda: call("personality", 0x0008)),
        "see the kernel's log": attempt(lambda: call("klogctl", 3, ctypes.create_string_buffer(1 << 12), 1 << 12)),
        "trace a process": attempt(lambda: call("ptrace", 16, 1, 0, 0)),
        "run code from memory": attempt(run_code_from_memory),
        "choose processors": attempt(lambda: os.sched_setaffinity(0, os.sched_getaffinity(0))),
    }


def call(name: str, *arguments: object) -> None:
    if getattr(_LIBC, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), name)


def make_setuid_program() -> None:
    file = Path("/tmp/flowerbed-setuid")  # noqa: S108 - the unit's own
    file.touch()
    file.chmod(0o4755)


def run_code_from_memory() -> None:
    mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()


def socket_of(family: str) -> None:
    kind = socket.SOCK_SEQPACKET if family == "AF_ALG" else socket.SOCK_RAW
    socket.socket(
        getattr(socket, family), kind if family in ("AF_ALG", "AF_PACKET", "AF_NETLINK") else socket.SOCK_STREAM
    )


def write(path: str) -> None:
    with Path(path).open("a") as file:
        file.write("x")


def look_into(path: str) -> None:
    list(Path(path).iterdir())


def writable() -> Iterator[str]:
    """All folders, and files in folders that cannot be written, that the unit can write; kernel interfaces left out."""
    for folder, folders, files in os.walk("/"):
        if folder == "/":
            folders.remove("proc")
        if os.access(folder, os.W_OK):
            folders.clear()
            yield folder
            continue
        for path in (Path(folder, name) for name in files):
            if path.is_file() and not path.is_symlink() and os.access(path, os.W_OK):
                yield str(path)


def connect(target: str) -> None:
    address, port = target.rsplit(":", 1)
    socket.create_connection((address, int(port)), timeout=3).close()


if __name__ == "__main__":
    main()
