"""Control groups of lab hosts, for machines whose PID 1 is not systemd.

Without a group of its own in every hierarchy all containers share one, and `systemctl` inside them fails.
"""

import os
import time
from pathlib import Path

WANTED = {"cpu", "cpuacct", "memory", "pids", "name=systemd"}
TOP = "flowerbed-lab"
_GONE_WITHIN = 10.0  # seconds
_SHARES = 1024  # what the first version of control groups calls a weight of 100


def hierarchies() -> list[Path]:
    """Return the mount points of the control group hierarchies a host needs a group in."""
    found = []
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup2" or (kind == "cgroup" and WANTED & set(options.split(","))):
            found.append(Path(where))
    return found


def make(federation: str, name: str, cpu_weight: int) -> list[Path]:
    """Make a host's groups and return them; of two hosts that both want the processors, each gets by its weight."""
    groups = [root / TOP / federation / name for root in hierarchies()]
    for group in groups:
        group.mkdir(parents=True, exist_ok=True)
        for switch, weight in (("cpu.weight", cpu_weight), ("cpu.shares", cpu_weight * _SHARES // 100)):
            if (group / switch).exists():
                (group / switch).write_text(f"{weight}")
    return groups


def kill(federation: str, name: str) -> None:
    """Kill every process of a host at once, as a power cut does."""
    for group in _groups(federation, name):
        switch = group / "cgroup.kill"
        if switch.exists():
            switch.write_text("1")


def remove(federation: str, name: str) -> None:
    """Remove a host's groups, and the federation's with the last host."""
    deadline = time.monotonic() + _GONE_WITHIN
    for group in _groups(federation, name):
        for folder, _, _ in os.walk(group, topdown=False):
            while not _rmdir(Path(folder)) and time.monotonic() < deadline:
                time.sleep(0.02)  # killed processes leave their group a moment later
        for parent in (group.parent, group.parent.parent):
            _rmdir(parent)


def _groups(federation: str, name: str) -> list[Path]:
    return [group for root in hierarchies() if (group := root / TOP / federation / name).is_dir()]


def _rmdir(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True
