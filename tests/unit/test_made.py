"""A host's record of what was made there says all that, and nothing that was there before."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from flowerbed.paths import ANSIBLE


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("made", ANSIBLE / "plugins" / "module_utils" / "made.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["made"] = module  # dataclasses look for it there
    spec.loader.exec_module(module)
    return module


made = _load()


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host's record, with nothing passing and no earlier version on the host."""
    monkeypatch.setattr(made, "_PASSING", ("/run/",))
    # Whatever runs on the machine of the tests is none of theirs.
    monkeypatch.setattr(made, "_passing", lambda found: [])
    monkeypatch.setattr(made, "_run", lambda *words, **options: "")
    monkeypatch.setattr(made, "_CURRENT", tmp_path / "opt" / "current")
    return tmp_path / "flower" / "made.json"


def test_a_folder_that_was_there_is_not_noted_and_those_below_it_are(tmp_path: Path, record: Path) -> None:
    (tmp_path / "etc").mkdir()
    made.note_folders(tmp_path / "etc" / "flower" / "egress", record)
    found = made.read(record)
    assert {str(tmp_path / "etc" / "flower"), str(tmp_path / "etc" / "flower" / "egress")} <= set(found.directories)
    assert str(tmp_path / "etc") not in found.directories
    assert str(record.parent) in found.directories


def test_only_folders_named_after_flower_go_with_all_that_is_in_them(tmp_path: Path, record: Path) -> None:
    made.note_folders(tmp_path / "flower" / "egress", record)
    made.note_folders(tmp_path / "journald.conf.d", record)
    found = made.read(record)
    assert found.trees == [str(tmp_path / "flower")]
    assert found.covers(str(tmp_path / "flower" / "egress" / "any"))
    assert not found.covers(str(tmp_path / "journald.conf.d" / "any"))


def test_what_a_file_of_the_hosts_held_before_it_was_first_replaced_is_kept(tmp_path: Path, record: Path) -> None:
    file, new = tmp_path / "theirs.conf", tmp_path / "ours.conf"
    file.write_text("theirs\n")
    file.chmod(0o640)
    for content in ("ours\n", "ours again\n"):
        made.note_file(file, record)
        file.write_text(content)
    made.note_file(new, record)
    new.write_text("x")
    made.note_file(new, record)
    found = made.read(record)
    assert list(found.replaced) == [str(file)]
    assert found.files == [str(new)]
    file.chmod(0o600)
    left = made.leave(purge=True, record=record)
    assert (file.read_text(), file.stat().st_mode & 0o777) == ("theirs\n", 0o640)
    assert f"what was changed in {file}" in left.removed
    assert not new.exists()


def test_what_the_next_boot_takes_away_is_not_noted(record: Path) -> None:
    made.note_file(Path("/run/flower-firewall/new.nft"), record)
    assert made.read(record) is None


def test_nothing_is_taken_away_where_an_earlier_version_kept_no_record(tmp_path: Path, record: Path) -> None:
    (tmp_path / "opt").mkdir()
    (tmp_path / "opt" / "current").mkdir()
    with pytest.raises(made.LeaveError, match="an earlier version"):
        made.leave(purge=True, record=record)
    made.note("users", "flower-app", record=record)
    with pytest.raises(made.LeaveError, match="an earlier version"):
        made.leave(purge=True, record=record)


def test_a_host_without_flowerbed_has_nothing_to_be_taken_away(record: Path) -> None:
    assert not made.leave(purge=True, record=record).changed


def test_data_below_what_would_be_removed_is_refused_before_any_change(
    tmp_path: Path, record: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(made, "UNITS", str(tmp_path))
    data = tmp_path / "flower" / "data"
    data.mkdir(parents=True)
    unit = tmp_path / "flower-clientapp@.service"
    made.note("directories", str(tmp_path / "flower"), record=record)
    made.note_file(unit, record)
    unit.write_text(f'[Service]\nBindReadOnlyPaths="{data}":"/srv/data"\n')
    with pytest.raises(made.LeaveError, match=f"{data} holds data"):
        made.leave(purge=True, record=record)
    assert data.is_dir()
    assert unit.exists()


def test_a_mount_below_what_would_be_removed_is_refused(record: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made.note("users", "flower-app", record=record)
    monkeypatch.setattr(made, "_mounts", lambda: ["/", str(record.parent / "state")])
    with pytest.raises(made.LeaveError, match="is a mount"):
        made.leave(purge=True, record=record)


def test_a_folder_of_ours_with_somebody_elses_file_stays_and_is_named(tmp_path: Path, record: Path) -> None:
    folders = [tmp_path / "shared.d", tmp_path / "own.d"]
    for folder in folders:
        made.note_folders(folder, record)
        folder.mkdir()
        made.note_file(folder / "flower.conf", record)
        (folder / "flower.conf").write_text("x")
    (folders[0] / "theirs.conf").write_text("x")
    left = made.leave(purge=True, record=record)
    assert left.kept == [str(folders[0])]
    assert [file.name for file in folders[0].iterdir()] == ["theirs.conf"]
    assert not folders[1].exists()
    assert not record.exists()


def test_a_look_takes_nothing_away_and_says_the_same(tmp_path: Path, record: Path) -> None:
    made.note_folders(tmp_path / "flower-x", record)
    (tmp_path / "flower-x" / "below").mkdir(parents=True)
    shown = made.leave(purge=True, check=True, record=record)
    assert (tmp_path / "flower-x" / "below").is_dir()
    assert record.exists()
    assert made.leave(purge=True, record=record).removed == shown.removed


@pytest.mark.parametrize("stays", [True, False])
def test_the_service_of_a_package_that_stays_does_not_start(
    tmp_path: Path, record: Path, monkeypatch: pytest.MonkeyPatch, stays: bool
) -> None:
    monkeypatch.setattr(made, "_installed", lambda package: stays)
    mask = tmp_path / "prometheus.service"
    made.note("packages", "prometheus", record=record)
    made.note_file(mask, record)
    mask.symlink_to("/dev/null")
    left = made.leave(purge=True, record=record)
    assert mask.is_symlink() == stays
    assert left.kept == ([str(mask)] if stays else [])
    assert any("would start" in line for line in made.lines(left)) == stays


def test_the_empty_folders_of_ansible_go_and_those_that_are_used_stay(tmp_path: Path) -> None:
    empty, used = tmp_path / "one", tmp_path / "two"
    (empty / ".ansible" / "tmp" / "ansible-tmp-1").mkdir(parents=True)
    (used / ".ansible" / "tmp" / "ansible-tmp-2").mkdir(parents=True)
    (used / ".ansible" / "theirs").touch()
    for home in (empty, used):
        made.forget_ansible(home)
    assert not (empty / ".ansible").exists()
    assert [one.name for one in (used / ".ansible").iterdir()] == ["theirs"]
