"""The command that tells what has come to differ."""

import typer
from rich.console import Console

from flowerbed import drift
from flowerbed.cli.shared import AsJson, Name, escape, print_result
from flowerbed.console import Steps
from flowerbed.federation import find

app = typer.Typer()


@app.command("drift")
def drift_(federation: Name = "lab", as_json: AsJson = False) -> None:
    """Tell what differs from what was declared: machines, hosts and registrations; changes nothing.

    Exit code 0 only if everything was looked at and nothing differs.
    """
    found = drift.look(find(federation), Steps())
    print_result(as_json, found.to_json(), lambda console: _tell(console, found))
    if not found.clean:
        raise typer.Exit(1)


def _tell(console: Console, found: drift.Drift) -> None:
    for kind in (found.machines, found.hosts, found.registrations):
        for one in kind:
            console.print(f"[yellow]{escape(one.name)}[/]: {escape(one.what)}", soft_wrap=True)
            for line in one.lines:
                console.print(f"    {escape(line)}", soft_wrap=True)
    for name, why in found.unknown.items():
        console.print(f"[red]{escape(name)}[/] is unknown: {escape(why)}", soft_wrap=True)
    if found.clean:
        console.print(f"{found.federation} is as it was declared")
    elif found.machines or found.hosts or found.registrations:
        console.print(f"`flowerbed up {found.federation} --verify` makes it so again", soft_wrap=True)
