"""What counts as well, as a warning and as critical, and why; and what a host's program finds."""

import http.server
import json
import os
import pwd
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from flowerbed import health
from flowerbed.health import Level, Limits, ask, facts, probe
from flowerbed.health.facts import Backup, Facts, Probe, Unit
from flowerbed.health.judge import judge
from flowerbed.paths import ANSIBLE
from flowerbed.runs import Verdict

sys.path.insert(0, str(ANSIBLE / "collections"))

from ansible_collections.flowerbed.federation.plugins.module_utils import look

RELEASE = "1.41.0-f2ec610341"
COORDINATOR = Facts(
    "coordinator",
    facts.COORDINATOR,
    units={"flower-superlink": Unit("active")},
    disks={"/opt": 20.0},
    certificate_days=364,
    release=RELEASE,
    python="python3.11",
)
WELL = replace(
    COORDINATOR,
    name="hospital-a",
    role=facts.SITE,
    units={"flower-supernode": Unit("active")},
    clock=0.4,
    data_path="/srv/hospital",
    node="online",
)
HOUR = 3600.0


def findings(host: Facts, limits: Limits = health.LIMITS) -> dict[str, health.Finding]:
    return {one.check: one for one in judge(host, COORDINATOR, "lab", limits)}


def test_a_site_that_is_well_has_nothing_but_good_findings() -> None:
    found = findings(WELL)
    assert {one.level for one in found.values()} == {Level.OK}
    assert {"host", "units", "gateway", "node", "clock", "disk", "data", "certificate", "release", "probe"} == set(
        found
    )


@pytest.mark.parametrize(
    ("check", "change", "level", "said"),
    [
        ("host", {"unreachable": "no answer"}, Level.CRITICAL, "no answer"),
        ("units", {"units": {}}, Level.CRITICAL, "not installed"),
        (
            "units",
            {"units": {"flower-supernode": Unit("activating", 4)}, "complaint": "Failed to activate SuperNode."},
            Level.CRITICAL,
            "activating (started anew 4 times): Failed to activate",
        ),
        ("gateway", {"connected": False, "complaint": "certificate verify failed"}, Level.CRITICAL, "verify failed"),
        ("gateway", {"handshake": "10.1.0.2:443 does not answer"}, Level.CRITICAL, "does not answer"),
        ("gateway", {"refused": "the gateway refused it 3 times"}, Level.CRITICAL, "refused it 3 times"),
        ("node", {"node": "offline"}, Level.CRITICAL, "offline"),
        ("node", {"node": "unregistered"}, Level.CRITICAL, "not registered"),
        ("node", {"node": "unknown"}, Level.UNKNOWN, "not asked"),
        ("clock", {"clock": -45.0}, Level.WARNING, "-45 s off"),
        ("clock", {"clock": 600.0}, Level.CRITICAL, "+600 s off"),
        ("clock", {"clock": None}, Level.UNKNOWN, "not known"),
        ("disk", {"disks": {"/opt": 9.0, "/var/lib": 1.2}}, Level.WARNING, "1.2 GB free below /var/lib"),
        ("disk", {"disks": {"/opt": 0.1}}, Level.CRITICAL, "0.1 GB"),
        ("data", {"data_problem": "/srv/hospital is empty"}, Level.CRITICAL, "is empty"),
        ("devices", {"devices": {"/dev/nvidia0": "does not exist"}}, Level.CRITICAL, "/dev/nvidia0 does not exist"),
        ("devices", {"devices": {"/dev/nvidia0": ""}}, Level.OK, "/dev/nvidia0"),
        ("certificate", {"certificate_days": 30}, Level.WARNING, "ends in 30 days"),
        ("certificate", {"certificate_days": 7}, Level.CRITICAL, "ends in 7 days"),
        ("certificate", {"certificate_days": -1}, Level.CRITICAL, "has expired"),
        ("release", {"release": "1.40.0-aaaaaaaaaa"}, Level.WARNING, RELEASE),
        ("release", {"release": "1.41.0-bbbbbbbbbb"}, Level.WARNING, RELEASE),
        ("release", {"release": "1.41.0-bbbbbbbbbb", "python": "python3.13"}, Level.OK, "1.41.0"),
        ("release", {"release": "1.40.0-bbbbbbbbbb", "python": "python3.13"}, Level.WARNING, RELEASE),
        ("probe", {"probe": Probe(False, "it REFUSED the app", 60)}, Level.CRITICAL, "REFUSED the app, 60 s ago"),
        ("probe", {"probe": Probe(True, "trained 2 rounds", 9 * 86400)}, Level.OK, "9 days ago"),
    ],
)
def test_what_is_wrong_is_named_with_its_level_and_a_remedy(
    check: str, change: dict[str, Any], level: Level, said: str
) -> None:
    found = findings(replace(WELL, **change))[check]
    assert found.level is level
    assert said in found.what
    if level in (Level.WARNING, Level.CRITICAL) and check != "host":
        assert found.remedy


def test_a_host_that_does_not_answer_is_judged_by_what_the_coordinator_knows() -> None:
    found = findings(replace(WELL, unreachable="no answer", node="online"))
    assert set(found) == {"host", "node", "release", "probe"}


def test_a_site_that_joined_by_kit_is_judged_by_its_node_release_probe_and_what_the_gateway_refused() -> None:
    kit = Facts("hospital-d", facts.SITE, by_kit=True, node="online", release=RELEASE)
    assert set(findings(kit)) == {"node", "release", "probe"}
    assert findings(kit)["node"].level is Level.OK
    refused = findings(replace(kit, refused="the gateway refused it twice"))["node"]
    assert (refused.level, refused.what) == (Level.CRITICAL, "the gateway refused it twice")


def test_probes_may_be_asked_for_at_an_age() -> None:
    limits = Limits(probe_age=24 * HOUR)
    assert findings(WELL, limits)["probe"].level is Level.WARNING
    assert findings(replace(WELL, probe=Probe(True, "trained", 25 * HOUR)), limits)["probe"].level is Level.WARNING
    assert findings(replace(WELL, probe=Probe(True, "trained", 23 * HOUR)), limits)["probe"].level is Level.OK


@pytest.mark.parametrize(
    ("backup", "level"),
    [
        (Backup(True, "", HOUR), Level.OK),
        (Backup(True, "", 48 * HOUR), Level.WARNING),
        (Backup(False, "no space left", HOUR), Level.CRITICAL),
    ],
)
def test_a_backup_that_failed_is_worse_than_one_that_is_late(backup: Backup, level: Level) -> None:
    assert findings(replace(COORDINATOR, backup=backup))["backup"].level is level
    assert "backup" not in findings(COORDINATOR)


def test_the_worst_counts_and_what_is_critical_is_worse_than_what_is_unknown() -> None:
    known = ask.Known("lab", [COORDINATOR, WELL])
    assert health.judged(known).healthy
    known = replace(known, hosts=[COORDINATOR, replace(WELL, clock=60.0)])
    assert (health.judged(known).level, health.judged(known).healthy) == (Level.WARNING, True)
    known = replace(known, hosts=[COORDINATOR, replace(WELL, node="unknown")])
    assert (health.judged(known).level, health.judged(known).healthy) == (Level.UNKNOWN, False)
    known = replace(known, hosts=[COORDINATOR, replace(WELL, node="unknown", data_problem="gone")])
    assert health.judged(known).level is Level.CRITICAL


def test_what_a_probe_found_is_told_for_every_site() -> None:
    said = {
        "11": {"ok": True, "losses": [0.4, 0.3], "seconds": 7.2},
        "12": {
            "ok": False,
            "losses": [],
            "problem": "<class '__main__.AppRefused'>:<'hospital-b does not allow app 77'>",
        },
        "13": {"ok": False, "losses": [], "problem": "/srv/hospital is empty"},
    }
    nodes = {"hospital-a": "11", "hospital-b": "12", "hospital-c": "13", "hospital-d": "14"}
    found = probe.results(said, nodes, set(nodes), Verdict("completed", "", 0))
    assert found["hospital-a"] == probe.Result(True, "trained 2 rounds, the last in 7 s")
    assert found["hospital-b"] == probe.Result(False, "it REFUSED the app: hospital-b does not allow app 77")
    assert "is empty" in found["hospital-c"].detail
    assert found["hospital-d"] == probe.Result(False, "it was not online")
    lost = probe.results(None, nodes, set(nodes), Verdict("timed-out", "stopped after 300 s", 1))
    assert {one.detail for one in lost.values()} == {"the probe run timed-out: stopped after 300 s"}


# The program on the host ------------------------------------------------------------------------------------


@pytest.mark.parametrize(("backup", "seen"), [("inactive", False), ("failed", True)])
def test_what_a_timer_starts_may_be_idle_and_may_not_have_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, backup: str, seen: bool
) -> None:
    (tmp_path / "flower-supernode.service").write_text("[Install]\n")
    (tmp_path / "flower-backup.service").write_text("[Service]\nType=oneshot\n")
    said = "Type=simple\nId=flower-supernode.service\nActiveState=active\nNRestarts=2\n\n"
    said += f"Type=oneshot\nId=flower-backup.service\nActiveState={backup}\n"
    monkeypatch.setattr(look, "UNITS", tmp_path)
    monkeypatch.setattr(look, "_output", lambda *_: said)
    found = look.units()
    assert (found["flower-supernode"]["state"], found["flower-supernode"]["restarts"]) == ("active", 2)
    assert ("flower-backup" in found) is seen


def test_a_slow_answer_is_no_wrong_clock() -> None:
    assert ask.ahead(host=1005.0, asked=1000.0, arrived=1010.0) == 0
    assert ask.ahead(host=1600.0, asked=1000.0, arrived=1010.0) == 590
    assert ask.ahead(host=400.0, asked=1000.0, arrived=1010.0) == -600


def test_a_folder_of_data_is_tried_as_the_user_who_reads_it(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    assert look.unreadable(folder) == f"{folder} does not exist"
    folder.mkdir()
    assert look.unreadable(folder) == ""
    assert look.unreadable(folder, filled=True) == f"{folder} is empty"
    (folder / "patients.csv").touch(mode=0o600)
    assert look.unreadable(folder, filled=True) == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_what_root_may_read_another_user_may_not() -> None:
    nobody = pwd.getpwnam("nobody")
    assert look.as_user(nobody, [], lambda: os.access("/etc/shadow", os.R_OK)) is False
    assert look.as_user(nobody, [], lambda: [os.getuid(), os.getgroups()]) == [nobody.pw_uid, []]


def test_what_hangs_for_another_user_does_not_hang_the_look(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(look, "_CHILD_SECONDS", 0.1)
    me = pwd.getpwuid(os.getuid())
    assert look.as_user(me, os.getgroups(), lambda: threading.Event().wait(30)) is None


def authority(name: str) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
    key = ec.generate_private_key(ec.SECP256R1())
    return key, certificate(key, name, key, name, ca=True)


def certificate(
    key: ec.EllipticCurvePrivateKey,
    name: str,
    signer: ec.EllipticCurvePrivateKey,
    issuer: str,
    *,
    ca: bool = False,
    days: int = 1,
) -> x509.Certificate:
    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now = datetime.now(UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca, None), True)
    )
    if not ca:
        built = built.add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), False)
    return built.sign(signer, hashes.SHA256())


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Any]:
    """Serve TLS on the loopback with a certificate, and give the port."""
    servers = []

    def begin(key: ec.EllipticCurvePrivateKey, made: x509.Certificate) -> int:
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        file = tmp_path / "server.pem"
        file.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(file)
        server = http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler)
        server.handle_error = lambda request, client: None  # type: ignore[method-assign]
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        servers.append(server)
        return int(server.server_address[1])

    yield begin
    for server in servers:
        server.shutdown()
        server.server_close()


def test_a_gateway_of_our_ca_is_told_from_one_that_somebody_put_in_its_place(serve: Any) -> None:
    ours, root = authority("our CA")
    theirs, _ = authority("ACME Web Inspection")
    key = ec.generate_private_key(ec.SECP256R1())
    trusted = root.public_bytes(serialization.Encoding.PEM).decode()

    def kinds(made: x509.Certificate) -> tuple[bool, str, str]:
        seen = look.handshake(f"localhost:{serve(key, made)}", trusted)
        assert seen.certificate == made.fingerprint(hashes.SHA256()).hex()
        return seen.ok, seen.kind, seen.told

    assert kinds(certificate(key, "localhost", ours, "our CA")) == (True, "", "")
    ok, kind, told = kinds(certificate(key, "localhost", theirs, "ACME Web Inspection"))
    assert (ok, kind) == (False, "untrusted")
    assert "ACME Web Inspection" in told
    assert kinds(certificate(key, "flower.example.org", ours, "our CA"))[1] == "name"
    assert kinds(certificate(key, "localhost", ours, "our CA", days=-1))[1] == "expired"


def test_a_gateway_that_does_not_answer_or_has_no_address_is_told_as_such() -> None:
    _, root = authority("our CA")
    trusted = root.public_bytes(serialization.Encoding.PEM).decode()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        assert look.handshake(f"127.0.0.1:{taken.getsockname()[1]}", trusted).kind == "connect"
    assert look.handshake("no-such-host.invalid:443", trusted).kind == "resolve"


def test_the_program_runs_on_a_host_that_has_nothing_of_flowers() -> None:
    done = subprocess.run(
        ["python3", "-I", "-S", "-c", (ANSIBLE / "plugins" / "module_utils" / "look.py").read_text()],
        capture_output=True,
        text=True,
        check=True,
    )
    answer = json.loads(done.stdout)
    assert Facts.read(answer, name="here", role=facts.SITE).release == answer["release"]
