"""The status page of a federation, brought from the coordinator's loopback to a browser here."""

import http.client
import time
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import parsedate_to_datetime

from flowerbed import control, ssh
from flowerbed.errors import UsageError, WorkFailed
from flowerbed.federation import FederationFolder

_FOLDER = "/etc/flower/monitoring"
_STALE_SECONDS = 300
_ANSWER_SECONDS = 10
# Prints the ports of the page and of Prometheus, as their files have them.
_PORTS = """
import pathlib, re, sys
for path, form in zip(sys.argv[1::2], sys.argv[2::2]):
    file = pathlib.Path(path)
    found = re.search(form, file.read_text()) if file.exists() else None
    print(found.group(1) if found else 0)
"""


@contextmanager
def opened(federation: FederationFolder, *, prometheus: bool = False) -> Iterator[tuple[str, str]]:
    """Forward the page while the context lasts; gives its URL, and what is wrong with it, empty if nothing is.

    Args:
        federation: the federation.
        prometheus: Prometheus itself instead of the page.

    Raises:
        UsageError: the federation was never brought up, or its coordinator is not monitored.
        WorkFailed: the coordinator does not answer, or the page is not served.
    """
    shell = control.coordinator(federation)
    page, metrics = _ports(shell)
    port = metrics if prometheus else page
    if not port:
        raise UsageError(
            f"{shell.host.name} is not monitored: name it in `monitored` of the platform's file, or in the group "
            f"monitoring of hosts.yml, then `flowerbed up {federation.name}`"
        )
    with ssh.forward(shell, port) as local:
        yield f"http://127.0.0.1:{local}/", "" if prometheus else _look(shell, local)


def _ports(shell: ssh.Shell) -> tuple[int, int]:
    places = [
        *(f"{_FOLDER}/page.conf", r"listen 127\.0\.0\.1:(\d+)"),
        *("/etc/systemd/system/flower-prometheus.service", r"--web\.listen-address=127\.0\.0\.1:(\d+)"),
    ]
    page, prometheus = shell.run(["python3", "-c", _PORTS, *places]).split()
    return int(page), int(prometheus)


def _look(shell: ssh.Shell, port: int) -> str:
    """Ask for the page once: whether it is served, and made lately."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("HEAD", "/")
        answer = connection.getresponse()
    except (OSError, http.client.HTTPException):
        raise WorkFailed(
            f"{shell.host.name} serves no status page: `flowerbed up {shell.federation.name}` mends it"
        ) from None
    finally:
        connection.close()
    if answer.status == http.client.SERVICE_UNAVAILABLE:
        return "it is not made yet: it comes within a minute"
    if answer.status != http.client.OK:
        raise WorkFailed(f"the status page on {shell.host.name} is answered with {answer.status}")
    made, now = (parsedate_to_datetime(answer.headers[name]).timestamp() for name in ("Last-Modified", "Date"))
    age = now - made
    return f"it is {age / 60:.0f} minutes old: see `journalctl -u flower-page-maker`" if age > _STALE_SECONDS else ""


def wait() -> None:
    """Wait for Ctrl-C."""
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        return
