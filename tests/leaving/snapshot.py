"""All that a program could have left on a host: files, users, units, rules and ports."""

import re

from testinfra.host import Host

# What differs on a host where nobody did anything, or what the host itself writes about what was done on it.
PASSING = {
    # The host's own journal: it holds the audit trail, which is the hospital's.
    r"/var/log/(journal|private)?(/.*)?": "logs",
    # shadow's own copies of the files before the last change, made by useradd and userdel.
    r"/etc/(passwd|group|shadow|gshadow|subuid|subgid)-": "copies",
    # What was done at a terminal or by SSH, and what systemd and sshd keep for themselves.
    r"/(root|home/[^/]+)/\.(bash_history|cache|local)(/.*)?": "sessions",
    r"/var/lib/systemd/(random-seed|catalog/.*|timesync/.*|timers/stamp-(?!flower).*|linger.*)": "systemd",
    r"/var/lib/(dhcp|private|dbus|logrotate)(/.*)?": "services",
    r"/(var/)?tmp(/.*)?": "temporary",
    r"/etc/(machine-id|resolv\.conf|\.updated|ld\.so\.cache)|/var/\.updated": "boot",
    # Byte code that the system's Python keeps of its own library.
    r".*/__pycache__(/.*)?": "byte code",
}
# What a package of the distribution leaves beside its files, where one was installed and removed again.
OF_PACKAGES = (
    r"/var/(lib/(dpkg|apt|systemd/deb-systemd-helper-.*|nginx|ucf)|cache/(apt|debconf|man|ldconfig))(/.*)?|/etc/rc\d.*"
)
# /run/flowerbed.turn is held by who changes the federation, as by this leaving; it is gone with the next boot.
_FILES = r"""
find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run \) -prune -o -printf '%y %m %U %G %p\t%l\n'
echo ---
find / -xdev \( -path /proc -o -path /sys -o -path /dev -o -path /run -o -path /var/log \) -prune -o -type f -print0 \
  | xargs -0 sha256sum
echo ---
ls -d /run/flower* /run/systemd/transient/flower* 2>/dev/null | grep -vx /run/flowerbed.turn
echo ---
getent passwd; getent group; getent shadow | cut -d: -f1
echo ---
systemctl list-unit-files --no-legend --no-pager; systemctl list-units --all --no-legend --no-pager --plain 'flower*'
echo ---
nft --stateless list ruleset 2>/dev/null
echo ---
ss -Hltun | awk '{print $1, $5}' | sort -u
"""
PARTS = ("files", "hashes", "passing files", "users", "units", "rules", "ports")


def take(host: Host) -> dict[str, list[str]]:
    """What is there now, by the kind of thing."""
    found = host.check_output(_FILES).split("---\n")
    assert len(found) == len(PARTS)
    parts = {name: sorted(text.splitlines()) for name, text in zip(PARTS, found, strict=True)}
    for name in ("files", "hashes"):
        parts[name] = [line for line in parts[name] if not _passes(_path(line))]
    return parts


def differences(before: dict[str, list[str]], after: dict[str, list[str]], *, packages: bool = False) -> list[str]:
    """What is there now and was not, or was there and is not; `packages` where some came and went."""
    found = []
    for name in PARTS:
        old, new = set(before[name]), set(after[name])
        lines = [f"gone: {one}" for one in old - new] + [f"new: {one}" for one in new - old]
        found += [
            line
            for line in lines
            if not (packages and name in ("files", "hashes") and re.fullmatch(OF_PACKAGES, _path(line)))
        ]
    return sorted(found)


def _path(line: str) -> str:
    found = re.search(r" (/.*?)(\t.*)?$", line)
    return found[1] if found else line


def _passes(path: str) -> bool:
    return any(re.fullmatch(pattern, path) for pattern in PASSING)
