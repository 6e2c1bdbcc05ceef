"""Writes down what a module is asked to do, and does nothing: for the dossier, which must not touch a host.

Ansible runs every module that has no action of its own through the action `normal`; this one stands in its place.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible.plugins.action import ActionBase

# What the roles go on with: enough to describe the next step.
_ANSWERS: dict[str, dict[str, Any]] = {
    "node_key": {"public_key": "", "next_public_key": "", "fingerprint": ""},
    "certificate_request": {"csr": "", "certificate": ""},
    "certificate": {"certificate": "a certificate", "ca": "a certificate"},
    "nodes": {"nodes": {}},
    "recovery_key": {"certificate": "a certificate"},
    "preflight": {"packages": [], "unenforced": [], "problems": []},
}
_HIDDEN = ("password", "passphrase", "secret")


class ActionModule(ActionBase):
    """Stands for every module."""

    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Append a line to the file that FLOWERBED_DESCRIBED names."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        module = self._task.action.rpartition(".")[2]
        role = self._task._role.get_name().rpartition(".")[2] if self._task._role else ""
        described = {
            "host": variables["inventory_hostname"],
            "role": role,
            "module": module,
            "arguments": _without_secrets(self._task.args),
            "settings": self._settings(role, variables) if module == "layout" else {},
        }
        with Path(os.environ["FLOWERBED_DESCRIBED"]).open("a") as file:
            file.write(json.dumps(described, default=str) + "\n")
        # A name that the host would look up stands for its addresses.
        name = self._task.args.get("resolve")
        found = {"addresses": [name] if name else []} if module == "preflight" else {}
        return result | {"changed": False} | _ANSWERS.get(module, {}) | found

    def _settings(self, role: str, variables: dict[str, Any]) -> dict[str, Any]:
        """The role's public variables as they are on this host."""
        public = [name for name in variables if name.startswith(f"{role}_")]
        return {
            name: bool(self._templar.template(variables[name]))
            if any(word in name for word in _HIDDEN)
            else self._templar.template(variables[name])
            for name in public
        }


def _without_secrets(value: Any) -> Any:
    """The arguments without the content of files that hold secrets."""
    if isinstance(value, dict):
        hidden = {"content"} if value.get("sensitive") else set()
        return {key: _without_secrets(one) for key, one in value.items() if key not in hidden | {"passphrase"}}
    return [_without_secrets(one) for one in value] if isinstance(value, list) else value
