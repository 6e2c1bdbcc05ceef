"""Stands for Flower's program `flwr-simulation`: runs it with the federation's sites as its SuperNodes.

Runs with the simulation's own Python, which has Flower and not Flowerbed. The file that FLOWERBED_SIMULATION names
describes the sites. Flower takes no node config for simulated SuperNodes, so the few functions that make them are
replaced here; a Flower in which one of these is missing is refused.
"""

import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_PARTITION = "partition-id"


class AtSite:
    """A ClientApp that is told what its site's node config says, and nothing of the simulation's own."""

    def __init__(self, app: Callable[..., Any], configs: list[dict[str, Any]], work: str) -> None:
        """Wrap a ClientApp; `configs` are the sites' node configs by Flower's `partition-id`, `work` is its folder."""
        self._app = app
        self._configs = configs
        self._work = work

    def __call__(self, message: Any, context: Any) -> Any:
        """Handle a message as the site would."""
        simulated = context.node_config
        context.node_config = dict(self._configs[int(simulated[_PARTITION])])
        os.chdir(self._work)  # what it saves beside itself is no result
        try:
            return self._app(message=message, context=context)
        finally:
            context.node_config = simulated


def main() -> None:
    """Replace what the description asks for, and run Flower's own program; with --check only see whether it can be."""
    if sys.argv[1:] == ["--check"]:
        _replace([], {}, "")
        return
    described = json.loads(Path(os.environ["FLOWERBED_SIMULATION"]).read_text(encoding="utf-8"))
    _replace(described["sites"], described["engine"], described["work"])
    _record(Path(described["replies"]))
    sys.argv[0] = "flwr-simulation"
    _found("flwr.simulation.app", "flwr_simulation")[1]()


def _replace(sites: list[dict[str, Any]], engine: dict[str, Any], work: str) -> None:
    _work_in_results()
    _set_size(len(sites), engine)
    _set_node_ids([int(site["node_id"]) for site in sites])
    _set_node_configs([site["node_config"] for site in sites], work)


def _record(replies: Path) -> None:
    """Have the messages noted as a coordinator does, with its own program; that is never a reason to fail."""
    spec = importlib.util.spec_from_file_location("flowerbed_replies", replies)
    if spec is not None and spec.loader is not None:
        recorder = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(recorder)
        place = importlib.import_module("flwr.simulation.run_simulation")
        recorder.stand_in(place, "InMemoryGrid", Path(os.environ["FLOWERBED_RESULTS"]))


def _work_in_results() -> None:
    """Let the ServerApp start in its run's folder for results, as it does on a coordinator."""
    app, install = _found("flwr.simulation.app", "install_from_fab")
    identity = _found("flwr.simulation.app", "TaskIdentity")[1]

    def installed(*arguments: Any, **options: Any) -> Any:
        done = install(*arguments, **options)
        folder = Path(os.environ["FLOWERBED_RESULTS"]) / str(identity.run_id)
        folder.mkdir(parents=True, exist_ok=True)
        os.chdir(folder)
        return done

    app.install_from_fab = installed


def _set_size(sites: int, engine: dict[str, Any]) -> None:
    """As many SuperNodes as there are sites, whatever the SuperLink's configuration says."""
    app, _ = _found("flwr.simulation.app", "_run_simulation_settings")
    resources = {"num_cpus": 1, "num_gpus": 0}
    app._run_simulation_settings = lambda _: (
        sites,
        "ray",
        {"client_resources": resources, "init_args": engine},
        False,
        False,
    )


def _set_node_ids(node_ids: list[int]) -> None:
    """The SuperNodes' ids, which Flower would draw: the record of the run names the sites by them."""
    engine, register = _found("flwr.server.superlink.fleet.vce.vce_api", "_register_nodes")
    state, drawn = _found("flwr.server.superlink.linkstate.in_memory_linkstate", "generate_rand_int_from_bytes")

    def registered(*arguments: Any, **options: Any) -> Any:
        ids: Iterator[int] = iter(node_ids)
        state.generate_rand_int_from_bytes = lambda *_, **__: next(ids)
        try:
            mapping = register(*arguments, **options)
        finally:
            state.generate_rand_int_from_bytes = drawn
        if list(mapping) != node_ids:
            _refuse("flwr.server.superlink.fleet.vce.vce_api", "_register_nodes")
        return mapping

    engine._register_nodes = registered


def _set_node_configs(configs: list[dict[str, Any]], work: str) -> None:
    simulated: Any
    backend, simulated = _found("flwr.server.superlink.fleet.vce.backend.raybackend", "RayBackend")
    if not hasattr(simulated, "build"):
        _refuse(simulated.__module__, "RayBackend.build")

    class Sites(simulated):  # type: ignore[misc]  # the class is Flower's, found at run time
        """Runs each SuperNode's messages with its site's node config."""

        def build(self, app_fn: Callable[[], Any]) -> None:
            super().build(lambda: AtSite(app_fn(), configs, work))

    backend.RayBackend = Sites


def _found(module: str, name: str) -> tuple[Any, Any]:
    """A module of Flower's and what it has by this name."""
    there = importlib.import_module(module)
    if not hasattr(there, name):
        _refuse(module, name)
    return there, getattr(there, name)


def _refuse(module: str, name: str) -> None:
    version = importlib.import_module("importlib.metadata").version("flwr")
    sys.exit(f"Flower {version} has no {module}.{name} as Flowerbed's simulation needs it: use 1.41.0")


if __name__ == "__main__":
    main()
