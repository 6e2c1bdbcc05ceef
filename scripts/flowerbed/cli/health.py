"""Commands that say whether a federation is well, and whether it could be brought up."""

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from flowerbed import health
from flowerbed.cli.shared import AsJson, Name, escape, print_result
from flowerbed.console import Steps
from flowerbed.errors import FlowerbedError, UsageError
from flowerbed.federation import find
from flowerbed.health import probe

app = typer.Typer()

_MARKS = {
    health.Level.OK: "[green]✓[/]",
    health.Level.WARNING: "[yellow]![/]",
    health.Level.CRITICAL: "[red]✗[/]",
    health.Level.UNKNOWN: "[yellow]?[/]",
}


@app.command("health")
def health_(
    federation: Name = "lab",
    with_probe: Annotated[
        bool, typer.Option("--probe", help="First let every site train a tiny app, and keep the result.")
    ] = False,
    probe_timeout: Annotated[float, typer.Option(help="Stop the probe run after so many seconds.", min=1)] = (
        probe.TIMEOUT
    ),
    max_probe_age: Annotated[
        float | None, typer.Option(metavar="HOURS", help="Warn of a site whose last probe run is older.", min=0)
    ] = None,
    nagios: Annotated[
        bool,
        typer.Option(
            "--nagios", help="As a Nagios plugin: one line, exit code 0 ok, 1 warning, 2 critical, 3 unknown."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say of every host and site whether it is well, and what to do if it is not.

    Exit code 0 if nothing is critical, 1 if something is; with --nagios as monitoring systems have it.
    """
    if nagios and as_json:
        raise UsageError("--nagios and --json are two forms of one answer: choose one")
    try:
        known = _examine(federation, with_probe, probe_timeout, max_probe_age)
    except FlowerbedError as error:
        if not nagios:
            raise
        print(f"FLOWERBED UNKNOWN - {error}")
        raise typer.Exit(health.Level.UNKNOWN.value) from None
    if nagios:
        print(_nagios(known))
        raise typer.Exit(known.level.value)
    print_result(as_json, known.to_json(), lambda console: _people(console, known))
    if not known.healthy:
        raise typer.Exit(1)


def _examine(name: str, with_probe: bool, timeout: float, max_probe_age: float | None) -> health.Health:
    folder = find(name)
    if with_probe:
        with Steps().step("probe") as step:
            found = probe.run(folder, timeout=timeout)
            trained = sum(1 for one in found.values() if one.ok)
            step.result = f"{trained} of {len(found)} sites trained"
    return health.examine(folder, health.Limits(probe_age=None if max_probe_age is None else max_probe_age * 3600))


def _nagios(known: health.Health) -> str:
    """The plugin's line, with what is wrong; further lines have the remedies."""
    wrong = [finding for finding in known.findings if not finding.ok]
    told = "; ".join(f"{one.host} {one.check}: {one.what}" for one in wrong) or "every site is well"
    sites = {one.host for one in known.findings if one.check == "node"}
    online = sum(1 for one in known.findings if one.check == "node" and one.ok)
    first = f"FLOWERBED {known.level.name} - {known.federation}: {told}".replace("|", "/")
    remedies = [f"{one.host} {one.check}: {one.remedy}".replace("|", "/") for one in wrong if one.remedy]
    return "\n".join([f"{first} | sites={len(sites)} online={online} problems={len(wrong)}", *remedies])


def _people(console: Console, known: health.Health) -> None:
    """A line for each host, and below it one for whatever is not in order."""
    table = Table.grid(padding=(0, 2, 0, 0))
    for host in dict.fromkeys(finding.host for finding in known.findings):
        findings = known.of(host)
        fine = ", ".join(one.check for one in findings if one.ok)
        table.add_row(_MARKS[health.worst(findings)], host, f"[dim]{fine}[/]")
    console.print(table)
    for one in known.findings:
        if not one.ok:
            remedy = f"; {escape(one.remedy)}" if one.remedy else ""
            console.print(f"{_MARKS[one.level]} {one.host} {one.check}: {escape(one.what)}{remedy}", soft_wrap=True)
    for one in known.findings:
        if one.check == "probe" and one.ok:
            console.print(f"[dim]{one.host} probe: {escape(one.what)}[/]", soft_wrap=True)
