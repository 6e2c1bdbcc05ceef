"""Commands for runs and for the apps that they run."""

import contextlib
import dataclasses
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from flowerbed import control, runs
from flowerbed.cli.shared import AsJson, Name, Option, print_result
from flowerbed.errors import UsageError
from flowerbed.federation import find

app = typer.Typer()
app_app = typer.Typer(help="Apps: what a site is asked to approve.", no_args_is_help=True)
app.add_typer(app_app, name="app")

Reference = Annotated[str, typer.Argument(metavar="APP", help="A folder, git+URL@REF, or a .fab file.")]


@app.command()
def run(
    application: Annotated[str | None, typer.Argument(metavar="APP", help="A folder, or git+URL@REF.")] = None,
    federation: Option = "lab",
    config: Annotated[list[str] | None, typer.Option("-c", metavar="KEY=VALUE", help="Override run config.")] = None,
    server_code: Annotated[Path | None, typer.Option(help="A Python file with a ServerApp `app`.")] = None,
    client_code: Annotated[Path | None, typer.Option(help="A Python file with a ClientApp `app`.")] = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return as soon as the run is submitted.")] = False,
    timeout: Annotated[float | None, typer.Option(help="Stop the run after so many seconds.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run an app: submit, follow, bring the results to runs/<date>/<time>/.

    Exit code 0 only if the run completed and no expected reply was missing or an error.
    """
    with contextlib.ExitStack() as stack:
        if server_code and client_code and application is None:
            values = runs.source.values(config or [])
            opened = stack.enter_context(runs.source.inline(server_code, client_code, values))
            overrides: dict[str, Any] = {}
        elif application is not None and not server_code and not client_code:
            opened = stack.enter_context(runs.source.opened(application))
            overrides = dict(runs.check(opened.folder).overrides(config or []))
        else:
            raise UsageError("name what to run: an APP, or both --server-code and --client-code")
        way = stack.enter_context(control.open_way(find(federation)))
        progress = stack.enter_context(_progress(way, as_json))
        result = runs.submit_and_follow(
            way.connection,
            way.shell,
            opened.folder,
            overrides,
            deployed=way.deployed,
            expected_sites=len(way.deployed.sites) or None,
            timeout=timeout,
            detach=detach,
            origin=opened.origin,
            on_event=progress,
        )
    _end_of_run(result, as_json)


@app.command()
def logs(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")],
    federation: Option = "lab",
    as_json: AsJson = False,
) -> None:
    """Follow a run from its first line, and bring its results home when it ends."""
    with control.open_way(find(federation)) as way, _progress(way, as_json) as progress:
        result = runs.follow(way.connection, way.shell, run_id, deployed=way.deployed, on_event=progress)
    _end_of_run(result, as_json)


@app.command("runs")
def runs_(
    federation: Name = "lab",
    limit: Annotated[int, typer.Option(help="How many, the newest first.", min=1)] = 20,
    as_json: AsJson = False,
) -> None:
    """List the runs of a federation."""
    with control.open_way(find(federation)) as way, runs.control(way.connection) as api:
        found = api.runs(limit)
    document = {"runs": [dataclasses.asdict(one) for one in found]}
    print_result(as_json, document, lambda console: runs_table(console, found))


@app.command()
def stop(
    run_id: Annotated[str, typer.Argument(metavar="RUN", help="The run's id.")],
    federation: Option = "lab",
    as_json: AsJson = False,
) -> None:
    """Stop a run."""
    with control.open_way(find(federation)) as way, runs.control(way.connection) as api:
        api.stop(run_id)
    print_result(as_json, {"stopped": run_id}, lambda console: console.print(f"run {run_id} is stopped"))


@app_app.command("hash")
def app_hash(application: Reference, as_json: AsJson = False) -> None:
    """Print the hash that a site approves, as a line for its file approved_apps."""
    packed = runs.review.read(application)
    document = {"hash": packed.hash, "app": packed.app, "version": packed.version, "bytes": packed.bytes}
    print_result(as_json, document, lambda console: print(f"{packed.hash} # {packed.app} {packed.version}"))


@app_app.command("review")
def app_review(
    application: Reference,
    show: Annotated[bool, typer.Option("--show", help="Print the files' text as well.")] = False,
    as_json: AsJson = False,
) -> None:
    """List an app's files as they would travel: size, sha256, and on request their text."""
    packed = runs.review.read(application)
    files = [dataclasses.asdict(file) for file in packed.files]
    document = {**dataclasses.asdict(packed), "files": files if show else [_without_text(file) for file in files]}

    def people(console: Console) -> None:
        print(f"{packed.app} {packed.version}, {packed.bytes} bytes packed, hash {packed.hash}")
        for file in packed.files:
            print(f"{file.sha256}  {file.bytes:>8}  {runs.review.visible(file.path.encode())}")
        for file in packed.files if show else []:
            print(f"\n=== {runs.review.visible(file.path.encode())} ===\n{file.text}")

    print_result(as_json, document, people)


def _without_text(file: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in file.items() if key != "text"}


def _progress(way: control.Way, as_json: bool) -> Any:
    """The progress display; nothing at all where the caller wants one JSON document."""
    if as_json:
        return contextlib.nullcontext()
    names = {node_id: site for site, node_id in way.deployed.sites.items()}
    return runs.Progress(Console(stderr=True, highlight=False), names)


def _end_of_run(result: runs.RunResult, as_json: bool) -> None:
    print_result(as_json, result.to_json(), lambda console: None)
    raise typer.Exit(result.exit_code)


def runs_table(console: Console, found: list[runs.Run]) -> None:
    """Print the runs for people."""
    table = Table(box=None, header_style="dim")
    for column in ("run", "app", "status", "submitted", "seconds"):
        table.add_column(column)
    for one in found:
        seconds = f"{(one.finished - one.submitted).total_seconds():.0f}" if one.finished and one.submitted else ""
        submitted = f"{one.submitted:%Y-%m-%d %H:%M:%S}" if one.submitted else ""
        table.add_row(one.run_id, f"{one.app} {one.version}", one.status, submitted, seconds)
    console.print(table)
