"""Attempts at what the sandbox forbids; each tells what happened in one word or the error's name."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


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
        **everywhere(targets),
        "read own data": attempt(first.read_bytes),
        "write into own data": attempt(lambda: Path(data, "x").write_text("x")),
        "change own data": attempt(lambda: first.open("a").write("x")),
        "read the node key": attempt(Path("/etc/flower/supernode/node_key").read_bytes),
        "read the superexec secret": attempt(Path("/etc/flower/supernode/superexec.secret").read_bytes),
        "list another folder of /srv": attempt(lambda: list(Path("/srv/other-hospital").iterdir())),
        "list the SuperNode's state": attempt(lambda: list(Path("/var/lib/flower/supernode").iterdir())),
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
        "become root": attempt(lambda: os.setuid(0)),
        "make a user namespace": attempt(_unshare),
        "see other processes": "done" if _foreign_processes() else "none",
        "new privileges": _status("NoNewPrivs"),
        "capabilities": _status("CapEff"),
        **{f"connect to {target}": attempt(lambda target=target: _connect(target)) for target in targets},
    }


def _connect(target: str) -> None:
    address, port = target.rsplit(":", 1)
    socket.create_connection((address, int(port)), timeout=3).close()


def _unshare() -> None:
    subprocess.run(["unshare", "--user", "true"], check=True, capture_output=True)


def _foreign_processes() -> list[str]:
    found = [entry for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [entry.name for entry in found if entry.stat().st_uid != os.getuid()]


def _status(key: str) -> str:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(line.split()[1] for line in lines if line.startswith(key))


if __name__ == "__main__":
    print(json.dumps(everywhere(sys.argv[1:])))
