"""Simulation first: the unchanged app on this machine, with the federation's release, sites and data."""

import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

from flowerbed import release
from flowerbed.federation import FederationFolder
from flowerbed.runs import app as apps
from flowerbed.runs import flwr, results
from flowerbed.runs.connection import Deployed
from flowerbed.runs.drive import INTERRUPTED, NODE_TIMEOUT, RunResult, submit_and_follow
from flowerbed.runs.events import Event, OnEvent, RunLeft
from flowerbed.runs.verdict import STOPPED, Verdict
from flowerbed.simulation import engine, environment
from flowerbed.simulation import sites as simulated

__all__ = ["simulate"]

_ENDED = Verdict(STOPPED, "interrupted, and the simulation ended with it", INTERRUPTED)


def simulate(
    federation: FederationFolder,
    app: Path,
    config: Mapping[str, object],
    *,
    sites: int | None = None,
    data: Path | None = None,
    timeout: float | None = None,
    node_timeout: float | None = NODE_TIMEOUT,
    origin: str | None = None,
    on_event: OnEvent | None = None,
    on_step: Callable[[str], None] = lambda step: None,
    into: Path = Path("runs"),
) -> RunResult:
    """Run the app in Flower's simulation as it would run on the federation, and write its results under `into`.

    The app finds what it finds there: the packages of the federation's release, and at each site the site's node
    config, but that `data-path` names the site's folder on this machine: in the lab the one that the site has, and
    elsewhere the folder of the site's name under `data`. With `sites`, there are as many sites as asked instead, and
    the federation needs no inventory. `config`, `timeout`, `node_timeout`, `origin` and `on_event` are as for
    `flowerbed.runs.submit_and_follow`; `on_step` hears what is prepared. The first simulation of a release fetches
    Flower's simulation engine; later ones need no network. Ctrl-C ends the simulation, and nothing of it stays.

    Raises UsageError when the app, its config, the sites or their data are wrong, EnvironmentLacks when this machine
    lacks the release's Python, WorkFailed when the simulation cannot start.
    """
    checked = apps.check(app)
    checked.settings.checked(config, "-c ")
    there = simulated.of(federation, data) if sites is None else simulated.made(federation, sites, data)
    built = release.of(federation, progress=on_step)
    checked.check_release(federation.name, built.id, built.packages)
    home = environment.of(built, progress=on_step)
    with _ended_by_signals(), flwr.warm() as (private, process), engine.running(home, there) as started:
        result = submit_and_follow(
            replace(started.connection, flwr=process, home=private),
            engine.ThisMachine(),
            app,
            config,
            deployed=Deployed(
                name=federation.name,
                sites={site.name: site.node_id for site in there},
                release=built.id,
                packages=built.packages,
                modules=home.modules,
                labels={site.name: site.labels for site in there},
                results=str(started.results),
                simulated=True,
            ),
            expected_sites=len(there),
            timeout=timeout,
            node_timeout=node_timeout,
            origin=origin,
            on_event=_without_way_back(on_event),
            into=into,
        )
    if result.folder is not None:
        return result
    results.forget(into, result.run_id)
    return replace(result, verdict=_ENDED)


def _without_way_back(on_event: OnEvent | None) -> OnEvent | None:
    """A simulation that we leave is over: nobody can come back to it."""
    if on_event is None:
        return None

    def told(event: Event) -> None:
        on_event(RunLeft(_ENDED) if isinstance(event, RunLeft) else event)

    return told


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Let SIGTERM end the simulation in order, as Ctrl-C does."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
