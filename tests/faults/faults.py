"""The faults, one entry each: what is done to the federation in the middle of a run, and what must hold then."""

import ipaddress
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass

from flowerbed import lab
from tests.e2e.expiry import expire
from tests.faults.bed import Bed
from tests.recovery.names import NameServer

Deed = Callable[[Bed], object]
STATE = "/var/lib/flower"
DATABASE = f"{STATE}/superlink/superlink.db"
DROP_IN = "/etc/systemd/system/flower-supernode.service.d"
GATEWAY_NAME = "flower.faults.example"
AT_A_SITE = "flower-supernode flower-superexec-clientapp flower-clientapp.socket"
AT_THE_COORDINATOR = "flower-superlink flower-superexec-serverapp flower-serverapp.socket flower-serverapp-warm.socket"
DAMAGED = "database damaged, brought back by `restore`"
RESTORES = {
    "`restore` killed while it brings the state back": r"Restore \| Bring the state back",
    "`restore` killed while it starts the SuperLink": r"superlink : Run \| Keep the units running",
}
"""Rows, and the steps that `restore` is at then."""
COMPLETED, INCOMPLETE, FAILED = "completed", "incomplete", "failed"


def nothing(_: Bed) -> None:
    """It ends by itself."""


@dataclass(frozen=True)
class Fault:
    """What happens, and what must hold."""

    name: str
    strike: Deed
    verdicts: tuple[str, ...]
    """What may become of the run."""
    reason: str = ""
    """What the operator must be told, as a pattern, where the run does not complete."""
    meanwhile: str = ""
    """What `flowerbed status` must say while the fault stands, as a pattern."""
    lasts: float = 0.0
    """Seconds until it is mended."""
    mend: Deed = nothing
    config: tuple[str, ...] = ()
    """Run config of the run that is under way."""
    around: Callable[[Bed], AbstractContextManager[object]] = nullcontext
    """What has to stand before the run begins."""

    at: str = r"round 1/\d+ train"
    """What the run has said by then, as a pattern."""
    makes_keys: bool = False
    """Whether mending it makes a key or a certificate anew."""

    def __str__(self) -> str:
        return re.sub(r"\W+", "-", self.name)


@dataclass(frozen=True)
class HalfDone:
    """A change that is killed in its middle."""

    name: str
    command: tuple[str, ...]
    at: str
    """The step that it says it is at then, as a pattern."""
    prepare: Deed = nothing
    """What makes that there is something to change."""
    verdicts: tuple[str, ...] = (COMPLETED, INCOMPLETE, FAILED)
    """What may become of the run that is under way."""
    makes_keys: bool = False

    def __str__(self) -> str:
        return re.sub(r"\W+", "-", self.name)


def limit(bed: Bed, host: str, rate: str) -> None:
    """Let a host's line carry so little, both ways."""
    shape = ("root", "tbf", "rate", rate, "burst", "16kb", "latency", "400ms")
    bed.inside_network("tc", "qdisc", "replace", "dev", bed.interface(host), *shape)
    bed.on(host, f"tc qdisc replace dev host0 {' '.join(shape)}")


def unlimit(bed: Bed, host: str) -> None:
    """Let it carry what it can again."""
    bed.inside_network("tc", "qdisc", "delete", "dev", bed.interface(host), "root")
    bed.on(host, "tc qdisc delete dev host0 root")


def fill(bed: Bed, host: str) -> None:
    """Leave no byte on the disk with Flower's state."""
    bed.on(host, f"cat /dev/zero > {STATE}/filler 2>/dev/null; [ $(df --output=avail {STATE} | tail -1) = 0 ]")


def set_clock(bed: Bed, host: str, shift: str) -> None:
    """Let a site's SuperNode see the time so much shifted.

    Hosts here share this machine's clock, so it is the service's calls to the kernel that are answered wrongly, by
    Debian's libfaketime; the time that passes is the right one.
    """
    folder = bed.standing.work / "libfaketime"
    if not folder.exists():
        folder.mkdir()
        subprocess.run(["apt-get", "-qq", "download", "libfaketime"], cwd=folder, capture_output=True, check=True)
        (package,) = folder.glob("*.deb")
        subprocess.run(["dpkg-deb", "--extract", package, folder], check=True)
    (library,) = folder.rglob("libfaketimeMT.so.1")
    bed.send(library, host, "/opt/libfaketimeMT.so.1")
    settings = f"LD_PRELOAD=/opt/libfaketimeMT.so.1 FAKETIME={shift} FAKETIME_DONT_FAKE_MONOTONIC=1 NO_FAKE_STAT=1"
    bed.on(host, f"mkdir -p {DROP_IN} && printf '[Service]\\nEnvironment={settings}\\n' > {DROP_IN}/clock.conf")
    bed.on(host, "systemctl daemon-reload && systemctl restart flower-supernode")


def set_clock_right(bed: Bed, host: str) -> None:
    """Let it see the true time again."""
    bed.on(host, f"rm -r {DROP_IN} /opt/libfaketimeMT.so.1 && systemctl daemon-reload")
    bed.on(host, "systemctl restart flower-supernode")


def up(bed: Bed) -> None:
    """What the operator does where Flower needs a hand."""
    bed.standing.succeed("up", bed.standing.path)


def lock_database(bed: Bed, seconds: int) -> None:
    """Let another process have the SuperLink's database for itself."""
    program = f"import sqlite3, time; c = sqlite3.connect('{DATABASE}', timeout=60, isolation_level=None); "
    program += f"c.execute('begin exclusive'); time.sleep({seconds})"
    bed.on("coordinator", f'systemd-run --unit=locks-the-database --collect python3 -c "{program}"')


@contextmanager
def by_name(bed: Bed, host: str) -> Iterator[None]:
    """Let a site reach the gateway by its name, which it asks a name server for, for as long as the row lasts."""
    address = str(next(ipaddress.ip_network(bed.standing.network).hosts()))
    names = NameServer(address, GATEWAY_NAME, bed.standing.gateway)
    variables = bed.federation.path / "host_vars" / f"{host}.yml"
    variables.parent.mkdir(exist_ok=True)
    variables.write_text(f"supernode_gateway: {GATEWAY_NAME}:443\n")
    bed.on(host, f"echo 'nameserver {address}' > /etc/resolv.conf")
    try:
        up(bed)
        yield
    finally:
        variables.unlink()
        up(bed)
        names.close()


def break_names(bed: Bed, host: str) -> None:
    """Let a site ask a name server that does not answer."""
    bed.on(host, "cp /etc/resolv.conf /etc/resolv.conf.good && echo 'nameserver 192.0.2.1' > /etc/resolv.conf")


def mend_names(bed: Bed, host: str) -> None:
    """Let it ask the good one again."""
    bed.on(host, "cat /etc/resolv.conf.good > /etc/resolv.conf && rm /etc/resolv.conf.good")


def expire_gateway(bed: Bed) -> None:
    """Let the gateway present a certificate that ended yesterday."""
    expire(bed.standing, "coordinator", "/etc/flower/gateway/server.crt")
    bed.on("coordinator", "systemctl restart flower-gateway")


FAULTS = [
    Fault(
        "SuperLink killed",
        lambda bed: bed.kill("coordinator", "flower-superlink"),
        (COMPLETED, INCOMPLETE, FAILED),
        reason="lost|replies",
    ),
    Fault(
        "coordinator powered off and on",
        lambda bed: lab.kill(bed.name, "coordinator"),
        (FAILED,),
        reason="lost.*`flowerbed run --retry",
        meanwhile="exit 1.*coordinator.*does not answer by SSH",
        lasts=5,
        mend=lambda bed: lab.start(bed.name, "coordinator"),
    ),
    Fault(
        "SuperNode killed",
        lambda bed: bed.kill("hospital-b", "flower-supernode"),
        (COMPLETED, INCOMPLETE),
        reason="hospital-b|went offline",
    ),
    Fault(
        "SuperExec of a site killed",
        lambda bed: bed.kill("hospital-b", "flower-superexec-clientapp"),
        (COMPLETED, INCOMPLETE),
        reason="hospital-b",
    ),
    Fault(
        "SuperExec of the coordinator killed",
        lambda bed: bed.kill("coordinator", "flower-superexec-serverapp", whom="main"),
        (COMPLETED,),
    ),
    Fault(
        "ServerApp killed",
        lambda bed: bed.kill("coordinator", "'flower-serverapp@*' flower-serverapp-warm"),
        (FAILED,),
        reason="lost.*`flowerbed run --retry",
    ),
    Fault(
        "site powered off and on",
        lambda bed: lab.kill(bed.name, "hospital-c"),
        (COMPLETED, INCOMPLETE),
        reason="hospital-c",
        meanwhile="hospital-c.*does not answer by SSH",
        lasts=5,
        mend=lambda bed: lab.start(bed.name, "hospital-c"),
    ),
    Fault(
        "site cut off for 30 s",
        lambda bed: lab.cut(bed.name, "hospital-b"),
        (COMPLETED, INCOMPLETE),
        reason="hospital-b",
        lasts=30,
        mend=lambda bed: lab.restore(bed.name, "hospital-b"),
    ),
    Fault(
        "site cut off for 5 minutes",
        lambda bed: lab.cut(bed.name, "hospital-b"),
        (INCOMPLETE,),
        reason="hospital-b",
        meanwhile=r"exit 1.*hospital-b[^\n]*offline",
        lasts=300,
        mend=lambda bed: lab.restore(bed.name, "hospital-b"),
    ),
    Fault(
        "bandwidth of a site 1 Mbit/s, model of 1 MB",
        lambda bed: limit(bed, "hospital-c", "1mbit"),
        (COMPLETED,),
        at=r"run \d+:",
        config=("size=125000",),
        lasts=30,
        mend=lambda bed: unlimit(bed, "hospital-c"),
    ),
    Fault(
        "DNS of a site broken",
        lambda bed: break_names(bed, "hospital-c"),
        (COMPLETED, INCOMPLETE),
        reason="hospital-c|went offline",
        lasts=20,
        mend=lambda bed: mend_names(bed, "hospital-c"),
        around=lambda bed: by_name(bed, "hospital-c"),
    ),
    Fault(
        "disk of a site full",
        lambda bed: fill(bed, "hospital-c"),
        (COMPLETED, INCOMPLETE),
        reason="hospital-c",
        lasts=20,
        mend=lambda bed: bed.on("hospital-c", f"rm {STATE}/filler"),
        around=lambda bed: bed.small_disk("hospital-c", STATE, AT_A_SITE, 32),
    ),
    Fault(
        "disk of the coordinator full",
        lambda bed: fill(bed, "coordinator"),
        (COMPLETED, INCOMPLETE, FAILED),
        reason="disk|space|lost|replies",
        lasts=20,
        mend=lambda bed: bed.on("coordinator", f"rm {STATE}/filler"),
        around=lambda bed: bed.small_disk("coordinator", STATE, AT_THE_COORDINATOR, 64),
    ),
    Fault(
        "clock of a site 10 minutes slow",
        lambda bed: set_clock(bed, "hospital-b", "-600"),
        (COMPLETED, INCOMPLETE),
        reason="hospital-b|went offline",
        meanwhile=r"exit 1.*hospital-b[^\n]*(offline|activating)",
        lasts=30,
        mend=lambda bed: set_clock_right(bed, "hospital-b"),
    ),
    Fault(
        "gateway's certificate expired, mended by `up`",
        expire_gateway,
        (COMPLETED, INCOMPLETE),
        reason="replies|went offline",
        meanwhile=r"coordinator[^\n]* -\d+ days",
        mend=up,
        makes_keys=True,
    ),
    Fault(
        "database locked for 60 s",
        lambda bed: lock_database(bed, 60),
        (COMPLETED, INCOMPLETE, FAILED),
        reason="locked|Error|lost|replies",
        lasts=60,
    ),
    Fault(
        "gateway restarted",
        lambda bed: bed.on("coordinator", "systemctl restart flower-gateway"),
        (COMPLETED, INCOMPLETE),
    ),
    Fault(
        "very slow site",
        nothing,
        (INCOMPLETE,),
        reason="hospital-a[^;]* did not reply in time",
        at=r"run \d+:",
        config=("slow-partition=0", "slow-seconds=120.0", "reply-timeout=45.0", "num-server-rounds=2"),
    ),
    Fault(
        "site that always fails",
        nothing,
        (INCOMPLETE,),
        reason="hospital-b failed with ValueError: no column 'age'",
        at=r"run \d+:",
        config=("failing-partition=1", "num-server-rounds=2"),
    ),
]


def with_package(name: str) -> Deed:
    """Let the hosts have a release that they do not have yet: one with this package as well."""

    def want(bed: Bed) -> None:
        before = bed.standing.succeed("release", "build", bed.standing.path)["id"]
        bed.standing.succeed("release", "add", bed.standing.path, name)
        assert bed.standing.succeed("release", "build", bed.standing.path)["id"] != before

    return want


def want_another_environment(bed: Bed) -> None:
    """Let the hosts be configured otherwise than they are."""
    for role in ("superlink", "supernode"):
        file = bed.federation.path / "group_vars" / f"{role}.yml"
        kept = [line for line in file.read_text().splitlines() if not line.startswith(f"{role}_environment")]
        kept.append(f"{role}_environment: {{MARK: '{time.time_ns()}'}}")
        file.write_text("\n".join(kept) + "\n")


HALF_DONE = [
    HalfDone(
        "`up` killed while it installs a release",
        ("up",),
        at="Switch the host to the release",
        prepare=with_package("more-itertools"),
    ),
    HalfDone(
        "`up` killed while it writes configuration",
        ("up",),
        at=r"(Install|Configure) \| Describe users",
        prepare=want_another_environment,
    ),
    HalfDone(
        "`up` killed while it starts SuperNodes",
        ("up",),
        at=r"supernode : Run \| Keep the units running",
        prepare=want_another_environment,
    ),
    HalfDone(
        "`upgrade` killed while it checks the release",
        ("upgrade", "--wait", "600"),
        at="install: .*(Check the files|Let it start on a copy)",
        prepare=with_package("toolz"),
    ),
    HalfDone(
        "`upgrade` killed while it switches the sites",
        ("upgrade", "--wait", "600"),
        at="switch: .*(Switch the site|Run the SuperNode|See the site online)",
        prepare=with_package("tabulate"),
    ),
    HalfDone("`rotate` killed while it makes keys", ("rotate",), at=r"both CAs: .*Rotate \|", makes_keys=True),
    HalfDone("`rotate` killed while runs are held", ("rotate",), at="both CAs: Let no round begin", makes_keys=True),
    HalfDone(
        "`rotate` killed while the CA is replaced",
        ("rotate",),
        at="new CA: .*Put the certificate on the host",
        makes_keys=True,
    ),
    HalfDone(
        "`rotate` killed while the old CA is taken out",
        ("rotate",),
        at="old CA out: Let no round begin",
        makes_keys=True,
    ),
]
