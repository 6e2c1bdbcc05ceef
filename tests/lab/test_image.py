"""The base image comes from this machine's own Debian sources, whole or not at all."""

from pathlib import Path

import pytest

from flowerbed.errors import EnvironmentLacks, UsageError, WorkFailed
from flowerbed.lab import image

STANZAS = """\
Types: deb deb-src
# a comment
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/other
Suites: bookworm
Components: main
Enabled: no
"""
VENDORS = """\
deb [arch=amd64] https://vendor.example/apt stable main
deb http://vendor.example/apt bookworm vendor
"""


def _sources(folder: Path, **files: str) -> Path:
    (folder / "sources.list.d").mkdir()
    for name, text in files.items():
        (folder / "sources.list.d" / name.replace("_", ".")).write_text(text)
    return folder


def test_debian_sources_are_taken_and_other_vendors_left_out(tmp_path: Path) -> None:
    etc = _sources(tmp_path, debian_sources=STANZAS, vendor_list=VENDORS)
    signed = "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.example/debian"
    expected = f"{signed} bookworm main\n{signed} bookworm-updates main\n"
    assert image.apt_sources("bookworm", etc, "bookworm") == expected


def test_another_suite_comes_from_the_same_sources(tmp_path: Path) -> None:
    (tmp_path / "sources.list").write_text("deb http://mirror.example/debian-security bookworm-security main # x\n")
    expected = "deb http://mirror.example/debian-security trixie-security main\n"
    assert image.apt_sources("trixie", tmp_path, "bookworm") == expected


def test_a_machine_without_debian_sources_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(EnvironmentLacks, match=r"no apt source in .* offers Debian bookworm main"):
        image.apt_sources("bookworm", _sources(tmp_path, vendor_list=VENDORS), "bookworm")


def test_a_broken_build_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "apt").mkdir()
    (tmp_path / "apt/sources.list").write_text(f"deb file://{tmp_path}/nothing bookworm main\n")
    with pytest.raises(WorkFailed, match="the lab's base image could not be built: mmdebstrap said"):
        image.ensure("bookworm", cache=tmp_path / "cache", etc_apt=tmp_path / "apt")
    assert not (tmp_path / "cache").exists()


def test_an_unknown_suite_is_refused() -> None:
    with pytest.raises(UsageError, match="suite 'sid' is unknown"):
        image.ensure("sid")


def test_an_image_that_is_there_is_not_built_again() -> None:
    assert image.ensure() == image.ensure()


def test_no_host_shares_a_key_a_machine_id_or_a_package_index_with_the_image() -> None:
    root = image.ensure()
    assert not list(root.glob("etc/ssh/ssh_host_*"))
    assert (root / "etc/machine-id").read_text() == ""
    assert not list(root.glob("etc/apt/sources.list*/*"))
