# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Ask the coordinator first, and send the state only where it is to be brought back."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

MODULE = "flowerbed.federation.coordinator_state"


def read_manifest(archive: Path) -> dict[str, Any]:
    """The manifest that an opened backup begins with."""
    with tarfile.open(archive, "r:gz") as tar:
        first = tar.next()
        content = tar.extractfile(first) if first and first.name == "manifest.json" else None
        if content is None:
            raise ValueError("it does not begin with manifest.json")
        manifest: dict[str, Any] = json.loads(content.read())
    return manifest


class ActionModule(ActionBase):
    """Runs on the operator's machine."""

    TRANSFERS_FILES = True
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask, and send where needed."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        path = Path(str(arguments.pop("archive", ""))).expanduser().absolute()
        try:
            manifest = read_manifest(path)
            arguments |= {"id": manifest["id"], "made_at": manifest["made_at"]}
        except (OSError, tarfile.TarError, ValueError, KeyError, TypeError) as error:
            raise AnsibleActionFail(f"archive {path} is no opened backup: {error}") from None
        answer = self._execute_module(MODULE, module_args=arguments, task_vars=task_vars)
        if answer.pop("needs_archive", False) and not self._task.check_mode:
            self._make_tmp_path()
            shell = self._connection._shell
            remote = shell.join_path(shell.tmpdir, "state.tar.gz")
            self._transfer_file(str(path), remote)
            self._fixup_perms2((shell.tmpdir, remote))
            arguments["archive"] = remote
            answer = self._execute_module(MODULE, module_args=arguments, task_vars=task_vars)
        return result | answer
