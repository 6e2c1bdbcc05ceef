"""`flowerbed preflight` names all that is wrong at once, with its remedy, and `up` then refuses to change anything."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.conftest import Standing
from tests.health.conftest import document

# What somebody on the way would do: the gateway's address ends here, and a certificate of another CA is shown.
INTERCEPT = (
    "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 9 -keyout /root/acme.key "
    "-subj '/CN=ACME Web Inspection' -addext subjectAltName=IP:{gateway} -out /root/acme.crt && "
    "ip address add {gateway}/32 dev lo && systemd-run --unit=inspection --collect "
    "openssl s_server -accept {gateway}:443 -cert /root/acme.crt -key /root/acme.key -www"
)
BREAK = (
    "chmod 600 /srv/hospital/*.csv",
    "mount -t tmpfs -o size=64M none /opt",
    "mount -o remount,size=8M /dev/shm",
    "systemd-run --unit=in-the-way --collect python3 -m http.server --bind 127.0.0.1 9555",
    "for i in $(seq 100); do (echo > /dev/tcp/127.0.0.1/9555) 2>/dev/null && break; sleep 0.1; done",
)
MEND = (
    "systemctl stop inspection in-the-way",
    "ip address del {gateway}/32 dev lo",
    "chmod 644 /srv/hospital/*.csv",
    "umount /opt",
    "mount -o remount,size=50% /dev/shm",
)
FILES = "find /etc/flower /etc/systemd/system /var/lib/flower/nodes.json -type f | sort | xargs sha256sum"


def found(answer: dict[str, Any], host: str, check: str) -> dict[str, Any]:
    """The finding that is no good, or the one that there is."""
    own = [one for one in answer["findings"] if (one["host"], one["check"]) == (host, check)]
    assert own, f"{check} of {host} was not looked at"
    return next((one for one in own if not one["ok"]), own[0])


def test_nothing_is_wrong_with_a_federation_that_is_well(standing: Standing) -> None:
    answer = document(standing, 0, "preflight")
    assert answer["ok"]
    for check in ("systemd", "python", "clock", "disk", "memory", "shm", "confinement", "port", "limits"):
        assert found(answer, "coordinator", check)["ok"]
        assert found(answer, "hospital-a", check)["ok"]
    for check in ("data", "names", "route", "tls"):
        assert found(answer, "hospital-a", check)["level"] == "ok"
    assert found(answer, "operator", "doctor")["ok"]


def test_a_way_that_is_closed_is_a_problem_for_which_up_still_may_run(standing: Standing) -> None:
    host = standing.host("hospital-a")
    host.check_output(f"ip route add unreachable {standing.gateway}/32")
    try:
        one = found(document(standing, 1, "preflight"), "hospital-a", "route")
    finally:
        host.check_output(f"ip route del unreachable {standing.gateway}/32")
    assert f"{standing.gateway}:443 does not answer" in one["what"]
    assert "firewalls between" in one["remedy"]
    assert not one["blocks"]
    assert document(standing, 0, "preflight")["ok"]


def test_a_host_that_does_not_answer_is_named_and_the_others_are_looked_at(standing: Standing) -> None:
    file = standing.federation.path / "host_vars" / "hospital-a.yml"
    file.write_text("ansible_port: 2222\n")
    try:
        answer = document(standing, 1, "preflight")
    finally:
        file.unlink()
    assert found(answer, "hospital-a", "host")["level"] == "problem"
    assert found(answer, "hospital-b", "tls")["level"] == "ok"


class Broken:
    """What the commands said while everything was broken."""

    def __init__(self, standing: Standing, path: str) -> None:
        clocked = {"PATH": f"{path}:{os.environ['PATH']}"}
        self.before = {name: standing.host(name).check_output(FILES) for name in ("coordinator", "hospital-a")}
        done = standing.flowerbed("preflight", standing.path, "--json", env=clocked)
        self.code, self.answer = done.returncode, json.loads(done.stdout)
        self.people = standing.flowerbed("health", standing.path).stdout
        self.up = standing.flowerbed("up", standing.path)
        self.after = {name: standing.host(name).check_output(FILES) for name in ("coordinator", "hospital-a")}


@pytest.fixture(scope="module")
def broken(standing: Standing, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Broken]:
    """Everything is broken at once: at one hospital its machine and its network, at the other a name."""
    program = tmp_path_factory.mktemp("clock") / "date"  # the operator's clock is ten minutes late
    program.write_text('#!/bin/sh\n[ "$1" = +%s ] && exec echo $(($(/bin/date +%s) - 600))\nexec /bin/date "$@"\n')
    program.chmod(0o755)
    host = standing.host("hospital-a")
    variables = standing.federation.path / "host_vars"
    files = {
        variables / "hospital-a.yml": "supernode_port: 9555\n",
        variables / "hospital-b.yml": "supernode_apps: enforce\nsupernode_gateway: no-such-gateway.invalid:443\n",
    }
    before = {file: file.read_text() if file.exists() else None for file in files}
    for file, text in files.items():
        file.write_text(text)
    try:
        for command in BREAK:
            host.check_output(f"bash -c '{command}'" if "/dev/tcp" in command else command)
        host.check_output(INTERCEPT.format(gateway=standing.gateway))
        yield Broken(standing, str(program.parent))
    finally:
        for command in MEND:
            host.run(command.format(gateway=standing.gateway))
        _restore(before)


def _restore(before: dict[Path, str | None]) -> None:
    for file, text in before.items():
        if text is None:
            file.unlink()
        else:
            file.write_text(text)


@pytest.mark.parametrize(
    ("host", "check", "what", "remedy"),
    [
        ("hospital-a", "data", ".csv is not readable by everybody", "supernode_data_group"),
        ("hospital-a", "disk", "/opt has 0.1 GB free", "make room"),
        ("hospital-a", "shm", "shm has 8 MB", "mount -o remount"),
        ("hospital-a", "port", "port 9555 is in use by another program", "set supernode_port"),
        ("hospital-a", "tls", "not of this federation's CA but of ACME Web Inspection", "exempted from TLS inspection"),
        ("hospital-a", "clock", "the clock is +6", "systemd-timesyncd"),
        ("hospital-b", "dns", "no-such-gateway.invalid cannot be resolved here", "mend the host's DNS"),
        ("hospital-b", "names", "not for no-such-gateway.invalid", "gateway_dns_names"),
        ("coordinator", "clock", "the clock is +6", "systemd-timesyncd"),
    ],
)
def test_everything_that_is_wrong_is_named_at_once_with_its_remedy(
    broken: Broken, host: str, check: str, what: str, remedy: str
) -> None:
    assert broken.code == 1
    one = found(broken.answer, host, check)
    assert one["level"] == "problem"
    assert what in one["what"]
    assert remedy in one["remedy"]


def test_up_refuses_names_all_that_stands_in_its_way_and_changes_nothing(broken: Broken) -> None:
    assert broken.up.returncode == 1
    (line,) = [line for line in broken.up.stderr.splitlines() if line.startswith("error:")]
    for what in (".csv is not readable", "/opt has 0.1 GB", "port 9555 is in use", "ACME Web Inspection"):
        assert what in line
    assert broken.after == broken.before


def test_health_too_sees_who_stands_on_the_way(broken: Broken) -> None:
    assert "ACME Web Inspection" in broken.people
