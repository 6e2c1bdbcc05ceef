"""The whole of `./scripts/demo` on a fresh clone, from nothing and again; written to tests/bench/demo.md."""

import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from flowerbed import lab
from flowerbed.paths import REPOSITORY

RESULTS = Path(__file__).parent / "demo.md"
CACHE = Path("/var/cache/flowerbed")


@pytest.fixture
def clone(tmp_path: Path) -> Iterator[Path]:
    """A fresh clone, and no image in the cache; the lab is taken down afterwards and the cache is put back."""
    assert not [host for host in lab.hosts() if host.federation == "lab"], "the lab is up: flowerbed down lab"
    path = tmp_path / "flowerbed"
    subprocess.run(["git", "clone", "-q", str(REPOSITORY), str(path)], check=True)
    aside = tmp_path / "cache"
    if CACHE.exists():
        shutil.move(CACHE, aside)
    try:
        yield path
    finally:
        subprocess.run([path / ".venv" / "bin" / "flowerbed", "down", "lab"], check=False, cwd=path)
        if aside.exists():
            shutil.rmtree(CACHE, ignore_errors=True)
            shutil.move(aside, CACHE)


def demo(clone: Path) -> tuple[float, str]:
    """Run the demo; its seconds and all that it printed."""
    begin = time.monotonic()
    done = subprocess.run(
        ["./scripts/demo"],
        cwd=clone,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return time.monotonic() - begin, re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)


def test_the_demo_trains_a_model_from_nothing_and_reuses_what_is_there(clone: Path) -> None:
    first, output = demo(clone)
    again, second = demo(clone)
    for printed in (output, second):
        assert re.search(r"completed: 3 rounds, all 18 replies", printed)
        for site in ("hospital-a", "hospital-b", "hospital-c"):
            assert re.search(rf"{site}\D+0\.\d+", printed), site
    assert "0 of 4 changed" in second
    day = datetime.now(UTC).date().isoformat()
    RESULTS.write_text(
        "# The demo, from nothing\n\n"
        "Written by `./scripts/test bench`: a fresh clone, no environment, no release, no image; system packages were\n"
        f"there. From nothing {first:.0f} s, a second time {again:.0f} s ({day}).\n\n```text\n{output.strip()}\n```\n"
    )
