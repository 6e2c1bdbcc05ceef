"""Sites of a standing federation: refuse one at the gateway, and let it in again."""

import json
from pathlib import Path

from flowerbed import control, hosts
from flowerbed.errors import UsageError
from flowerbed.federation import FederationFolder
from flowerbed.inventory import replace_file


def block(federation: FederationFolder, name: str) -> list[str]:
    """Refuse a site at the gateway from now on, while its registration stays; returns all that are blocked.

    Raises UsageError for a site that the federation does not have, WorkFailed when the coordinator cannot be reached;
    then nothing has changed.
    """
    known = control.sites(federation)
    if name not in known:
        raise UsageError(f"{federation.name} has no site '{name}': there are {', '.join(sorted(known)) or 'none'}")
    return _apply(federation, [*blocked(federation), name], name, "blocked")


def unblock(federation: FederationFolder, name: str) -> list[str]:
    """Let a site in again; returns those that are still blocked. Raises UsageError for one that is not blocked."""
    before = blocked(federation)
    if name not in before:
        raise UsageError(f"'{name}' is not blocked: {', '.join(before) or 'no site'} is")
    return _apply(federation, [other for other in before if other != name], name, "unblocked")


def blocked(federation: FederationFolder) -> list[str]:
    """The names in the federation's list. Raises UsageError when it cannot be read."""
    file = federation.blocked_file
    if not file.exists():
        return []
    try:
        names = json.loads(file.read_text())
    except json.JSONDecodeError as error:
        raise UsageError(f"{file}:{error.lineno}: is no JSON: write a list of names, or remove the file") from None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UsageError(f"{file}: holds no list of names: write one, or remove the file")
    return names


def _apply(federation: FederationFolder, names: list[str], name: str, result: str) -> list[str]:
    """Write the list and apply it; the list is the old one again if the gateway did not take it."""
    wanted = sorted(set(names))
    before = federation.blocked_file.read_text() if federation.blocked_file.exists() else None
    replace_file(federation.blocked_file, json.dumps(wanted, indent=2) + "\n")
    try:
        hosts.play(federation, "gateway.yml", variables={"federation_site": name, "federation_result": result})
    except BaseException:
        _restore(federation.blocked_file, before)
        raise
    return wanted


def _restore(file: Path, content: str | None) -> None:
    if content is None:
        file.unlink(missing_ok=True)
    else:
        replace_file(file, content)
