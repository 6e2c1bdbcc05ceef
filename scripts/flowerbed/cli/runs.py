"""Commands for runs."""

import dataclasses
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from flowerbed import api, runs
from flowerbed.cli.running import App, ClientCode, Config, Profile, ServerCode, Timeout, Verbose, progress_display
from flowerbed.cli.shared import AsJson, Name, Option, complete_run, print_result
from flowerbed.errors import UsageError

app = typer.Typer()

_ID_WIDTH = 20

RunId = Annotated[str, typer.Argument(metavar="RUN", help="The run's id.", autocompletion=complete_run)]


@app.command()
def run(
    application: App = None,
    federation: Option = "lab",
    config: Config = None,
    profile: Profile = None,
    server_code: ServerCode = None,
    client_code: ClientCode = None,
    detach: Annotated[bool, typer.Option("--detach", help="Return as soon as the run is submitted.")] = False,
    timeout: Timeout = None,
    node_timeout: Annotated[
        float, typer.Option(help="Stop the run when it has waited so many seconds for nodes; 0: never.", min=0)
    ] = runs.NODE_TIMEOUT,
    retry: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Do this run again: its app, its configuration, from its last checkpoint."),
    ] = None,
    retries: Annotated[
        int, typer.Option(help="Submit a run that Flower loses again, so many times at most.", min=0)
    ] = 0,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Run an app: submit, follow, bring the results to runs/<date>/<time>/.

    Exit code 0 only if the run completed and no expected reply was missing or an error.
    """
    if detach and (timeout is not None or retries):
        option = "--timeout" if timeout is not None else "--retries"
        raise UsageError(f"{option} needs somebody who watches: leave --detach out, or `flowerbed stop` the run")
    if retry is not None and (application or config or profile or server_code or client_code or retries):
        raise UsageError("--retry takes the app and its configuration from the run: name nothing else to run")
    known = api.Federation(federation)
    code = {"server_code": server_code, "client_code": client_code}
    with progress_display(as_json, verbose) as progress:
        if retry is not None:
            result = known.retry(
                retry, timeout=timeout, node_timeout=node_timeout or None, detach=detach, on_event=progress
            )
            print_result(as_json, result.to_json(), lambda console: None)
            raise typer.Exit(result.exit_code)
        if detach:
            started = known.submit(application, **code, config=config or [], profile=profile, on_event=progress)
            print_result(as_json, {"run_id": started.run_id, "status": runs.RUNNING}, lambda console: None)
            return
        result = known.run(
            application,
            **code,
            config=config or [],
            profile=profile,
            timeout=timeout,
            node_timeout=node_timeout or None,
            retries=retries,
            on_event=progress,
        )
    print_result(as_json, result.to_json(), lambda console: None)
    raise typer.Exit(result.exit_code)


@app.command()
def wait(
    run_ids: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[RUN]...", help="Their ids; all that were submitted from here.", autocompletion=complete_run
        ),
    ] = None,
    federation: Option = "lab",
    timeout: Annotated[float | None, typer.Option(help="Leave a run after so many seconds.", min=0)] = None,
    verbose: Verbose = False,
    as_json: AsJson = False,
) -> None:
    """Wait until runs have ended, and bring their results home.

    Exit code 0 only if each of them completed and no expected reply was missing or an error.
    """
    known = api.Federation(federation)
    waited = [known.get(run_id) for run_id in run_ids] if run_ids else known.unfinished()
    results = []
    for one in waited:
        with progress_display(as_json, verbose) as progress:
            results.append(one.wait(timeout, progress))
    documents = [result.to_json() for result in results]
    print_result(as_json, documents[0] if len(run_ids or []) == 1 else {"runs": documents}, lambda console: None)
    raise typer.Exit(max((result.exit_code for result in results), default=0))


@app.command()
def logs(
    run_id: RunId,
    federation: Option = "lab",
    follow: Annotated[bool, typer.Option("--follow", help="Go on until the run ends.")] = False,
    as_json: AsJson = False,
) -> None:
    """Print the log of a run's ServerApp."""
    lines = api.Federation(federation).get(run_id).log(follow=follow)
    if as_json:
        print_result(as_json, {"run_id": run_id, "lines": list(lines)}, lambda console: None)
        return
    for line in lines:
        print(line, flush=True)


@app.command("runs")
def runs_(
    federation: Name = "lab",
    limit: Annotated[int, typer.Option(help="How many, the newest first.", min=1)] = 20,
    as_json: AsJson = False,
) -> None:
    """List the runs of a federation."""
    found = api.Federation(federation).runs(limit)
    document = {"runs": [dataclasses.asdict(one) for one in found]}
    print_result(as_json, document, lambda console: runs_table(console, found))


@app.command("report")
def report_(
    folder: Annotated[Path, typer.Argument(metavar="[FOLDER]", help="The run's folder.")] = Path("runs/latest"),
    as_json: AsJson = False,
) -> None:
    """Make report.html of a run that is home anew, from its run.json."""
    made = runs.report.write(folder)
    print_result(as_json, {"report": str(made)}, lambda console: print(made))


@app.command()
def stop(run_id: RunId, federation: Option = "lab", as_json: AsJson = False) -> None:
    """Stop a run."""
    api.Federation(federation).get(run_id).stop()
    print_result(as_json, {"stopped": run_id}, lambda console: console.print(f"run {run_id} is stopped"))


def runs_table(console: Console, found: list[runs.RunInfo]) -> None:
    """Print the runs for people."""
    table = Table(box=None, header_style="dim")
    table.add_column("run", no_wrap=True, min_width=_ID_WIDTH)  # it is to be copied
    for column in ("app", "status", "submitted", "seconds"):
        table.add_column(column)
    for one in found:
        seconds = f"{(one.finished - one.submitted).total_seconds():.0f}" if one.finished and one.submitted else ""
        submitted = f"{one.submitted:%Y-%m-%d %H:%M:%S}" if one.submitted else ""
        table.add_row(one.run_id, f"{one.app} {one.version}", one.status, submitted, seconds)
    console.print(table)
