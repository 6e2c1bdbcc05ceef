#!/usr/bin/python3 -I
"""Joins this machine to a Flower federation, out of the kit that this file came in; `./join --help` says how.

It checks: the CA by its fingerprint, the kit's signature, every file's hash. It needs Python's standard library and
openssl, and runs and unpacks nothing of the kit before (-I: it imports nothing from this folder either). README.txt
says how to check this file itself.
"""

import argparse
import hashlib
import json
import os
import platform
import re
import runpy
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

KIT = Path(__file__).resolve().parent
# Stands on a machine that joined, of root's own, and needs nothing of any kit.
LEAVE = Path("/opt/flower/libexec/leave")


class Refused(Exception):
    """One line that says what is wrong and what mends it."""


def main() -> int:
    """Check, show or do, and tidy up."""
    options = arguments()
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(130))
    try:
        if os.geteuid() != 0:
            raise Refused("only root can do this: put sudo before the command")
        if options.leave:
            return leave(options)
        # Not below /tmp: where it is small or forbids programs, /opt does not, since the release will run from there.
        with tempfile.TemporaryDirectory(prefix=".flower-join-", dir="/opt") as folder:
            manifest = check(Path(folder), options.ca_fingerprint)
            print(f"The kit is genuine: {manifest['site']} in {manifest['federation']}, made {manifest['made'][:10]}.")
            check_machine(manifest)
            # From here on the kit's own files do the work, out of the folder with those that were checked.
            code: int = runpy.run_path(f"{folder}/apply.py")["apply"](options, Path(folder), manifest)
            return code
    except (Refused, OSError, ValueError) as error:
        print(f"refused: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from here", file=sys.stderr)
        return 130


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(prog="join", description="Join this machine to a Flower federation.")
    parser.add_argument("--ca-fingerprint", help="as the consortium told you, not as the kit says")
    parser.add_argument("--data", metavar="FOLDER", help="the folder with this hospital's data; it is only read")
    parser.add_argument("--set", metavar="NAME=VALUE", action="append", default=[], help="a setting; @FILE reads it")
    parser.add_argument("--check", action="store_true", help="show all that would be done, and change nothing")
    parser.add_argument("--leave", action="store_true", help="leave the federation: stop its services")
    parser.add_argument("--purge", action="store_true", help="with --leave: take away all that was made here")
    options = parser.parse_args()
    if not options.leave and (options.purge or not options.ca_fingerprint):
        parser.error("--purge goes with --leave" if options.purge else "--ca-fingerprint is needed to join")
    return options


def leave(options: argparse.Namespace) -> int:
    """Let this machine leave; what does it was installed here when it joined."""
    if not LEAVE.exists():
        raise Refused("this machine has not joined, or has left already: there is nothing to take away")
    more = [word for word, asked in (("--purge", options.purge), ("--check", options.check)) if asked]
    return subprocess.run([str(LEAVE), *more], check=False).returncode


def check(work: Path, told: str) -> dict[str, Any]:
    """Copy the kit's files to where nobody else can change them, and check the copies; returns the manifest."""
    if shutil.which("openssl") is None:
        raise Refused("openssl is missing, which checks the kit: apt-get install openssl")
    for name in ("ca.crt", "manifest.json", "manifest.p7s"):
        shutil.copyfile(KIT / name, work / name)
    try:
        certificate = ssl.PEM_cert_to_DER_cert((work / "ca.crt").read_text())
    except ValueError:
        raise Refused("ca.crt holds no certificate: get the kit again") from None
    found = hashlib.sha256(certificate).hexdigest()
    if re.sub(r"[^0-9a-f]", "", told.lower().removeprefix("sha256")) != found:
        raise Refused(f"the kit's CA is another one than you were told of: its fingerprint is {colons(found)}")
    (work / "ca.crt").write_text(ssl.DER_cert_to_PEM_cert(certificate))
    check_signature(work)
    manifest: dict[str, Any] = json.loads((work / "manifest.json").read_text())
    if manifest["schema"] != 1:
        raise Refused(f"the kit has schema {manifest['schema']}, which this program does not know: get the kit again")
    if manifest["expires"] < time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()):
        raise Refused(f"the kit has expired on {manifest['expires'][:10]}: ask for a new one")
    for name, digest in manifest["files"].items():
        sum_ = hashlib.sha256()
        with (KIT / name).open("rb") as source, (work / name).open("wb") as copy:
            while chunk := source.read(1 << 20):
                sum_.update(chunk)
                copy.write(chunk)
        if sum_.hexdigest() != digest:
            raise Refused(f"{name} is not as it was signed: get the kit again")
    return manifest


def check_signature(work: Path) -> None:
    """The manifest was signed by one key that the CA certified for signing code, and for nothing else."""
    command = ["openssl", "cms", "-verify", "-binary", "-inform", "DER", "-in", "manifest.p7s"]
    command += ["-content", "manifest.json", "-CAfile", "ca.crt", "-no-CApath", "-no-CAstore", "-x509_strict"]
    # The purpose is looked at below: older versions of openssl do not know that of signing code.
    command += ["-purpose", "any", "-signer", "signer.crt", "-out", "/dev/null"]
    clean = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    done = subprocess.run(command, cwd=work, env=clean, capture_output=True, text=True, check=False)
    if done.returncode:
        reason = re.search(r"Verify error: ?(.*)", done.stderr)
        why = f" ({reason[1].strip()})" if reason else ""
        raise Refused(f"the kit's signature is not valid{why}: get the kit again, and look at this machine's clock")
    command = ["openssl", "x509", "-in", "signer.crt", "-noout", "-ext", "extendedKeyUsage"]
    said = subprocess.run(command, cwd=work, env=clean, capture_output=True, text=True, check=False).stdout
    usages = [line.strip() for line in said.splitlines() if line.startswith(" ")]
    if usages != ["Code Signing"] or (work / "signer.crt").read_text().count("BEGIN CERTIFICATE") != 1:
        raise Refused("the kit was signed by a key that may not sign kits: do not use it, and tell the consortium")


def check_machine(manifest: dict[str, Any]) -> None:
    """The kit was made for a machine like this one."""
    here = f"{sys.version_info[0]}.{sys.version_info[1]}"
    if here != manifest["python"]:
        raise Refused(f"this machine has Python {here}: ask for a kit made with `--python {here}`")
    if platform.machine() != manifest["arch"]:
        raise Refused(f"this machine is {platform.machine()}, and the kit is for {manifest['arch']}")


def colons(digest: str) -> str:
    """A fingerprint as openssl writes it."""
    return ":".join(digest[place : place + 2] for place in range(0, len(digest), 2)).upper()


if __name__ == "__main__":
    sys.exit(main())
