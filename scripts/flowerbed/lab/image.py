"""The base image of lab hosts: a small Debian, built once and kept."""

import hashlib
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from flowerbed.errors import EnvironmentLacks, UsageError, WorkFailed
from flowerbed.lab.system import CACHE, locked, preflight

ETC_APT = Path("/etc/apt")
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

# Units that only cost memory and start time in a container; nginx is started by the gateway's own unit only.
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

# What no host needs: keys that all would share, package indexes that no site may reach, documentation.
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


def ensure(suite: str = "bookworm", cache: Path = CACHE, etc_apt: Path = ETC_APT) -> Path:
    """Return the base image's folder; build it first if this recipe was never built here (about a minute).

    It comes from this machine's own apt sources, and is complete or absent: a broken build leaves nothing.

    Args:
        suite: the Debian suite.
        cache: folder that keeps the images.
        etc_apt: folder of apt's configuration.

    Raises:
        UsageError: the suite is not supported.
        EnvironmentLacks: not root, a program is missing, or no apt source offers Debian packages.
        WorkFailed: the build failed; the message holds mmdebstrap's own last word.
    """
    if suite not in SUITES:
        raise UsageError(f"suite {suite!r} is unknown: use one of {', '.join(SUITES)}")
    image = cache / f"{suite}-{_recipe_hash(suite)}"
    if image.is_dir():
        return image
    preflight()
    with locked(cache / f"{suite}.lock"):
        if not image.is_dir():
            partial = cache / f".{suite}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            try:
                _build(partial, suite, apt_sources(suite, etc_apt))
                partial.rename(image)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return image


def _recipe_hash(suite: str) -> str:
    recipe = json.dumps([suite, PACKAGES, MASKED, FILES, REMOVED], sort_keys=True)
    return hashlib.sha256(recipe.encode()).hexdigest()[:12]


def _build(target: Path, suite: str, sources: str) -> None:
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
        input=sources,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        lines = done.stderr.splitlines()
        said = [line for line in lines if line.startswith("E:")] or lines[-1:]
        raise WorkFailed(f"the lab's base image could not be built: mmdebstrap said {' / '.join(said[:3])}")
    _strip(target)
    for name, text in FILES.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.write_text(text)
    units = target / "etc/systemd/system"
    for unit in MASKED:
        _link(units / unit, "/dev/null")
    _link(units / "default.target", "/lib/systemd/system/multi-user.target")
    _link(
        units / "multi-user.target.wants/systemd-networkd.service",
        "/lib/systemd/system/systemd-networkd.service",
    )
    (target / "srv/hospital").mkdir(parents=True)
    (target / "root/.ssh").mkdir(mode=0o700, exist_ok=True)


def _strip(target: Path) -> None:
    for pattern in REMOVED:
        for path in target.glob(pattern):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


def _link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)


@dataclass(frozen=True)
class _Source:
    options: str
    uri: str
    suite: str
    components: tuple[str, ...]


def apt_sources(suite: str, etc_apt: Path = ETC_APT, machine_suite: str | None = None) -> str:
    """Return this machine's Debian sources as one-line apt sources for `suite`, without other vendors' lists.

    Args:
        suite: the suite that the image gets.
        etc_apt: folder of apt's configuration.
        machine_suite: the suite that this machine's sources name; from /etc/os-release if not given.

    Raises:
        EnvironmentLacks: no source offers the `main` component of this machine's Debian suite.
    """
    own = machine_suite or _machine_suite()
    found: list[_Source] = []
    for path in sorted([*etc_apt.glob("sources.list"), *etc_apt.glob("sources.list.d/*.list")]):
        found += _one_line_sources(path.read_text())
    for path in sorted(etc_apt.glob("sources.list.d/*.sources")):
        found += _stanza_sources(path.read_text())
    lines = [
        f"deb {one.options}{one.uri} {one.suite.replace(own, suite, 1)} main"
        for one in found
        if one.suite.split("-")[0] == own and "main" in one.components
    ]
    if not lines:
        raise EnvironmentLacks(
            f"no apt source in {etc_apt} offers Debian {own} main, which the lab's image needs: add one"
        )
    return "\n".join(dict.fromkeys(lines)) + "\n"


def _machine_suite() -> str:
    lines = Path("/etc/os-release").read_text().splitlines()
    release = {key: value.strip('"') for key, _, value in (line.partition("=") for line in lines)}
    if release.get("ID") != "debian":
        raise EnvironmentLacks(
            f"the lab's image is made from Debian's apt sources, and this machine runs {release.get('ID')}: "
            "use a Debian machine"
        )
    return release.get("VERSION_CODENAME", "")


def _one_line_sources(text: str) -> list[_Source]:
    matches = re.findall(r"^deb\s+(\[[^]]*\]\s+)?(\S+)\s+(\S+)\s+([^#\n]*)", text, re.MULTILINE)
    return [_Source(options, uri, suite, tuple(rest.split())) for options, uri, suite, rest in matches]


def _stanza_sources(text: str) -> list[_Source]:
    found = []
    for stanza in re.split(r"\n\s*\n", text):
        fields = {
            key.strip().lower(): value.strip()
            for key, colon, value in (line.partition(":") for line in stanza.splitlines() if line[:1] != "#")
            if colon
        }
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() == "no":
            continue
        signed = fields.get("signed-by", "")
        options = f"[signed-by={signed}] " if signed.startswith("/") else ""
        components = tuple(fields.get("components", "").split())
        found += [
            _Source(options, uri, suite, components)
            for uri in fields.get("uris", "").split()
            for suite in fields.get("suites", "").split()
        ]
    return found


def _apt_settings() -> list[str]:
    dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False).stdout
    return [line for line in dump.splitlines() if _ACQUIRE_SETTINGS.match(line)]
