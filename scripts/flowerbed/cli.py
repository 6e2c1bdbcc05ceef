"""The command line: a thin skin over the layers' functions."""

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from flowerbed import __version__, control, deploy, doctor, release
from flowerbed.console import Steps
from flowerbed.errors import EnvironmentLacks, FlowerbedError, UsageError
from flowerbed.federation import Federation, find

app = typer.Typer(
    name="flowerbed",
    help="Flower federations from bare machines to a finished training run.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
release_app = typer.Typer(help="Releases: Flower and the apps' dependencies, locked by hash.", no_args_is_help=True)
app.add_typer(release_app, name="release")

Name = Annotated[str, typer.Argument(metavar="[FED]", help="A folder under inventories/, or a folder's path.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


def main() -> None:
    """Run the command line with honest exit codes and no tracebacks for what a user can cause."""
    try:
        app(standalone_mode=False)
    except FlowerbedError as error:
        _fail(str(error), error.exit_code)
    except typer.Exit as done:
        sys.exit(done.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        _fail("interrupted: the same command goes on from here", 130)
    except Exception as error:
        usage = getattr(error, "format_message", None)
        if usage is None:
            raise
        _fail(usage(), 2)


def _fail(message: str, code: int) -> None:
    if "--json" in sys.argv:
        print(json.dumps({"error": message, "exit_code": code}))
    Console(stderr=True, highlight=False).print(f"[red]error:[/] {_escape(message)}", soft_wrap=True)
    sys.exit(code)


def _escape(text: str) -> str:
    return text.replace("[", r"\[")


def _print(as_json: bool, document: Any, people: Callable[[Console], None]) -> None:
    if as_json:
        print(json.dumps(document, indent=2, default=str))
    else:
        people(Console(highlight=False))


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit


@app.command()
def up(
    federation: Name = "lab",
    check: Annotated[bool, typer.Option("--check", help="Show what would change on the hosts.")] = False,
    as_json: AsJson = False,
) -> None:
    """Bring a federation up: machines, hosts, registration. A second call changes nothing."""
    _refuse_without_root(find(federation))
    done = deploy.up(find(federation), Steps(), check=check)
    _print(
        as_json,
        dataclasses.asdict(done),
        lambda console: console.print(
            f"[green]{done.federation}[/] can train: {len(done.sites)} sites, release {done.release}"
            if not check
            else f"{sum(done.hosts_changed.values())} tasks would change something"
        ),
    )


@app.command()
def down(federation: Name = "lab", as_json: AsJson = False) -> None:
    """Take away everything that `up` made, and nothing else."""
    _refuse_without_root(find(federation))
    count = deploy.down(find(federation), Steps())
    _print(as_json, {"federation": find(federation).name, "machines": count}, lambda console: None)


@app.command("doctor")
def doctor_(as_json: AsJson = False) -> None:
    """Say what this machine lacks for which platform, and the command that mends it."""
    findings = doctor.examine()

    def people(console: Console) -> None:
        table = Table(box=None, header_style="dim")
        for column in ("platform", "", "", "remedy"):
            table.add_column(column)
        for finding in findings:
            mark = "[green]✓[/]" if finding.ok else "[red]✗[/]"
            table.add_row(finding.platform, mark, finding.what, finding.remedy)
        console.print(table)

    _print(as_json, {"findings": [dataclasses.asdict(finding) for finding in findings]}, people)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(3)


@release_app.command("build")
def release_build(federation: Name = "lab", as_json: AsJson = False) -> None:
    """Build the federation's release: one archive that its hosts install without a network."""
    steps = Steps()
    with steps.step("release") as step:
        built = release.of(find(federation), progress=step.now)
        step.result = built.id
    _print(
        as_json,
        {"id": built.id, "archive": str(built.archive), "packages": built.packages},
        lambda console: console.print(str(built.archive), soft_wrap=True),
    )


def _refuse_without_root(federation: Federation) -> None:
    missing = [f for f in doctor.examine() if not f.ok and f.platform in ("all", _platform(federation))]
    if missing:
        raise EnvironmentLacks(f"this machine lacks {missing[0].what}: {missing[0].remedy}")


def _platform(federation: Federation) -> str:
    return federation.platform_file.stem if federation.platform_file else "existing"
