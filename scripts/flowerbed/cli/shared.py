"""What the commands share: their common arguments, and how a result or an error is printed."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from flowerbed.federation import every
from flowerbed.runs import results

_DEFAULT = "FLOWERBED_FEDERATION"


def complete_federation(incomplete: str) -> list[str]:
    """The federations' names that begin so, for the shell's completion."""
    return [one.name for one in every() if one.name.startswith(incomplete)]


def complete_run(incomplete: str) -> list[str]:
    """The runs that were submitted from here and are not home, for the shell's completion."""
    return [run_id for run_id in results.waited_for(Path("runs")) if run_id.startswith(incomplete)]


Name = Annotated[
    str,
    typer.Argument(
        metavar="[FED]",
        envvar=_DEFAULT,
        help="A folder under inventories/, or a folder's path.",
        autocompletion=complete_federation,
    ),
]
Option = Annotated[
    str,
    typer.Option(
        "--federation",
        "-f",
        metavar="FED",
        envvar=_DEFAULT,
        help="The federation.",
        autocompletion=complete_federation,
    ),
]
SiteName = Annotated[str, typer.Argument(metavar="NAME", help="The site's name.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]


def print_result(as_json: bool, document: Any, people: Callable[[Console], None]) -> None:
    """Print a result: one JSON document, or what `people` prints."""
    if as_json:
        print(json.dumps(document, indent=2, default=str))
    else:
        people(Console(highlight=False))


def escape(text: str) -> str:
    """The text as rich prints it unchanged."""
    return text.replace("[", r"\[")


def fail(message: str, code: int) -> None:
    """Print an error in one line, and end with its exit code."""
    if "--json" in sys.argv:
        print(json.dumps({"error": message, "exit_code": code}))
    Console(stderr=True, highlight=False).print(f"[red]error:[/] {escape(message)}", soft_wrap=True)
    sys.exit(code)
