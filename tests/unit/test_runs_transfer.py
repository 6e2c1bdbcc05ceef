"""A folder arrives whole and as it was, or not at all."""

import io
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from flowerbed.errors import WorkFailed
from flowerbed.runs.transfer import receive, send_command, unpack, verify


@pytest.fixture
def into(tmp_path: Path) -> Path:
    (tmp_path / "into").mkdir()
    return tmp_path / "into"


@pytest.fixture
def far(tmp_path: Path) -> Path:
    folder = tmp_path / "far folder's"
    (folder / "checkpoints" / "empty").mkdir(parents=True)
    (folder / "metrics.json").write_text("{}")
    (folder / "checkpoints" / "round 1.npy").write_bytes(bytes(range(256)) * 5000)
    return folder


def listing(folder: Path) -> list[str]:
    return sorted(entry.relative_to(folder).as_posix() for entry in folder.rglob("*"))


def test_everything_in_the_folder_arrives(far: Path, into: Path) -> None:
    receive(send_command(str(far)), str(far), into)
    assert listing(into) == listing(far)
    assert (into / "checkpoints" / "round 1.npy").read_bytes() == (far / "checkpoints" / "round 1.npy").read_bytes()


def test_a_folder_that_is_not_there_brings_nothing(tmp_path: Path, into: Path) -> None:
    receive(send_command(str(tmp_path / "no")), "no", into)
    assert listing(into) == []


def test_an_empty_folder_brings_nothing(tmp_path: Path, into: Path) -> None:
    (tmp_path / "bare").mkdir()
    receive(send_command(str(tmp_path / "bare")), "bare", into)
    assert listing(into) == []


def test_a_way_that_breaks_brings_nothing_and_says_so(far: Path, into: Path) -> None:
    half = ["sh", "-c", '"$@" | head -c 4000; echo "broken pipe" >&2; exit 255', "half", *send_command(str(far))]
    with pytest.raises(WorkFailed, match=r"cannot fetch /results: ") as failed:
        receive(half, "/results", into)
    assert "\n" not in str(failed.value)
    assert listing(into) == []


def test_a_command_that_fails_is_told_in_its_own_words(into: Path) -> None:
    with pytest.raises(WorkFailed, match="cannot fetch /results: ssh: no route to host"):
        receive(["sh", "-c", "echo 'ssh: no route to host' >&2; exit 255"], "/results", into)


def test_a_file_that_arrives_otherwise_than_it_was_is_noticed(far: Path, into: Path) -> None:
    command = send_command(str(far))
    command[2] = command[2].replace("exec tar", "printf x >> metrics.json && exec tar")
    with pytest.raises(WorkFailed, match=r"metrics\.json' arrived damaged"):
        receive(command, "/results", into)
    assert listing(into) == []


def test_a_file_that_came_without_a_sum_is_noticed(far: Path, into: Path) -> None:
    command = send_command(str(far))
    command[2] = command[2].replace("exec tar", "touch late.json && exec tar")
    with pytest.raises(WorkFailed, match=r"late\.json' arrived damaged, or changed meanwhile"):
        receive(command, "/results", into)
    assert listing(into) == []


def test_a_name_with_a_lines_end_arrives(far: Path, into: Path) -> None:
    (far / "two\nlines \\ and more").write_text("whole")
    receive(send_command(str(far)), str(far), into)
    assert (into / "two\nlines \\ and more").read_text() == "whole"


def test_a_large_file_takes_no_memory_of_its_size(far: Path, into: Path) -> None:
    size = 200 * 1024 * 1024
    with (far / "large.bin").open("wb") as stream:
        stream.truncate(size)
    program = (
        "import resource, sys; from pathlib import Path; from flowerbed.runs.transfer import receive, send_command;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "receive(send_command(sys.argv[1]), sys.argv[1], Path(sys.argv[2]));"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", program, far, into], check=True, capture_output=True, text=True)
    assert (into / "large.bin").stat().st_size == size
    assert int(done.stdout) < 50 * 1024, "KB more than before"


def test_a_file_that_does_not_arrive_is_noticed(into: Path) -> None:
    with pytest.raises(WorkFailed, match=r"a\.npy' arrived damaged"):
        verify(into, {"a.npy": "0" * 64}, "/results")


def test_a_far_side_that_talks_first_is_refused(into: Path, far: Path) -> None:
    with pytest.raises(WorkFailed, match="'Welcome!' is no checksum"):
        receive(["sh", "-c", 'echo Welcome!; "$@"', "x", *send_command(str(far))], "/results", into)
    assert listing(into) == []


def test_a_path_out_of_the_folder_is_refused(into: Path) -> None:
    stream = io.BytesIO(b"\0")
    stream.seek(1)
    with tarfile.open(fileobj=stream, mode="w|") as archive:
        archive.addfile(tarfile.TarInfo("../escaped"))
    stream.seek(0)
    with pytest.raises(tarfile.TarError):
        unpack(stream, into)
    assert not (into.parent / "escaped").exists()
