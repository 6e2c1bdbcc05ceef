"""What the commands for runs print."""

import io
from datetime import UTC, datetime

import pytest
from rich.console import Console

from flowerbed.cli.runs import runs_table
from flowerbed.runs import RunInfo

RUN_ID = "18446744073709551615"


@pytest.mark.parametrize("width", [60, 80, 200])
def test_a_runs_id_is_printed_whole_however_narrow_the_terminal(width: int) -> None:
    now = datetime.now(UTC)
    run = RunInfo(RUN_ID, "flowerbed/breast-cancer", "1.0.0", "", "finished:completed", "", now, now, now, 0, 0, 0.0)
    output = io.StringIO()
    runs_table(Console(file=output, width=width), [run])
    assert RUN_ID in output.getvalue()
