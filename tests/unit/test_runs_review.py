"""What a site approves is what a run sends, and a reviewer sees all of it."""

import hashlib
import io
import zipfile
from pathlib import Path

import pytest

from flowerbed.errors import UsageError
from flowerbed.paths import REPOSITORY
from flowerbed.runs import check, review

TINY = REPOSITORY / "tests" / "apps" / "tiny"


def test_a_folder_and_its_fab_have_the_same_hash_which_is_the_one_that_a_run_sends(tmp_path: Path) -> None:
    file = tmp_path / "tiny.fab"
    file.write_bytes(check(TINY).fab())
    folder, packed = review.read(str(TINY)), review.read(str(file))
    assert folder == packed
    assert folder.hash == check(TINY).fab_hash == hashlib.sha256(file.read_bytes()).hexdigest()
    assert folder.app == "flowerbed/tiny"


def test_every_file_is_listed_with_its_size_its_hash_and_its_text() -> None:
    files = {file.path: file for file in review.read(str(TINY)).files}
    content = (TINY / "tiny" / "client_app.py").read_bytes()
    shown = files["tiny/client_app.py"]
    assert (shown.bytes, shown.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert shown.text == content.decode()
    assert {"pyproject.toml", "tiny/__init__.py", "tiny/server_app.py"} <= files.keys()


def test_nothing_in_a_files_text_is_hidden_from_the_reviewer() -> None:
    assert review.visible("a = 1  # \u202e\x1b[2K\r\n\tö".encode() + b"\xff") == "a = 1  # \\u202e\\x1b[2K\\r\n\tö\\xff"


@pytest.mark.parametrize("content", [b"no zip", b""])
def test_what_is_no_fab_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "x.fab"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=r"x\.fab: it is no FAB"):
        review.read(str(file))


def test_a_fab_that_unpacks_to_more_than_flower_takes_is_refused(tmp_path: Path) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("pyproject.toml", b"0" * (250 << 20))
    file = tmp_path / "x.fab"
    file.write_bytes(packed.getvalue())
    with pytest.raises(UsageError, match="larger than Flower takes"):
        review.read(str(file))
