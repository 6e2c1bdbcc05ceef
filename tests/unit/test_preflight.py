"""What the look before any change calls a problem, with the remedy, and what only a note."""

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from flowerbed.paths import ANSIBLE

sys.path.insert(0, str(ANSIBLE / "collections"))

from ansible_collections.flowerbed.federation.plugins.module_utils import look
from ansible_collections.flowerbed.federation.plugins.modules import preflight

GATEWAY = {"address": "flower.example.org:443", "ca": "a certificate", "proxy": "", "names": ["flower.example.org"]}


def the(findings: Any) -> Any:
    (found,) = findings
    return found


@pytest.mark.parametrize(
    ("name", "host", "covered"),
    [
        ("flower.example.org", "Flower.Example.org", True),
        ("*.example.org", "flower.example.org", True),
        ("*.example.org", "a.flower.example.org", False),
        ("example.org", "flower.example.org", False),
        ("10.0.0.1", "10.0.0.1", True),
        ("2001:db8::1", "2001:0db8:0:0::1", True),
        ("10.0.0.1", "10.0.0.10", False),
    ],
)
def test_a_certificate_is_for_the_names_and_addresses_that_it_has(name: str, host: str, covered: bool) -> None:
    address = f"[{host}]:443" if ":" in host else f"{host}:443"
    found = the(preflight.names({**GATEWAY, "address": address, "names": [name]}))
    assert (found.level == "ok") is covered
    assert found.blocks is not covered


@pytest.mark.parametrize(
    ("kind", "known", "serving", "check", "level", "blocks"),
    [
        ("untrusted", "ours", True, "tls", "problem", True),
        ("untrusted", "theirs", True, "tls", "problem", False),  # it is the gateway's own, which `up` renews
        ("expired", "", True, "tls", "problem", False),
        ("name", "", True, "tls", "problem", False),
        ("proxy", "", True, "proxy", "problem", False),
        ("connect", "", True, "route", "problem", False),
        ("connect", "", False, "route", "note", False),
    ],
)
def test_what_answers_at_the_gateway_s_address_stands_in_the_way_only_if_no_change_can_mend_it(
    monkeypatch: pytest.MonkeyPatch, kind: str, known: str, serving: bool, check: str, level: str, blocks: bool
) -> None:
    seen = look.Handshake(False, kind, "something is wrong", "theirs", "ACME")
    monkeypatch.setattr(look, "handshake", lambda *_, **__: seen)
    found = the(preflight.way({**GATEWAY, "certificate": known, "serving": serving}))
    assert (found.check, found.level, found.blocks) == (check, level, blocks)


def test_a_clock_that_is_off_is_a_problem_from_the_tolerance_on() -> None:
    assert the(preflight.clock(time.time() - 100, 120)).level == "ok"
    late = the(preflight.clock(time.time() - 600, 120))
    assert (late.level, late.blocks) == ("problem", True)
    assert "+600 s" in late.what
    assert list(preflight.clock(None, 120)) == []


def test_little_memory_is_a_problem_and_none_stands_in_the_way() -> None:
    assert the(preflight.memory(0.001)).level == "ok"
    assert the(preflight.memory(1e6)).blocks


def test_a_python_that_the_release_is_not_made_for_is_named() -> None:
    found = [one for one in preflight.system("3.99") if one.check == "python"]
    assert found[0].level == "problem"
    assert "set flowerbed_python to" in found[0].remedy


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_data_that_is_missing_or_closed_is_a_problem_with_the_variable_that_names_it(tmp_path: Path) -> None:
    variables = {"group_variable": "supernode_data_group", "variable": "supernode_data_path"}
    entry = {"path": str(tmp_path / "none"), "group": "", **variables}
    assert "does not exist: make it or correct supernode_data_path" in the(preflight.folders([entry])).told()
    tmp_path.chmod(0o700)
    closed = the(preflight.folders([{**entry, "path": str(tmp_path)}]))
    assert f"{tmp_path} is not readable by everybody" in closed.what
    assert "set supernode_data_group" in closed.remedy
