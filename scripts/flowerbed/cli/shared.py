"""What the commands share: their common arguments, and how a result or an error is printed."""

import json
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from rich.console import Console

_DEFAULT = "FLOWERBED_FEDERATION"
Name = Annotated[
    str, typer.Argument(metavar="[FED]", envvar=_DEFAULT, help="A folder under inventories/, or a folder's path.")
]
Option = Annotated[str, typer.Option("--federation", "-f", metavar="FED", envvar=_DEFAULT, help="The federation.")]
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
