"""The command line: a thin skin over the layers' functions."""

import sys
from typing import Annotated

import typer

from flowerbed import __version__
from flowerbed.cli import apps, drift, federation, health, monitoring, recovery, releases, runs, simulate, trust
from flowerbed.cli.shared import fail
from flowerbed.errors import FlowerbedError

app = typer.Typer(
    name="flowerbed",
    help="Flower federations from bare machines to a finished training run.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
for _commands in (federation, health, runs, simulate, apps, trust, drift, monitoring, recovery, releases):
    app.add_typer(_commands.app)


def main() -> None:
    """Run the command line with honest exit codes and no tracebacks for what a user can cause."""
    try:
        code = app(standalone_mode=False)  # without standalone mode, typer.Exit's code is returned
        sys.exit(code if isinstance(code, int) else 0)
    except FlowerbedError as error:
        fail(str(error), error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        fail("interrupted: the same command goes on from here", 130)
    except Exception as error:
        usage = getattr(error, "format_message", None)
        if usage is None:
            raise
        fail(usage(), 2)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and end.")] = False,
) -> None:
    if version:
        print(__version__)
        raise typer.Exit
