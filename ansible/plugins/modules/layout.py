# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Users, folders, secrets and files of a service on a host, in one call."""

from __future__ import annotations

DOCUMENTATION = r"""
module: layout
short_description: Users, folders and files of a service, in one call
version_added: "0.1.0"
description:
  - Makes the system users, folders, host-made secrets and files of a service and reports each difference.
  - A task costs the controller time on every host, so a role describes all that it puts on a host in one.
  - Files are replaced atomically, after the program that reads them has accepted them where it can say so.
  - What is made is noted on the host, so that M(flowerbed.federation.leave) takes away that and nothing else.
options:
  users:
    description: System users without a login shell or a home; each gets a group of the same name.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The user's name.
        type: str
        required: true
      groups:
        description: Existing groups that the user also belongs to.
        type: list
        elements: str
        default: []
  directories:
    description: Folders, made in the order given.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path.
        type: path
        required: true
      owner:
        description: Owner and group.
        type: str
        default: root
      mode:
        description: Permissions, as a quoted octal number.
        type: str
        default: "0755"
      exclusive:
        description: Remove the files in the folder that this call does not describe.
        type: bool
        default: false
  secrets:
    description: Files of random bytes that are made on the host when they are missing, and never leave it.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path; owned by root with mode 0600.
        type: path
        required: true
      bytes:
        description: How many random bytes.
        type: int
        default: 32
      renew:
        description: Make new bytes although there are some.
        type: bool
        default: false
  files:
    description: Files with their full content.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path.
        type: path
        required: true
      content:
        description: The content; a template comes in by C(lookup('ansible.builtin.template', 'name.j2')).
        type: str
        required: true
      owner:
        description: Owner and group.
        type: str
        default: root
      mode:
        description: Permissions, as a quoted octal number.
        type: str
        default: "0644"
      sensitive:
        description: Keep the content out of the diff.
        type: bool
        default: false
      once:
        description: Write the file only where it is missing; from then on somebody else keeps it.
        type: bool
        default: false
      validate:
        description: A command that must succeed before the file is replaced; C(%s) stands for the new file.
        type: str
  absent:
    description: Files that must not exist, such as units of a mode that was switched off.
    type: list
    elements: path
    default: []
  packages:
    description: Packages that are about to be installed since the host lacks them; they are only noted here.
    type: list
    elements: str
    default: []
attributes:
  check_mode:
    support: full
    description: Says what would change and changes nothing.
  diff_mode:
    support: full
    description: Shows the files' differences, but for sensitive ones.
author:
  - The Flowerbed authors (@flowerbed)
"""

EXAMPLES = r"""
- name: Describe the service on the host
  flowerbed.federation.layout:
    users:
      - name: flower-supernode
    directories:
      - path: /etc/flower
    secrets:
      - path: /etc/flower/superexec.secret
    files:
      - path: /etc/systemd/system/flower-supernode.service
        content: "{{ lookup('ansible.builtin.template', 'flower-supernode.service.j2') }}"
"""

RETURN = r"""
changed_paths:
  description: The users, folders, secrets and files that were made, altered or removed.
  type: list
  elements: str
  returned: always
  sample: [/etc/systemd/system/flower-supernode.service]
"""

import grp
import os
import pwd
import secrets
import shlex
import tempfile
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flowerbed.federation.plugins.module_utils import made


class Layout:
    """Collects the differences between the host and the description, and mends them outside check mode."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.changed: list[str] = []
        self.diffs: list[dict[str, str]] = []

    def user(self, name: str, groups: list[str]) -> None:
        """Make the system user and add it to its groups."""
        missing = [group for group in groups if not _group_exists(group)]
        if missing:
            self.module.fail_json(
                msg=f"group '{missing[0]}' does not exist on this host: create it or correct the variable"
            )
        if not _user_exists(name):
            self._note(name, "absent", "present")
            command = [
                "useradd",
                "--system",
                "--user-group",
                "--no-create-home",
                "--home-dir",
                "/nonexistent",
            ]
            command += ["--shell", "/usr/sbin/nologin", name]
            self._made("users", name)
            self._run(command)
        wanted = [group for group in groups if not _belongs(name, group)]
        if wanted:
            self._note(f"{name}'s groups", "", ",".join(wanted))
            self._made("memberships", *(f"{name}:{group}" for group in wanted))
            self._run(["usermod", "--append", "--groups", ",".join(wanted), name])

    def directory(self, path: str, owner: str, mode: str) -> None:
        """Make the folder with its owner and mode."""
        folder = Path(path)
        if not folder.is_dir():
            self._note(path, "absent", "directory")
            if not self.module.check_mode:
                made.note_folders(folder)
                folder.mkdir(parents=True, mode=0o755)
        self._permissions(folder, owner, mode)

    def secret(self, path: str, length: int, renew: bool) -> None:
        """Make the file of random bytes when it is missing or to be renewed."""
        file = Path(path)
        if renew or not file.exists():
            self._note(path, "other bytes" if file.exists() else "absent", "random bytes made on the host")
            if not self.module.check_mode:
                self._replace(file, secrets.token_bytes(length), "root", "0600")
        self._permissions(file, "root", "0600")

    def file(self, item: dict[str, Any]) -> None:
        """Write the file when its content differs, or only when there is none."""
        file = Path(item["path"])
        if item["once"] and file.exists():
            return
        content = item["content"].encode()
        before = file.read_bytes() if file.is_file() else None
        if before != content:
            shown = ("(hidden)", "(hidden, changed)")
            if not item["sensitive"]:
                shown = ((before or b"").decode(errors="replace"), content.decode(errors="replace"))
            self._note(item["path"], *shown)
            if not self.module.check_mode:
                self._replace(file, content, item["owner"], item["mode"], item["validate"])
        self._permissions(file, item["owner"], item["mode"])

    def absent(self, path: str) -> None:
        """Remove the file."""
        if Path(path).exists():
            self._note(path, "present", "absent")
            if not self.module.check_mode:
                Path(path).unlink()

    def only(self, folder: str, described: set[str]) -> None:
        """Remove the files of the folder that are not described, such as a secret that was dropped."""
        for file in sorted(Path(folder).glob("*")):
            if file.is_file() and str(file) not in described:
                self.absent(str(file))

    def _replace(self, file: Path, content: bytes, owner: str, mode: str, validate: str | None = None) -> None:
        made.note_file(file)
        file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
        new = Path(name)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(content)
            os.chown(new, *_ids(owner))
            new.chmod(int(mode, 8))
            if validate:
                command = [word.replace("%s", name) for word in shlex.split(validate)]
                code, out, err = self.module.run_command(command)
                if code:
                    reason = " ".join((err or out).split())
                    self.module.fail_json(msg=f"{file} would be refused by '{command[0]}': {reason}")
            new.replace(file)
        finally:
            new.unlink(missing_ok=True)

    def _permissions(self, path: Path, owner: str, mode: str) -> None:
        if not path.exists() or not _user_exists(owner):
            return  # check mode before the first run: what is to carry them does not exist yet
        stat = path.stat()
        ids = _ids(owner)
        if (stat.st_uid, stat.st_gid) == ids and stat.st_mode & 0o7777 == int(mode, 8):
            return
        if str(path) not in self.changed:
            self._note(
                str(path),
                f"{stat.st_uid}:{stat.st_gid} {stat.st_mode & 0o7777:04o}",
                f"{ids[0]}:{ids[1]} {mode}",
            )
        if not self.module.check_mode:
            os.chown(path, *ids)
            path.chmod(int(mode, 8))

    def _made(self, kind: str, *names: str) -> None:
        if not self.module.check_mode:
            made.note(kind, *names)

    def _note(self, what: str, before: str, after: str) -> None:
        self.changed.append(what)
        after_line = after if after.endswith("\n") else f"{after}\n"
        before_line = before if not before or before.endswith("\n") else f"{before}\n"
        self.diffs.append({"before_header": what, "after_header": what, "before": before_line, "after": after_line})

    def _run(self, command: list[str]) -> None:
        if not self.module.check_mode:
            self.module.run_command(command, check_rc=True)


def _user_exists(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def _group_exists(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


def _belongs(user: str, group: str) -> bool:
    return user in grp.getgrnam(group).gr_mem


def _ids(owner: str) -> tuple[int, int]:
    entry = pwd.getpwnam(owner)
    return entry.pw_uid, entry.pw_gid


def _dicts(**options: dict[str, Any]) -> dict[str, Any]:
    return {"type": "list", "elements": "dict", "default": [], "options": options}


def main() -> None:
    """Compare, mend, report."""
    owner = {"type": "str", "default": "root"}
    path = {"type": "path", "required": True}
    module = AnsibleModule(
        argument_spec={
            "users": _dicts(
                name={"type": "str", "required": True},
                groups={"type": "list", "elements": "str", "default": []},
            ),
            "directories": _dicts(
                path=path,
                owner=owner,
                mode={"type": "str", "default": "0755"},
                exclusive={"type": "bool", "default": False},
            ),
            "secrets": {
                "type": "list",
                "elements": "dict",
                "default": [],
                "no_log": False,
                "options": {
                    "path": path,
                    "bytes": {"type": "int", "default": 32},
                    "renew": {"type": "bool", "default": False},
                },
            },
            "files": _dicts(
                path=path,
                content={"type": "str", "required": True},
                owner=owner,
                mode={"type": "str", "default": "0644"},
                sensitive={"type": "bool", "default": False},
                once={"type": "bool", "default": False},
                validate={"type": "str"},
            ),
            "absent": {"type": "list", "elements": "path", "default": []},
            "packages": {"type": "list", "elements": "str", "default": []},
        },
        supports_check_mode=True,
    )
    layout = Layout(module)
    if not module.check_mode:
        made.note("packages", *module.params["packages"])
    for user in module.params["users"]:
        layout.user(user["name"], user["groups"])
    for directory in module.params["directories"]:
        layout.directory(directory["path"], directory["owner"], directory["mode"])
    for secret in module.params["secrets"]:
        layout.secret(secret["path"], secret["bytes"], secret["renew"])
    for file in module.params["files"]:
        layout.file(file)
    for gone in module.params["absent"]:
        layout.absent(gone)
    described = {item["path"] for kind in ("secrets", "files") for item in module.params[kind]}
    for directory in module.params["directories"]:
        if directory["exclusive"]:
            layout.only(directory["path"], described)
    # Without the files' contents the result is small, and nothing of them can be shown.
    told = {key: value for key, value in module.params.items() if key != "files"}
    told["files"] = [{**file, "content": f"{len(file['content'])} characters"} for file in module.params["files"]]
    module.exit_json(
        changed=bool(layout.changed),
        changed_paths=layout.changed,
        diff=layout.diffs if module._diff else [],
        invocation={"module_args": told},
    )


if __name__ == "__main__":
    main()
