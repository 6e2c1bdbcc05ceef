"""The federation that faults happen to, the run that is under way meanwhile, and what must not be lost."""

import base64
import json
import os
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowerbed import status
from flowerbed.errors import FlowerbedError
from flowerbed.lab import network
from flowerbed.lab.spec import Places
from tests.e2e.conftest import Standing

SITES = [f"hospital-{letter}" for letter in "abcde"]
APP = Path(__file__).parents[1] / "apps" / "steady"
REPLIES_WITHIN = 120.0
"""Seconds that a ServerApp waits for a reply, which may be lost with its site."""
RECOVERS_WITHIN = 300.0
"""Seconds; much more than any fault was ever seen to need."""
ENDS_WITHIN = 1200.0
"""Seconds; nothing here is waited for any longer."""


@dataclass
class Driven:
    """A `flowerbed` command that goes on while something happens to the federation."""

    process: "subprocess.Popen[str]"
    said: list[str] = field(default_factory=list)
    _reader: threading.Thread | None = None

    def __post_init__(self) -> None:
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        self.said.extend(iter(self.process.stderr.readline, ""))

    @property
    def text(self) -> str:
        """All that it has said so far."""
        return "".join(self.said)

    def until(self, pattern: str) -> "re.Match[str]":
        """Wait until it has said so."""
        wait_for(lambda: re.search(pattern, self.text) or self.process.poll() is not None, f"{pattern} in {self.text}")
        found = re.search(pattern, self.text)
        assert found, f"it ended without saying {pattern}: {self.text}"
        return found

    def end(self) -> int:
        """Wait until it ends; gives its exit code."""
        code = self.process.wait(ENDS_WITHIN)
        assert self._reader is not None
        self._reader.join()
        assert "Traceback" not in self.text, self.text
        return code


@dataclass(frozen=True)
class Ended:
    """A run that is home, and what the operator was told of it."""

    exit_code: int
    said: str
    record: dict[str, Any]

    @property
    def status(self) -> str:
        """Flowerbed's verdict."""
        return str(self.record["status"])

    @property
    def reason(self) -> str:
        """Why, in one line."""
        return str(self.record["reason"])


@dataclass(frozen=True)
class Kept:
    """What no fault may cost: registrations, keys, data, and the runs that there were."""

    registrations: dict[str, Any]
    nodes: set[str]
    keys: dict[str, str]
    data: dict[str, str]
    history: set[str]


class Bed:
    """A federation of five hospitals, and what tests do to it."""

    def __init__(self, standing: Standing) -> None:
        self.standing = standing
        self.federation = standing.federation
        self.name = standing.federation.name

    # The hosts ------------------------------------------------------------------------------------------------

    def on(self, host: str, command: str) -> str:
        """Run a shell command on a host; gives what it printed."""
        done = self.standing.host(host).run(command)
        assert done.rc == 0, f"{host}: {command}: {done.stderr}"
        return str(done.stdout)

    def kill(self, host: str, unit: str, whom: str = "all") -> None:
        """End all of a unit's processes, or its main one alone, as the kernel does when memory is short."""
        self.on(host, f"systemctl kill --kill-whom={whom} --signal=KILL {unit}")

    def send(self, file: Path, host: str, path: str) -> None:
        """Put a file of this machine on a host, where everybody may read it."""
        content = base64.b64encode(file.read_bytes()).decode()
        self.on(host, f"printf %s {content} | base64 -d > {path} && chmod 0644 {path}")

    def interface(self, host: str) -> str:
        """The host's interface on the lab's bridge."""
        return Places(self.name, host).interface

    def inside_network(self, *command: str) -> str:
        """Run a command in the lab's network, beside the hosts."""
        return network.inside(self.name, command)

    # The operator ---------------------------------------------------------------------------------------------

    def start(self, *words: str) -> Driven:
        """Start a `flowerbed` command."""
        return Driven(
            subprocess.Popen(
                [self.standing.program, *words],
                cwd=self.standing.work,
                env={**os.environ, "COLUMNS": "200"},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
        )

    def run(self, *words: str) -> Driven:
        """Start a run of the app, and follow it."""
        config = ("-c", "num-server-rounds=3", "-c", f"reply-timeout={REPLIES_WITHIN}")
        return self.start("run", str(APP), "--federation", self.standing.path, *config, *words)

    def end(self, run: Driven) -> Ended:
        """Wait until a run is home."""
        code = run.end()
        run_id = re.findall(r"^run (\d+): ", run.text, re.MULTILINE)[-1]
        records = [json.loads(file.read_text()) for file in (self.standing.work / "runs").glob("????-??-??/*/run.json")]
        found = [record for record in records if record["run_id"] == run_id]
        assert found, f"run {run_id} did not come home: {run.text}"
        return Ended(code, run.text, found[-1])

    def kill_at(self, pattern: str, *words: str) -> None:
        """Start a `flowerbed` command in a terminal, and kill it when it shows that it is at this step.

        What it started must end with it: a playbook that goes on alone would meet the next one.
        """
        ours, its = os.openpty()
        process = subprocess.Popen(
            [self.standing.program, *words],
            cwd=self.standing.work,
            env={**os.environ, "COLUMNS": "200", "TERM": "xterm"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=its,
        )
        os.close(its)
        shown = ""
        with os.fdopen(ours, "rb", buffering=0) as terminal, suppress(OSError):  # EIO: it has ended
            while not re.search(pattern, shown) and (part := terminal.read(4096)):
                shown += part.decode(errors="replace")
            process.kill()
        process.wait()
        assert re.search(pattern, shown), f"it ended before it was at {pattern}: {shown[-2000:]}"
        playbook = ["pgrep", "--full", f"ansible-playbook.*{self.federation.hosts_file}"]
        gone = "the playbook to end with who started it"
        wait_for(lambda: subprocess.run(playbook, capture_output=True, check=False).returncode == 1, gone, seconds=30)

    def until_held(self, host: str, file: str) -> None:
        """Wait until somebody holds a lock file of a host."""
        self.on(host, f"until [ -e {file} ] && ! flock --nonblock {file} true; do sleep 0.1; done")

    def until_free(self, host: str, file: str) -> None:
        """Wait until nobody holds it."""
        self.on(host, f"flock --timeout 60 {file} true")

    # What must hold -------------------------------------------------------------------------------------------

    def kept(self) -> Kept:
        """What stands now of that which must not be lost."""
        record = json.loads(self.on("coordinator", "cat /var/lib/flower/nodes.json"))
        sums = "find %s -type f -not -name '*.partial' | sort | xargs -r sha256sum"
        keys, data = {}, {}
        for host in ["coordinator", *SITES]:
            for line in self.on(host, sums % "/etc/flower").splitlines():
                digest, path = line.split(maxsplit=1)
                if Path(path).suffix in ("", ".key", ".secret", ".crt"):
                    keys[f"{host}:{path}"] = digest
            if host != "coordinator":
                data[host] = self.on(host, sums % "/srv/hospital")
        done = self.standing.flwr("supernode", "list", "--format", "json")
        assert done.returncode == 0, done.stderr
        listed = json.loads(done.stdout)["nodes"]
        runs = self.standing.succeed("runs", self.standing.path, "--limit", "1000")["runs"]
        return Kept(
            {site: (entry["node_id"], entry["public_key"]) for site, entry in record.items()},
            {str(node["node-id"]) for node in listed if node["status"] != "unregistered"},
            keys,
            data,
            {str(run["run_id"]) for run in runs},
        )

    def recovered(self) -> None:
        """Wait until every unit runs and every site is online."""
        wait_for(lambda: self.healthy() == "", "the federation to be healthy", self.healthy, RECOVERS_WITHIN)

    def healthy(self) -> str:
        """What is wrong with the federation, as its status says; empty where nothing is."""
        try:
            known = status.look(self.federation)
        except FlowerbedError as error:
            return str(error)
        hosts = [f"{host.name}: {host.problem or host.node}" for host in known.hosts]
        return "" if known.healthy else ", ".join(hosts)

    def told(self) -> str:
        """What `flowerbed status` tells the operator, in words and with its exit code."""
        done = self.standing.flowerbed("status", self.standing.path)
        assert "Traceback" not in done.stderr
        return f"exit {done.returncode}: {done.stdout} {done.stderr}"

    # Things to undo -------------------------------------------------------------------------------------------

    @contextmanager
    def small_disk(self, host: str, folder: str, units: str, megabytes: int) -> Iterator[None]:
        """Give a folder of a host a small file system of its own for a while; its content comes along and goes back."""
        aside = f"{folder}.aside"
        self.on(
            host,
            f"systemctl stop {units} 'flower-*app-warm.service' && mv {folder} {aside} && mkdir {folder} && "
            f"mount -t tmpfs -o size={megabytes}m tmpfs {folder} && cp -a {aside}/. {folder}/ && "
            f"chmod --reference={aside} {folder} && chown --reference={aside} {folder} && systemctl start {units}",
        )
        try:
            self.recovered()
            yield
        finally:
            self.on(
                host,
                f"systemctl stop {units} 'flower-*app-warm.service' && rm -rf {aside} && "
                f"cp -a {folder} {aside} && umount {folder} && "
                f"rmdir {folder} && mv {aside} {folder} && systemctl start {units}",
            )


def wait_for(
    holds: Callable[[], object], what: str, why: Callable[[], str] = str, seconds: float = ENDS_WITHIN
) -> None:
    """Wait until something holds; fail with what is the matter if it never does."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what}: {why()}"
        time.sleep(1)
