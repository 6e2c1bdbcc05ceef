"""Contract 2: the way to a federation's Control API, through SSH to the coordinator's loopback."""

import json
import shlex
import socket
import ssl
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flowerbed import inventory, ssh
from flowerbed.errors import UsageError, WorkFailed
from flowerbed.federation import FederationFolder
from flowerbed.runs import flwr, source
from flowerbed.runs.connection import Connection, Deployed

SUPERLINK_PORT = 8000
_RECORD = "/var/lib/flower/nodes.json"
_CURRENT = "/opt/flower/current"
_TLS_SECONDS = 10.0


@dataclass(frozen=True)
class Way:
    """An open way to a standing federation."""

    connection: Connection
    shell: ssh.Shell
    deployed: Deployed


def coordinator(federation: FederationFolder) -> ssh.Shell:
    """A shell on the coordinator; UsageError when the federation was never brought up."""
    return ssh.Shell(federation, inventory.read(federation).coordinator)


@contextmanager
def open_way(federation: FederationFolder) -> Iterator[Way]:
    """Open the way while the context lasts.

    Raises WorkFailed when the coordinator does not answer, UsageError when there is none.
    """
    shell = coordinator(federation)
    with flwr.warm() as (home, process), ExitStack() as stack:  # it imports while SSH connects
        shell = replace(shell, shared=home / "ssh")
        # Nearly always the port is Flower's own; asking for it first would be a connection more.
        port = stack.enter_context(ssh.forward(shell, SUPERLINK_PORT))
        facts = _facts(shell)
        if int(facts["port"]) != SUPERLINK_PORT:
            stack.close()
            port = stack.enter_context(ssh.forward(shell, int(facts["port"])))
        trusted = _trusted(federation, facts)
        if trusted is not None:
            _check_certificate(federation, shell.host.name, port)
        connection = Connection(f"127.0.0.1:{port}", trusted, insecure=trusted is None, flwr=process, home=home)

        def again() -> Deployed:
            return _deployed(federation, _facts(shell))

        yield Way(connection, shell, replace(_deployed(federation, facts), again=again))


def _trusted(federation: FederationFolder, facts: dict[str, Any]) -> Path | None:
    """The CA's certificate; None where the SuperLink has no TLS."""
    if facts["insecure"]:
        return None
    if not federation.ca_certificate.exists():
        raise UsageError(f"{federation.ca_certificate} is missing: copy the CA's certificate there")
    return federation.ca_certificate


def _deployed(federation: FederationFolder, facts: dict[str, Any]) -> Deployed:
    return Deployed(
        name=federation.name,
        sites={name: str(node["node_id"]) for name, node in facts["nodes"].items()},
        former={one: name for name, node in facts["nodes"].items() for one in node.get("former", [])},
        release=facts["release"],
        packages=facts["packages"],
        modules=frozenset(facts["modules"]),
        labels={name: site.labels for name, site in inventory.read(federation).sites.items()},
    )


def sites(federation: FederationFolder) -> dict[str, str]:
    """The node id of each site that is registered; raises as `open_way` does."""
    return {name: str(node["node_id"]) for name, node in record(federation).items()}


def record(federation: FederationFolder) -> dict[str, Any]:
    """The coordinator's record of the sites' nodes and keys, by the site's name; raises as `open_way` does."""
    nodes: dict[str, Any] = _facts(coordinator(federation))["nodes"]
    return nodes


def run_flwr(way: Way, words: list[str]) -> int:
    """Run a program, usually `flwr`, that finds the federation as its default connection; returns its exit code.

    Raises UsageError where Flower would take another connection than the federation's.
    """
    _refuse_other_connection(words)
    with tempfile.TemporaryDirectory(prefix="flowerbed-connect-") as folder:
        home = Path(folder)
        flwr.write_config(home, way.connection)
        try:
            return subprocess.run(words, env=flwr.environment(home), check=False).returncode
        except FileNotFoundError:
            raise UsageError(f"{words[0]} is no program on this machine: use flwr and its arguments") from None


def _refuse_other_connection(words: list[str]) -> None:
    """Refuse `flwr run` of an app that has connections of its own, unless the federation's is named.

    Flower would take the app's default one, which usually is a simulation on this machine.
    """
    if words[:2] != ["flwr", "run"] or flwr.CONNECTION_NAME in words:
        return
    for word in words[2:] or ["."]:
        if source.has_connections(Path(word)):
            raise UsageError(
                f"{word} has connections of its own in [tool.flwr.federations], which Flower would use: name the "
                f"federation's, `{shlex.join(['flwr', 'run', word, flwr.CONNECTION_NAME, '--stream'])}`"
            )


def _check_certificate(federation: FederationFolder, name: str, port: int) -> None:
    """Say in one line what is wrong with the SuperLink's certificate; `flwr` would only fail to connect."""
    context = ssl.create_default_context(cafile=str(federation.ca_certificate))
    try:
        with (
            socket.create_connection(("127.0.0.1", port), timeout=_TLS_SECONDS) as plain,
            context.wrap_socket(plain, server_hostname="localhost"),
        ):
            return
    except ssl.SSLCertVerificationError as error:
        raise WorkFailed(
            f"the SuperLink's certificate on {name} is refused ({error.verify_message}): "
            f"`flowerbed up {federation.name}` renews it"
        ) from None
    except OSError as error:
        raise WorkFailed(
            f"the SuperLink on {name} does not answer ({error}): `flowerbed status {federation.name}` says more, "
            f"`flowerbed up {federation.name}` mends it"
        ) from None


def _facts(shell: ssh.Shell) -> dict[str, Any]:
    """What the coordinator says of itself, in one call."""
    answer = shell.run(["python3", "-c", _FACTS, _RECORD, _CURRENT, str(SUPERLINK_PORT)])
    try:
        facts: dict[str, Any] = json.loads(answer)
    except json.JSONDecodeError:
        raise WorkFailed(f"{shell.host.name} answered what cannot be read: {answer[:200]!r}") from None
    if not facts["installed"]:
        raise WorkFailed(
            f"{shell.host.name} has no SuperLink: bring the federation up with `flowerbed up {shell.federation.name}`"
        )
    return facts


# Runs on the coordinator with its own Python; prints one JSON document.
_FACTS = """
import json, pathlib, re, sys
record, current, port = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])
unit = pathlib.Path("/etc/systemd/system/flower-superlink.service")
text = unit.read_text() if unit.exists() else ""
found = re.search(r"--port (\\d+)", text)
packages, modules = {}, set()
for entry in current.glob("lib/python3.*/site-packages/*"):
    if entry.suffix == ".dist-info":
        name, _, version = entry.name[: -len(".dist-info")].partition("-")
        packages[re.sub(r"[-_.]+", "-", name).lower()] = version
    elif entry.suffix in (".py", ".so") or entry.is_dir():
        modules.add(entry.name.partition(".")[0])
print(json.dumps({
    "installed": unit.exists() and current.exists(),
    "port": int(found.group(1)) if found else port,
    "insecure": "--insecure" in text,
    "nodes": json.loads(record.read_text()) if record.exists() else {},
    "release": current.resolve().name if current.exists() else None,
    "packages": packages,
    "modules": sorted(modules),
}))
"""
