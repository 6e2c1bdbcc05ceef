"""The command that runs an app in a simulation of the federation."""

import contextlib
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from flowerbed import runs, simulation
from flowerbed.cli.shared import AsJson, Option, print_result
from flowerbed.federation import find

app = typer.Typer()


@app.command()
def simulate(
    application: Annotated[str, typer.Argument(metavar="APP", help="A folder, or git+URL@REF.")],
    federation: Option = "lab",
    config: Annotated[list[str] | None, typer.Option("-c", metavar="KEY=VALUE", help="Override run config.")] = None,
    sites: Annotated[int | None, typer.Option(help="So many made-up sites instead of the federation's.")] = None,
    data: Annotated[Path | None, typer.Option(help="A folder with one folder of data for each site.")] = None,
    timeout: Annotated[float | None, typer.Option(help="Stop the run after so many seconds.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run an app in Flower's simulation on this machine, with the federation's release, sites and data.

    The results are those of a run, in runs/<date>/<time>/, and so is the exit code.
    """
    with contextlib.ExitStack() as stack:
        opened = stack.enter_context(runs.source.opened(application))
        overrides = runs.check(opened.folder).overrides(config or [])
        console = Console(stderr=True, highlight=False)
        progress: Any = None if as_json else stack.enter_context(runs.Progress(console, {}))
        result = simulation.simulate(
            find(federation),
            opened.folder,
            overrides,
            sites=sites,
            data=data,
            timeout=timeout,
            origin=opened.origin,
            on_event=progress,
            on_step=(lambda step: None) if as_json else (lambda step: console.print(step, style="dim")),
        )
    print_result(as_json, result.to_json(), lambda console: None)
    raise typer.Exit(result.exit_code)
