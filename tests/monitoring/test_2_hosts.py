"""What a monitored federation knows of itself, who may ask, and what the programs that look may see."""

import json
import os
import re
import subprocess
import time
from collections.abc import Callable

import pytest
from testinfra.host import Host

from flowerbed import lab
from flowerbed.paths import ANSIBLE
from tests.ansible.support import BIN
from tests.e2e.conftest import Standing
from tests.monitoring.conftest import PROMETHEUS, get

Query = Callable[..., dict[str, float]]
PORTS = {"page": 1003, "Prometheus": 1004, "node exporter": 1005, "blackbox exporter": 1006}
UNITS = ["flower-prometheus", "flower-node-exporter", "flower-blackbox-exporter", "flower-page"]
DEBIANS = ["prometheus", "prometheus-node-exporter", "prometheus-blackbox-exporter"]
OFTEN = 120
"""How often something is asked for that comes within a minute or two."""


def until(asked: Callable[[], object], wanted: object) -> None:
    """Ask until the answer is what is wanted."""
    answer = None
    for _ in range(OFTEN):
        answer = asked()
        if answer == wanted:
            return
        time.sleep(2)
    assert answer == wanted


def alerts(host: Host) -> set[str]:
    """The names of the alerts that fire."""
    answer = json.loads(get(host, f"{PROMETHEUS}/api/v1/alerts"))
    return {one["labels"]["alertname"] for one in answer["data"]["alerts"] if one["state"] == "firing"}


def test_a_second_up_changes_nothing(monitored: Standing) -> None:
    assert set(monitored.succeed("up", monitored.path, "--check")["hosts_changed"].values()) == {0}


def test_everything_that_is_to_be_seen_is_seen(query: Query) -> None:
    until(lambda: query("up", "job"), {"prometheus": 1, "node": 1, "gateway": 1, "superlink": 1})
    until(lambda: query("probe_success", "job"), {"gateway": 1, "superlink": 1})
    until(lambda: query("flowerbed_site_online"), {"hospital-a": 1, "hospital-b": 1})
    assert query("flowerbed_read_success") == {"": 1}
    running = query('node_systemd_unit_state{state="active"} == 1', "name")
    assert {f"{name}.service" for name in [*UNITS, "flower-superlink", "flower-gateway"]} <= set(running)


def test_certificates_are_known_by_their_ends(coordinator: Host, query: Query) -> None:
    for path, end in query("flowerbed_certificate_end_timestamp_seconds", "path").items():
        said = coordinator.check_output('date -d "$(openssl x509 -noout -enddate -in %s | cut -d= -f2)" +%%s', path)
        assert end == int(said)
    assert query("probe_ssl_earliest_cert_expiry", "job").keys() == {"gateway", "superlink"}


def test_a_run_is_seen_with_its_rounds_and_who_trained(monitored: Standing, query: Query) -> None:
    began = time.time()
    monitored.run_example("-c", "num-server-rounds=2")
    until(lambda: query("flowerbed_runs", "status")["completed"], 1)
    until(lambda: query("flowerbed_latest_run_rounds"), {"": 2})
    assert query("flowerbed_latest_run_messages", "outcome") == {"asked": 8, "replied": 8, "failed": 0}
    assert query("flowerbed_round_duration_seconds")[""] > 0
    assert all(at > began for at in query("flowerbed_site_last_reply_timestamp_seconds").values())


@pytest.mark.parametrize("host", ["coordinator", "hospital-a"])
def test_all_of_it_listens_on_the_loopback_alone(monitored: Standing, host: str) -> None:
    listening = monitored.host(host).check_output("ss --no-header --listening --numeric --tcp --udp --processes")
    ours = [line.split()[4] for line in listening.splitlines() if "prometheus" in line or ":1003" in line]
    ports = PORTS.values() if host == "coordinator" else [PORTS["node exporter"]]
    assert sorted(ours) == [f"127.0.0.1:{port}" for port in sorted(ports)]


def test_debians_own_units_never_run(coordinator: Host) -> None:
    for name in DEBIANS:
        assert coordinator.run(f"systemctl is-enabled {name}").stdout.strip() == "masked"
        assert "Started" not in coordinator.check_output(f"journalctl --unit {name} --output=cat")
        # Nor would one after a reboot, when the mask is gone because the host has left and the package stays.
        assert coordinator.run(f"ls /etc/systemd/system/*.wants/{name}.service").rc != 0


@pytest.mark.parametrize("user", ["flower-app", "flower-superexec", "flower-superlink", "flower-gateway"])
def test_none_of_flowers_own_users_can_ask(coordinator: Host, user: str) -> None:
    for port in PORTS.values():
        assert "Connection refused" in get(coordinator, f"http://127.0.0.1:{port}/", user)
    assert "Connection refused" not in get(coordinator, "http://127.0.0.1:1003/")


def test_a_site_tells_its_own_hospital_and_nobody_else(monitored: Standing) -> None:
    site = monitored.host("hospital-a")
    metrics = get(site, "http://127.0.0.1:1005/metrics")
    assert 'node_systemd_unit_state{name="flower-supernode.service",state="active"' in metrics
    assert 'flowerbed_certificate_end_timestamp_seconds{path="/etc/flower/supernode/runtime.crt"}' in metrics
    assert "flowerbed_site" not in metrics and "flowerbed_run" not in metrics
    assert site.run("systemctl cat flower-prometheus").rc != 0 and site.run("test -e /usr/bin/prometheus").rc != 0
    assert "Connection refused" in get(site, "http://127.0.0.1:1005/metrics", "flower-app")


def test_a_host_outside_of_the_group_has_nothing_of_it(monitored: Standing) -> None:
    site = monitored.host("hospital-b")
    assert site.run("test -e /etc/flower/monitoring").rc != 0
    assert site.run("systemctl cat flower-node-exporter").rc != 0
    assert site.run("id flower-monitoring").rc != 0


def test_what_a_timer_starts_is_read_anew_when_its_file_has_changed(monitored: Standing, coordinator: Host) -> None:
    unit = "flower-exporter.service"
    stale = f"systemctl show --property=NeedDaemonReload {unit}"
    try:
        coordinator.check_output(f"echo '# another' >> /etc/systemd/system/{unit}")
        assert coordinator.check_output(stale) == "NeedDaemonReload=yes"
        command = ["ansible", "coordinator", "--inventory", str(monitored.federation.hosts_file)]
        command += [
            "--module-name",
            "flowerbed.federation.units",
            "--args",
            json.dumps({"units": [{"name": "flower-exporter.timer"}]}),
        ]
        environment = {**os.environ, "ANSIBLE_CONFIG": str(ANSIBLE / "ansible.cfg")}
        subprocess.run([str(BIN / command[0]), *command[1:]], env=environment, check=True, capture_output=True)
        assert coordinator.check_output(stale) == "NeedDaemonReload=no"
    finally:
        coordinator.check_output(f"sed -i '/^# another$/d' /etc/systemd/system/{unit}; systemctl daemon-reload")


LOOK = """
import json, os, pathlib, socket, sys
def tried(what):
    try: what(); return "done"
    except OSError as error: return type(error).__name__
read = {path: tried(lambda: open(path, "rb").read(1)) for path in sys.argv[1].split()}
write = {path: tried(lambda: open(path, "ab")) for path in sys.argv[2].split()}
reach = {address: tried(lambda: socket.create_connection(address.split(":"), 3)) for address in sys.argv[3].split()}
seen = [str(one) for top in ("/etc", "/var", "/opt", "/srv") for one in pathlib.Path(top).rglob("*") if one.is_file()]
print(json.dumps({"read": read, "write": write, "reach": reach, "seen": seen}))
"""


def inside(host: Host, unit: str, read: list[str], write: list[str], reach: list[str]) -> dict[str, dict[str, str]]:
    """What a program can do that runs as the unit's own would: in a unit that differs by its command alone."""
    text = host.check_output("cat /etc/systemd/system/%s.service", unit)
    words = " ".join(f"'{' '.join(given)}'" for given in (read, write, reach))
    command = f"/usr/bin/python3 -I -B -c \"exec(__import__('sys').stdin.read())\" {words}"
    text = re.sub(r"^ExecStart=(.*\\\n)*.*$", lambda _: f"Type=oneshot\nExecStart={command}", text, flags=re.MULTILINE)
    text = re.sub(r"^(Type=(?!oneshot\nExec)|Restart=|StateDirectory|LogLevelMax=).*$", "", text, flags=re.MULTILINE)
    text = text.replace("[Service]", "[Service]\nStandardInput=file:/run/look.py\nStandardOutput=file:/run/look.json")
    twin = f"{unit}-twin.service"
    try:
        for path, content in (("/run/look.py", LOOK), (f"/run/systemd/system/{twin}", text)):
            host.check_output("printf %%s %s > %s", content, path)
        host.check_output("rm -f /run/look.json; systemctl daemon-reload; systemctl start %s", twin)
        return dict(json.loads(host.check_output("cat /run/look.json")))
    finally:
        host.check_output(f"rm -f /run/systemd/system/{twin} /run/look.py /run/look.json; systemctl daemon-reload")


SECRETS = [
    "/etc/flower/superlink/server.key",
    "/etc/flower/gateway/server.key",
    "/etc/flower/superlink/superexec.secret",
]
DATABASE = "/var/lib/flower/superlink/superlink.db"


def test_the_exporter_reads_what_it_tells_of_and_nothing_else(coordinator: Host) -> None:
    outside = [*SECRETS, "/etc/shadow", "/etc/ssh/ssh_host_ed25519_key", "/root/.ssh/authorized_keys"]
    mine = [DATABASE, "/var/lib/flower/nodes.json"]
    found = inside(coordinator, "flower-exporter", [*outside, *mine], mine, ["127.0.0.1:8000", "127.0.0.1:1004"])
    assert {path for path, said in found["read"].items() if said == "done"} == set(mine)
    assert "done" not in found["write"].values()
    assert "done" not in found["reach"].values()
    allowed = (
        "/etc/flower/",
        "/etc/passwd",
        "/etc/group",
        "/etc/ld.so.cache",
        "/etc/ssl/openssl.cnf",
        "/etc/alternatives/",
    )
    state = (
        "/var/lib/flower/superlink/",
        "/var/lib/flower/nodes.json",
        "/var/lib/flower/results/.flowerbed/",
        "/var/lib/flower/monitoring/",
    )
    assert [path for path in found["seen"] if not path.startswith((*allowed, *state))] == []


@pytest.mark.parametrize("unit", [*UNITS, "flower-page-maker"])
def test_what_listens_or_makes_the_page_sees_no_state_of_flowers(coordinator: Host, unit: str) -> None:
    files = [*SECRETS, DATABASE, "/etc/shadow", "/var/lib/flower/results/.flowerbed"]
    found = inside(
        coordinator, unit, files, ["/etc/flower/monitoring/page.conf"], [f"{coordinator.backend.hostname}:22"]
    )
    assert "done" not in {**found["read"], **found["write"], **found["reach"]}.values()


def test_an_idle_minute_writes_nothing_into_the_journal(coordinator: Host) -> None:
    said = coordinator.check_output("journalctl --unit flower-exporter --unit flower-page-maker --output=cat")
    assert said in ("", "-- No entries --")


def test_a_site_that_goes_offline_is_an_alert_until_it_is_back(
    monitored: Standing, coordinator: Host, query: Query
) -> None:
    name = monitored.federation.name
    lab.stop(name, "hospital-b")
    try:
        until(lambda: query("flowerbed_site_online"), {"hospital-a": 1, "hospital-b": 0})
        until(lambda: "SiteOffline" in alerts(coordinator), True)
    finally:
        lab.start(name, "hospital-b")
    until(lambda: query("flowerbed_site_online"), {"hospital-a": 1, "hospital-b": 1})
    until(lambda: "SiteOffline" in alerts(coordinator), False)


def test_a_gateway_that_is_down_is_seen(coordinator: Host, query: Query) -> None:
    coordinator.check_output("systemctl stop flower-gateway")
    try:
        until(lambda: query("probe_success", "job"), {"gateway": 0, "superlink": 1})
    finally:
        coordinator.check_output("systemctl start flower-gateway")
    until(lambda: query("probe_success", "job"), {"gateway": 1, "superlink": 1})


def test_a_superlink_that_is_down_is_seen_and_its_history_is_still_read(coordinator: Host, query: Query) -> None:
    coordinator.check_output("systemctl stop flower-superlink")
    try:
        until(lambda: query("probe_success", "job"), {"gateway": 1, "superlink": 0})
        until(lambda: query("flowerbed_read_success"), {"": 1})
        assert sum(query("flowerbed_runs", "status").values()) >= 1
    finally:
        coordinator.check_output("systemctl start flower-superlink")
    until(lambda: query("probe_success", "job"), {"gateway": 1, "superlink": 1})
