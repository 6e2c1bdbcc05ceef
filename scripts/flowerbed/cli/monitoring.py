"""Commands around monitoring: the packages that it needs, and its page."""

import dataclasses
import json
import webbrowser
from typing import Annotated

import typer
from rich.console import Console

from flowerbed import dashboard, inventory, packages
from flowerbed.cli.shared import AsJson, Name, print_result
from flowerbed.console import Steps
from flowerbed.errors import UsageError
from flowerbed.federation import find

app = typer.Typer()


@app.command("dashboard")
def dashboard_(
    federation: Name = "lab",
    browser: Annotated[bool, typer.Option(help="Open the page in a browser where there is one.")] = True,
    prometheus: Annotated[bool, typer.Option("--prometheus", help="Prometheus itself instead of the page.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show the federation's status page in a browser here, until Ctrl-C."""
    with dashboard.opened(find(federation), prometheus=prometheus) as (url, wrong):
        if as_json:
            print(json.dumps({"url": url, "wrong": wrong}), flush=True)
        else:
            Console(highlight=False).print(f"{url}  (Ctrl-C ends it)" + (f"\n[yellow]{wrong}[/]" if wrong else ""))
        if browser and not as_json:
            webbrowser.open(url)
        dashboard.wait()


@app.command("packages")
def packages_(federation: Name = "lab", as_json: AsJson = False) -> None:
    """Fetch the Debian packages that monitored hosts without a package source lack; `up` then takes them along."""
    folder = find(federation)
    hosts = inventory.read(folder).monitored
    if not hosts:
        raise UsageError(f"no host of {folder.name} is in the group monitoring: there is nothing to fetch")
    steps = Steps()
    with steps.step("packages") as step:
        made = packages.bring(folder, hosts, step.now)
        step.result = ", ".join(f"{len(one.packages)} for {one.host}" for one in made) or "none is missing"
    bundles = [dataclasses.asdict(one) for one in made]
    print_result(as_json, {"federation": folder.name, "bundles": bundles}, lambda console: None)
