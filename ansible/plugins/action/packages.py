# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Ask the host first, and send the archive only where a package is missing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

MODULE = "flowerbed.federation.packages"


class ActionModule(ActionBase):
    """Runs on the operator's machine."""

    TRANSFERS_FILES = True
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Probe, and install where needed."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        answer = self._execute_module(MODULE, module_args=arguments, task_vars=task_vars)
        if answer.pop("needs_archive", False):
            archive = Path(str(arguments["archive"])).expanduser().absolute()
            if not archive.is_file():
                raise AnsibleActionFail(f"archive {archive} is not there: make it with `flowerbed packages`")
            self._make_tmp_path()
            shell = self._connection._shell
            remote = shell.join_path(shell.tmpdir, "packages.tar")
            self._transfer_file(str(archive), remote)
            self._fixup_perms2((shell.tmpdir, remote))
            answer = self._execute_module(MODULE, module_args=arguments | {"sent": remote}, task_vars=task_vars)
        return result | answer
