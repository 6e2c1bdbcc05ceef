"""Only registered keys get in."""

import time

from testinfra.host import Host

from tests.e2e.conftest import Standing

KEY = "/etc/flower/supernode/node_key"
START = "systemctl restart flower-supernode"


def said(host: Host, since: str) -> str:
    """What the SuperNode said since then."""
    return str(host.check_output(f"journalctl -u flower-supernode --since '{since}' -o cat --no-pager"))


def wait_for(host: Host, since: str, text: str) -> bool:
    """Wait until the SuperNode says the text, for as long as its next start may take."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if text in said(host, since):
            return True
        time.sleep(0.5)
    return False


def test_a_node_with_a_foreign_key_is_refused_and_comes_back_with_its_own(standing: Standing) -> None:
    host = standing.host("hospital-c")
    host.check_output("systemctl stop flower-supernode")
    host.check_output(f"cp -a {KEY} {KEY}.own")
    try:
        host.check_output(f"rm {KEY} && ssh-keygen -q -t ecdsa -b 384 -N '' -f {KEY}")
        since = host.check_output("date '+%F %T'")
        host.check_output(START)
        assert wait_for(host, since, "Failed to activate SuperNode"), said(host, since)
        assert standing.flowerbed("status", standing.path).returncode == 1
    finally:
        host.check_output(f"mv {KEY}.own {KEY}")
        host.check_output(START)
    up = standing.flowerbed("up", standing.path)
    assert up.returncode == 0, up.stderr
    assert standing.succeed("status", standing.path)["healthy"]


def test_a_request_without_a_node_key_is_refused_by_the_superlink(standing: Standing) -> None:
    host = standing.host("hospital-a")
    since = host.check_output("date '+%F %T'")
    command = (
        "systemd-run --wait --pipe --quiet --uid=flower-supernode --setenv=HOME=/tmp --setenv=FLWR_HOME=/tmp/unknown "
        "--setenv=FLWR_TELEMETRY_ENABLED=0 --setenv=FLWR_DISABLE_UPDATE_CHECK=1 --setenv=PATH=/opt/flower/current/bin "
        "timeout 60 /opt/flower/current/bin/flower-supernode --root-certificates /etc/flower/ca.crt "
        f"--superlink {standing.gateway}:443 --port 9099"
    )
    done = host.run(command)
    assert done.rc not in (0, 124), (since, done.stdout, done.stderr)
