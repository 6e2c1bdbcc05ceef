# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Ask the host first, and send the archive only where the release is missing."""

from __future__ import annotations

import functools
import hashlib
import json
import shlex
import tarfile
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

MODULE = "flowerbed.federation.release"
MANIFEST = "manifest.json"
# As in the module.
ROOT, MARKER = "/opt/flower", "release.json"


@functools.lru_cache(maxsize=8)
def read_manifest(archive: Path, _modified: int) -> tuple[str, str]:
    """The id of the archive's release and the hash of its manifest, which is the archive's first member."""
    with tarfile.open(archive, "r:") as tar:
        first = tar.next()
        content = tar.extractfile(first) if first and first.name == MANIFEST else None
        if content is None:
            raise ValueError(f"it does not begin with {MANIFEST}")
        text = content.read()
    return str(json.loads(text)["id"]), hashlib.sha256(text).hexdigest()


class ActionModule(ActionBase):
    """Runs on the operator's machine."""

    TRANSFERS_FILES = True
    _supports_check_mode = True
    _supports_diff = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        """Look, and install where needed."""
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        archive = arguments.pop("archive", None)
        if archive:
            path = Path(str(archive)).expanduser().absolute()
            try:
                ident, digest = read_manifest(path, path.stat().st_mtime_ns)
            except (OSError, tarfile.TarError, ValueError, KeyError, TypeError) as error:
                raise AnsibleActionFail(f"archive {path} is no release: {error}") from None
            if arguments.get("id", ident) != ident:
                raise AnsibleActionFail(f"archive {path} holds release {ident}, not {arguments['id']}")
            arguments |= {"id": ident, "manifest_sha256": digest}

        answer = {"needs_archive": True}
        if not archive or self._task.check_mode or self._is_there(arguments):
            answer = self._execute_module(MODULE, module_args=arguments, task_vars=task_vars)
        if answer.pop("needs_archive", False) and not self._task.check_mode:
            self._make_tmp_path()
            shell = self._connection._shell
            remote = shell.join_path(shell.tmpdir, "release.tar")
            self._transfer_file(str(path), remote)
            self._fixup_perms2((shell.tmpdir, remote))
            arguments["archive"] = remote
            answer = self._execute_module(MODULE, module_args=arguments, task_vars=task_vars)
        return result | answer

    def _is_there(self, arguments: dict[str, Any]) -> bool:
        """Whether the host has the release, for all that a glance tells: the module looks closer."""
        folder = Path(arguments.get("root", ROOT)) / "releases" / arguments["id"]
        seen = self._low_level_execute_command(f"test -e {shlex.quote(str(folder / MARKER))}")
        return bool(seen["rc"] == 0)
