# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Makes a SuperNode's key on the site; only its public part is returned."""

from __future__ import annotations

DOCUMENTATION = r"""
module: node_key
short_description: Make a SuperNode's key on the site
version_added: "0.1.0"
description:
  - Makes an ECDSA P-384 key in OpenSSH form, the only kind that Flower accepts, when it is missing.
  - The private key never leaves the host; the public key and its fingerprint are returned.
  - A key is replaced in two calls, with time between them to register the next one. O(next) makes it beside the key
    in use, O(take_next) puts it in the key's place.
requirements:
  - cryptography, which every release carries
options:
  path:
    description: The private key's path; owned by root with mode 0600. The public key stands beside it.
    type: path
    required: true
  next:
    description: Make the key that follows, beside the one in use; there is only ever one.
    type: bool
    default: false
  take_next:
    description: Put the next key, if there is one, in the place of the one in use, which is then gone.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Says whether a key would be made; the public key of a missing key is empty.
  diff_mode:
    support: full
    description: Says why anything was to be done.
author:
  - The Flowerbed authors (@flowerbed)
"""

EXAMPLES = r"""
- name: Make the SuperNode's key
  flowerbed.federation.node_key:
    path: /etc/flower/supernode/node_key
  vars:
    ansible_python_interpreter: /opt/flower/current/bin/python
"""

RETURN = r"""
public_key:
  description: The public key as one OpenSSH line.
  type: str
  returned: always
next_public_key:
  description: The public key of the next key as one OpenSSH line; empty without one.
  type: str
  returned: always
fingerprint:
  description: The public key's SHA-256 fingerprint, as C(ssh-keygen -l) prints it.
  type: str
  returned: always
  sample: "SHA256:n0Qn1v6nYtS0gQ2mJ3v0fY3l8sTzD2r6E6K3aF8rX9c"
"""

import base64
import contextlib
import hashlib
import os
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.flowerbed.federation.plugins.module_utils import audit

try:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    HAS_CRYPTOGRAPHY = True
except ImportError:
    HAS_CRYPTOGRAPHY = False


def make_key(path: Path) -> None:
    """Write a new private key, readable by root alone, as a whole or not at all."""
    key = ec.generate_private_key(ec.SECP384R1())
    content = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    new = path.with_name(f".{path.name}.new")
    new.unlink(missing_ok=True)
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as stream:
        stream.write(content)
    new.replace(path)


def public_line(path: Path) -> str:
    """The public key of a private key file as one OpenSSH line.

    Raises ValueError when the file holds no ECDSA key in OpenSSH form.
    """
    key = serialization.load_ssh_private_key(path.read_bytes(), password=None)
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise ValueError("not an ECDSA key")
    line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return line.decode()


def fingerprint(line: str) -> str:
    """The SHA-256 fingerprint of an OpenSSH public key line."""
    digest = hashlib.sha256(base64.b64decode(line.split()[1])).digest()
    return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")


def main() -> None:
    """Make what is missing, put the next key in place where asked to, and return the public parts."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "next": {"type": "bool", "default": False},
            "take_next": {"type": "bool", "default": False},
        },
        supports_check_mode=True,
    )
    if not HAS_CRYPTOGRAPHY:
        module.fail_json(msg=missing_required_lib("cryptography"))
    path = Path(module.params["path"])
    follower = path.with_name(f"{path.name}.next")
    reasons = _make_missing(module, path)
    if not path.exists():
        diff = {"prepared": "\n".join(reasons)}
        module.exit_json(changed=True, public_key="", next_public_key="", fingerprint="", diff=diff)
    if module.params["next"]:
        reasons += _make_missing(module, follower)
    changed = bool(reasons)
    if module.params["take_next"] and follower.exists():
        changed = True
        if not module.check_mode:
            follower.replace(path)
            _note(path)
    line, next_line = _read(module, path), _read(module, follower) if follower.exists() else ""
    public = path.with_name(f"{path.name}.pub")
    if not public.exists() or public.read_text() != f"{line}\n":
        changed = True
        if not module.check_mode:
            public.write_text(f"{line}\n")
            public.chmod(0o644)
        reasons.append(f"{public}: it is not the public part of the key")
    shown = {"public_key": line, "next_public_key": next_line, "fingerprint": fingerprint(line)}
    module.exit_json(changed=changed, diff={"prepared": "\n".join(reasons)} if reasons else {}, **shown)


def _note(path: Path) -> None:
    """Say in the host's audit trail which key it uses from now on; a host without a journal has none."""
    with contextlib.suppress(OSError):
        audit.record("key.rotated", "the node has a new key", fingerprint=fingerprint(public_line(path)))


def _make_missing(module: AnsibleModule, path: Path) -> list[str]:
    """Make the key if there is none, and keep it closed; returns why anything was to be done."""
    if path.exists():
        return _tighten(module, path)
    if not module.check_mode:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        make_key(path)
    return [f"{path}: its key is missing"]


def _read(module: AnsibleModule, path: Path) -> str:
    try:
        return public_line(path)
    except ValueError as error:
        module.fail_json(msg=f"{path} is no ECDSA key in OpenSSH form ({error}): move it away, a new one will be made")
        raise  # for type checkers: fail_json does not return


def _tighten(module: AnsibleModule, path: Path) -> list[str]:
    """A private key that others may read is a finding to mend at once."""
    stat = path.stat()
    if stat.st_uid == 0 and stat.st_mode & 0o7777 == 0o600:  # noqa: PLR2004 - the mode itself says most
        return []
    if not module.check_mode:
        os.chown(path, 0, 0)
        path.chmod(0o600)
    return [f"{path}: it was owned by {stat.st_uid} with mode {stat.st_mode & 0o7777:04o}, not by 0 with 0600"]


if __name__ == "__main__":
    main()
