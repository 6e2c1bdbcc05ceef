"""Filters that must agree with what Flower itself writes."""

import base64

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.flowerbed.federation.plugins.filter.keys import node_header
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.supercore.primitives.asymmetric import public_key_to_bytes

from tests.ansible.support import public_key


def test_a_key_is_written_as_the_header_of_flowers_own_requests() -> None:
    line = public_key()
    key = serialization.load_ssh_public_key(line.encode())
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert node_header(line) == base64.b64encode(public_key_to_bytes(key)).decode("ascii")


def test_what_is_no_key_of_flowers_kind_is_named() -> None:
    with pytest.raises(AnsibleFilterError, match="no ECDSA key in OpenSSH form"):
        node_header("ssh-ed25519 AAAA nobody")
