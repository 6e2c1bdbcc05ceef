"""A host that is as the last `up` left it is not gone through again; one that a hand has touched is, and is mended."""

import pytest

from flowerbed import inventory, settled
from tests.e2e.conftest import SITES, Standing

HOSTS = ["coordinator", *SITES]
CONFIG = "/etc/flower/supernode/node_config.toml"
CURRENT = "/opt/flower/current"
# On hospital-b: what somebody does, and how it is undone.
TOUCHED = {
    "a file's content": (f"sed -i.kept s/site/sight/ {CONFIG}", f"mv {CONFIG}.kept {CONFIG}"),
    "a file that was changed and changed back": (f"touch {CONFIG}", ":"),
    "a file's mode": (f"chmod 0666 {CONFIG}", f"chmod 0644 {CONFIG}"),
    "a file's owner": (f"chown nobody {CONFIG}", f"chown root {CONFIG}"),
    "a program": ("echo >> /opt/flower/libexec/warm.py", "sed -i '$d' /opt/flower/libexec/warm.py"),
    "a file more": ("touch /etc/flower/supernode/secrets/more", "rm /etc/flower/supernode/secrets/more"),
    "a unit's file": (
        "mkdir /etc/systemd/system/flower-supernode.service.d && "
        "printf '[Service]\\nNice=5\\n' > /etc/systemd/system/flower-supernode.service.d/own.conf && "
        "systemctl daemon-reload",
        "rm -r /etc/systemd/system/flower-supernode.service.d && systemctl daemon-reload",
    ),
    "a service that was stopped": ("systemctl stop flower-supernode", "systemctl start flower-supernode"),
    "a timer that was stopped": ("systemctl stop flower-expiry.timer", "systemctl start flower-expiry.timer"),
    "a service that does not start at boot": (
        "systemctl disable flower-supernode",
        "systemctl enable flower-supernode",
    ),
    "the rules of the firewall": (
        "nft add table inet flower_more",
        "nft delete table inet flower_more",
    ),
    "the rules that keep a service in": (
        "nft flush table inet flower_supernode",
        "systemctl reload flower-egress@supernode",
    ),
    "a user's groups": ("usermod --append --groups games flower-app", "gpasswd --delete flower-app games"),
    "the release": (
        f"ln -sfn /tmp {CURRENT}",
        f"ln -sfn releases/$(ls /opt/flower/releases | head -1) {CURRENT}",
    ),
    "a package of the release": (
        f"mv $(realpath {CURRENT})/lib/python3.11/site-packages/grpc /var/tmp/",
        f"mv /var/tmp/grpc $(realpath {CURRENT})/lib/python3.11/site-packages/",
    ),
    "who may read the data": ("chmod 0700 /srv/hospital", "chmod 0755 /srv/hospital"),
    "who may come to the data": ("chmod 0700 /srv", "chmod 0755 /srv"),
    "a unit that only a message starts": (
        "mkdir /etc/systemd/system/flower-clientapp-warm.service.d/more.d",
        "rmdir /etc/systemd/system/flower-clientapp-warm.service.d/more.d",
    ),
    "a service more": (
        "systemd-run --quiet --unit=more python3 -m http.server 8123; "
        "until ss -Hltn | grep -q :8123; do sleep 0.1; done",
        "systemctl stop more",
    ),
    "a program that was removed": (
        "mv /usr/bin/openssl /usr/bin/openssl.kept",
        "mv /usr/bin/openssl.kept /usr/bin/openssl",
    ),
}


def fingerprint(standing: Standing, host: str) -> str:
    """What the host's program says."""
    known = inventory.read(standing.federation)
    return str(settled._ask(standing.federation, known, [host])[host]["fingerprint"])


def test_a_second_up_goes_through_no_host_that_is_as_it_was_left(standing: Standing) -> None:
    log = (standing.federation.state / "last-play.log").stat()
    again = standing.succeed("up", standing.path)
    assert sorted(again["settled"]) == sorted(HOSTS)
    assert again["hosts_changed"] == dict.fromkeys(HOSTS, 0)
    assert (standing.federation.state / "last-play.log").stat() == log
    # What the roles said of the hosts is said still.
    (concerned,) = {tuple(hosts) for hosts in again["warnings"].values()}
    assert sorted(concerned) == sorted(HOSTS)


def test_without_the_coordinators_record_no_site_is_taken_for_registered(standing: Standing) -> None:
    known, record = inventory.read(standing.federation), "/var/lib/flower/nodes.json"
    assert settled.find(standing.federation, known, look=True).everything
    coordinator = standing.host("coordinator")
    coordinator.check_output(f"mv {record} {record}.kept")
    try:
        assert settled.find(standing.federation, known, look=True).hosts == []
    finally:
        coordinator.check_output(f"mv {record}.kept {record}")


@pytest.mark.parametrize("host", HOSTS)
def test_asking_a_host_how_it_is_changes_nothing_there(standing: Standing, host: str) -> None:
    assert fingerprint(standing, host) == fingerprint(standing, host)


@pytest.mark.parametrize("what", TOUCHED)
def test_what_somebody_changed_by_hand_is_seen(standing: Standing, what: str) -> None:
    host, (touch, undo) = standing.host("hospital-b"), TOUCHED[what]
    before = fingerprint(standing, "hospital-b")
    host.check_output(touch)
    try:
        assert fingerprint(standing, "hospital-b") != before
    finally:
        host.check_output(undo)


def test_a_host_that_was_touched_is_mended_and_no_other_site_is_asked(standing: Standing) -> None:
    started = "systemctl show --property=InvocationID flower-superexec-clientapp"
    before = standing.host("hospital-b").check_output(started)
    standing.host("hospital-b").check_output("systemctl stop flower-supernode")
    standing.host("hospital-b").check_output(f"echo 'site = \"somewhere else\"' > {CONFIG}")
    standing.host("hospital-b").check_output("echo '# other' >> /opt/flower/libexec/superexec.py")
    mended = standing.succeed("up", standing.path)
    assert sorted(mended["settled"]) == ["coordinator", "hospital-a", "hospital-c"]
    assert mended["hosts_changed"] == dict.fromkeys(HOSTS, 0) | {"hospital-b": mended["hosts_changed"]["hospital-b"]}
    assert mended["hosts_changed"]["hospital-b"] > 0
    assert "hospital-b" in standing.host("hospital-b").file(CONFIG).content_string
    assert standing.host("hospital-b").service("flower-supernode").is_running
    assert standing.host("hospital-b").check_output(started) != before, "it would run the other program still"
    assert sorted(standing.succeed("up", standing.path)["settled"]) == sorted(HOSTS)


def test_after_a_variable_changed_its_host_is_gone_through_and_no_other_site(standing: Standing) -> None:
    variables = standing.federation.path / "host_vars" / "hospital-b.yml"
    variables.write_text("supernode_labels: {region: south}\n")
    try:
        changed = standing.succeed("up", standing.path)
        assert sorted(changed["settled"]) == ["coordinator", "hospital-a", "hospital-c"]
        assert changed["hosts_changed"]["hospital-b"] > 0
    finally:
        variables.unlink()
