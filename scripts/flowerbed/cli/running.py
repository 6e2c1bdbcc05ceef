"""What the commands that run an app share: their options, and the display of progress."""

import contextlib
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from flowerbed import runs

App = Annotated[
    str | None, typer.Argument(metavar="[APP]", help="A folder, git+URL@REF#subdirectory=PATH, or a .fab file.")
]
Config = Annotated[
    list[str] | None,
    typer.Option("-c", "--config", metavar="KEY=VALUE|FILE.toml", help="Override run config; the last one counts."),
]
Profile = Annotated[str | None, typer.Option(help="Overrides that the app names, which come before -c.")]
ServerCode = Annotated[Path | None, typer.Option(help="A Python file with a ServerApp `app`.")]
ClientCode = Annotated[Path | None, typer.Option(help="A Python file with a ClientApp `app`.")]
Timeout = Annotated[float | None, typer.Option(help="Stop the run after so many seconds.", min=0)]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Show the ServerApp's log as well.")]


def progress_display(as_json: bool, verbose: bool) -> Any:
    """The progress display; nothing at all where the caller wants one JSON document."""
    if as_json:
        return contextlib.nullcontext()
    return runs.Progress(Console(stderr=True, highlight=False), verbose=verbose)
