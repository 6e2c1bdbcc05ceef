"""What is known of a host and its node at one moment, before anybody judges it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

COORDINATOR, SITE = "coordinator", "site"


@dataclass(frozen=True)
class Probe:
    """What the last probe run found at a site."""

    ok: bool
    detail: str
    age: float
    """Seconds since it ended."""
    run_id: str = ""


@dataclass(frozen=True)
class Backup:
    """The coordinator's last backup."""

    ok: bool
    error: str
    age: float
    """Seconds since it ended."""


@dataclass(frozen=True)
class Unit:
    """One of Flower's units on a host."""

    state: str
    """As systemd names it."""
    restarts: int = 0
    """How often systemd has started it anew."""


@dataclass(frozen=True)
class Facts:
    """One host; what nobody could find out is None, and what a host does not have is empty."""

    name: str
    role: str
    """`coordinator` or `site`."""
    address: str = ""
    by_kit: bool = False
    """The site joined by kit: nobody but its hospital logs in there."""
    unreachable: str = ""
    """Why the host did not answer; empty where it did, and where nobody asks."""
    units: Mapping[str, Unit] = field(default_factory=dict)
    connected: bool | None = None
    """Whether the SuperNode was let in since it started; None where it has run for long."""
    complaint: str = ""
    """The last complaint in the SuperNode's journal, of the last minute and a half."""
    handshake: str = ""
    """What went wrong when the host opened a TLS connection to the gateway; empty if nothing did."""
    handshake_kind: str = ""
    clock: float | None = None
    """Seconds that the host's clock is ahead of the coordinator's."""
    disks: Mapping[str, float] = field(default_factory=dict)
    """Gigabytes free, by folder."""
    data_path: str = ""
    data_problem: str = ""
    devices: Mapping[str, str] = field(default_factory=dict)
    """The device files for apps, each with what keeps apps from it, or nothing."""
    certificate_days: int | None = None
    """Days until the first certificate on the host ends."""
    release: str = ""
    python: str = ""
    """The Python of the release, as `python3.11`."""
    node: str = ""
    """A site's node as the SuperLink sees it; `unknown` where the SuperLink does not answer."""
    refused: str = ""
    """How the gateway has refused the site lately; empty if it has not."""
    probe: Probe | None = None
    backup: Backup | None = None
    gateway_port: str = ""

    @classmethod
    def read(cls, answer: Mapping[str, Any], **known: Any) -> Self:
        """Take what the program on the host printed (ansible/plugins/module_utils/look.py)."""
        supernode, shaken, data = answer["supernode"] or {}, answer["handshake"] or {}, answer["data"] or {}
        units = {name: Unit(unit["state"], unit["restarts"]) for name, unit in answer["units"].items()}
        return cls(
            units=units,
            connected=supernode.get("connected"),
            complaint=supernode.get("complaint", ""),
            handshake=shaken.get("told", ""),
            handshake_kind=shaken.get("kind", ""),
            disks=answer["disks"],
            data_path=data.get("path", ""),
            data_problem=data.get("problem", ""),
            devices=answer["devices"],
            certificate_days=min(answer["certificate_days"].values(), default=None),
            release=answer["release"],
            python=answer["python"],
            gateway_port=answer["gateway"],
            **known,
        )
