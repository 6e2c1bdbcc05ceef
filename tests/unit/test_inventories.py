"""The example federations are what the README says: folders that one copies."""

import shutil
from pathlib import Path

import pytest

from flowerbed import release
from flowerbed.federation import FederationFolder
from flowerbed.paths import INVENTORIES

EXAMPLES = sorted(folder.name for folder in INVENTORIES.iterdir() if folder.is_dir())


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_copied_folder_is_whole_wherever_it_lies(name: str, tmp_path: Path) -> None:
    ignored = shutil.ignore_patterns("hosts.json", "secrets", ".state", "data")
    copy = FederationFolder(shutil.copytree(INVENTORIES / name, tmp_path / name, symlinks=True, ignore=ignored))
    assert [file.name for file in copy.path.rglob("*") if not file.exists()] == []
    assert copy.lock.read_text() == (INVENTORIES / "lab" / "release.lock").read_text()
    assert release.FLOWER.pinned() in copy.lock.read_text()
    assert copy.platform_file or copy.hosts_file.exists()
