# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Appends an entry to a host's audit trail."""

from __future__ import annotations

DOCUMENTATION = r"""
module: audit
short_description: Append an entry to a host's audit trail
version_added: "0.2.0"
description:
  - Writes one entry with stable fields to the host's journal, where C(flowerbed audit log) finds it.
  - An entry is no state, so the task never counts as a change; call it only after something was done.
options:
  event:
    description: What happened, as V(site.approved).
    type: str
    required: true
  message:
    description: The same for people, in one line.
    type: str
    required: true
  fields:
    description: More fields, among federation, site, run, app, app_hash, node, fingerprint, result, by, detail.
    type: dict
    default: {}
attributes:
  check_mode:
    support: full
    description: Writes nothing.
author:
  - The Flowerbed authors (@flowerbed)
"""

EXAMPLES = r"""
- name: Note who was let in
  flowerbed.federation.audit:
    event: site.approved
    message: hospital-d was let in
    fields:
      site: hospital-d
"""

RETURN = r"""
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flowerbed.federation.plugins.module_utils import audit


def main() -> None:
    """Write the entry."""
    module = AnsibleModule(
        argument_spec={
            "event": {"type": "str", "required": True},
            "message": {"type": "str", "required": True},
            "fields": {"type": "dict", "default": {}},
        },
        supports_check_mode=True,
    )
    params = module.params
    try:
        fields = {name: str(value) for name, value in params["fields"].items()}
        audit.entry(params["event"], params["message"], **fields)
        if not module.check_mode:
            audit.record(params["event"], params["message"], **fields)
    except ValueError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"the journal at {audit.JOURNAL} cannot be written to: {error.strerror}")
    module.exit_json(changed=False)


if __name__ == "__main__":
    main()
