# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""The filter by which Ansible reaches a host as Flowerbed's driver does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleFilterError

try:
    from flowerbed import ssh_options as shared
    from flowerbed.errors import UsageError
    from flowerbed.federation import FederationFolder

    DRIVER = True
except ImportError:
    DRIVER = False


def ssh_options(folder: str, jump: str = "", session: dict[str, str] | None = None) -> str:
    """Write ssh's options for a host of the federation in `folder`, as one line for ansible_ssh_common_args."""
    if not DRIVER:
        raise AnsibleFilterError(
            "ssh_options needs the Python package flowerbed beside ansible-core: run scripts/setup and use .venv/bin"
        )
    federation = FederationFolder(Path(folder))
    try:
        words = shared.options(federation.known_hosts, federation.ssh_key, jump, session)
    except UsageError as error:
        raise AnsibleFilterError(f"flowerbed_jump: {error}") from None
    return shared.join(words)


class FilterModule:
    """The collection's filter for connections."""

    def filters(self) -> dict[str, Any]:
        """Name the filter."""
        return {
            "ssh_options": ssh_options,
        }
