"""A real federation on this machine's loopback: a SuperLink with TLS and node authentication, and its SuperNodes."""

import datetime
import ipaddress
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from flowerbed.paths import ANSIBLE
from flowerbed.runs.connection import Connection, Deployed
from flowerbed.runs.flwr import Control, environment

_BIN = Path(sys.executable).parent
_FILES = ANSIBLE / "roles" / "common" / "files"
# What instance.py does on a coordinator, without its sandbox.
_SERVERAPP = f"""#!{sys.executable}
import importlib, os, pathlib, runpy
recorder = runpy.run_path("{_FILES / "replies.py"}")
if pathlib.Path("recording").exists():
    place = importlib.import_module("flwr.superlink.runtime.run_serverapp")
    recorder["stand_in"](place, "HttpGrid", pathlib.Path(os.environ["FLOWERBED_RESULTS"]))
importlib.import_module("flwr.superlink.cli.flwr_serverapp").flwr_serverapp()
"""


class LoopbackFederation:
    """Starts processes in `folder` and ends those, and no others, in `stop`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.results = folder / "results"
        self.results.mkdir()
        self.port = free_port()
        self.sites: dict[str, str] = {}
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        make_certificates(folder)
        self._serverapp = folder / "bin" / "flwr-serverapp"
        self._serverapp.parent.mkdir()
        self._serverapp.write_text(_SERVERAPP)
        self._serverapp.chmod(0o755)
        self.record(True)
        self.connection = Connection(f"127.0.0.1:{self.port}", folder / "ca.crt")
        self.control = Control(folder / "operator", self.connection)

    @property
    def deployed(self) -> Deployed:
        return Deployed("loopback", dict(self.sites), release="test-release", results=str(self.results))

    def record(self, on: bool) -> None:
        """Whether the ServerApps of the runs to come note their messages, as they do on a host of ours."""
        (self.folder / "recording").unlink(missing_ok=True)
        if on:
            (self.folder / "recording").touch()

    def start_superlink(self) -> None:
        self._start(
            "superlink",
            [
                *("flower-superlink", "--port", str(self.port), "--database", "superlink.db"),
                *("--ssl-ca-certfile", "ca.crt", "--ssl-certfile", "server.crt", "--ssl-keyfile", "server.key"),
                *("--enable-supernode-auth", "--disable-runtime-dependency-installation"),
            ],
        )
        self._until(lambda: _listens(self.port), "the SuperLink to listen")

    def register(self, site: str) -> None:
        key = self.folder / f"{site}.key"
        private = ec.generate_private_key(ec.SECP384R1())
        key.write_bytes(
            private.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.OpenSSH,
                serialization.NoEncryption(),
            )
        )
        key.chmod(0o600)
        public = key.with_suffix(".pub")
        public.write_bytes(
            private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        )
        self.sites[site] = self.control.register(public, site)

    def forget(self, site: str) -> None:
        """Leave a registered site out of what the operator knows."""
        del self.sites[site]

    def start_supernode(self, site: str, more: str = "") -> None:
        """Start a site's SuperNode; `more` is added to its node config, in Flower's form."""
        partition = list(self.sites).index(site)
        self._start(
            site,
            [
                *("flower-supernode", "--superlink", f"127.0.0.1:{self.port}", "--root-certificates", "ca.crt"),
                *("--auth-supernode-private-key", f"{site}.key", "--port", str(free_port())),
                *("--node-config", f"partition-id={partition} num-partitions={len(self.sites)} {more}"),
            ],
        )

    def wait_online(self) -> None:
        """Wait until the SuperLink has activated every node; its log tells, and asking it costs a process each time."""
        log = self.folder / "superlink.log"
        self._until(
            lambda: all(f"Activated node_id={node}" in log.read_text() for node in self.sites.values()),
            "all SuperNodes to be online",
        )

    def end(self, name: str) -> None:
        """End one process and its children."""
        process = self._processes.pop(name)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()

    def stop(self) -> None:
        for name in reversed(list(self._processes)):
            self.end(name)

    def _start(self, name: str, command: list[str]) -> None:
        home = environment(self.folder / f"{name}-home")
        with (self.folder / f"{name}.log").open("ab") as log:
            self._processes[name] = subprocess.Popen(
                [str(_BIN / command[0]), *command[1:]],
                cwd=self.folder,
                env=home | {"PATH": f"{self._serverapp.parent}:{home['PATH']}", "FLOWERBED_RESULTS": str(self.results)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def _until(self, condition: Callable[[], bool], what: str, seconds: float = 90) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            for name, process in self._processes.items():
                assert process.poll() is None, f"{name} ended: {(self.folder / f'{name}.log').read_text()}"
            assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
            time.sleep(0.2)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def make_certificates(folder: Path) -> None:
    """Write ca.crt, server.crt and server.key for 127.0.0.1, valid for a day."""
    start = datetime.datetime.now(datetime.UTC) - datetime.timedelta(minutes=5)
    ca_key, server_key = (ec.generate_private_key(ec.SECP384R1()) for _ in range(2))
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "loopback CA")])

    def builder(subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(ca_name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(start + datetime.timedelta(days=1))
        )

    ca = (
        builder(ca_name, ca_key)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA384())
    )
    server = (
        builder(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")]), server_key)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key()), critical=False)
        .sign(ca_key, hashes.SHA384())
    )
    (folder / "ca.crt").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    (folder / "server.crt").write_bytes(server.public_bytes(serialization.Encoding.PEM))
    key = folder / "server.key"
    key.write_bytes(
        server_key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    key.chmod(0o600)
