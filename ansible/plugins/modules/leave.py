# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Stops Flower's services on a host, and takes away what Flowerbed made there."""

from __future__ import annotations

DOCUMENTATION = r"""
module: leave
short_description: Stop Flower's services on a host, and take away what was made there
version_added: "0.3.0"
description:
  - Stops and disables the units that were made on the host.
  - With O(purge) takes away every file, user, group, unit and nftables table, too, that the host's own record
    (C(/var/lib/flower/made.json)) says was made there, and nothing else. Packages of the distribution stay.
  - Refuses before any change where the record is not complete, or where data lies below what would be removed.
options:
  purge:
    description: Take everything away.
    type: bool
    default: false
attributes:
  check_mode:
    support: full
    description: Says what would be done.
  diff_mode:
    support: full
    description: Lists what is taken away.
author:
  - The Flowerbed authors (@flowerbed)
"""

EXAMPLES = r"""
- name: Take Flowerbed off the host
  flowerbed.federation.leave:
    purge: true
"""

RETURN = r"""
stopped:
  description: Units that were stopped, or would be in check mode.
  type: list
  elements: str
  returned: success
removed:
  description: What was removed, or would be in check mode.
  type: list
  elements: str
  returned: success
kept:
  description: Folders that stay, since somebody else has put something into them.
  type: list
  elements: str
  returned: success
packages:
  description: Packages that were installed for Flowerbed and stay.
  type: list
  elements: str
  returned: success
"""

import contextlib
from dataclasses import asdict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flowerbed.federation.plugins.module_utils import audit, made


def main() -> None:
    """Leave, or say what that would do."""
    module = AnsibleModule(argument_spec={"purge": {"type": "bool", "default": False}}, supports_check_mode=True)
    purge = module.params["purge"]
    try:
        left = made.leave(purge=purge, check=module.check_mode)
    except made.LeaveError as error:
        module.fail_json(msg=str(error))
    except OSError as error:
        module.fail_json(msg=f"{error.filename} cannot be removed: {error.strerror}")
    if left.changed and not module.check_mode:
        with contextlib.suppress(OSError):  # a host without a journal has no audit trail
            audit.record("site.left", "this machine left the federation", result="purged" if purge else "stopped")
    diff = {"before": "".join(f"{line}\n" for line in made.lines(left)), "after": ""}
    module.exit_json(changed=left.changed, diff=diff, **asdict(left))


if __name__ == "__main__":
    main()
