# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Load a host's rules, open a new connection through them, and confirm them by it."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure
from ansible.plugins.action import ActionBase

MODULE = "flowerbed.federation.firewall"
CONNECT_SECONDS = 10
SECONDS = 45  # the module's default


class ActionModule(ActionBase):
    """Runs on the operator's machine."""

    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Load, reconnect, confirm; or say that the host has taken the rules back."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        local = self._connection.transport == "local"
        arguments = dict(self._task.args)
        if local:
            arguments |= {"direct": True, "client": session_client()}
        answer = self._execute_module(MODULE, module_args=arguments, task_vars=task_vars)
        if answer.get("pending"):
            answer = self._confirm(answer, int(arguments.get("seconds", SECONDS)), task_vars)
        result.update(answer)
        return result

    def _confirm(self, answer: dict[str, Any], seconds: int, task_vars: dict[str, Any] | None) -> dict[str, Any]:
        """The connection in use outlives every rule, so only a new one proves that there is still a way in."""
        began = time.monotonic()
        self._connection.set_option("timeout", CONNECT_SECONDS)
        try:
            self._connection.reset()
            confirmed = self._execute_module(MODULE, module_args={"state": "confirmed"}, task_vars=task_vars)
        except AnsibleConnectionFailure as error:
            time.sleep(max(0.0, seconds + 3 - (time.monotonic() - began)))
            self._connection.reset()
            self._execute_module(MODULE, module_args={"state": "reverted"}, task_vars=task_vars)
            why = " ".join(str(error).split())[-160:]
            return {
                "failed": True,
                "msg": "the firewall would have locked you out: no new SSH connection came through the new rules, so "
                f"the host has taken them back; add your network to firewall_ssh_networks ({why})",
            }
        return confirmed if confirmed.get("failed") else {**answer, "pending": False}


def session_client() -> str:
    """The address from which the session comes that this process belongs to; sudo hides it from the environment."""
    pid = os.getpid()
    while pid > 1:
        try:
            variables = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            status = Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            return ""
        for variable in variables:
            if variable.startswith(b"SSH_CONNECTION="):
                return variable.split(b"=", 1)[1].split()[0].decode()
        pid = int(status.rpartition(")")[2].split()[1])
    return ""
