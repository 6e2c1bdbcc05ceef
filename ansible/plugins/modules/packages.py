# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Debian packages on a host, from its own sources or from an archive that comes with the call."""

from __future__ import annotations

DOCUMENTATION = r"""
module: packages
short_description: Install Debian packages, also without a network, and start nothing
version_added: "0.2.0"
description:
  - Installs packages that the host lacks, from its own package sources, or from an archive where there is one.
  - The action plugin sends the archive only to a host that lacks a package.
  - Units that a new package brings are masked before it comes, so that no service starts with its own defaults.
    Those of a package that was there already are left alone.
options:
  names:
    description: The packages.
    type: list
    elements: str
    required: true
  archive:
    description:
      - A tar of C(.deb) files on the controller, as C(flowerbed packages) makes it.
      - Without it the host's own sources serve.
    type: path
  masked:
    description: Units that must not start, which the packages would start when they are installed.
    type: list
    elements: str
    default: []
  sent:
    description: The archive on the host; the action plugin's own.
    type: path
attributes:
  check_mode:
    support: full
    description: Says which packages are missing.
author:
  - The Flowerbed authors (@flowerbed)
"""

EXAMPLES = r"""
- name: Bring the node exporter
  flowerbed.federation.packages:
    names: [prometheus-node-exporter]
    masked: [prometheus-node-exporter.service]
"""

RETURN = r"""
missing:
  description: The packages that the host lacked.
  type: list
  elements: str
  returned: always
  sample: [prometheus-node-exporter]
"""

import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flowerbed.federation.plugins.module_utils import made

_UNITS = Path("/etc/systemd/system")
_KNOWN = (Path("/usr/lib/systemd/system"), Path("/lib/systemd/system"), _UNITS)
_QUIET = {"DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}


def lacking(names: list[str]) -> list[str]:
    """Those of the packages that are not installed."""
    command = ["dpkg-query", "--show", "--showformat=${Package} ${db:Status-Status}\n", *names]
    listed = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    there = {line.split()[0] for line in listed.splitlines() if line.endswith(" installed")}
    return [name for name in names if name not in there]


def mask(unit: str) -> None:
    """Mask a unit that no package has brought yet."""
    if not any((folder / unit).exists() or (folder / unit).is_symlink() for folder in _KNOWN):
        made.note_file(_UNITS / unit)
        (_UNITS / unit).symlink_to("/dev/null")


def disable(unit: str) -> None:
    """Take away what starts a unit at boot: it stays off when its mask goes one day and the package stays."""
    for link in _UNITS.glob(f"*.wants/{unit}"):
        link.unlink()


def unpack(archive: str, folder: Path) -> list[str]:
    """The packages of the archive as files, and nothing else that may be in it."""
    files = []
    with tarfile.open(archive, "r:") as tar:
        for member in tar:
            content = tar.extractfile(member) if member.isfile() and member.name.endswith(".deb") else None
            if content is not None:
                file = folder / Path(member.name).name
                with file.open("wb") as target:
                    shutil.copyfileobj(content, target)
                files.append(str(file))
    return sorted(files)


def install(module: AnsibleModule, names: list[str], archive: str | None) -> None:
    """Install by apt, which checks all dependencies before it unpacks anything."""
    options = ["--yes", "--quiet=2", "--no-install-recommends", "--option=Dpkg::Options::=--force-confold"]
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        if archive:
            files = unpack(archive, Path(folder))
            # Nothing but what came: no source of the host's is asked.
            options += [
                "--option=Dir::Etc::SourceList=/dev/null",
                "--option=Dir::Etc::SourceParts=/dev/null",
            ]
            command = ["apt-get", "install", *options, *files]
        else:
            module.run_command(["apt-get", "update", "--quiet=2"], environ_update=_QUIET)
            command = ["apt-get", "install", *options, *names]
        code, out, err = module.run_command(command, environ_update=_QUIET)
    left = lacking(names)
    if code or left:
        said = [line for line in (err + out).splitlines() if line.startswith(("E:", "dpkg: error"))] or (
            err + out
        ).splitlines()[-2:]
        remedy = (
            "make the archive anew for this host with `flowerbed packages`"
            if archive
            else "give it a package source, or bring the packages with `flowerbed packages`"
        )
        module.fail_json(
            msg=f"{', '.join(left or names)} cannot be installed on this host ({' '.join(said)}): {remedy}"
        )


def main() -> None:
    """Ask what is missing, and bring it."""
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "required": True},
            "archive": {"type": "path"},
            "masked": {"type": "list", "elements": "str", "default": []},
            "sent": {"type": "path"},
        },
        supports_check_mode=True,
    )
    names, archive, sent = (module.params[key] for key in ("names", "archive", "sent"))
    missing = lacking(names)
    if missing and not module.check_mode:
        if archive and not sent:
            module.exit_json(changed=False, missing=missing, needs_archive=True)
        units = [unit for unit in module.params["masked"] if unit.removesuffix(".service") in missing]
        for unit in units:
            mask(unit)
        module.run_command(["systemctl", "daemon-reload"])
        made.note("packages", *missing)
        install(module, missing, sent)
        for unit in units:
            disable(unit)
    module.exit_json(changed=bool(missing), missing=missing)


if __name__ == "__main__":
    main()
