"""Commands for a federation as a whole: its machines and hosts, its release and its files."""

import contextlib
import dataclasses
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from flowerbed import check as inventory_checks
from flowerbed import control, deploy, doctor, leaving, machines, release, status, turn
from flowerbed.cli.runs import runs_table
from flowerbed.cli.shared import AsJson, Name, print_result
from flowerbed.console import Steps
from flowerbed.errors import EnvironmentLacks, UsageError
from flowerbed.federation import DEFAULT_PYTHON, FederationFolder, every, find

app = typer.Typer()
release_app = typer.Typer(help="Releases: Flower and the apps' dependencies, locked by hash.", no_args_is_help=True)
app.add_typer(release_app, name="release")
inventory_app = typer.Typer(help="Inventories: what a federation's files say about its machines.", no_args_is_help=True)
app.add_typer(inventory_app, name="inventory")

Requirements = Annotated[list[str], typer.Argument(metavar="PACKAGE...", help="As pip reads them: 'torch>=2', pandas.")]


@app.command()
def up(
    federation: Name = "lab",
    check: Annotated[bool, typer.Option("--check", help="Show what would change; change nothing.")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare the hosts' releases file by file, too, and mend them.")
    ] = False,
    all_hosts: Annotated[
        bool, typer.Option("--all", help="Look at every host anew, also at those that are as the last call left them.")
    ] = False,
    boot_seconds: Annotated[
        float, typer.Option(help="How long a new machine in a cloud may take until it can be reached.", min=0)
    ] = machines.BOOT_SECONDS,
    as_json: AsJson = False,
) -> None:
    """Bring a federation up: machines, hosts, registration. A second call changes nothing."""
    _refuse_without_root(find(federation))
    with contextlib.nullcontext() if check else turn.taken(find(federation), "up"):
        done = deploy.up(
            find(federation), Steps(), check=check, verify=verify, every=all_hosts, boot_seconds=boot_seconds
        )
    if check:
        said = f"{done.machines_changed} machines and {sum(done.hosts_changed.values())} tasks would change"
    elif not done.complete:
        said = f"the machine of {', '.join(done.sites)} is there; it trains when the consortium has let it in"
    else:
        said = f"[green]{done.federation}[/] can train: {len(done.sites)} sites, release {done.release}"
    print_result(as_json, dataclasses.asdict(done), lambda console: console.print(said))


@app.command()
def down(
    federation: Name = "lab",
    purge: Annotated[
        bool, typer.Option("--purge", help="Of machines that exist already: take Flowerbed off all of them.")
    ] = False,
    packages: Annotated[
        bool, typer.Option("--packages", help="With --purge: packages that it installed, too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Take away everything that `up` made, and nothing else."""
    found = find(federation)
    _refuse_without_root(found)
    if purge and found.platform_file is None:
        with turn.taken(found, "down"):
            stay = leaving.take_off(found, Steps(), packages=packages)
        said = f"packages that were installed for Flowerbed and stay: {', '.join(stay) or 'none'}"
        print_result(as_json, {"federation": found.name, "packages": stay}, lambda console: console.print(said))
        return
    with turn.taken(found, "down"):
        count = deploy.down(found, Steps())
    print_result(as_json, {"federation": found.name, "machines": count}, lambda console: None)


@app.command("status")
def status_(federation: Name = "lab", as_json: AsJson = False) -> None:
    """Show endpoints, health, nodes, the latest runs and the certificates' days left.

    Exit code 0 only if every unit runs and every site is online.
    """
    known = status.look(find(federation))
    print_result(as_json, known.to_json(), lambda console: _status_tables(console, known))
    if not known.healthy:
        raise typer.Exit(1)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def connect(context: typer.Context, federation: Name = "lab") -> None:
    """Run Flower's own command line against the federation: connect FED -- flwr list."""
    words = context.args or ["flwr", "supernode", "list"]
    with control.open_way(find(federation)) as way:
        code = control.run_flwr(way, words)
    raise typer.Exit(code)


@app.command("doctor")
def doctor_(federation: Name = "", as_json: AsJson = False) -> None:
    """Say what this machine lacks for which platform, what git should not have, and the command that mends it."""
    findings = doctor.examine() + doctor.examine_secrets([find(federation)] if federation else every())

    def people(console: Console) -> None:
        table = Table(box=None, header_style="dim")
        for column in ("platform", "", "", "remedy"):
            table.add_column(column)
        for finding in findings:
            mark = "[green]✓[/]" if finding.ok else "[red]✗[/]"
            table.add_row(finding.platform, mark, finding.what, finding.remedy)
        console.print(table)

    print_result(as_json, {"findings": [dataclasses.asdict(finding) for finding in findings]}, people)
    if not all(finding.ok for finding in findings):
        raise typer.Exit(3)


@release_app.command("build")
def release_build(
    federation: Name = "lab",
    python: Annotated[str, typer.Option(help="The hosts' Python.")] = DEFAULT_PYTHON,
    as_json: AsJson = False,
) -> None:
    """Build the federation's release: one archive that its hosts install without a network."""
    steps = Steps()
    with steps.step("release") as step:
        built = release.wanted(find(federation), step.now, python)
        step.result = built.id
    print_result(
        as_json,
        {"id": built.id, "archive": str(built.archive), "packages": built.packages},
        lambda console: console.print(str(built.archive), soft_wrap=True),
    )


@release_app.command("add")
def release_add(federation: Name, requirements: Requirements, as_json: AsJson = False) -> None:
    """Add packages that apps need to the federation's release; `up` then installs it on the hosts."""
    steps = Steps()
    with steps.step("lock") as step:
        wanted = release.add(find(federation), requirements, step.now)
        step.result = ", ".join(wanted)
    after = f"`flowerbed up {federation}` installs them"
    print_result(as_json, {"requirements": wanted}, lambda console: console.print(after))


@inventory_app.command("check")
def inventory_check(federation: Name = "lab", as_json: AsJson = False) -> None:
    """Say everything that is wrong in a federation's files, one line each; changes nothing.

    Exit code 2 if there is anything.
    """
    found = inventory_checks.examine(find(federation))

    def people(console: Console) -> None:
        for finding in found:
            console.print(str(finding), soft_wrap=True, markup=False)
        if not found:
            console.print(f"{find(federation).name}: nothing is wrong")

    print_result(as_json, {"federation": find(federation).name, "findings": [one.to_json() for one in found]}, people)
    if found:
        raise typer.Exit(UsageError.exit_code)


def _status_tables(console: Console, known: status.Status) -> None:
    console.print(f"[bold]{known.federation}[/]  gateway {known.gateway}, release {known.release}")
    table = Table(box=None, header_style="dim")
    for column in ("host", "role", "address", "units", "node", "certificate", "probe"):
        table.add_column(column)
    for host in known.hosts:
        units = "[green]running[/]" if host.healthy else "[red]see below[/]"
        units = "[yellow]see below[/]" if host.healthy and host.warning else units
        units = "joined by kit" if host.by_kit else units
        node = {"online": "[green]online[/]"}.get(host.node, f"[yellow]{host.node}[/]") if host.role == "site" else ""
        days = f"{host.certificate_days} days" if host.certificate_days is not None else ""
        if host.certificate_days is not None and host.certificate_days <= status.WARN_DAYS:
            days = f"[{'red' if (host.certificate_days or 0) <= status.ALARM_DAYS else 'yellow'}]{days}[/]"
        table.add_row(host.name, host.role, host.address, units, node, days, host.probe)
    console.print(table)
    for host in known.hosts:  # sentences, which a column of a table would cut into pieces
        for said, style in ((host.problem, "red"), (host.warning, "yellow")):
            if said:
                console.print(f"{host.name}: {said}", style=style, soft_wrap=True, markup=False, highlight=False)
    if known.runs:
        runs_table(console, known.runs)


def _refuse_without_root(federation: FederationFolder) -> None:
    missing = [f for f in doctor.examine() if not f.ok and f.platform in ("all", _platform(federation))]
    if missing:
        raise EnvironmentLacks(f"this machine lacks {missing[0].what}: {missing[0].remedy}")


def _platform(federation: FederationFolder) -> str:
    return federation.platform_file.stem if federation.platform_file else "existing"
