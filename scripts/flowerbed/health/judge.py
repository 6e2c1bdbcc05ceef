"""Says of each fact whether it is in order, and what to do if it is not; pure, so that every case can be tried."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum

from flowerbed.health.facts import COORDINATOR, Facts

WARN_DAYS = 30
ALARM_DAYS = 7


class Level(Enum):
    """How bad a thing is; the values are the exit codes of monitoring systems."""

    OK = 0
    WARNING = 1
    CRITICAL = 2
    UNKNOWN = 3


_BADNESS = (Level.OK, Level.WARNING, Level.UNKNOWN, Level.CRITICAL)


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at."""

    host: str
    check: str
    """`host`, `units`, `gateway`, `node`, `clock`, `disk`, `data`, `devices`, `certificate`, `release`, `probe`,
    `backup`, or `superlink`."""
    level: Level
    what: str
    remedy: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing is to be done."""
        return self.level is Level.OK


@dataclass(frozen=True)
class Limits:
    """Where a thing stops being in order."""

    clock_warning: float = 30.0
    clock_critical: float = 240.0
    """Seconds; Flower refuses a node whose signature is 300 s off."""
    disk_warning: float = 2.0
    disk_critical: float = 0.5
    """Gigabytes; a release needs 2 while it is installed."""
    backup_age: float = 36 * 3600.0
    """Seconds."""
    probe_age: float | None = None
    """Seconds after which a probe is too old, and a site without one is a warning; None: any age will do."""


LIMITS = Limits()
"""What holds unless somebody says otherwise."""


def worst(findings: Sequence[Finding]) -> Level:
    """The level of the worst of them."""
    return max((finding.level for finding in findings), key=_BADNESS.index, default=Level.OK)


def judge(host: Facts, coordinator: Facts, federation: str, limits: Limits) -> list[Finding]:
    """Every finding about one host, also what is in order; `federation` is named in remedies."""
    return list(_Judge(host, coordinator, federation, limits).findings())


@dataclass(frozen=True)
class _Judge:
    host: Facts
    coordinator: Facts
    federation: str
    limits: Limits

    def findings(self) -> Iterator[Finding]:
        if self.host.unreachable:
            yield self._say("host", Level.CRITICAL, self.host.unreachable)
        elif not self.host.by_kit:
            yield self._say("host", Level.OK, "answers")
            yield from self._looked_at()
        if self.host.role != COORDINATOR:
            yield self._node()
            yield self._release()
            yield self._probe()
        elif self.host.backup is not None:
            yield self._backup()

    def _looked_at(self) -> Iterator[Finding]:
        yield self._units()
        yield self._gateway()
        if self.host.role != COORDINATOR:
            yield self._clock()
        yield self._disk()
        if self.host.data_path:
            yield self._data()
        if self.host.devices:
            yield self._devices()
        if self.host.certificate_days is not None:
            yield self._certificate(self.host.certificate_days)

    def _units(self) -> Finding:
        if not self.host.units:
            return self._say("units", Level.CRITICAL, "Flower is not installed", f"`flowerbed up {self.federation}`")
        broken = [(name, unit) for name, unit in self.host.units.items() if unit.state != "active"]
        if not broken:
            return self._say("units", Level.OK, f"{len(self.host.units)} run")
        told = []
        for name, unit in broken:
            times = f" (started anew {unit.restarts} times)" if unit.restarts else ""
            why = f": {self.host.complaint}" if name == "flower-supernode" and self.host.complaint else ""
            told.append(f"{name} is {unit.state}{times}{why}")
        remedy = (
            f"`journalctl -u {broken[0][0]}` on {self.host.name} says why; `flowerbed up {self.federation}` mends it"
        )
        return self._say("units", Level.CRITICAL, "; ".join(told), remedy)

    def _gateway(self) -> Finding:
        """The way to the gateway, and whether the SuperNode that runs now was let in."""
        if self.host.handshake:
            remedy = {
                "resolve": "mend the host's DNS",
                "connect": "open the way from the site to the gateway's port",
                "proxy": "have the proxy pass it on, or correct supernode_proxy and its user",
                "untrusted": "exempt the gateway from TLS inspection, or renew the site's CA certificate with `up`",
                "name": f"add the name to gateway_dns_names, then `flowerbed up {self.federation}`",
                "expired": f"`flowerbed up {self.federation}` renews it, if the clocks are right",
            }.get(self.host.handshake_kind, f"`flowerbed preflight {self.federation}` says more")
            if self.host.role == COORDINATOR:
                remedy = f"`journalctl -u flower-gateway` says why; `flowerbed up {self.federation}` mends it"
            return self._say("gateway", Level.CRITICAL, self.host.handshake, remedy)
        if self.host.refused:
            remedy = (
                f"`flowerbed site unblock {self.host.name}` if it was blocked; else `flowerbed up {self.federation}`"
            )
            return self._say("gateway", Level.CRITICAL, self.host.refused, remedy)
        if self.host.connected is False:
            why = self.host.complaint or "it has only just been started"
            remedy = f"look again in 20 s; if it stays, `journalctl -u flower-supernode` on {self.host.name}"
            return self._say("gateway", Level.CRITICAL, f"the SuperNode is not let in yet: {why}", remedy)
        return self._say("gateway", Level.OK, "TLS connection made")

    def _node(self) -> Finding:
        if self.host.by_kit and self.host.refused:
            remedy = f"`flowerbed site unblock {self.host.name}` if it was blocked; else its administrator joins again"
            return self._say("node", Level.CRITICAL, self.host.refused, remedy)
        if self.host.node == "online":
            return self._say("node", Level.OK, "online")
        if self.host.node == "unknown":
            return self._say("node", Level.UNKNOWN, "the SuperLink was not asked")
        says = {
            "unregistered": ("is not registered", f"`flowerbed up {self.federation}` registers it"),
            "registered": ("is registered and was never online", "see the site's units and its way to the gateway"),
        }
        what, remedy = says.get(
            self.host.node, (f"is {self.host.node}", "see the site's units and its way to the gateway")
        )
        if self.host.by_kit:
            remedy = "ask the hospital's administrator for `systemctl status flower-supernode`"
        return self._say("node", Level.CRITICAL, f"the node {what}", remedy)

    def _clock(self) -> Finding:
        off = self.host.clock
        if off is None:
            return self._say("clock", Level.UNKNOWN, "the coordinator's clock is not known")
        level = _above(abs(off), self.limits.clock_warning, self.limits.clock_critical)
        if level is Level.OK:
            return self._say("clock", level, "agrees with the coordinator's")
        remedy = "set the time and enable systemd-timesyncd; Flower refuses a node at 300 s"
        return self._say("clock", level, f"{off:+.0f} s off the coordinator's", remedy)

    def _disk(self) -> Finding:
        folder, free = min(self.host.disks.items(), key=lambda entry: entry[1], default=("", 0.0))
        level = _above(-free, -self.limits.disk_warning, -self.limits.disk_critical)
        what = f"{free:.1f} GB free below {folder}"
        return self._say("disk", level, what, "" if level is Level.OK else f"make room on the disk of {folder}")

    def _data(self) -> Finding:
        if not self.host.data_problem:
            return self._say("data", Level.OK, f"{self.host.data_path} can be read")
        remedy = "mount it or bring it back, let flower-app read it, or correct supernode_data_path"
        return self._say("data", Level.CRITICAL, self.host.data_problem, remedy)

    def _devices(self) -> Finding:
        broken = [f"{device} {problem}" for device, problem in self.host.devices.items() if problem]
        if not broken:
            return self._say("devices", Level.OK, f"{', '.join(self.host.devices)} can be used")
        return self._say("devices", Level.CRITICAL, "; ".join(broken), "load its driver, or correct supernode_devices")

    def _certificate(self, days: int) -> Finding:
        level = _above(-days, -WARN_DAYS - 1, -ALARM_DAYS - 1)
        what = f"good for {days} days" if level is Level.OK else _ending(days)
        return self._say("certificate", level, what, "" if level is Level.OK else f"`flowerbed up {self.federation}`")

    def _release(self) -> Finding:
        here, there = self.host.release, self.coordinator.release
        if not here or not there:
            return self._say("release", Level.UNKNOWN, "one of the releases is not known")
        same_python = not self.host.python or self.host.python == self.coordinator.python
        same = here == there or (not same_python and here.split("-")[0] == there.split("-")[0])
        if same:
            return self._say("release", Level.OK, here)
        remedy = f"`flowerbed up {self.federation}`" if not self.host.by_kit else "send the hospital a new kit"
        return self._say("release", Level.WARNING, f"{here}, and the coordinator has {there}", remedy)

    def _probe(self) -> Finding:
        probe, limit = self.host.probe, self.limits.probe_age
        again = f"`flowerbed health {self.federation} --probe`"
        if probe is None:
            level = Level.OK if limit is None else Level.WARNING
            return self._say("probe", level, "never probed", "" if limit is None else again)
        what = f"{probe.detail}, {age(probe.age)} ago"
        if not probe.ok:
            return self._say("probe", Level.CRITICAL, what, f"{again} when it is mended")
        if limit is not None and probe.age > limit:
            return self._say("probe", Level.WARNING, what, again)
        return self._say("probe", Level.OK, what)

    def _backup(self) -> Finding:
        backup = self.host.backup
        if backup is None or not backup.ok:
            why = backup.error if backup else "none"
            remedy = f"`journalctl -u 'flower-backup*'` on {self.host.name} says why"
            return self._say("backup", Level.CRITICAL, f"the last backup failed: {why}", remedy)
        old = backup.age > self.limits.backup_age
        remedy = f"`systemctl list-timers 'flower-*'` on {self.host.name} says when the next is due"
        level = Level.WARNING if old else Level.OK
        return self._say("backup", level, f"{age(backup.age)} ago", remedy if old else "")

    def _say(self, check: str, level: Level, what: str, remedy: str = "") -> Finding:
        return Finding(self.host.name, check, level, what, remedy)


def _above(value: float, warning: float, critical: float) -> Level:
    return Level.CRITICAL if value > critical else Level.WARNING if value > warning else Level.OK


def _ending(days: int) -> str:
    return "a certificate " + (f"ends in {days} days" if days > 0 else "has expired")


def age(seconds: float) -> str:
    """A length of time as people say it."""
    for length, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"
