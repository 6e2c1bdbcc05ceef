"""What differs between the SuperLink's registrations and the inventory is told by name."""

import base64
import hashlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from flowerbed.drift import Drift, compare_registrations
from flowerbed.paths import ANSIBLE

RECORD = {
    "hospital-a": {"node_id": "1", "public_key": "key-a"},
    "hospital-b": {"node_id": "2", "public_key": "key-b", "others": [{"node_id": "3", "public_key": "key-b2"}]},
}
SITES = {"hospital-a": "key-a", "hospital-b": "key-b"}


def told(listed: set[str], record: dict[str, Any], sites: dict[str, str], revoked: dict[str, str]) -> list[str]:
    return [f"{one.name}: {one.what}" for one in compare_registrations(listed, record, sites, revoked)]


def test_a_federation_as_declared_has_no_difference() -> None:
    assert told({"1", "2", "3"}, RECORD, SITES, {}) == []


@pytest.mark.parametrize(
    ("listed", "sites", "revoked", "expected"),
    [
        ({"1", "2", "9"}, SITES, {}, ["node 9: it is registered and nobody knows it"]),
        ({"2"}, SITES, {}, ["hospital-a: it is not registered"]),
        ({"1", "2"}, SITES | {"hospital-c": "key-c"}, {}, ["hospital-c: it is not registered"]),
        ({"1", "2"}, SITES | {"hospital-a": "new"}, {}, ["hospital-a: another key is registered than it has"]),
        ({"1", "2"}, SITES | {"hospital-a": ""}, {}, []),
        ({"1", "3"}, SITES | {"hospital-b": "key-b2"}, {}, []),
        (
            {"1", "2"},
            {"hospital-a": "key-a"},
            {},
            ["hospital-b: it is registered and belongs to no entry of the inventory"],
        ),
        ({"1", "2"}, SITES, {"key-b": "hospital-b"}, ["hospital-b: a revoked key is registered"]),
        ({"2"}, SITES, {"key-a": "hospital-a"}, []),
    ],
    ids=[
        "unknown node",
        "unregistered",
        "never registered",
        "another key",
        "not reached",
        "next key",
        "no entry",
        "revoked and in",
        "revoked and out",
    ],
)
def test_each_kind_of_difference_is_told_and_nothing_else(
    listed: set[str], sites: dict[str, str], revoked: dict[str, str], expected: list[str]
) -> None:
    assert told(listed, RECORD, sites, revoked) == expected


def test_what_was_not_looked_at_is_not_clean() -> None:
    assert Drift("one").clean
    assert not Drift("one", unknown={"hospital-a": "no answer"}).clean


# The release ------------------------------------------------------------------------------------------------


def _installed() -> ModuleType:
    spec = importlib.util.spec_from_file_location("installed", ANSIBLE / "plugins" / "module_utils" / "installed.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["installed"] = module
    spec.loader.exec_module(module)
    return module


MANIFEST = {"files": {"wheels/one_pkg-1.0-py3-none-any.whl": "", "wheels/uv-1-x.whl": ""}, "uv": "wheels/uv-1-x.whl"}


@pytest.fixture
def release(tmp_path: Path) -> Path:
    """A release with one package, as uv leaves it."""
    packages = tmp_path / "lib" / "python3.11" / "site-packages"
    for file in ("bin/python", "release.lock", "lib/python3.11/site-packages/_virtualenv.pth"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    (packages / "one").mkdir()
    (packages / "one" / "__init__.py").write_text("x = 1\n")
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"x = 1\n").digest()).decode().rstrip("=")
    entry = packages / "one_pkg-1.0.dist-info"
    entry.mkdir()
    (entry / "RECORD").write_text(f"one/__init__.py,sha256={digest},6\none_pkg-1.0.dist-info/RECORD,,\n")
    return tmp_path


def found(release: Path) -> list[str]:
    return list(_installed().differences(release, MANIFEST))


def test_a_release_as_it_was_installed_has_no_difference(release: Path) -> None:
    assert found(release) == []


def test_a_file_of_a_release_that_was_changed_removed_or_added_is_named(release: Path) -> None:
    file = release / "lib/python3.11/site-packages/one/__init__.py"
    file.write_text("x = 2\n")
    assert found(release) == ["one/__init__.py was changed"]
    file.unlink()
    assert found(release) == ["one/__init__.py is missing"]
    file.with_name("more.py").touch()
    assert "lib/python3.11/site-packages/one/more.py was added" in found(release)


def test_a_package_that_was_removed_as_a_whole_is_named(release: Path) -> None:
    packages = release / "lib/python3.11/site-packages"
    for file in ("one/__init__.py", "one_pkg-1.0.dist-info/RECORD"):
        (packages / file).unlink()
    (packages / "one_pkg-1.0.dist-info").rmdir()
    assert found(release) == ["the package one-pkg 1.0 is missing"]
