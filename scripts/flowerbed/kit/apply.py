"""What the kit's program `join` does once it has checked the kit: settings, Ansible for a while, the playbook.

It runs as root with Python's standard library alone, out of a folder of root's that is removed afterwards.
"""

import argparse
import difflib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import Any

OWN = Path("/etc/flower/kit/settings.json")
REQUEST = Path("/etc/flower/kit/request.json")


def apply(options: argparse.Namespace, work: Path, manifest: dict[str, Any]) -> int:
    """Join the machine, or show in check mode what that would do; returns the exit code.

    `work` holds the kit's checked files. Raises ValueError with one line for settings that cannot be used.
    """
    offered = json.loads((work / "settings.json").read_text())
    own = own_settings(options, offered["variables"])
    print("Preparing, which takes a moment ...", flush=True)
    code, changes = play(work, manifest, {**offered["values"], **own}, own, options.check)
    if code:
        return 1
    if options.check:
        print(f"{changes} steps would change this machine; nothing was changed.")
        if not REQUEST.exists():
            print("They would make this node's key in /etc/flower/supernode, and write the request to be let in.")
        return 0
    print(f"Done: {changes} steps changed this machine." if changes else "Done: there was nothing to change.")
    ask(manifest)
    return 0


def own_settings(options: argparse.Namespace, variables: dict[str, str]) -> dict[str, Any]:
    """What this hospital has set, now and before."""
    own: dict[str, Any] = json.loads(OWN.read_text()) if OWN.exists() else {}
    for word in [*options.set, *([f"supernode_data_path={options.data}"] if options.data else [])]:
        name, equals, value = word.partition("=")
        if not equals or name not in variables:
            raise ValueError(f"--set {name}: there is no such setting; README.txt names them")
        if value.startswith("@"):
            value = Path(value[1:]).read_text().rstrip("\n")
        try:
            own[name] = value if variables[name] in ("str", "path") else json.loads(value)
        except ValueError:
            raise ValueError(f'--set {name}: write the value as JSON, like {{"key": "value"}} or 5 or true') from None
    if re.search(r"\{\{|\{%|\{#", json.dumps(own)):
        raise ValueError("a setting holds {{, {% or {#, which would be run as a template: choose another value")
    return own


def play(
    work: Path, manifest: dict[str, Any], values: dict[str, Any], own: dict[str, Any], dry: bool
) -> tuple[int, int]:
    """Run the playbook; returns its exit code and how many steps changed something."""
    program = make_environment(work) / "ansible-playbook"
    with tarfile.open(work / "collection.tar") as archive:
        archive.extractall(work)  # noqa: S202 - signed, as all that comes out of it
    private = {"supernode_release": f"{work}/release.tar", "supernode_ca_certificate": f"{work}/trust.crt"}
    settings = json.dumps(own, indent=2, sort_keys=True) + "\n"
    private |= {"ansible_connection": "local", "ansible_python_interpreter": "/usr/bin/python3"}
    host = {**values, **private, "supernode_name": manifest["site"], "join_manifest": manifest}
    inventory = {"supernode": {"hosts": {manifest["site"]: {**host, "join_settings": settings}}}}
    (work / "hosts.json").write_text(json.dumps({"all": {"children": inventory}}))
    playbook = work / "ansible_collections/flowerbed/federation/playbooks/join.yml"
    environment = {name: f"{work}/ansible" for name in ("ANSIBLE_HOME", "ANSIBLE_LOCAL_TEMP", "ANSIBLE_REMOTE_TEMP")}
    environment |= {"PATH": f"{program.parent}:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": str(work), "LC_ALL": "C.UTF-8"}
    environment |= {"ANSIBLE_COLLECTIONS_PATH": str(work), "ANSIBLE_CONFIG": f"{work}/none.cfg"}
    environment |= {"ANSIBLE_STDOUT_CALLBACK": "flowerbed.federation.events", "ANSIBLE_NOCOLOR": "1"}
    (work / "none.cfg").touch()
    command = [str(program), "-i", "hosts.json", str(playbook), *(["--check", "--diff"] if dry else [])]
    changes = 0
    with subprocess.Popen(
        command, cwd=work, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout or ():
            changes += show(line, dry)
    return process.returncode, changes


def make_environment(work: Path) -> Path:
    """Install Ansible from the kit's files beside it, for the time of this call; returns the folder of its programs."""
    with tarfile.open(work / "ansible.tar") as archive:
        archive.extractall(work / "packed")  # noqa: S202 - signed
    with zipfile.ZipFile(next((work / "packed/wheels").glob("uv-*.whl"))) as wheel:
        member = next(name for name in wheel.namelist() if name.endswith(".data/scripts/uv"))
        (work / "uv").write_bytes(wheel.read(member))
    (work / "uv").chmod(0o755)
    common = ["--no-config", "--offline", "--quiet", "--cache-dir", f"{work}/cache", "--no-python-downloads"]
    install = ["pip", "install", "--python", f"{work}/env/bin/python", "--no-index", "--no-deps", "--require-hashes"]
    install += ["--find-links", f"{work}/packed/wheels", "--requirement", f"{work}/packed/release.lock"]
    for words in (["venv", "--no-project", "--python", "/usr/bin/python3", f"{work}/env"], install):
        done = subprocess.run([f"{work}/uv", *words, *common], cwd=work, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ValueError(f"Ansible could not be installed in {work}: {' '.join(done.stderr.split())[-300:]}")
    if (work / "packed/bytecode.zip").exists():
        with zipfile.ZipFile(work / "packed/bytecode.zip") as compiled:
            compiled.extractall(work / "env")  # noqa: S202 - signed
    return work / "env/bin"


def show(line: str, dry: bool) -> int:
    """Say in plain words what a line of the playbook's says, with differences in check mode; returns 1 for a change."""
    try:
        event = json.loads(line)
    except ValueError:
        if "ERROR" in line:
            print(line.strip(), file=sys.stderr)
        return 0
    if event["event"] in ("failed", "unreachable"):
        print(f"failed: {event['message']}", file=sys.stderr)
    if event["event"] != "changed":
        return 0
    print(f"  {event['task'].split(' : ')[-1]}")
    for one in event["diff"]:
        name = str(one.get("after_header") or "")
        if name and not dry:
            print(f"    {name}")
        before, after = (str(one.get(side) or "").splitlines() for side in ("before", "after"))
        for text in difflib.unified_diff(before, after, name, name, lineterm="") if dry else ():
            print(f"    {text}")
    return 1


def ask(manifest: dict[str, Any]) -> None:
    """Put the request where the administrator finds it, and say what to do with it."""
    request = json.loads(REQUEST.read_text())
    file = Path.cwd() / f"{manifest['site']}.request.json"
    shutil.copyfile(REQUEST, file)
    print(f"\nSend {file} to the consortium; it holds no secret.")
    print(f"Read out on the phone: {request['fingerprint']}")
    print("This machine comes online by itself once it is approved; if it was before, nothing is left to do.")
