# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""A federation's hosts from Terraform's output, for those who run Ansible without the driver."""

from __future__ import annotations

DOCUMENTATION = r"""
name: terraform
short_description: A federation's hosts from Terraform's output
version_added: "0.1.0"
description:
  - Reads the output C(inventory) of a Flowerbed platform's Terraform state, checks it against the contract, and gives
    the hosts in the groups C(superlink), C(gateway) and C(supernode), as C(hosts.json) of the driver does.
  - The source is a file whose name ends in C(.flowerbed.yml); beside it lie C(group_vars) and C(host_vars).
  - Values of the output are data; what looks like a template in them is refused.
notes:
  - Needs the Python package C(flowerbed) in the environment that runs Ansible, and the C(terraform) program.
options:
  plugin:
    description: The name of this plugin.
    type: str
    required: true
    choices: [flowerbed.federation.terraform]
  federation:
    description: The federation's folder, relative to the source file's.
    type: str
    default: "."
  state:
    description:
      - The Terraform state, relative to the federation's folder.
      - The default is where C(flowerbed up) keeps it.
    type: str
    default: .state/terraform/terraform.tfstate
author:
  - The Flowerbed authors (@flowerbed)
"""

EXAMPLES = r"""
# inventories/lab/terraform.flowerbed.yml: the state of `flowerbed up`
plugin: flowerbed.federation.terraform

# The state of somebody who runs Terraform alone
# plugin: flowerbed.federation.terraform
# state: ../../terraform/platforms/lab/terraform.tfstate
"""

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleParserError
from ansible.plugins.inventory import BaseInventoryPlugin

try:
    from flowerbed import inventory as contract
    from flowerbed import leaving, terraform
    from flowerbed.errors import FlowerbedError
    from flowerbed.federation import FederationFolder

    DRIVER = True
except ImportError:
    DRIVER = False


class InventoryModule(BaseInventoryPlugin):
    """Reads the state, and lets the driver's own code check it."""

    NAME = "flowerbed.federation.terraform"

    def verify_file(self, path: str) -> bool:
        """Take files named *.flowerbed.yml alone."""
        return bool(super().verify_file(path)) and path.endswith((".flowerbed.yml", ".flowerbed.yaml"))

    def parse(self, inventory: Any, loader: Any, path: str, cache: bool = True) -> None:
        """Fill Ansible's inventory."""
        super().parse(inventory, loader, path, cache)
        if not DRIVER:
            raise AnsibleParserError(
                f"{path} needs the Python package flowerbed beside ansible-core: run scripts/setup and use .venv/bin"
            )
        self._read_config_data(path)
        folder = (Path(path).parent / str(self.get_option("federation"))).resolve()
        state = (folder / str(self.get_option("state"))).resolve()
        try:
            described = contract.parse(terraform.output_of(state, "inventory"), str(state))
            removed = leaving.removed(FederationFolder(folder))
        except FlowerbedError as error:
            raise AnsibleParserError(str(error)) from None
        everything = contract.ansible_form(described, folder.name, removed)["all"]
        for name, value in everything["vars"].items():
            self.inventory.set_variable("all", name, value)
        for group, members in sorted(everything["children"].items()):  # as in hosts.json
            self.inventory.add_group(group)
            for name, value in members.get("vars", {}).items():
                self.inventory.set_variable(group, name, value)
            for host, variables in members["hosts"].items():
                self.inventory.add_host(host, group=group)
                for name, value in variables.items():
                    self.inventory.set_variable(host, name, value)
