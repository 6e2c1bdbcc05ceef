"""A host that is taken out of the group is watched no more; the others are."""

from tests.e2e.conftest import Standing
from tests.monitoring.conftest import get
from tests.monitoring.test_2_hosts import UNITS


def test_a_host_outside_of_the_group_is_watched_no_more(monitored: Standing) -> None:
    platform = monitored.federation.path / "lab.tfvars"
    platform.write_text(platform.read_text().replace('"coordinator", "hospital-a"', '"coordinator"'))
    raised = monitored.succeed("up", monitored.path)
    assert raised["hosts_changed"]["hospital-a"] > 0 and raised["machines_changed"] == 0
    site, coordinator = monitored.host("hospital-a"), monitored.host("coordinator")
    assert "Connection refused" in get(site, "http://127.0.0.1:1005/metrics")
    assert site.run("systemctl cat flower-node-exporter").rc != 0
    assert "flower_monitoring" not in site.check_output("nft list tables")
    assert site.run("systemctl is-active flower-supernode").stdout.strip() == "active"
    assert all(coordinator.run(f"systemctl is-active {name}").stdout.strip() == "active" for name in UNITS)
