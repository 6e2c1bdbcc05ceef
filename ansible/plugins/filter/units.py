# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Filters that write values into unit files without changing their meaning."""

from __future__ import annotations

import json
import re
from typing import Any

from ansible.errors import AnsibleFilterError

_KEY = re.compile(r"[A-Za-z0-9_-]+")


def systemd_quote(value: Any) -> str:
    r"""Quote a value as one word of a unit file's setting.

    A quote, a backslash, a percent sign, or a line's end would otherwise change what systemd reads;
    in command lines `$` must be doubled too: see systemd_argument.
    """
    text = str(value)
    if "\0" in text:
        raise AnsibleFilterError("a value for a unit file holds a NUL character: remove it")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("\n", "\\n")
    return f'"{escaped}"'


def systemd_argument(value: Any) -> str:
    """Quote a value as one argument of a unit's command line."""
    return systemd_quote(value).replace("$", "$$")


def node_config(values: dict[str, Any]) -> str:
    """Write a node config as the TOML file that Flower's `--node-config` takes: one value per line."""
    lines = []
    for key, value in values.items():
        if not _KEY.fullmatch(str(key)):
            raise AnsibleFilterError(f"node config key '{key}': use letters, digits, dashes and underscores only")
        if not isinstance(value, str | bool | int | float):
            raise AnsibleFilterError(f"node config '{key}' must be a string, a number or true or false")
        lines.append(f"{key} = {json.dumps(value)}\n")
    return "".join(lines)


class FilterModule:
    """The collection's filters."""

    def filters(self) -> dict[str, Any]:
        """Name the filters."""
        return {
            "systemd_quote": systemd_quote,
            "systemd_argument": systemd_argument,
            "node_config": node_config,
        }
