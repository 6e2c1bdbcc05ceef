"""The command that runs an app in a simulation of the federation."""

import contextlib
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flowerbed import api, runs
from flowerbed.cli.shared import AsJson, Option, print_result

app = typer.Typer()


@app.command()
def simulate(
    application: Annotated[
        str | None, typer.Argument(metavar="[APP]", help="A folder, git+URL@REF#subdirectory=PATH, or a .fab file.")
    ] = None,
    federation: Option = "lab",
    config: Annotated[
        list[str] | None,
        typer.Option("-c", "--config", metavar="KEY=VALUE|FILE.toml", help="Override run config; the last one counts."),
    ] = None,
    profile: Annotated[str | None, typer.Option(help="Overrides that the app names, which come before -c.")] = None,
    server_code: Annotated[Path | None, typer.Option(help="A Python file with a ServerApp `app`.")] = None,
    client_code: Annotated[Path | None, typer.Option(help="A Python file with a ClientApp `app`.")] = None,
    sites: Annotated[int | None, typer.Option(help="So many made-up sites instead of the federation's.")] = None,
    data: Annotated[Path | None, typer.Option(help="A folder with one folder of data for each site.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Stop the run after so many seconds.", min=0)] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Show the ServerApp's log as well.")] = False,
    as_json: AsJson = False,
) -> None:
    """Run an app in Flower's simulation on this machine, with the federation's release, sites and data.

    The results are those of a run, in runs/<date>/<time>/, and so is the exit code.
    """
    console = Console(stderr=True, highlight=False)
    with contextlib.ExitStack() as stack:
        progress = None if as_json else stack.enter_context(runs.Progress(console, verbose=verbose))
        result = api.Federation(federation).simulate(
            application,
            server_code=server_code,
            client_code=client_code,
            config=config or [],
            profile=profile,
            sites=sites,
            data=data,
            timeout=timeout,
            on_event=progress,
            on_step=(lambda step: None) if as_json else (lambda step: console.print(step, style="dim")),
        )
    print_result(as_json, result.to_json(), lambda console: None)
    raise typer.Exit(result.exit_code)
