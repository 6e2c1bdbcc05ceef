# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Keeps the key that opens a federation's backups, encrypted, on the operator's machine."""

from __future__ import annotations

DOCUMENTATION = r"""
module: recovery_key
short_description: Keep the key that opens a federation's backups
version_added: "0.3.0"
description:
  - Makes the key and the certificate to which backups are encrypted, where there are none, and tries the passphrase
    where there are, so that no backup is made that nobody can open.
  - Runs on the operator's machine (C(delegate_to) V(localhost)); hosts get the certificate alone, which opens nothing.
  - The passphrase is kept out of all output, so the task needs no C(no_log), which would hide the messages.
requirements:
  - cryptography
options:
  path:
    description: Folder for C(backup.key) and C(backup.crt), made with mode 0700.
    type: path
    required: true
  passphrase:
    description: Passphrase of the key, the same as the authority's.
    type: str
    required: true
attributes:
  check_mode:
    support: full
    description: Says whether a key would be made.
seealso:
  - module: flowerbed.federation.authority
author:
  - The Flowerbed authors (@flowerbed)
"""

EXAMPLES = r"""
- name: Keep the key that opens backups
  flowerbed.federation.recovery_key:
    path: "{{ inventory_dir }}/secrets/backup"
    passphrase: "{{ authority_passphrase }}"
  delegate_to: localhost
  register: recovery_key
"""

RETURN = r"""
certificate:
  description: The certificate to which backups are encrypted, in PEM form; empty in check mode before there is one.
  type: str
  returned: success
"""

from pathlib import Path

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible_collections.flowerbed.federation.plugins.module_utils import pki


def main() -> None:
    """Make what is missing, and try what is there."""
    module = AnsibleModule(
        argument_spec={
            "path": {"type": "path", "required": True},
            "passphrase": {"type": "str", "required": True, "no_log": True},
        },
        supports_check_mode=True,
    )
    if pki.CRYPTOGRAPHY_MISSING:
        module.fail_json(msg=missing_required_lib("cryptography"), exception=pki.CRYPTOGRAPHY_MISSING)
    folder = Path(module.params["path"])
    try:
        certificate, made = pki.keep_recipient(folder, module.params["passphrase"], dry=module.check_mode)
    except pki.PkiError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{folder} cannot be written ({error.strerror}): correct path")
    module.exit_json(changed=made, certificate=pki.to_pem(certificate) if certificate else "")


if __name__ == "__main__":
    main()
