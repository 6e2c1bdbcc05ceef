# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Filters that write a node's public key in other forms."""

from __future__ import annotations

import base64
from typing import Any

from ansible.errors import AnsibleFilterError

try:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    CRYPTOGRAPHY = True
except ImportError:
    CRYPTOGRAPHY = False


def node_header(line: str) -> str:
    """Write a public key in OpenSSH form as Flower's header flwr-public-key has it: PEM in base64."""
    if not CRYPTOGRAPHY:
        raise AnsibleFilterError("node_header needs the Python package cryptography beside ansible-core: install it")
    try:
        key = serialization.load_ssh_public_key(line.strip().encode())
    except ValueError:
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise AnsibleFilterError(f"'{line[:60]}' is no ECDSA key in OpenSSH form, the only kind that Flower takes")
    pem = key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return base64.b64encode(pem).decode()


class FilterModule:
    """The collection's filter for keys."""

    def filters(self) -> dict[str, Any]:
        """Name the filter."""
        return {
            "node_header": node_header,
        }
