# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Sees on a host whether an installed release works, before it becomes the active one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release_check
short_description: See whether an installed release works, before it becomes the active one
version_added: "0.2.0"
description:
  - Changes nothing. Compares every file of the release with the hash that came with its package, imports what the
    release was made for as a user without rights, asks Flower's programs for their version, and looks for the places
    at which Flowerbed's own programs stand in Flower's.
options:
  id:
    description: The release, installed before.
    type: str
    required: true
  root:
    description: The folder of all releases.
    type: path
    default: /opt/flower
  programs:
    description: Programs that must say Flower's version.
    type: list
    elements: str
    default: [flower-superlink, flower-supernode]
  hooks:
    description: Flowerbed's program for apps; Flower must have what it stands in for. Empty for none.
    type: path
    default: ""
attributes:
  check_mode:
    support: full
    description: A release that is not installed yet is passed over.
author:
  - The Flowerbed authors (@flowerbed)
"""

EXAMPLES = r"""
- name: See whether the next release works here
  flowerbed.federation.release_check:
    id: 1.42.0-31c7270663
    hooks: /opt/flower/libexec/instance.py
"""

RETURN = r"""
files:
  description: How many files have the hash that their package gives.
  type: int
  returned: success
modules:
  description: What was imported.
  type: list
  elements: str
  returned: success
"""

import base64
import csv
import hashlib
import json
import os
import pwd
import re
import subprocess
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule

# Runs with the release's own Python; prints the modules that were imported.
_IMPORT = r"""
import importlib, importlib.metadata, json, re, sys
hooks = sys.argv[2]
plain = lambda name: re.sub(r"[-_.]+", "-", name).lower()
wanted = {plain(each) for each in json.loads(sys.argv[1])}
modules = [module for module, packages in importlib.metadata.packages_distributions().items()
           if wanted & {plain(each) for each in packages} and module.isidentifier() and module[0] != "_"]
for module in modules:
    importlib.import_module(module)
if hooks:
    import importlib.util
    spec = importlib.util.spec_from_file_location("hooks", hooks)
    own = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(own)
    for commands, command, place in own.PROGRAMS.values():
        getattr(importlib.import_module(commands), command)
        getattr(importlib.import_module(place), own._INSTALL)
print(json.dumps(sorted(modules)))
"""


class Unfit(Exception):
    """The release does not work here; the message says why."""


def damaged(site: Path) -> tuple[int, str]:
    """Compare every file with its package's RECORD; how many were compared, and the first that differs."""
    count = 0
    for record in sorted(site.glob("*.dist-info/RECORD")):
        with record.open(encoding="utf-8", newline="") as rows:
            for name, digest, _ in csv.reader(rows):
                if not digest:
                    continue
                kind, _, value = digest.partition("=")
                try:
                    with (site / name).open("rb") as content:
                        found = hashlib.file_digest(content, kind).digest()
                except OSError:
                    return count, name
                if base64.urlsafe_b64encode(found).rstrip(b"=").decode() != value:
                    return count, name
                count += 1
    return count, ""


def ask(command: list[str]) -> str:
    """Run a program of the release as a user without rights; what it said."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": "/nonexistent",
        "LANG": "C.UTF-8",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }
    account: dict[str, Any] = {}
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        account = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    try:
        done = subprocess.run(
            command, check=False, capture_output=True, text=True, env=environment, cwd="/", timeout=300, **account
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unfit(f"{Path(command[0]).name} cannot be run: {error}") from None
    if done.returncode:
        words = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise Unfit(f"{Path(command[0]).name} failed: {' '.join(words[-2:])[-400:] or f'code {done.returncode}'}")
    return done.stdout + done.stderr


def check(folder: Path, programs: list[str], hooks: str) -> dict[str, Any]:
    """See whether the release in `folder` works; Unfit where it does not."""
    manifest = json.loads((folder / "release.json").read_text(encoding="utf-8"))
    files, broken = damaged(folder / "lib" / f"python{manifest['python']}" / "site-packages")
    if broken:
        raise Unfit(f"{broken} is not as its package has it")
    lock = (folder / "release.lock").read_text(encoding="utf-8")
    asked = next((line for line in lock.splitlines() if line.startswith("# requirements: ")), "").partition(": ")[2]
    wanted = ["flwr", *re.findall(r"(?:^|, )([A-Za-z0-9][A-Za-z0-9._-]*)", asked)]
    python = str(folder / "bin" / "python")
    modules = json.loads(ask([python, "-I", "-c", _IMPORT, json.dumps(wanted), hooks]).splitlines()[-1])
    for program in programs:
        said = ask([str(folder / "bin" / program), "--version"])
        if f"Flower version: {manifest['version']}" not in said:
            raise Unfit(f"{program} --version said '{' '.join(said.split())[:200]}', not {manifest['version']}")
    return {"files": files, "modules": modules}


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "id": {"type": "str", "required": True},
            "root": {"type": "path", "default": "/opt/flower"},
            "programs": {"type": "list", "elements": "str", "default": ["flower-superlink", "flower-supernode"]},
            "hooks": {"type": "path", "default": ""},
        },
        supports_check_mode=True,
    )
    ident = module.params["id"]
    folder = Path(module.params["root"]) / "releases" / ident
    if not (folder / "release.json").exists():
        if module.check_mode:
            module.exit_json(changed=False, files=0, modules=[])
        module.fail_json(msg=f"release {ident} is not installed in {folder.parent}: install it first")
    try:
        found = check(folder, module.params["programs"], module.params["hooks"])
    except (Unfit, OSError, ValueError, KeyError, IndexError) as error:
        module.fail_json(
            msg=f"release {ident} does not work here: {error}; remove {folder} and try again, it is then installed anew"
        )
    module.exit_json(changed=False, **found)


if __name__ == "__main__":
    main()
