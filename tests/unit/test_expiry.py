"""A host says which of its certificates end soon, and an alarm is no mere warning."""

import importlib.util
from datetime import UTC, datetime, timedelta
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

from flowerbed.paths import ANSIBLE
from tests.ansible.support import pki

NOW = datetime(2026, 11, 22, tzinfo=UTC)
PROGRAM = ANSIBLE / "roles" / "common" / "files" / "flower-expiry"


@pytest.fixture(scope="module")
def program() -> ModuleType:
    """The program that the hosts run."""
    loader = SourceFileLoader("flower_expiry", str(PROGRAM))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("days", "said"),
    [
        (31, ""),
        (30, "<4>{file} ends in 30 days"),
        (7, "<2>{file} ends in 7 days"),
        (-1, "<2>{file} expired on 2026-11-21"),
    ],
)
def test_it_warns_30_days_before_the_end_and_raises_an_alarm_7_days_before(
    program: ModuleType, tmp_path: Path, days: int, said: str
) -> None:
    made = NOW - timedelta(days=40)
    authority = pki.make_authority("CA", pki.permitted(["localhost"], []), 40 + days, made)
    file = tmp_path / "gateway" / "server.crt"
    file.parent.mkdir()
    file.write_text(pki.to_pem(authority.certificate))
    lines = program.warnings(tmp_path, NOW)
    assert len(lines) == bool(said)
    assert all(line.startswith(said.format(file=file)) for line in lines)


def test_both_certificates_of_a_file_count(program: ModuleType, tmp_path: Path) -> None:
    made = [pki.make_authority("CA", pki.permitted(["localhost"], []), days, NOW) for days in (5, 3650)]
    (tmp_path / "ca.crt").write_text("".join(pki.to_pem(one.certificate) for one in reversed(made)))
    assert len(program.warnings(tmp_path, NOW)) == 1
