"""Values and helpers that the tests of the collection share."""

import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
sys.path.insert(0, str(ROOT / "ansible" / "collections"))

from ansible_collections.flowerbed.federation.plugins.module_utils import pki  # noqa: E402

Result = dict[str, Any]
Play = Callable[..., list[Result]]
Direct = Callable[..., Result]


@dataclass(frozen=True)
class SuperLink:
    """A SuperLink with TLS and node authentication on this machine's loopback."""

    address: str
    ca: Path
    database: Path


def make_certificates(folder: Path) -> None:
    """Write ca.crt, server.crt and server.key for 127.0.0.1."""
    authority = pki.make_authority("Test CA", pki.permitted([], ["127.0.0.1/32"]), days=2)
    key, loopback = pki.make_key(), pki.names([], ["127.0.0.1"])
    server = pki.sign_request(authority, pki.make_request(key, "coordinator", loopback), loopback, days=1)
    (folder / "ca.crt").write_text(pki.to_pem(authority.certificate))
    (folder / "server.crt").write_text(pki.to_pem(server))
    pki.replace_file(folder / "server.key", pki.key_to_pem(key), 0o600)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def public_key() -> str:
    """A new node key's public line, as ssh-keygen writes it."""
    key = ec.generate_private_key(ec.SECP384R1()).public_key()
    line = key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return f"{line.decode()} root@site"
