# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Install a release of Flower from an archive, and make it the active one."""

from __future__ import annotations

DOCUMENTATION = r"""
module: release
short_description: Install a release of Flower offline, and make it the active one
version_added: "0.1.0"
description:
  - A release is Flower with the apps' dependencies, locked by hash, as one archive made by the operator.
  - The archive travels only to a host that lacks the release. There every file is checked against the
    archive's manifest, and the manifest against the operator's, before the wheels are installed with the
    C(uv) that the archive brings. The host resolves, downloads and compiles nothing.
  - The release becomes active, by one atomic change of the link C(current). Where it takes another one's place, its
    program must have answered before; a host's first release is put to the test by the services that start next.
  - Older releases stay for the way back.
options:
  archive:
    description:
      - The archive, a path on the operator's machine.
      - Either this or O(id) is required.
    type: path
  id:
    description:
      - Make this release the active one; it was installed before.
      - Left out where O(archive) is given, which names its release.
    type: str
  root:
    description: The folder of all releases and of the link C(current), readable by all users.
    type: path
    default: /opt/flower
  activate:
    description: V(false) installs the release beside the active one, which stays; no release goes then.
    type: bool
    default: true
  keep:
    description:
      - How many releases stay beside the active one, the latest first.
      - At least one, since services run the previous release until they are restarted.
    type: int
    default: 2
  python:
    description: The host's Python; its minor version is the one that the release was built for.
    type: path
    default: /usr/bin/python3
  verify:
    description:
      - Compare the installed files with what was installed, and install the release anew where they differ.
      - It reads all files, which takes a second or two; without it a release counts as whole once it was installed.
    type: bool
    default: false
  manifest_sha256:
    description: The hash of the archive's manifest on the operator's machine; the action plugin fills it in.
    type: str
attributes:
  check_mode:
    support: full
    description: Says what would change; no archive travels.
  diff_mode:
    support: full
    description: Shows the active release before and after, and the releases that go.
author:
  - The Flowerbed authors (@flowerbed)
"""

EXAMPLES = r"""
- name: Install the release
  flowerbed.federation.release:
    archive: "{{ inventory_dir }}/../../build/releases/1.41.0-f2ec610341/1.41.0-f2ec610341.tar"

- name: Install the next release beside the active one
  flowerbed.federation.release:
    archive: build/releases/1.42.0-31c7270663/1.42.0-31c7270663.tar
    activate: false

- name: Go back to the release before
  flowerbed.federation.release:
    id: 1.41.0-af9e805fee
"""

RETURN = r"""
id:
  description: The active release.
  type: str
  returned: success
  sample: 1.41.0-f2ec610341
path:
  description: The release's folder, a virtual environment.
  type: str
  returned: success
  sample: /opt/flower/releases/1.41.0-f2ec610341
previous:
  description: The release that was active before this call, empty if there was none.
  type: str
  returned: success
  sample: 1.41.0-af9e805fee
removed:
  description: Releases that went, as too old or incomplete.
  type: list
  elements: str
  returned: success
  sample: []
"""

import fcntl
import hashlib
import json
import os
import platform
import pwd
import re
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path
from typing import IO, Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.flowerbed.federation.plugins.module_utils import installed, made

# Written last: a release without it is incomplete.
MARKER = "release.json"
MANIFEST = "manifest.json"
_ID = re.compile(r"[0-9][A-Za-z0-9.+-]*")
_CHUNK = 1 << 20
_SHOWN = 20


class Refused(Exception):
    """The archive or the host does not serve; the message says why."""


class Releases:
    """The releases in a host's folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.folder = root / "releases"
        self.link = root / "current"

    def path(self, ident: str) -> Path:
        """Where a release is, or will be."""
        return self.folder / ident

    def complete(self, ident: str) -> bool:
        """Whether a release was installed to its end."""
        try:
            return bool(json.loads((self.path(ident) / MARKER).read_text(encoding="utf-8"))["id"] == ident)
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def active(self) -> str:
        """The release that the link names, or an empty string."""
        return self.link.readlink().name if self.link.is_symlink() else ""

    def superfluous(self, active: str, previous: str, keep: int) -> list[str]:
        """What goes once `active` is: all but it and the latest `keep` complete ones; `previous` stays."""
        if not self.folder.is_dir():
            return []
        found = [entry.name for entry in self.folder.iterdir() if entry.is_dir() and entry.name != active]
        old = [name for name in found if self.complete(name)]
        old.sort(key=lambda name: (name == previous, (self.path(name) / MARKER).stat().st_mtime), reverse=True)
        return sorted(set(found) - set(old[:keep]))

    def activate(self, ident: str) -> None:
        """Switch the link atomically."""
        new = self.root / ".current.new"
        new.unlink(missing_ok=True)
        new.symlink_to(Path("releases") / ident)
        new.replace(self.link)


def unpack(archive: Path, manifest_sha256: str, into: Path) -> dict[str, Any]:
    """Unpack the archive into a folder and return its manifest; every byte is checked on the way.

    Nothing of the archive is used unchecked: names come from the manifest, contents match its hashes.
    """
    with tarfile.open(archive, "r:") as tar:
        members = iter(tar)
        first = next(members, None)
        content = tar.extractfile(first) if first and first.name == MANIFEST else None
        text = content.read() if content else b""
        if hashlib.sha256(text).hexdigest() != manifest_sha256:
            raise Refused("the archive's manifest is not the operator's: transfer it again, or build it again")
        manifest: dict[str, Any] = json.loads(text)
        expected = dict(manifest["files"])
        for member in members:
            content = tar.extractfile(member)
            if member.name not in expected or content is None:
                raise Refused(f"the archive holds {member.name}, which its manifest does not list")
            target = into / member.name
            target.parent.mkdir(parents=True, exist_ok=True)
            if _copy(content, target) != expected.pop(member.name):
                raise Refused(f"{member.name} in the archive does not match its hash: build the release again")
    if expected:
        raise Refused(f"the archive lacks {sorted(expected)[0]}: build the release again")
    return manifest


def _copy(source: IO[bytes], target: Path) -> str:
    digest = hashlib.sha256()
    with target.open("wb") as out:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            out.write(chunk)
    return digest.hexdigest()


def check_host(manifest: dict[str, Any], python: str, releases: Releases) -> None:
    """Refuse a host for which the release was not built, or whose disk is too small."""
    ident = manifest["id"]
    try:
        code = "import sys; print('%d.%d' % sys.version_info[:2])"
        minor = run([python, "-I", "-c", code]).strip()
    except OSError:
        raise Refused(f"{python} is missing on this host: install Python {manifest['python']}") from None
    if minor != manifest["python"]:
        built = f"release {ident} is for {manifest['python']}"
        raise Refused(f"{python} is Python {minor}, {built}: set flowerbed_python or lock a release for it")
    if platform.machine() != manifest["arch"]:
        raise Refused(f"this host is {platform.machine()}, release {ident} is for {manifest['arch']}")
    libc = _libc()
    if _numbers(libc) < _numbers(manifest["glibc"]):
        raise Refused(f"this host has glibc {libc or 'none'}, release {ident} needs {manifest['glibc']}")
    # Twice: the unpacked wheels and the installed files lie side by side for a moment.
    needed, free = 2 * manifest["installed_bytes"], shutil.disk_usage(releases.folder).free
    if free < needed:
        raise Refused(f"{releases.folder} has {free >> 20} MiB free, release {ident} needs {needed >> 20} MiB")


def _libc() -> str:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").rpartition(" ")[2]
    except (OSError, ValueError):
        return ""


def _numbers(version: str) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", version)]


def install(releases: Releases, archive: Path, ident: str, manifest_sha256: str, python: str) -> None:
    """Install the archive as release `ident`; what fails leaves no release behind."""
    work = releases.folder / f".{ident}.partial"
    final = releases.path(ident)
    shutil.rmtree(work, ignore_errors=True)
    shutil.rmtree(final, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        manifest = unpack(archive, manifest_sha256, work)
        if manifest["id"] != ident:
            raise Refused(f"the archive holds release {manifest['id']}, not {ident}")
        check_host(manifest, python, releases)
        uv = _uv(work / manifest["uv"], work)
        common = ["--no-config", "--offline", "--cache-dir", str(work / "uv-cache"), "--quiet"]
        # At its final path: the scripts' first lines hold it.
        run([uv, "venv", *common, "--no-project", "--python", python, "--prompt", ident, str(final)])
        command = [uv, "pip", "install", *common, "--python", str(final / "bin" / "python"), "--no-index"]
        command += ["--find-links", str(work / "wheels"), "--no-deps", "--require-hashes"]
        run([*command, "--requirement", str(work / "release.lock"), "--link-mode", "hardlink"])
        # What uv leaves beside the environment: one is a lock that every user may write.
        for name in (".lock", ".gitignore", "CACHEDIR.TAG"):
            (final / name).unlink(missing_ok=True)
        _add_bytecode(work / "bytecode.zip", final)
        shutil.copyfile(work / "release.lock", final / "release.lock")
        if releases.active():
            _check_answer(final, manifest["check"])
        marker = work / MARKER
        marker.write_text(json.dumps(manifest, sort_keys=True) + "\n", encoding="utf-8")
        marker.replace(final / MARKER)
    except BaseException:
        shutil.rmtree(final, ignore_errors=True)
        raise
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _uv(wheel: Path, into: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        member = next(name for name in archive.namelist() if name.endswith(".data/scripts/uv"))
        with archive.open(member) as source:
            _copy(source, into / "uv")
    (into / "uv").chmod(0o755)
    return str(into / "uv")


def _add_bytecode(archive: Path, final: Path) -> None:
    """Add the byte code that came along, or compile here: services cannot write it later."""
    if archive.exists():
        with zipfile.ZipFile(archive) as zipped:
            zipped.extractall(final)  # noqa: S202 - checked above, and zipfile keeps within the folder
        return
    command = [str(final / "bin" / "python"), "-I", "-m", "compileall", "-q", "-j", "0", "-x", "/tests/"]
    subprocess.run(
        [*command, "--invalidation-mode", "unchecked-hash", str(final / "lib")],
        check=False,
        capture_output=True,
    )


def _check_answer(final: Path, check: dict[str, Any]) -> None:
    """Start the program once, as a user who may only read: what cannot start never becomes active."""
    program, *arguments = check["command"]
    account: dict[str, Any] = {}
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        account = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    answer = run([str(final / "bin" / program), *arguments], **account)
    if check["answer"] not in answer:
        raise Refused(f"{program} answered '{answer.strip()[:200]}' instead of '{check['answer']}'")


def run(command: list[str], **account: Any) -> str:
    """Run a command in a clean environment and return its output; its last words become the error."""
    environment = {
        "PATH": "/usr/bin:/bin",
        "HOME": "/nonexistent",
        "LANG": "C.UTF-8",
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
    }
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, cwd="/", **account)
    if done.returncode != 0:
        words = " ".join((done.stderr or done.stdout).split())
        raise Refused(f"{Path(command[0]).name} {command[1]} failed with {done.returncode}: {words[-400:]}")
    return done.stdout + done.stderr


def main() -> None:
    """Entry point."""
    module = AnsibleModule(
        argument_spec={
            "archive": {"type": "path"},
            "id": {"type": "str"},
            "root": {"type": "path", "default": "/opt/flower"},
            "activate": {"type": "bool", "default": True},
            "keep": {"type": "int", "default": 2},
            "python": {"type": "path", "default": "/usr/bin/python3"},
            "manifest_sha256": {"type": "str"},
            "verify": {"type": "bool", "default": False},
        },
        required_one_of=[("archive", "id")],
        supports_check_mode=True,
    )
    ident, archive = module.params["id"], module.params["archive"]
    if not ident or (archive and not module.params["manifest_sha256"]):
        module.fail_json(msg="release runs through its action plugin: call it as flowerbed.federation.release")
    if not _ID.fullmatch(ident):
        module.fail_json(msg=f"id: '{ident}' is no release's id; it looks like 1.41.0-f2ec610341")
    if module.params["keep"] < 1:
        module.fail_json(msg="keep: services run the previous release until they restart; set 1 or more")
    os.umask(0o022)
    releases = Releases(Path(module.params["root"]))
    if module.check_mode:
        module.exit_json(**_apply(module, releases, ident, archive))
    try:
        made.note_folders(releases.folder)
        releases.folder.mkdir(parents=True, exist_ok=True)
        with (releases.folder / ".lock").open("a") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            result = _apply(module, releases, ident, archive)
    except PermissionError as error:
        module.fail_json(msg=f"root: {error.filename} cannot be written: run this task with become")
    except Refused as error:
        module.fail_json(msg=f"release {ident}: {error}")
    except (OSError, tarfile.TarError, zipfile.BadZipFile, ValueError, KeyError) as error:
        module.fail_json(msg=f"release {ident}: {type(error).__name__}: {error}")
    module.exit_json(**result)


def _damage(release: Path) -> list[str]:
    """What differs from what was installed, the first lines of it."""
    found = list(installed.differences(release, json.loads((release / MARKER).read_text(encoding="utf-8"))))
    return found[:_SHOWN] + ([f"and {len(found) - _SHOWN} more"] if len(found) > _SHOWN else [])


def _apply(module: AnsibleModule, releases: Releases, ident: str, archive: str | None) -> dict[str, Any]:
    """Bring the host to the wanted state, or say in check mode what that would change."""
    previous = releases.active()
    complete = releases.complete(ident)
    damage = _damage(releases.path(ident)) if complete and module.params["verify"] else []
    missing = not complete or bool(damage)
    activate = module.params["activate"]
    removed = releases.superfluous(ident, previous, module.params["keep"]) if activate else []
    result: dict[str, Any] = {
        "changed": missing or (activate and previous != ident) or bool(removed),
        "id": ident,
        "path": str(releases.path(ident)),
        "previous": previous,
        "removed": removed,
    }
    if module._diff:
        before = [f"active: {previous or 'none'}", *removed, *(f"{ident}: {one}" for one in damage)]
        after = ident if activate else previous or "none"
        result["diff"] = {"before": "\n".join(before) + "\n", "after": f"active: {after}\n"}
    if missing and not archive:
        if not module.params["manifest_sha256"]:
            module.fail_json(msg=f"release {ident} is not installed in {releases.root}: give its archive")
        result["needs_archive"] = True
        return result
    if module.check_mode:
        return result
    if missing:
        install(
            releases,
            Path(str(archive)),
            ident,
            module.params["manifest_sha256"],
            module.params["python"],
        )
    if activate and (previous != ident or damage):  # the services start anew with what was mended, too
        releases.activate(ident)
    for name in removed:
        shutil.rmtree(releases.path(name), ignore_errors=True)
    return result


if __name__ == "__main__":
    main()
