"""The base image of lab hosts: a small Debian, built once and kept."""

import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path

from flowerbed.errors import EnvironmentLacks, UsageError, WorkFailed
from flowerbed.lab.system import CACHE, locked, preflight

SUITES = ("bookworm", "trixie")

PACKAGES = (
    "ca-certificates",
    "dbus",
    "iproute2",
    "netbase",
    "nftables",
    "nginx-light",
    "openssh-server",
    "openssl",
    "procps",
    "python3",
    "sudo",
    "systemd",
    "systemd-sysv",
)

# Units that do nothing for a server in a container but cost memory and start time; nginx is started by its role only.
MASKED = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "container-getty@.service",
    "dev-hugepages.mount",
    "dev-mqueue.mount",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "getty@.service",
    "ldconfig.service",
    "modprobe@.service",
    "nginx.service",
    "proc-sys-fs-binfmt_misc.automount",
    "serial-getty@.service",
    "sys-fs-fuse-connections.mount",
    "sys-kernel-config.mount",
    "sys-kernel-debug.mount",
    "sys-kernel-tracing.mount",
    "systemd-ask-password-console.path",
    "systemd-ask-password-wall.path",
    "systemd-firstboot.service",
    "systemd-hwdb-update.service",
    "systemd-logind.service",
    "systemd-networkd-wait-online.service",
    "systemd-pstore.service",
    "systemd-random-seed.service",
    "systemd-timesyncd.service",
    "systemd-tmpfiles-clean.timer",
    "systemd-udev-trigger.service",
    "systemd-udevd-control.socket",
    "systemd-udevd-kernel.socket",
    "systemd-udevd.service",
    "systemd-update-utmp-runlevel.service",
    "systemd-update-utmp.service",
)

FILES = {
    "etc/hosts": "127.0.0.1 localhost\n",
    "etc/machine-id": "",
    "etc/resolv.conf": "",
    "etc/ssh/sshd_config.d/10-lab.conf": (
        "HostKey /etc/ssh/ssh_host_ed25519_key\n"
        "PermitRootLogin prohibit-password\n"
        "PasswordAuthentication no\n"
        "KbdInteractiveAuthentication no\n"
        "UseDNS no\n"
    ),
    "etc/systemd/journald.conf.d/10-lab.conf": "[Journal]\nStorage=persistent\nSystemMaxUse=64M\n",
}

# What has no place in a host's image: keys that all hosts would share, package indexes that no site may reach, documentation.
REMOVED = (
    "etc/ssh/ssh_host_*",
    "etc/apt/sources.list",
    "etc/apt/sources.list.d/*",
    "etc/apt/apt.conf.d/99mmdebstrap",
    "etc/hostname",
    "var/lib/apt/lists/*",
    "var/cache/apt/*.bin",
    "var/log/*.log",
    "usr/share/doc/*",
    "usr/share/man/*",
    "usr/share/locale/*",
)

_ACQUIRE_SETTINGS = re.compile(
    r"^Acquire::(Check-Valid-Until|Check-Date|Retries|(http|https)::(Proxy|Timeout|CAInfo)[^ ]*) "
)


def ensure(suite: str = "bookworm") -> Path:
    """Return the base image's folder; build it first if this recipe was never built here (about a minute).

    The image is taken from this machine's own apt sources. It is complete or absent: a build that breaks leaves nothing.

    Raises:
        UsageError: the suite is not supported.
        EnvironmentLacks: not root, a program is missing, or no apt source offers Debian packages.
        WorkFailed: the build failed; the message holds mmdebstrap's own last word.
    """
    if suite not in SUITES:
        raise UsageError(f"suite {suite!r} is unknown: use one of {', '.join(SUITES)}")
    image = CACHE / f"{suite}-{_recipe_hash(suite)}"
    if image.is_dir():
        return image
    preflight()
    with locked(CACHE / f"{suite}.lock"):
        if not image.is_dir():
            partial = CACHE / f".{suite}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            try:
                _build(partial, suite)
                partial.rename(image)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return image


def _recipe_hash(suite: str) -> str:
    recipe = json.dumps([suite, PACKAGES, MASKED, FILES, REMOVED], sort_keys=True)
    return hashlib.sha256(recipe.encode()).hexdigest()[:12]


def _build(target: Path, suite: str) -> None:
    options = [f"--aptopt={setting}" for setting in _apt_settings()]
    done = subprocess.run(
        [
            "mmdebstrap",
            "--mode=root",
            "--variant=minbase",
            "--format=directory",
            f"--include={','.join(PACKAGES)}",
            *options,
            suite,
            str(target),
            "-",
        ],
        input=apt_sources(suite),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.startswith("E:")] or done.stderr.splitlines()[-1:]
        raise WorkFailed(f"the lab's base image could not be built: mmdebstrap said {' / '.join(said[:3])}")
    for pattern in REMOVED:
        for path in target.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()
    for name, text in FILES.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(text)
    units = target / "etc/systemd/system"
    for unit in MASKED:
        (units / unit).unlink(missing_ok=True)
        (units / unit).symlink_to("/dev/null")
    (units / "default.target").unlink(missing_ok=True)
    (units / "default.target").symlink_to("/lib/systemd/system/multi-user.target")
    wanted = units / "multi-user.target.wants/systemd-networkd.service"
    wanted.unlink(missing_ok=True)
    wanted.symlink_to("/lib/systemd/system/systemd-networkd.service")
    (target / "srv/hospital").mkdir(parents=True)
    (target / "root/.ssh").mkdir(mode=0o700, exist_ok=True)


def apt_sources(suite: str, etc_apt: Path = Path("/etc/apt"), machine_suite: str | None = None) -> str:
    """Return this machine's Debian sources as one-line apt sources for `suite`; other vendors' lists are left out.

    Raises:
        EnvironmentLacks: no source offers the `main` component of this machine's Debian suite.
    """
    own = machine_suite or _machine_suite()
    lines: list[str] = []
    for path in sorted([*etc_apt.glob("sources.list"), *etc_apt.glob("sources.list.d/*.list")]):
        lines += [_renamed(line, own, suite) for line in path.read_text().splitlines() if _offers(line, own)]
    for path in sorted(etc_apt.glob("sources.list.d/*.sources")):
        for stanza in re.split(r"\n\s*\n", path.read_text()):
            lines += [_renamed(line, own, suite) for line in _one_line_form(stanza) if _offers(line, own)]
    if not lines:
        raise EnvironmentLacks(
            f"no apt source in {etc_apt} offers Debian {own} main: add one, for example debian.sources, and call again"
        )
    return "\n".join(dict.fromkeys(lines)) + "\n"


def _machine_suite() -> str:
    release = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text().splitlines() if "=" in line
    )
    return release.get("VERSION_CODENAME", "").strip('"')


def _offers(line: str, suite: str) -> bool:
    match = re.match(r"deb\s+(?:\[[^]]*\]\s+)?\S+\s+(\S+)\s+(.*)", line)
    return bool(match) and match[1].split("-")[0] == suite and "main" in match[2].split()  # type: ignore[index]


def _renamed(line: str, own: str, suite: str) -> str:
    match = re.match(r"(deb\s+(?:\[[^]]*\]\s+)?\S+\s+)(\S+)", line)
    assert match  # noqa: S101 - _offers has matched the same form
    return f"{match[1]}{match[2].replace(own, suite, 1)} main"


def _one_line_form(stanza: str) -> list[str]:
    fields: dict[str, str] = {}
    for line in stanza.splitlines():
        if line.startswith("#") or ":" not in line:
            continue
        key, value = line.split(":", 1)
        fields[key.strip().lower()] = value.strip()
    if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() == "no":
        return []
    signed = fields.get("signed-by", "")
    options = f"[signed-by={signed}] " if signed.startswith("/") else ""
    return [
        f"deb {options}{uri} {suite} {fields.get('components', '')}"
        for uri in fields.get("uris", "").split()
        for suite in fields.get("suites", "").split()
    ]


def _apt_settings() -> list[str]:
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False).stdout
    return [line for line in dump.splitlines() if _ACQUIRE_SETTINGS.match(line)]
