"""Who took the processors, and the memory: a federation's hosts, each program on them, a command with all it started.

The hosts are on this machine, so the kernel's accounts of their control groups hold all of it, also of what ended long
ago; what a program took is read from the processes that are there.
"""

import os
import resource
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath

from flowerbed.lab import cgroup

OTHERS = "others, and what has ended"
_TICKS = os.sysconf("SC_CLK_TCK")


def of_hosts(federation: str) -> float:
    """Seconds that all processes of all hosts have taken so far."""
    found = 0.0
    for group in _hosts(federation):
        old, new = group / "cpuacct.usage", group / "cpu.stat"
        if old.exists():
            found += int(old.read_text()) / 1e9
        else:
            found += int(dict(line.split() for line in new.read_text().splitlines())["usage_usec"]) / 1e6
    return found


def of_programs(federation: str) -> Counter[tuple[int, str]]:
    """Seconds of each process that is there now on the hosts, by its number and program."""
    found: Counter[tuple[int, str]] = Counter()
    for group in _hosts(federation):
        for file in group.rglob("cgroup.procs"):
            for pid in file.read_text().split():
                try:
                    stat = Path(f"/proc/{pid}/stat").read_text()
                    words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
                except OSError:  # it has just ended
                    continue
                ticks = stat.rpartition(")")[2].split()[11:13]
                found[int(pid), program(words)] = sum(map(int, ticks)) / _TICKS
    return found


def memory_of_a_site(federation: str) -> float:
    """Megabytes that a site's processes take, on average; what only keeps a file's content is not counted."""
    found = []
    for root in cgroup.hierarchies():
        for group in (root / cgroup.TOP / federation).glob("*"):
            if (stat := group / "memory.stat").exists() and group.name != "coordinator":
                values = dict(line.split() for line in stat.read_text().splitlines())
                found.append(int(values.get("total_rss", values.get("anon", 0))) / 1e6)
    return sum(found) / max(1, len(found))


@contextmanager
def memory_watched(federation: str, seconds: float = 2.0) -> Iterator[list[float]]:
    """Look at it every so often; the list has what was seen."""
    seen, done = [memory_of_a_site(federation)], threading.Event()

    def look() -> None:
        while not done.wait(seconds):
            seen.append(memory_of_a_site(federation))

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def of_the_machine() -> float:
    """Seconds that all of this machine's processors could have given so far."""
    return time.monotonic() * (os.cpu_count() or 1)


def of_commands() -> float:
    """Seconds of all commands that this process has waited for, and of all that they had started and waited for."""
    taken = resource.getrusage(resource.RUSAGE_CHILDREN)
    return taken.ru_utime + taken.ru_stime


def by_program(
    before: Counter[tuple[int, str]], after: Counter[tuple[int, str]], total: float, least: float = 0.01
) -> dict[str, float]:
    """Seconds of each program between two looks; `total` is what all took, `least` what is worth a word."""
    found: Counter[str] = Counter()
    for (pid, name), seconds in after.items():
        found[name] += seconds - before[pid, name]
    named = {name: round(seconds, 2) for name, seconds in found.most_common() if seconds >= least}
    return {**named, OTHERS: round(total - sum(named.values()), 2)}


def program(words: list[str]) -> str:
    """What runs, by its command line: of Python the file."""
    files = [word for word in words if word and not word.startswith("-")]
    if not files:
        return "?"
    runs_python = PurePath(files[0]).name.startswith("python") and len(files) > 1
    return PurePath(files[1] if runs_python else files[0].split()[0].rstrip(":")).name


def _hosts(federation: str) -> Iterator[Path]:
    """The control groups of the hosts, in the hierarchy that keeps account."""
    for root in cgroup.hierarchies():
        groups = sorted(path for path in (root / cgroup.TOP / federation).glob("*") if path.is_dir())
        if any((group / "cpuacct.usage").exists() for group in groups):
            yield from groups
            return
    for root in cgroup.hierarchies():
        yield from (path for path in (root / cgroup.TOP / federation).glob("*") if (path / "cpu.stat").exists())
