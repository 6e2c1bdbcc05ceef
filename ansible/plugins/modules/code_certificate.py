# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Certifies a key that signs code, with the authority on the operator's machine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: code_certificate
short_description: Certify a key that signs code, such as the kits of hospitals
version_added: "0.2.0"
description:
  - Signs a request with the authority; the certificate is good for signing code and for nothing else.
  - Runs on the operator's machine (C(delegate_to) V(localhost)), where the authority is.
  - The passphrase is kept out of all output, so the task needs no C(no_log), which would hide the messages.
requirements:
  - cryptography
options:
  authority:
    description: Folder of the authority, as M(flowerbed.federation.authority) keeps it.
    type: path
    required: true
  passphrase:
    description: Passphrase of the authority's key.
    type: str
    required: true
  csr:
    description: The request in PEM form.
    type: str
    required: true
  days:
    description: Days for which the certificate is valid; it ends with the authority at the latest.
    type: int
    default: 30
attributes:
  check_mode:
    support: full
    description: Gives an empty certificate.
seealso:
  - module: flowerbed.federation.authority
author:
  - The Flowerbed authors (@flowerbed)
"""

EXAMPLES = r"""
- name: Certify the key that signs a kit
  flowerbed.federation.code_certificate:
    authority: "{{ authority_path }}"
    passphrase: "{{ authority_passphrase }}"
    csr: "{{ lookup('ansible.builtin.file', 'kit.csr') }}"
  delegate_to: localhost
  register: signer
"""

RETURN = r"""
certificate:
  description: The certificate in PEM form; empty in check mode.
  type: str
  returned: success
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.flowerbed.federation.plugins.module_utils import pki


def main() -> None:
    """Sign the request."""
    module = AnsibleModule(
        argument_spec={
            "authority": {"type": "path", "required": True},
            "passphrase": {"type": "str", "required": True, "no_log": True},
            "csr": {"type": "str", "required": True},
            "days": {"type": "int", "default": 30},
        },
        supports_check_mode=True,
    )
    if pki.CRYPTOGRAPHY_MISSING:
        module.fail_json(msg=missing_required_lib("cryptography"), exception=pki.CRYPTOGRAPHY_MISSING)
    folder = Path(module.params["authority"])
    try:
        certificate = pki.read_authority(folder)
        if certificate is None:
            raise pki.PkiError(f"there is no authority in {folder}: bring the federation up first")
        authority = pki.open_authority(folder, certificate, module.params["passphrase"])
        request = pki.read_request(module.params["csr"])
        certificate = pki.sign_code_request(authority, request, module.params["days"])
    except pki.PkiError as error:
        module.fail_json(msg=str(error))
    module.exit_json(changed=True, certificate="" if module.check_mode else pki.to_pem(certificate))


if __name__ == "__main__":
    main()
