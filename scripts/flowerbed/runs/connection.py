"""What the driver needs of a standing federation: a way to its Control API, and one to its files."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from flowerbed.runs.flwr_process import Flwr

SUPERLINK_NODE = "1"
"""The SuperLink's own node id."""


@dataclass(frozen=True)
class Connection:
    """An open way to the Control API, usually a port forwarded to the coordinator's loopback."""

    address: str
    """HOST:PORT without a scheme."""
    root_certificates: Path | None
    """The CA that signed the SuperLink's certificate; None with `insecure`."""
    insecure: bool = False
    flwr: Flwr | None = field(default=None, compare=False)
    """A process that calls of `flwr` can be forked from; None: each who needs one starts one."""
    home: Path | None = field(default=None, compare=False)
    """That process's FLWR_HOME."""


class Remote(Protocol):
    """The coordinator's files, and its audit trail."""

    def fetch(self, path: str, into: Path) -> None:
        """Copy what is in the coordinator's folder `path` into the existing folder `into`.

        What arrived is checked against sha256 sums made there. A `path` that does not exist gives nothing.
        """
        ...

    def record(self, event: str, message: str, fields: Mapping[str, str]) -> None:
        """Append an entry to the coordinator's audit trail; WorkFailed when that cannot be done."""
        ...


@dataclass(frozen=True)
class Deployed:
    """What is known of a standing federation before a run; all of it ends up in the run's record."""

    name: str
    """The federation's name."""
    sites: Mapping[str, str] = field(default_factory=dict)
    """Site name to Flower node id, as `flwr supernode register` returned it."""
    release: str | None = None
    """The id of the release that the hosts have active."""
    packages: Mapping[str, str] | None = None
    """Package name to version in that release; None: unknown, so an app's dependencies are not checked."""
    modules: frozenset[str] | None = None
    """Names of the modules that the release's packages bring; None: unknown, so an app's imports are not checked."""
    labels: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """Site name to the labels that the inventory gives it."""
    former: Mapping[str, str] = field(default_factory=dict)
    """Node ids that sites had before their keys were changed, to the sites' names."""
    again: Callable[[], "Deployed"] | None = field(default=None, compare=False)
    """Asks the federation anew: keys that were changed since then made other nodes."""
    results: str = "/var/lib/flower/results"
    """The folder on the coordinator that the ServerApp knows as FLOWERBED_RESULTS."""
    simulated: bool = False
    """Whether this is a simulation of the federation, on this machine."""

    def site(self, node_id: str) -> str:
        """Name the site with this node id; a node that is not known keeps its id.

        The SuperLink itself replies for a node that went offline, and does not say for which.
        """
        if node_id == SUPERLINK_NODE:
            return "a site that went offline"
        return next((name for name, known in self.sites.items() if known == node_id), None) or self.former.get(
            node_id, f"node {node_id}"
        )

    def knowing(self, node_ids: Collection[str]) -> "Deployed":
        """The same with names for these nodes, as far as the federation has some by now."""
        known = {*self.sites.values(), *self.former, SUPERLINK_NODE}
        if self.again is None or known.issuperset(node_ids):
            return self
        now = self.again()
        return replace(self, former={**self.former, **now.former, **{node: name for name, node in now.sites.items()}})
