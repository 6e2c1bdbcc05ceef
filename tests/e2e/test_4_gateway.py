"""What strangers and blocked sites can do to the gateway, and what the sites behind it notice: nothing."""

import json
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any

import pytest

from flowerbed import hosts
from tests.e2e.conftest import SITES, Standing

FIELDS = {
    *("time", "address", "site", "method", "path", "status", "received", "sent", "seconds", "tls"),
}
FLEET = "POST /v1/fleet/no-such-call HTTP/1.1\r\nHost: gateway\r\n"
# What is sent, and the gateway's answer; two requests in one must get one answer, or two of the gateway's own.
REQUESTS = {
    "no HTTP": ("\x16\x03\x01 nonsense\r\n\r\n", ["400"]),
    "two lengths": (f"{FLEET}Content-Length: 4\r\nContent-Length: 9\r\n\r\nabcd", ["400"]),
    "length and chunks": (
        f"{FLEET}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
        "POST /v1/control/list-runs HTTP/1.1\r\n\r\n",
        ["400"],
    ),
    "chunks of no size": (f"{FLEET}Transfer-Encoding: chunked\r\n\r\nzz\r\nabcd\r\n0\r\n\r\n", ["400"]),
    "another encoding": (f"{FLEET}Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", ["501"]),
    "a request in a body": (
        f"{FLEET}Content-Length: 48\r\n\r\nPOST /v1/control/list-runs HTTP/1.1\r\nHost: x\r\n\r\n"
        "GET /v1/control/a HTTP/1.1\r\nHost: x\r\n\r\n",
        ["404", "403"],
    ),
    "a whole address": ("POST https://localhost/v1/control/list-runs HTTP/1.1\r\nHost: gateway\r\n\r\n", ["403"]),
    "a way around": (
        "POST //v1//fleet/%2e%2e//control/list-runs?token=hidden HTTP/1.1\r\nHost: gateway\r\n\r\n",
        ["403"],
    ),
    "a large body": (f"{FLEET}Content-Length: 100000000000\r\n\r\n", ["413"]),
    "a large header": (f"{FLEET}X-Large: {'x' * 20000}\r\n\r\n", ["400"]),
    "a long path": (f"POST /v1/fleet/{'x' * 20000} HTTP/1.1\r\nHost: gateway\r\n\r\n", ["414"]),
    "another spelling of a key": (f"{FLEET}flwr-public-key: QR==\r\nContent-Length: 0\r\n\r\n", ["401"]),
}
SEND = r"""
import json, re, socket, ssl, sys
address, requests = sys.argv[1], json.load(sys.stdin)
context = ssl.create_default_context(cafile="/etc/flower/ca.crt")
answers = {}
for name, text in requests.items():
    with context.wrap_socket(socket.create_connection((address, 443), timeout=20), server_hostname=address) as secure:
        received = b""
        try:
            secure.sendall(text.encode("latin-1"))
            secure.settimeout(3)
            while part := secure.recv(65536):
                received += part
        except OSError:
            pass
        answers[name] = re.findall(r"HTTP/1\.1 (\d+)", received.decode("latin-1"))
print(json.dumps(answers))
"""
# Two hundred requests that come to no end, for five minutes; whichever is cut is begun anew, and counted.
SLOW = r"""
import pathlib, socket, ssl, sys, time
address, cut, end = sys.argv[1], 0, time.monotonic() + 300
context = ssl.create_default_context(cafile="/etc/flower/ca.crt")
def begin(place):
    secure = context.wrap_socket(socket.create_connection((address, 443), timeout=20), server_hostname=address)
    half = b"POST /v1/fleet/pull-messages HTTP/1.1\r\nHost: x\r\n"
    secure.sendall(half + (b"Content-Length: 9999\r\n\r\n" if place % 2 else b"X-Slow: "))
    return secure
begun = [begin(place) for place in range(200)]
while time.monotonic() < end:
    pathlib.Path("/run/slow").write_text(str(cut))
    time.sleep(1)
    for place, secure in enumerate(begun):
        try:
            secure.sendall(b"x")
        except OSError:
            begun[place], cut = begin(place), cut + 1
"""


def answered(standing: Standing) -> list[dict[str, Any]]:
    """What the gateway wrote down until now, each line as a JSON document."""
    command = "journalctl --sync; journalctl --identifier=flower_gateway --output=cat --no-pager"
    return [json.loads(line) for line in standing.host("coordinator").check_output(command).splitlines()]


def wait(what: Callable[[], bool], seconds: float = 90) -> None:
    """Wait until it is so."""
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline, "it did not come so far"
        time.sleep(0.5)


def nodes(standing: Standing) -> dict[str, str]:
    """Whether each site is online."""
    done = standing.flowerbed("status", standing.path, "--json")
    return {host["name"]: host["node"] for host in json.loads(done.stdout)["hosts"] if host["role"] == "site"}


@pytest.fixture(scope="module")
def strange(standing: Standing) -> dict[str, list[str]]:
    """What the gateway answered to each strange request of hospital-c's machine."""
    host = standing.host("hospital-c")
    requests = json.dumps({name: text for name, (text, _) in REQUESTS.items()})
    answer = host.check_output("printf %s %s | python3 -c %s %s", "%s", requests, SEND, standing.gateway)
    answers: dict[str, list[str]] = json.loads(answer)
    return answers


@pytest.mark.parametrize("name", REQUESTS)
def test_a_strange_request_is_refused_by_the_gateway_itself(strange: dict[str, list[str]], name: str) -> None:
    assert strange[name] == REQUESTS[name][1]


def test_each_refusal_is_a_line_in_the_journal_with_no_query_in_it(
    standing: Standing, strange: dict[str, list[str]]
) -> None:
    lines = answered(standing)
    assert {frozenset(line) for line in lines} == {frozenset(FIELDS)}
    sender = standing.host("hospital-c").check_output("hostname -I").split()[0]
    refused = {str(line["status"]) for line in lines if line["address"] == sender}
    assert {code for codes in strange.values() for code in codes if code != "404"} <= refused
    assert "/v1/control/list-runs" in {line["path"].rpartition("..")[2] for line in lines}
    assert "hidden" not in json.dumps(lines)


def test_sites_train_while_two_hundred_requests_come_to_no_end(standing: Standing) -> None:
    host = standing.host("hospital-c")
    host.check_output("systemd-run --quiet --collect --unit=slow python3 -c %s %s", SLOW, standing.gateway)
    try:
        wait(lambda: host.file("/run/slow").exists)
        assert standing.run_example("-c", "num-server-rounds=1")["status"] == "completed"
        wait(lambda: int(host.file("/run/slow").content_string or 0) >= 100)  # those whose header did not come
    finally:
        host.check_output("systemctl stop slow; rm -f /run/slow")
    assert set(nodes(standing).values()) == {"online"}


def test_a_change_of_the_gateway_cuts_no_request_that_is_under_way(standing: Standing) -> None:
    host = standing.host("coordinator")
    before = host.check_output("systemctl show --property=MainPID flower-gateway")
    context = ssl.create_default_context(cafile=str(standing.federation.ca_certificate))
    with context.wrap_socket(
        socket.create_connection((standing.gateway, 443), timeout=30), server_hostname=standing.gateway
    ) as secure:
        secure.sendall(f"{FLEET}Content-Length: 4\r\n\r\nab".encode())
        host.check_output("touch /etc/flower/gateway/server.key")  # as a renewed one is
        assert hosts.play(standing.federation, "gateway.yml").total_changed == 1
        secure.sendall(b"cd")
        assert secure.recv(4096).startswith(b"HTTP/1.1 404")
    assert host.check_output("systemctl show --property=MainPID flower-gateway") == before


def test_a_site_is_blocked_by_its_name_and_let_in_again_while_the_others_go_on(standing: Standing) -> None:
    others = {site: "online" for site in SITES if site != "hospital-c"}
    assert standing.succeed("site", "block", "hospital-c", "--federation", standing.path)["blocked"] == ["hospital-c"]
    try:
        refused = [("hospital-c", 401)]
        wait(lambda: [(line["site"], line["status"]) for line in answered(standing)[-1:]] == refused)
        wait(lambda: nodes(standing) == {**others, "hospital-c": "offline"})
    finally:
        done = standing.flowerbed("site", "unblock", "hospital-c", "--federation", standing.path)
    assert done.returncode == 0, done.stderr
    wait(lambda: nodes(standing) == {**others, "hospital-c": "online"})
    again = standing.flowerbed("site", "unblock", "hospital-c", "--federation", standing.path)
    assert (again.returncode, "'hospital-c' is not blocked" in again.stderr) == (2, True)
    trail = "journalctl --output=json FLOWERBED_EVENT=site.blocked FLOWERBED_SITE=hospital-c _UID=0 --no-pager"
    noted = [json.loads(line) for line in standing.host("coordinator").check_output(trail).splitlines()]
    assert [entry["FLOWERBED_RESULT"] for entry in noted][-2:] == ["blocked", "unblocked"]
