"""Commands for apps: what a site is asked to approve."""

import dataclasses
from typing import Annotated, Any

import typer
from rich.console import Console

from flowerbed.cli.shared import AsJson, print_result
from flowerbed.runs import check, review

app = typer.Typer()
app_app = typer.Typer(help="Apps: what a site is asked to approve.", no_args_is_help=True)
app.add_typer(app_app, name="app")

Reference = Annotated[str, typer.Argument(metavar="APP", help="A folder, git+URL@REF, or a .fab file.")]
IsSession = Annotated[
    bool, typer.Option("--session", help="APP is client code: show what a session sends, that code and its bridge.")
]


@app_app.command("hash")
def app_hash(application: Reference, session: IsSession = False, as_json: AsJson = False) -> None:
    """Print the hash that a site approves, as a line for its file approved_apps."""
    packed = _read(application, session)
    document = {"hash": packed.hash, "app": packed.app, "version": packed.version, "bytes": packed.bytes}
    print_result(as_json, document, lambda console: print(f"{packed.hash} # {packed.app} {packed.version}"))


@app_app.command("review")
def app_review(
    application: Reference,
    show: Annotated[bool, typer.Option("--show", help="Print the files' text as well.")] = False,
    session: IsSession = False,
    as_json: AsJson = False,
) -> None:
    """List an app's files as they would travel: size, sha256, and on request their text."""
    packed = _read(application, session)
    files = [dataclasses.asdict(file) for file in packed.files]
    document = {**dataclasses.asdict(packed), "files": files if show else [_without_text(file) for file in files]}

    def people(console: Console) -> None:
        print(f"{packed.app} {packed.version}, {packed.bytes} bytes packed, hash {packed.hash}")
        for file in packed.files:
            print(f"{file.sha256}  {file.bytes:>8}  {review.visible(file.path.encode())}")
        for file in packed.files if show else []:
            print(f"\n=== {review.visible(file.path.encode())} ===\n{file.text}")

    print_result(as_json, document, people)


def _read(reference: str, as_session: bool) -> review.Packed:
    if not as_session:
        return review.read(reference)
    from flowerbed import session  # noqa: PLC0415 - Flower's records take half a second to import

    with session.packed(reference) as (source, _):
        return review.unpack(check(source.folder).fab(), reference)


def _without_text(file: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in file.items() if key != "text"}
