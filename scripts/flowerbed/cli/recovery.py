"""Commands for the day after: backups of the coordinator's state, and the federation brought back from one."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from flowerbed import backups, recovery, turn
from flowerbed.cli.shared import AsJson, Name, escape, print_result
from flowerbed.console import Steps
from flowerbed.federation import find


class _MakesOneUnlessNamed(TyperGroup):
    """`backup FED` makes one, `backup list FED` lists them."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Take what is no command's name for the arguments of `make`."""
        named = bool(args) and (args[0] in self.commands or args[0] == "--help")
        return super().parse_args(ctx, args if named else ["make", *args])


_MEGABYTE = 1_000_000

app = typer.Typer()
backup_app = typer.Typer(
    cls=_MakesOneUnlessNamed,
    help="Back the coordinator's state up: `backup [FED]` makes a backup now and brings it home.",
)
app.add_typer(backup_app, name="backup")


@backup_app.command("make")
def backup_make(federation: Name = "lab", as_json: AsJson = False) -> None:
    """Make a backup now, and bring it into the federation's folder; `make` may be left out."""
    steps = Steps()
    with steps.step("backup") as step:
        made, checked = backups.make(find(federation), step.now)
        step.result = f"{made.file.name}, {_size(made.bytes)}{', opened and checked' if checked else ''}"
    print_result(as_json, {**made.to_json(), "checked": checked}, lambda console: None)


@backup_app.command("list")
def backup_list(federation: Name = "lab", as_json: AsJson = False) -> None:
    """List the backups in the federation's folder and on the coordinator, the newest first."""
    found, reason = backups.listing(find(federation))

    def people(console: Console) -> None:
        table = Table(box=None, header_style="dim")
        for column in ("made", "age", "size", "where", "file"):
            table.add_column(column, no_wrap=True)
        for one in found:
            made = f"{one.made_at:%Y-%m-%d %H:%M:%S}Z"
            table.add_row(made, _age(one.made_at), _size(one.bytes), one.place, one.file.name)
        console.print(table)
        if reason:
            console.print(f"[red]{escape(reason)}[/]", soft_wrap=True)

    print_result(as_json, {"backups": [one.to_json() for one in found], "unreachable": reason}, people)


@app.command()
def restore(
    federation: Name = "lab",
    file: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="The newest one here if not given.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a coordinator's state although it is newer than the backup.")
    ] = False,
    wait: Annotated[int, typer.Option(help="Seconds that sites have to come back.", min=0)] = recovery.WAIT_SECONDS,
    as_json: AsJson = False,
) -> None:
    """Bring the coordinator back from a backup, on the machine that the inventory names.

    The sites come back by themselves.
    """
    with turn.taken(find(federation), "restore"):
        done = recovery.restore(find(federation), Steps(), file=file, overwrite=overwrite, wait=wait)
    print_result(as_json, done.to_json(), lambda console: _tell(console, done))


def _tell(console: Console, done: recovery.Restored) -> None:
    made = datetime.fromtimestamp(done.made_at, UTC)
    if not done.changed:
        console.print(f"{done.federation} was brought back from this backup before: nothing was changed")
    console.print(f"{done.federation} is as it was at {made:%Y-%m-%d %H:%M:%S}Z: what happened since is lost")
    for run, status in done.ended.items():
        console.print(f"run {run} was under way then: {status}")
    if done.offline:
        console.print(f"[yellow]not online yet: {', '.join(done.offline)}[/]", soft_wrap=True)
    if done.unregistered:
        names = ", ".join(done.unregistered)
        console.print(
            f"[yellow]{names} joined after the backup: `flowerbed up {done.federation}` lets it in[/]", soft_wrap=True
        )


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= _MEGABYTE else f"{count / 1e3:.0f} kB"


def _age(made: datetime) -> str:
    age = datetime.now(UTC) - made
    hours = int(age.total_seconds()) // 3600
    return (
        f"{age.days} days" if age.days > 1 else f"{hours} h" if hours > 1 else f"{int(age.total_seconds()) // 60} min"
    )
