"""Commands that bring a standing federation from one release to another."""

import dataclasses
from typing import Annotated

import typer

from flowerbed import turn
from flowerbed import upgrade as upgrades
from flowerbed.cli.shared import AsJson, Name, print_result
from flowerbed.console import Steps
from flowerbed.federation import find

app = typer.Typer()

Wait = Annotated[
    int | None,
    typer.Option(
        metavar="SECONDS",
        help="Wait so long for runs: for their end with another Flower, else for a pause. Without it a run is refused.",
        min=1,
    ),
]
Batch = Annotated[int, typer.Option(help="How many sites are switched at a time.", min=1)]


@app.command()
def upgrade(
    federation: Name = "lab", wait: Wait = None, batch: Batch = upgrades.BATCH, as_json: AsJson = False
) -> None:
    """Bring every host to the release of release.lock; where one fails, all go back to the release before."""
    with turn.taken(find(federation), "upgrade"):
        done = upgrades.upgrade(find(federation), Steps(), wait=wait, batch=batch)
    _print(done, as_json)


@app.command()
def rollback(
    federation: Name = "lab", wait: Wait = None, batch: Batch = upgrades.BATCH, as_json: AsJson = False
) -> None:
    """Bring every host back to the release before the last upgrade; `up` stays with it until the next upgrade."""
    with turn.taken(find(federation), "rollback"):
        done = upgrades.rollback(find(federation), Steps(), wait=wait, batch=batch)
    _print(done, as_json)


def _print(done: upgrades.Switched, as_json: bool) -> None:
    said = f"[green]{done.federation}[/] runs release {done.release}" + (
        f", before {done.before}" if done.changed else ""
    )
    if done.need_a_kit:
        said += f"\n{', '.join(done.need_a_kit)} joined by kit: each needs a new one (`flowerbed kit build`)"
    print_result(as_json, dataclasses.asdict(done), lambda console: console.print(said, soft_wrap=True))
