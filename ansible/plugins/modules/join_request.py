# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Writes a site's request to join its federation, signed by the node's key."""

from __future__ import annotations

DOCUMENTATION = r"""
module: join_request
short_description: Write a site's request to join its federation
version_added: "0.2.0"
description:
  - Writes a file with the site's name and public key, signed by the node's key, which proves that the site has it.
  - The file holds no secret. It stays as it is as long as key, kit and names do, so a second call changes nothing.
requirements:
  - cryptography, which every release carries
options:
  key:
    description: Path of the node's private key, as M(flowerbed.federation.node_key) makes it.
    type: path
    required: true
  path:
    description: File to write.
    type: path
    required: true
  federation:
    description: The federation's name.
    type: str
    required: true
  site:
    description: The site's name in the federation.
    type: str
    required: true
  kit:
    description: The id of the kit from which the site joins.
    type: str
    required: true
  release:
    description: The id of the release that the site runs.
    type: str
    required: true
attributes:
  check_mode:
    support: full
    description: Says whether the file would be written.
seealso:
  - module: flowerbed.federation.node_key
author:
  - The Flowerbed authors (@flowerbed)
"""

EXAMPLES = r"""
- name: Ask to be let in
  flowerbed.federation.join_request:
    key: /etc/flower/supernode/node_key
    path: /etc/flower/kit/request.json
    federation: study
    site: hospital-d
    kit: 4f3c1d0e9b8a7766
    release: 1.41.0-f2ec610341
  vars:
    ansible_python_interpreter: /opt/flower/current/bin/python
"""

RETURN = r"""
request:
  description: What the file holds.
  type: dict
  returned: success
fingerprint:
  description: The SHA-256 fingerprint of the public key, as C(ssh-keygen -l) prints it.
  type: str
  returned: success
  sample: SHA256:2BVyTvLYRKqOBTfV1wXvTvkDDYOXgC3dXoVuPKbZpQ4
"""

import base64
import hashlib
import json
import traceback
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.flowerbed.federation.plugins.module_utils import pki

try:
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
except ImportError:
    CRYPTOGRAPHY_MISSING = traceback.format_exc()
else:
    CRYPTOGRAPHY_MISSING = ""

# What is signed begins with its purpose, so that no signature of the node's, made for Flower, can stand for one.
PURPOSE = b"flowerbed join request 1\n"


def sign(key: ec.EllipticCurvePrivateKey, request: dict[str, Any]) -> str:
    """The signature over the request's canonical form."""
    text = json.dumps(request, sort_keys=True, separators=(",", ":")).encode()
    return base64.b64encode(key.sign(PURPOSE + text, ec.ECDSA(hashes.SHA384()))).decode()


def wanted(key: ec.EllipticCurvePrivateKey, params: dict[str, Any]) -> dict[str, Any]:
    """The request without its time and signature."""
    line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()
    digest = base64.b64encode(hashlib.sha256(base64.b64decode(line.split()[1])).digest()).decode().rstrip("=")
    names = {name: params[name] for name in ("federation", "site", "kit", "release")}
    return {"schema": 1, **names, "public_key": line, "fingerprint": f"SHA256:{digest}"}


def written(path: Path) -> dict[str, Any]:
    """The request that is there already; empty when none can be read."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def main() -> None:
    """Write the request when it would say something else."""
    module = AnsibleModule(
        argument_spec={
            "key": {"type": "path", "required": True, "no_log": False},
            "path": {"type": "path", "required": True},
            **{name: {"type": "str", "required": True} for name in ("federation", "site", "kit", "release")},
        },
        supports_check_mode=True,
    )
    if CRYPTOGRAPHY_MISSING:
        module.fail_json(msg=missing_required_lib("cryptography"), exception=CRYPTOGRAPHY_MISSING)
    path = Path(module.params["path"])
    try:
        key = serialization.load_ssh_private_key(Path(module.params["key"]).read_bytes(), password=None)
    except (OSError, ValueError) as error:
        module.fail_json(msg=f"{module.params['key']} is no node's key ({error}): run the role supernode first")
    request, there = wanted(key, module.params), written(path)
    changed = {name: value for name, value in there.items() if name not in ("made", "signature")} != request
    if changed and not module.check_mode:
        request["made"] = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        request["signature"] = sign(key, request)
        pki.replace_file(path, (json.dumps(request, indent=2) + "\n").encode(), 0o644)
    module.exit_json(changed=changed, request=request if changed else there, fingerprint=request["fingerprint"])


if __name__ == "__main__":
    main()
