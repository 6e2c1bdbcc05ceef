"""Commands that say whether a federation is well, and whether it could be brought up."""

import dataclasses
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from flowerbed import health, preflight
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


@app.command("preflight")
def preflight_(federation: Name = "lab", as_json: AsJson = False) -> None:
    """Look at this machine and at every host before anything is changed; each finding has its remedy.

    Exit code 0 if there is no problem. `up` looks at the same, and refuses where a problem stands in its way.
    """
    folder = find(federation)
    with Steps().step("preflight") as step:
        findings = preflight.examine(folder, step.now)
        wrong = sum(1 for one in findings if not one.ok)
        step.result = f"{wrong} problems" if wrong else "no problem"
    document = {"federation": folder.name, "ok": not wrong, "findings": [_finding(one) for one in findings]}
    print_result(as_json, document, lambda console: _findings(console, findings))
    if wrong:
        raise typer.Exit(1)


def _finding(one: preflight.Finding) -> dict[str, Any]:
    return {**dataclasses.asdict(one), "ok": one.ok}


def _findings(console: Console, findings: list[preflight.Finding]) -> None:
    """A line for each host with what is in order, and one for whatever is not or should be known."""
    marks = {"ok": "[green]✓[/]", "note": "[yellow]![/]", "problem": "[red]✗[/]"}
    for host in dict.fromkeys(one.host for one in findings):
        own = [one for one in findings if one.host == host]
        fine = ", ".join(dict.fromkeys(one.check for one in own if one.level == "ok"))
        console.print(
            f"{marks['ok' if all(one.ok for one in own) else 'problem']} {host}  [dim]{fine}[/]", soft_wrap=True
        )
        for one in own:
            if one.level != "ok":
                remedy = f": {escape(one.remedy)}" if one.remedy else ""
                console.print(f"  {marks[one.level]} {one.check}: {escape(one.what)}{remedy}", soft_wrap=True)


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
