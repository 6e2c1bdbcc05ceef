"""What the commands for runs print."""

import io
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from rich.console import Console

from flowerbed.cli.runs import runs_table
from flowerbed.runs import Progress, RunInfo
from flowerbed.runs.follow import AppError

RUN_ID = "18446744073709551615"


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_runs_id_is_printed_whole_however_narrow_the_terminal(width: int) -> None:
    now = datetime.now(UTC)
    run = RunInfo(RUN_ID, "flowerbed/breast-cancer", "1.0.0", "", "finished:completed", "", now, now, now, 0, 0, 0.0)
    output = io.StringIO()
    runs_table(Console(file=output, width=width), [run])
    assert RUN_ID in output.getvalue()


def completed(words: str, folder: Path) -> list[str]:
    """What bash is told to complete the last of these words with."""
    asked = {"_FLOWERBED_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    program = Path(sys.executable).with_name("flowerbed")
    done = subprocess.run(
        [program], cwd=folder, env={**os.environ, **asked}, capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_the_shell_completes_commands_federations_and_runs(tmp_path: Path) -> None:
    submitted = tmp_path / "runs" / ".submitted" / f"{RUN_ID}.json"
    submitted.parent.mkdir(parents=True)
    submitted.touch()
    assert completed("flowerbed dow", tmp_path) == ["down"]
    assert "lab" in completed("flowerbed up l", tmp_path)
    assert completed("flowerbed stop 18", tmp_path) == [RUN_ID]


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_colours_stay_away_where_no_color_is_set(
    monkeypatch: pytest.MonkeyPatch, no_color: str, coloured: bool
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    output = io.StringIO()
    with Progress(Console(file=output, force_terminal=True, color_system="standard")) as progress:
        progress(AppError("it broke"))
    assert ("\x1b[31m" in output.getvalue()) is coloured


@pytest.mark.parametrize(("command", "said"), [("run", "A folder, git+URL@REF"), ("stop", "The run's id.")])
def test_help_says_what_an_argument_is(command: str, said: str) -> None:
    program = Path(sys.executable).with_name("flowerbed")
    wide = {**os.environ, "COLUMNS": "160"}
    done = subprocess.run([program, command, "--help"], env=wide, capture_output=True, text=True, check=True)
    assert said in done.stdout
