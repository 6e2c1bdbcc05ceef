"""The command that runs an app in a simulation of the federation."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from flowerbed import api
from flowerbed.cli.running import App, ClientCode, Config, Profile, ServerCode, Timeout, Verbose, progress_display
from flowerbed.cli.shared import AsJson, Option, print_result

app = typer.Typer()


@app.command()
def simulate(
    application: App = None,
    federation: Option = "lab",
    config: Config = None,
    profile: Profile = None,
    server_code: ServerCode = None,
    client_code: ClientCode = None,
    sites: Annotated[int | None, typer.Option(help="So many made-up sites instead of the federation's.")] = None,
    data: Annotated[Path | None, typer.Option(help="A folder with one folder of data for each site.")] = None,
    timeout: Timeout = None,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Run an app in Flower's simulation on this machine, with the federation's release, sites and data.

    The results are those of a run, in runs/<date>/<time>/, and so is the exit code.
    """
    console = Console(stderr=True, highlight=False, quiet=as_json)
    with progress_display(as_json, verbose) as progress:
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
            on_step=lambda step: console.print(step, style="dim"),
        )
    print_result(as_json, result.to_json(), lambda console: None)
    raise typer.Exit(result.exit_code)
