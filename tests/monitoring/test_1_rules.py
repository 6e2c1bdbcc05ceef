"""Each alert fires when it should and not before, by Prometheus' own judgement of the rules that hosts get."""

import subprocess
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

from flowerbed.paths import ANSIBLE

ROLE = ANSIBLE / "roles" / "monitoring"
DAY = 86400
# promtool's clock begins at 1970: a time "ago" is before that.
SITE = 'flowerbed_site_online{site="a"}'
SINCE = 'flowerbed_site_status_since_timestamp_seconds{site="a"}'
END = 'flowerbed_certificate_end_timestamp_seconds{path="ca.crt"}'
FRESH = {"flowerbed_read_success": "1x300", "flowerbed_read_timestamp_seconds": "0+60x300"}


def rules(folder: Path, **variables: Any) -> Path:
    """The rules as the role writes them with its defaults."""
    environment = jinja2.Environment(trim_blocks=True, keep_trailing_newline=True, autoescape=False)  # noqa: S701 - YAML
    environment.filters["to_json"] = lambda value: yaml.safe_dump(value, default_flow_style=True, width=1000).strip()
    defaults = yaml.safe_load((ROLE / "defaults" / "main.yml").read_text())
    template = environment.from_string((ROLE / "templates" / "alerts.yml.j2").read_text())
    file = folder / "alerts.yml"
    file.write_text(template.render(**(defaults | variables)))
    return file


# What is seen every minute, and the minute from which the alert fires; None: never.
CASES: dict[str, tuple[str, dict[str, str], int | None]] = {
    "a unit that failed": (
        "UnitFailed",
        {'node_systemd_unit_state{name="flower-gateway.service",state="failed"}': "0x9 1x90"},
        12,
    ),
    "a unit that runs": (
        "UnitFailed",
        {'node_systemd_unit_state{name="flower-gateway.service",state="failed"}': "0x99"},
        None,
    ),
    "a unit that comes back by itself": (
        "UnitFailed",
        {'node_systemd_unit_state{name="x",state="failed"}': "0 1 0 1 0x90"},
        None,
    ),
    "a host without metrics": ("NodeExporterDown", {'up{job="node"}': "1x9 0x90"}, 15),
    "a full disk": (
        "DiskFullSoon",
        {'node_filesystem_avail_bytes{mountpoint="/"}': "9x99", 'node_filesystem_size_bytes{mountpoint="/"}': "100x99"},
        5,
    ),
    "a disk that fills up within a day": (
        "DiskFullSoon",
        {
            'node_filesystem_avail_bytes{mountpoint="/"}': "39-0.1x99",
            'node_filesystem_size_bytes{mountpoint="/"}': "100x99",
        },
        65,
    ),
    "a disk with room": (
        "DiskFullSoon",
        {
            'node_filesystem_avail_bytes{mountpoint="/"}': "60-0.01x99",
            'node_filesystem_size_bytes{mountpoint="/"}': "100x99",
        },
        None,
    ),
    "a clock that is off": ("ClockOff", {"node_timex_offset_seconds": "0x9 -61x90"}, 20),
    "a clock that nobody sets": (
        "ClockOff",
        {"node_timex_sync_status": "0x99", "node_timex_maxerror_seconds": "16x99"},
        10,
    ),
    "a clock that is set": (
        "ClockOff",
        {
            "node_timex_offset_seconds": "0.01x99",
            "node_timex_sync_status": "1x99",
            "node_timex_maxerror_seconds": "0.1x99",
        },
        None,
    ),
    "a gateway that is down": ("GatewayDown", {'probe_success{job="gateway"}': "1x9 0x90"}, 12),
    "a gateway that is up": ("GatewayDown", {'probe_success{job="gateway"}': "1x99"}, None),
    "a SuperLink that is down": ("SuperLinkDown", {'probe_success{job="superlink"}': "1x9 0x90"}, 12),
    "an exporter that stopped": ("StateUnknown", FRESH | {"flowerbed_read_timestamp_seconds": "0+60x9 540x90"}, 20),
    "an exporter that never was": ("StateUnknown", {}, 5),
    "an exporter that cannot read": ("StateUnknown", FRESH | {"flowerbed_read_success": "1x9 0x90"}, 15),
    "an exporter that reads": ("StateUnknown", FRESH, None),
    "a certificate with 31 days": ("CertificateEndsSoon", {END: f"{31 * DAY}x99"}, None),
    "a certificate with less than 30 days": ("CertificateEndsSoon", {END: f"{30 * DAY + 600}x99"}, 11),
    "a certificate with less than 7 days": ("CertificateEnds", {END: f"{7 * DAY + 600}x99"}, 11),
    "a certificate with less than 7 days has one alert": ("CertificateEndsSoon", {END: f"{6 * DAY}x99"}, None),
    "a certificate that has ended": ("CertificateEnds", {END: "-10x99"}, 0),
    "a backup that failed": ("BackupFailed", {"flowerbed_backup_success": "1x9 0x90"}, 15),
    "a backup that is old": (
        "BackupTooOld",
        {"flowerbed_backup_finished_timestamp_seconds": f"{600 - 48 * 3600}x99"},
        11,
    ),
    "no backups at all": ("BackupTooOld", {}, None),
    "a site that is offline": ("SiteOffline", {SITE: "0x99", SINCE: "0x99"}, 11),
    "a site that came back": ("SiteOffline", {SITE: "0x5 1x90", SINCE: "0x5 360x90"}, None),
    "one site of two is online": ("NoSiteOnline", {SITE: "0x99", 'flowerbed_site_online{site="b"}': "1x99"}, None),
    "no site is online": ("NoSiteOnline", {SITE: "1x9 0x90", 'flowerbed_site_online{site="b"}': "0x99"}, 20),
    "a federation without sites": ("NoSiteOnline", FRESH, None),
    "a probe that failed": ("ProbeFailed", {'flowerbed_site_probe_success{site="a"}': "1x9 0x90"}, 10),
    "a site whose clock is ahead": ("SiteClockOff", {'flowerbed_site_clock_ahead_seconds{site="a"}': "-3x9 61x90"}, 10),
    "a site whose replies take long": (
        "SiteClockOff",
        {'flowerbed_site_clock_ahead_seconds{site="a"}': "-500x99"},
        None,
    ),
    "nobody trained": (
        "NoSiteTrained",
        {'flowerbed_site_last_reply_timestamp_seconds{site="a"}': f"{600 - 14 * DAY}x99", SINCE: "0x99"},
        None,
    ),
    "nobody ever trained, and all are new": (
        "NoSiteTrained",
        {'flowerbed_site_last_reply_timestamp_seconds{site="a"}': "0x99", SINCE: "0x99"},
        None,
    ),
    "a run that failed": (
        "RunFailed",
        {
            'flowerbed_run_last_timestamp_seconds{status="failed"}': "0x9 540x90",
            'flowerbed_run_last_timestamp_seconds{status="completed"}': "60x99",
        },
        10,
    ),
    "a run that completed since": (
        "RunFailed",
        {
            'flowerbed_run_last_timestamp_seconds{status="failed"}': "60x99",
            'flowerbed_run_last_timestamp_seconds{status="completed"}': "120x99",
        },
        None,
    ),
    "never a run": (
        "RunFailed",
        {
            'flowerbed_run_last_timestamp_seconds{status="failed"}': "0x99",
            'flowerbed_run_last_timestamp_seconds{status="completed"}': "0x99",
        },
        None,
    ),
}


def firing(promtool: str, file: Path, name: str, seen: dict[str, str], minute: int) -> bool:
    """Whether an alert fires at a minute: promtool fails a test that expects none where there is one."""
    test = {
        "rule_files": [file.name],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": series, "values": values} for series, values in seen.items()],
                "alert_rule_test": [{"alertname": name, "eval_time": f"{minute}m", "exp_alerts": []}],
            }
        ],
    }
    script = file.with_name("test.yml")
    script.write_text(yaml.safe_dump(test))
    done = subprocess.run(
        [promtool, "test", "rules", script.name], cwd=file.parent, capture_output=True, text=True, check=False
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0 or "exp:[" in said.replace(" ", ""), said
    return done.returncode != 0


@pytest.mark.parametrize("case", CASES)
def test_an_alert_fires_from_its_minute_on_and_not_before(promtool: str, tmp_path: Path, case: str) -> None:
    name, seen, begins = CASES[case]
    file = rules(tmp_path)
    if begins is None:
        assert [minute for minute in (0, 11, 30, 60) if firing(promtool, file, name, seen, minute)] == []
    else:
        assert not begins or not firing(promtool, file, name, seen, begins - 1)
        assert firing(promtool, file, name, seen, begins)


def test_every_alert_has_a_case_that_makes_it_fire(tmp_path: Path) -> None:
    document = yaml.safe_load(rules(tmp_path).read_text())
    names = {rule["alert"] for group in document["groups"] for rule in group["rules"]}
    assert names == {name for name, _, begins in CASES.values() if begins is not None} | {"NoSiteTrained"}


def test_a_federation_in_which_nobody_trains_is_told_of(promtool: str, tmp_path: Path) -> None:
    file = rules(tmp_path, monitoring_idle_days=1)
    seen = {'flowerbed_site_last_reply_timestamp_seconds{site="a"}': "600x1500", SINCE: "0x1500"}
    assert not firing(promtool, file, "NoSiteTrained", seen, 1450)
    assert firing(promtool, file, "NoSiteTrained", seen, 1451)


def test_every_alert_says_what_is_wrong_and_what_to_do(tmp_path: Path) -> None:
    for group in yaml.safe_load(rules(tmp_path).read_text())["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in ("warning", "critical")
            assert rule["annotations"].keys() == {"summary", "remedy"}


def test_what_an_operator_sets_is_in_the_rules(promtool: str, tmp_path: Path) -> None:
    own = {"alert": "Busy", "expr": "node_load5 > 8", "labels": {"severity": "warning"}}
    file = rules(tmp_path, monitoring_alerts=[own], monitoring_idle_days=0, monitoring_backup_hours=1)
    subprocess.run([promtool, "check", "rules", str(file)], check=True, capture_output=True)
    assert firing(promtool, file, "Busy", {"node_load5": "9x9"}, 1)
    assert firing(promtool, file, "BackupTooOld", {"flowerbed_backup_finished_timestamp_seconds": "0x99"}, 61)
    assert "NoSiteTrained" not in file.read_text()
