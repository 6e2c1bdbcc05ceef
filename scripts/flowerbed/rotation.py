"""New keys and certificates for a standing federation, the CA's included, without a failed round."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from flowerbed import hosts, inventory, joining
from flowerbed.console import Steps
from flowerbed.errors import FlowerbedError, UsageError
from flowerbed.federation import FederationFolder

WAIT_SECONDS = 600


@dataclass(frozen=True)
class What:
    """What is made anew."""

    keys: bool = True
    """The sites' node keys, and the keys of their loopback."""
    certificates: bool = True
    """The gateway's and the SuperLink's key and certificate, and the SuperExec's secret."""
    ca: bool = True
    """The CA; every certificate is signed anew."""


def rotate(
    federation: FederationFolder,
    steps: Steps,
    what: What,
    *,
    site: str = "",
    wait: int = WAIT_SECONDS,
    sites_joined_by_kit_are_ready: bool = False,
) -> dict[str, int]:
    """Make keys and certificates anew; runs that are under way are held between two rounds where SuperNodes start anew.

    Each step is safe to repeat: a call that was interrupted is continued by the same call. `site` limits new node keys
    to one site; `wait` is how many seconds rounds that are under way may take. While the CA is replaced, hosts trust
    the old and the new one; sites that joined by kit take the new one from a new kit, which
    `sites_joined_by_kit_are_ready` says has happened. Returns how many tasks changed something, by the step's name.
    Raises UsageError for an unknown site, WorkFailed when a host fails or a run comes to no pause; the runs go on then.
    """
    limit = _limit(federation, site, what)
    done: dict[str, int] = {}
    for name, variables in _plays(federation, what, sites_joined_by_kit_are_ready):
        with steps.step(name) as step:
            try:
                outcome = hosts.play(
                    federation,
                    "site.yml",
                    limit=limit,
                    variables={"flowerbed_wait": wait, **variables},
                    on_step=step.now,
                )
            except BaseException:  # an interruption as well
                # Where this fails too, the hold ends by itself.
                with suppress(FlowerbedError):
                    hosts.play(federation, "resume.yml")
                raise
            done[name] = outcome.total_changed
            step.result = f"{outcome.total_changed} changes"
    return done


def _plays(federation: FederationFolder, what: What, ready: bool) -> list[tuple[str, dict[str, Any]]]:
    """What site.yml is called with, one call after another."""
    held = {"flowerbed_hold": True}
    keys = {"supernode_rotate": True, **held} if what.keys else {}
    certificates = {"gateway_rotate": True, "superlink_rotate": True} if what.certificates else {}
    if not what.ca:
        plays = [("keys", keys)] if what.keys else []
        return plays + ([("certificates", certificates)] if what.certificates else [])
    prepare = ("both CAs", {"authority_rollover": "prepare", **held, **keys})
    rest = [
        ("new CA", {"authority_rollover": "switch", **certificates}),
        ("old CA out", {"authority_rollover": "finish", **held}),
    ]
    joined = sorted(joining.approved(federation))
    if joined and not ready:
        if not (federation.secrets / "ca" / "next").exists():
            return [prepare]
        raise UsageError(
            f"{', '.join(joined)} joined by kit and must trust the new CA first: build each a new kit, have it used, "
            "then run this with --kits-done"
        )
    return rest if joined else [prepare, *rest]


def _limit(federation: FederationFolder, site: str, what: What) -> list[str] | None:
    if not site:
        return None
    known = inventory.read(federation)
    if site not in known.sites:
        raise UsageError(f"{federation.name} has no site '{site}' (there are: {', '.join(sorted(known.sites))})")
    if what.ca or what.certificates:
        raise UsageError("--site goes with --keys alone: the CA and the coordinator's certificates are everybody's")
    return [known.coordinator.name, site]
