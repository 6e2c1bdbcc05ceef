# Copyright: the Flowerbed authors
# SPDX-License-Identifier: Apache-2.0
"""Looks at a host of a federation and changes nothing there.

Modules import it, and the operator's machine sends it to a host as a program of its own: it needs Python alone.
"""

from __future__ import annotations

import base64
import contextlib
import grp
import hashlib
import json
import os
import pwd
import re
import select
import shlex
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

UNITS = Path("/etc/systemd/system")
CONFIGURATION = Path("/etc/flower")
STATE = Path("/var/lib/flower")
CURRENT = Path("/opt/flower/current")
RECENT_SECONDS = 90
"""How far back a journal is read: longer than the minute for which a SuperLink takes a dead node for online."""
_SUFFIXES = (".service", ".socket", ".timer")
_CONNECT_SECONDS = 5.0
_CHILD_SECONDS = 12.0
_FRESH_SECONDS = 300
_REFUSED = (401, 403, 412)
_ANSI = re.compile(r"\x1b\[[0-9;]*m")
_COMPLAINT = re.compile(r"error|exception|refused|fail|denied|verify|expired", re.IGNORECASE)


@dataclass(frozen=True)
class Handshake:
    """What came of a TLS connection to the gateway."""

    ok: bool
    kind: str = ""
    """What failed: `resolve`, `connect`, `proxy`, `untrusted`, `name`, `expired` or `tls`; empty where nothing did."""
    told: str = ""
    """One line what happened."""
    certificate: str = ""
    """sha256 of the certificate that was presented, in hexadecimal; empty where none was."""
    issuer: str = ""


def main() -> None:
    """Print what there is to know about this host, as one JSON document."""
    facts: dict[str, Any] = {
        "units": units(),
        "supernode": supernode(),
        "certificate_days": certificate_days(),
        "disks": disks(),
        "data": data(),
        "devices": devices(),
        "handshake": None,
        "release": CURRENT.resolve().name if CURRENT.exists() else "",
        "python": next((found.name for found in CURRENT.glob("lib/python3.*")), ""),
        "gateway": gateway_port(),
        "refusals": refusals(),
        "backup": _read_json(STATE / "backups" / "last.json"),
        "probes": _read_json(STATE / "probes.json") or {},
    }
    shaken = gateway_seen()
    facts["handshake"] = asdict(shaken) if shaken else None
    facts["time"] = time.time()  # last, so that it is compared with the moment at which the answer arrives
    print(json.dumps(facts))


# Services ----------------------------------------------------------------------------------------------------


def units() -> dict[str, dict[str, Any]]:
    """Flower's units that are to run: state, how often systemd started one anew, and for how many seconds it runs."""
    files = [path for path in sorted(UNITS.glob("flower-*.*")) if "@" not in path.name and path.suffix in _SUFFIXES]
    if not files:
        return {}
    started = {path.name for path in files if "[Install]" in path.read_text()}
    wanted = "Id,Type,ActiveState,NRestarts,InvocationID,ActiveEnterTimestampMonotonic"
    said = _output("systemctl", "show", f"--property={wanted}", *(path.name for path in files))
    found = {}
    for block in filter(None, said.split("\n\n")):
        values = dict(line.partition("=")[::2] for line in block.splitlines())
        name, state = values["Id"], values["ActiveState"]
        # What a timer starts is idle most of the time, and counts once it has failed.
        idle = name not in started or values.get("Type") == "oneshot"
        if idle and state != "failed":
            continue
        entered = int(values.get("ActiveEnterTimestampMonotonic") or 0) / 1e6
        found[name.removesuffix(".service")] = {
            "state": state,
            "restarts": int(values.get("NRestarts") or 0),
            "invocation": values.get("InvocationID", ""),
            "seconds": time.monotonic() - entered if entered else None,
        }
    return found


def supernode() -> dict[str, Any] | None:
    """Whether the SuperNode was let in since it started, and its last complaint; None where there is none.

    `connected` is None where it has run for so long that its journal need not tell.
    """
    unit = units().get("flower-supernode")
    if unit is None:
        return None
    complaint = _complaint(_journal("_SYSTEMD_UNIT=flower-supernode.service", f"--since=-{RECENT_SECONDS}s"))
    connected = None
    if unit["state"] != "active":
        connected = False
    elif unit["seconds"] is not None and unit["seconds"] < _FRESH_SECONDS:
        lines = _journal(f"_SYSTEMD_INVOCATION_ID={unit['invocation']}")
        connected = any("SuperNode ID:" in line for line in lines)
    return {"connected": connected, "complaint": complaint}


def refusals() -> dict[str, dict[str, Any]]:
    """By site, how often the gateway has refused it lately, with which status last and how many seconds ago."""
    found: dict[str, dict[str, Any]] = {}
    if not (CONFIGURATION / "gateway").is_dir():
        return found
    for line in _journal("--identifier=flower_gateway", f"--since=-{RECENT_SECONDS}s"):
        with contextlib.suppress(ValueError, KeyError, TypeError):
            entry = json.loads(line)
            if int(entry["status"]) in _REFUSED and entry["site"]:
                known = found.setdefault(entry["site"], {"count": 0})
                moment = datetime.fromisoformat(entry["time"]).timestamp()
                known.update(count=known["count"] + 1, status=int(entry["status"]), seconds=time.time() - moment)
    return found


def gateway_port() -> str:
    """The port on which the gateway listens; empty where none is."""
    conf = CONFIGURATION / "gateway" / "nginx.conf"
    port = re.search(r"listen (\d+)", conf.read_text()) if conf.exists() else None
    return port.group(1) if port else ""


def gateway_seen() -> Handshake | None:
    """Connect to the gateway as the SuperNode does: its address, its CA, its proxy, its user; None: nothing to try."""
    unit = UNITS / "flower-supernode.service"
    ca = CONFIGURATION / "ca.crt"
    if not unit.exists():
        conf = CONFIGURATION / "gateway" / "nginx.conf"
        listens = re.search(r"listen (\d+) ssl", conf.read_text()) if conf.exists() else None
        return handshake(f"127.0.0.1:{listens[1]}", ca, named=False) if listens and ca.exists() else None
    words = shlex.split(unit.read_text().split("ExecStart=")[1].split("\nRestart=")[0].replace("\\\n", " "))
    if "--root-certificates" not in words:
        return None
    address = words[words.index("--superlink") + 1].replace("%%", "%").replace("$$", "$")
    proxy = proxy_of(CONFIGURATION / "supernode" / "proxy.env")
    try:
        user = pwd.getpwnam("flower-supernode")
    except KeyError:
        return None
    answer = as_user(user, [], lambda: asdict(handshake(address, ca, proxy=proxy)))
    return Handshake(**answer) if answer else Handshake(False, "connect", f"{address} did not answer in time")


# TLS ---------------------------------------------------------------------------------------------------------


def proxy_of(file: Path) -> str:
    """The proxy that an environment file names, with its user and password; empty where there is none."""
    if not file.exists():
        return ""
    found = re.search(r"^HTTPS?_PROXY=(.*)$", file.read_text(), re.MULTILINE)
    return found.group(1) if found else ""


def handshake(address: str, ca: Path | str, *, proxy: str = "", named: bool = True) -> Handshake:
    """Open a TLS connection, as a SuperNode does, and say what answers.

    `address` is host:port; `ca` the authority's certificate as a file, or its text; `proxy` is
    http://[user:password@]host:port; `named` false leaves the certificate's names unchecked.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    trusted = ssl.create_default_context(
        cafile=str(ca) if isinstance(ca, Path) else None, cadata=ca if isinstance(ca, str) else None
    )
    trusted.check_hostname = named
    try:
        with _open(host, int(port), proxy) as plain, trusted.wrap_socket(plain, server_hostname=host) as line:
            return Handshake(True, certificate=hashlib.sha256(line.getpeercert(True) or b"").hexdigest())
    except ssl.SSLCertVerificationError as error:
        return _refused_certificate(address, host, int(port), proxy, error)
    except _ProxyRefused as error:
        return Handshake(False, "proxy", str(error))
    except socket.gaierror as error:
        return Handshake(
            False, "resolve", f"{host if not proxy else 'the proxy'} cannot be resolved ({error.strerror})"
        )
    except ssl.SSLError as error:
        return Handshake(False, "tls", f"{address} answers, but not with TLS that is good enough ({error.reason})")
    except OSError as error:
        return Handshake(False, "connect", f"{address} does not answer ({error.strerror or error})")


class _ProxyRefused(Exception):
    """The proxy did not pass the connection on."""


def _open(host: str, port: int, proxy: str) -> socket.socket:
    if not proxy:
        return socket.create_connection((host, port), timeout=_CONNECT_SECONDS)
    parts = urlsplit(proxy)
    line = socket.create_connection((parts.hostname or "", parts.port or 3128), timeout=_CONNECT_SECONDS)
    try:
        login = ""
        if parts.username:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            login = f"Proxy-Authorization: Basic {base64.b64encode(pair.encode()).decode()}\r\n"
        line.sendall(f"CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n{login}\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer and (more := line.recv(4096)):
            answer += more
        first = answer.split(b"\r\n")[0].decode(errors="replace")
        if not re.match(r"HTTP/1\.[01] 200", first):
            raise _ProxyRefused(f"the proxy does not pass connections to {host}:{port} on ({first or 'no answer'})")
    except BaseException:
        line.close()
        raise
    return line


def _refused_certificate(
    address: str, host: str, port: int, proxy: str, error: ssl.SSLCertVerificationError
) -> Handshake:
    """Look at the certificate that was refused: whose it is tells whether somebody stands on the way."""
    blind = ssl.create_default_context()
    blind.check_hostname = False
    blind.verify_mode = ssl.CERT_NONE
    presented = b""
    with (
        contextlib.suppress(OSError, _ProxyRefused),
        _open(host, port, proxy) as plain,
        blind.wrap_socket(plain, server_hostname=host) as line,
    ):
        presented = line.getpeercert(True) or b""
    issuer = _issuer(presented)
    kinds = {10: "expired", 9: "expired", 62: "name", 64: "name"}  # OpenSSL's X509_V_ERR_*
    kind = kinds.get(error.verify_code, "untrusted")
    told = {
        "expired": f"the certificate at {address} is refused ({error.verify_message})",
        "name": f"the certificate at {address} is not for this name ({error.verify_message})",
        "untrusted": f"the certificate at {address} is not of this federation's CA but of {issuer or 'somebody else'}",
    }[kind]
    return Handshake(False, kind, told, hashlib.sha256(presented).hexdigest() if presented else "", issuer)


def sha256_of(certificate: Path) -> str:
    """The sha256 of the first certificate in a file, in hexadecimal."""
    first = re.search(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", certificate.read_text(), re.DOTALL)
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(first[0])).hexdigest() if first else ""


def _issuer(certificate: bytes) -> str:
    if not certificate:
        return ""
    command = ["openssl", "x509", "-inform", "DER", "-noout", "-issuer", "-nameopt", "multiline,utf8,-esc_msb"]
    try:
        done = subprocess.run(command, input=certificate, capture_output=True, check=False)
    except OSError:
        return ""
    lines = done.stdout.decode(errors="replace").splitlines()
    named = {name.strip(): value.strip() for name, _, value in (line.partition("=") for line in lines)}
    return named.get("commonName") or named.get("organizationName") or ""


# Files and disks ---------------------------------------------------------------------------------------------


def certificate_days() -> dict[str, int]:
    """The days that each of Flower's certificates on the host is still good for, by its path."""
    days = {}
    for path in CONFIGURATION.rglob("*.crt"):
        found = re.search(r"notAfter=(.*) GMT", _output("openssl", "x509", "-noout", "-enddate", "-in", str(path)))
        if found:
            end = time.mktime(time.strptime(found.group(1), "%b %d %H:%M:%S %Y")) - time.timezone
            days[str(path)] = int((end - time.time()) // 86400)
    return days


def disks() -> dict[str, float]:
    """Gigabytes free below the folders that Flower writes to."""
    return {folder: shutil.disk_usage(folder).free / 1e9 for folder in ("/opt", "/var/lib") if Path(folder).exists()}


def data() -> dict[str, str] | None:
    """The site's folder of data and what keeps an app from it; None where the site has none."""
    import tomllib  # noqa: PLC0415 - an older Python must still be able to import this file

    file = CONFIGURATION / "supernode" / "node_config.toml"
    path = tomllib.loads(file.read_text()).get("data-path") if file.exists() else None
    if not path:
        return None
    try:
        user = pwd.getpwnam("flower-app" if (UNITS / "flower-clientapp@.service").exists() else "flower-supernode")
    except KeyError:
        return {"path": path, "problem": "there is no user to read it: Flower's roles were not run here"}
    groups = os.getgrouplist(user.pw_name, user.pw_gid) + _unit_groups()
    problem = as_user(user, groups, lambda: unreadable(Path(path), filled=True))
    return {"path": path, "problem": f"{path} does not answer: is its server away?" if problem is None else problem}


def _unit_groups() -> list[int]:
    """The groups that the unit which trains adds to its user's."""
    found = []
    for unit in (UNITS / "flower-clientapp@.service", UNITS / "flower-supernode.service"):
        text = unit.read_text() if unit.exists() else ""
        for name in re.findall(r"^SupplementaryGroups=(\S+)", text, re.MULTILINE):
            with contextlib.suppress(KeyError):
                found.append(grp.getgrnam(name).gr_gid)
    return found


def unreadable(folder: Path, *, filled: bool = False) -> str:
    """What keeps the current user from a folder and what is directly in it; empty if nothing does.

    With `filled` a folder without a file counts as unreadable: so looks one whose disk is not mounted.
    """
    try:
        if not folder.is_dir():
            return f"{folder} does not exist"
        if not os.access(folder, os.R_OK | os.X_OK):
            return f"{folder} is not readable"
        entries = sorted(folder.iterdir())
    except PermissionError:
        return f"{folder} is not readable"
    except OSError as error:
        return f"{folder} cannot be reached ({error.strerror})"
    if filled and not entries:
        return f"{folder} is empty"
    refused = (one for one in entries if not os.access(one, os.R_OK | os.X_OK if one.is_dir() else os.R_OK))
    return next((f"{one} is not readable" for one in refused), "")


def devices() -> dict[str, str]:
    """The device files that apps may use, each with what keeps them from it, or nothing."""
    found: dict[str, str] = {}
    for name in ("flower-clientapp@.service", "flower-supernode.service"):
        unit = UNITS / name
        for device in re.findall(r"^DeviceAllow=(/\S+)", unit.read_text() if unit.exists() else "", re.MULTILINE):
            found[device] = device_problem(device, "flower-app" if "@" in name else "flower-supernode")
    return found


def device_problem(device: str, user_name: str) -> str:
    """What keeps a user from a device file, or nothing; a user that does not exist counts as everybody."""
    path = Path(device)
    if not path.exists():
        return "does not exist"
    if not stat.S_ISCHR(path.stat().st_mode) and not stat.S_ISBLK(path.stat().st_mode):
        return "is no device"
    try:
        user = pwd.getpwnam(user_name)
        groups = os.getgrouplist(user.pw_name, user.pw_gid)
    except KeyError:
        user, groups = pwd.getpwnam("nobody"), []
    usable = as_user(user, groups, lambda: os.access(device, os.R_OK | os.W_OK))
    return "" if usable else f"may not be used by {user_name}"


def as_user(user: pwd.struct_passwd, groups: list[int], action: Callable[[], Any]) -> Any:
    """What `action` gives when another user does it, as JSON can hold it; None where it does not end in time.

    Permissions, ACLs, mounts and firewall rules all count, so only trying tells; a mount that hangs hangs the child.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        with contextlib.suppress(BaseException):  # a child says nothing but its answer
            if os.geteuid() == 0:
                os.setgroups(groups)
                os.setgid(user.pw_gid)
                os.setuid(user.pw_uid)
            os.write(writer, json.dumps(action()).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        ready = select.select([answer], [], [], _CHILD_SECONDS)[0]
        if not ready:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, os.WNOHANG)
            return None
        said = answer.read()
    os.waitpid(child, 0)
    return json.loads(said) if said else None


def _complaint(lines: list[str]) -> str:
    """The last line that says what is wrong."""
    told = [" ".join(_ANSI.sub("", line).split()) for line in lines if _COMPLAINT.search(line)]
    return told[-1][:300] if told else ""


def _journal(*words: str) -> list[str]:
    return _output("journalctl", "--quiet", "--no-pager", "--output=cat", "--lines=400", *words).splitlines()


def _output(*command: str) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, errors="replace", check=False).stdout
    except OSError:
        return ""


def _read_json(file: Path) -> Mapping[str, Any] | None:
    try:
        there = json.loads(file.read_text())
    except (OSError, ValueError):
        return None
    return there if isinstance(there, dict) else None


if __name__ == "__main__":
    main()
