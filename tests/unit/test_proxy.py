"""What the role writes for a proxy is what Flower's HTTP client reads: the password survives, loopback goes past it."""

import os

import httpx
import jinja2
import pytest
from httpx._utils import get_environment_proxies

from flowerbed.paths import ANSIBLE

TEMPLATES = ANSIBLE / "roles" / "supernode" / "templates"


@pytest.fixture(autouse=True)
def no_other_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    """What this machine's own environment says of proxies is no part of the promise."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)


def environment(**variables: object) -> dict[str, str]:
    """The lines of proxy.env, as systemd reads them."""
    given = {"supernode_proxy_user": "", "supernode_proxy_password": "", "supernode_insecure": False, **variables}
    # As Ansible does it.
    loader = jinja2.FileSystemLoader(TEMPLATES)
    ansible = jinja2.Environment(loader=loader, trim_blocks=True)  # noqa: S701 - no HTML
    lines = ansible.get_template("proxy.env.j2").render(_supernode_peer="proxy.example.org:3128", **given).splitlines()
    return dict(line.split("=", 1) for line in lines if not line.startswith("#"))


@pytest.mark.parametrize("password", ["plain", "a/b:c@d", "100 % of $HOME #1", "'\"\\ü{{ x }}", 4711])
def test_a_password_is_read_as_it_was_given(monkeypatch: pytest.MonkeyPatch, password: object) -> None:
    written = environment(supernode_proxy_user="dom\\flower", supernode_proxy_password=password)
    assert not set(" \"'\\$#") & set(written["HTTPS_PROXY"])
    for name, value in written.items():
        monkeypatch.setenv(name, value)
    url = httpx.URL(str(get_environment_proxies()["https://"]))
    assert (url.username, url.password) == ("dom\\flower", str(password))
    assert (url.host, url.port) == ("proxy.example.org", 3128)


@pytest.mark.parametrize(
    ("url", "proxied"),
    [("https://flower.example.org:443", True), ("https://127.0.0.1:9094", False), ("https://localhost:9094", False)],
)
def test_the_loopback_goes_past_the_proxy(monkeypatch: pytest.MonkeyPatch, url: str, proxied: bool) -> None:
    for name, value in environment().items():
        monkeypatch.setenv(name, value)
    with httpx.Client() as client:
        used = client._transport_for_url(httpx.URL(url))
        assert (used is not client._transport) is proxied


def test_a_federation_without_tls_uses_the_proxy_too() -> None:
    assert environment(supernode_insecure=True)["HTTP_PROXY"] == "http://proxy.example.org:3128"
