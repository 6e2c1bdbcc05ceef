# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Makes a TLS key on the host that uses it, and asks for a certificate or makes one for the loopback."""

from __future__ import annotations

DOCUMENTATION = r"""
module: certificate_request
short_description: Make a TLS key on its host and request a certificate
version_added: "0.1.0"
description:
  - Makes an ECDSA P-256 key when it is missing. The key never leaves the host; the request does.
  - Returns the request and the certificate in use, so that M(flowerbed.federation.certificate) can decide.
  - With O(self_signed_path) it also keeps a self-signed certificate for the host's own loopback, for services
    that only programs on the same host talk to.
requirements:
  - cryptography, which every release carries
options:
  key_path:
    description: Path of the key.
    type: path
    required: true
  owner:
    description: Owner of the key.
    type: str
    default: root
  group:
    description: Group of the key.
    type: str
    default: root
  mode:
    description: Permissions of the key, as a quoted octal number.
    type: str
    default: "0600"
  common_name:
    description: A label for people in the certificate's subject; clients look at the names below.
    type: str
    required: true
  dns_names:
    description: DNS names of the host, without wildcards.
    type: list
    elements: str
    default: []
  ip_addresses:
    description: IP addresses of the host.
    type: list
    elements: str
    default: []
  certificate_path:
    description: Path of the certificate in use; its content is returned if it exists.
    type: path
  self_signed_path:
    description:
      - Path of a self-signed certificate to make or renew with this key, with mode 0644.
      - Only V(localhost) and addresses of the loopback are accepted as its names.
    type: path
  days:
    description:
      - Days for which a self-signed certificate is valid.
      - Its one user is given the file itself as root, so an early end adds an outage and no safety.
    type: int
    default: 3650
  renew:
    description: Make a new key although there is one; every certificate of the old one has to be made again.
    type: bool
    default: false
  renew_before:
    description: Days before its end at which a self-signed certificate is renewed.
    type: int
    default: 30
attributes:
  check_mode:
    support: full
    description: Says whether a key would be made; the request of a missing key is empty.
  diff_mode:
    support: full
    description: Shows what is made and why; never the key.
seealso:
  - module: flowerbed.federation.certificate
author:
  - The Flowerbed authors (@flowerbed)
"""

EXAMPLES = r"""
- name: Request the gateway's certificate
  flowerbed.federation.certificate_request:
    key_path: /etc/flower/gateway/server.key
    certificate_path: /etc/flower/gateway/server.crt
    common_name: coordinator
    dns_names: [flower.example.org]
    ip_addresses: [203.0.113.7]
  register: request
  vars:
    ansible_python_interpreter: /opt/flower/current/bin/python

- name: Make the certificate of the SuperNode's own loopback
  flowerbed.federation.certificate_request:
    key_path: /etc/flower/supernode/runtime.key
    self_signed_path: /etc/flower/supernode/runtime.crt
    common_name: hospital-a
    dns_names: [localhost]
    ip_addresses: [127.0.0.1, "::1"]
  vars:
    ansible_python_interpreter: /opt/flower/current/bin/python
"""

RETURN = r"""
csr:
  description: The request in PEM form; empty in check mode when the key is missing. It is not stored.
  type: str
  returned: success
certificate:
  description: The certificate in O(certificate_path), in PEM form; empty when there is none.
  type: str
  returned: success
self_signed:
  description: The self-signed certificate in PEM form; empty without O(self_signed_path).
  type: str
  returned: success
reasons:
  description: What was made or altered, or would be in check mode, and why.
  type: list
  elements: str
  returned: success
  sample: ["/etc/flower/gateway/server.key: missing"]
"""

import grp
import os
import pwd
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.flowerbed.federation.plugins.module_utils import pki


class Request:
    """Keeps the key and what is made with it, and remembers why it changed something."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.params = module.params
        self.names = pki.names(self.params["dns_names"], self.params["ip_addresses"])
        self.reasons: list[str] = []

    def run(self) -> dict[str, object]:
        """Returns the module's result; raises PkiError and OSError."""
        if not self.names:
            raise pki.PkiError("a certificate needs a name: set dns_names or ip_addresses")
        key = self.key()
        csr = pki.to_pem(pki.make_request(key, self.params["common_name"], self.names)) if key else ""
        return {
            "csr": csr,
            "certificate": self.current(),
            "self_signed": self.self_signed(key),
            "changed": bool(self.reasons),
            "reasons": self.reasons,
            "diff": {"prepared": "\n".join(self.reasons)},
        }

    def key(self) -> pki.PrivateKey | None:
        """The key, made if it is missing; None when check mode leaves it missing."""
        path = Path(self.params["key_path"])
        if self.params["renew"] or not path.exists():
            self.reasons.append(f"{path}: to be renewed" if path.exists() else f"{path}: missing")
            if self.module.check_mode:
                return None
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            pki.replace_file(path, pki.key_to_pem(pki.make_key()), 0o600)
            self.permissions(path)
        elif self.permissions(path):
            self.reasons.append(f"{path}: its owner or mode was another")
        return pki.read_key(path)

    def permissions(self, path: Path) -> bool:
        """Give the key its owner and mode; returns whether they were others."""
        try:
            mode = int(self.params["mode"], 8)
            wanted = (pwd.getpwnam(self.params["owner"]).pw_uid, grp.getgrnam(self.params["group"]).gr_gid)
        except (ValueError, KeyError) as error:
            raise pki.PkiError(f"{path}: {error}: correct owner, group or mode") from None
        stat = path.stat()
        if (stat.st_uid, stat.st_gid) == wanted and stat.st_mode & 0o7777 == mode:
            return False
        if not self.module.check_mode:
            os.chown(path, *wanted)
            path.chmod(mode)
        return True

    def current(self) -> str:
        """The certificate in use as it stands in its file, or an empty text."""
        path = self.params["certificate_path"]
        return Path(path).read_text() if path and Path(path).exists() else ""

    def self_signed(self, key: pki.PrivateKey | None) -> str:
        """The loopback's certificate, made or renewed as needed; an empty text without one."""
        if not self.params["self_signed_path"]:
            return ""
        path = Path(self.params["self_signed_path"])
        before = read_if_certificate(path)
        if key is None:
            self.reasons.append(f"{path}: its key is missing")
            return ""
        reasons = pki.reasons_to_renew(
            before, key.public_key(), None, self.names, renew_before=self.params["renew_before"]
        )
        if before is not None and not reasons:
            return pki.to_pem(before)
        self.reasons += [f"{path}: {reason}" for reason in reasons]
        made = pki.make_loopback(key, self.params["common_name"], self.names, self.params["days"])
        if not self.module.check_mode:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            pki.replace_file(path, pki.to_pem(made).encode(), 0o644)
        return "" if self.module.check_mode else pki.to_pem(made)


def read_if_certificate(path: Path) -> pki.Certificate | None:
    """The certificate in the file, or None; one that cannot be read is made anew, it is this module's own."""
    if not path.exists():
        return None
    try:
        return pki.read_certificate(path.read_bytes(), str(path))
    except pki.PkiError:
        return None


def main() -> None:
    """Make what is missing, return what the authority needs to sign."""
    texts = {"type": "list", "elements": "str", "default": []}
    module = AnsibleModule(
        argument_spec={
            "key_path": {"type": "path", "required": True, "no_log": False},
            "owner": {"type": "str", "default": "root"},
            "group": {"type": "str", "default": "root"},
            "mode": {"type": "str", "default": "0600"},
            "common_name": {"type": "str", "required": True},
            "dns_names": texts,
            "ip_addresses": texts,
            "certificate_path": {"type": "path"},
            "self_signed_path": {"type": "path"},
            "days": {"type": "int", "default": 3650},
            "renew": {"type": "bool", "default": False},
            "renew_before": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    if pki.CRYPTOGRAPHY_MISSING:
        module.fail_json(msg=missing_required_lib("cryptography"), exception=pki.CRYPTOGRAPHY_MISSING)
    try:
        result = Request(module).run()
    except pki.PkiError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename} cannot be read or written: {error.strerror}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
