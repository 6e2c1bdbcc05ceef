"""A site is turned away at once, and the keys that it ever had are let in by nobody again."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

from flowerbed import control, hosts, inventory
from flowerbed.console import Steps
from flowerbed.errors import UsageError
from flowerbed.federation import FederationFolder


@dataclass(frozen=True)
class Revoked:
    """A public key that is never let in again."""

    name: str
    """The site that had it."""
    public_key: str
    revoked_at: str
    reason: str


def read(federation: FederationFolder) -> list[Revoked]:
    """Every revoked key of the federation, from its `revoked.json`; UsageError when the file is damaged."""
    file = federation.revoked_file
    try:
        return [Revoked(**item) for item in json.loads(file.read_text())] if file.exists() else []
    except (ValueError, TypeError):
        raise UsageError(f"{file} is damaged: bring it back from the backup, revoked keys stand there alone") from None


def revoke(federation: FederationFolder, site: str, reason: str, steps: Steps) -> list[Revoked]:
    """Turn a site away; returns its keys, which are never let in again.

    The site comes back with a key of its own making: `flowerbed rotate --keys --site`, or a new kit.
    Raises UsageError when no site of this name is registered, WorkFailed when the coordinator does not answer: the keys
    are noted then, and the same call, or `up`, goes on.
    """
    known = read(federation)
    keys = _keys(federation, site)
    noted = {one.public_key for one in known}
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    new = [Revoked(site, key, now, reason) for key in keys if key not in noted]
    if not keys and not any(one.name == site for one in known):
        raise UsageError(
            f"{federation.name} has no registered site '{site}': `flowerbed status {federation.name}` lists them"
        )
    content = json.dumps([asdict(one) for one in [*known, *new]], indent=2) + "\n"
    inventory.replace_file(federation.revoked_file, content)
    with steps.step("revoke") as step:
        hosts.play(
            federation, "revoke.yml", variables={"flowerbed_site": site, "flowerbed_reason": reason}, on_step=step.now
        )
        step.result = f"{site} is turned away"
    return [one for one in [*known, *new] if one.name == site]


def turned_away(federation: FederationFolder, sites: Iterable[str]) -> list[str]:
    """Which of `sites` are out since their key is revoked; raises WorkFailed when the coordinator does not answer."""
    revoked = {one.name for one in read(federation)}
    if not revoked.intersection(sites):
        return []
    record = control.record(federation)
    return [site for site in sites if site in revoked and site not in record]


def _keys(federation: FederationFolder, site: str) -> list[str]:
    """Every key under which the coordinator knows the site, one that it announced included."""
    entry = control.record(federation).get(site, {})
    return [one["public_key"] for one in (entry, *entry.get("others", [])) if one]
