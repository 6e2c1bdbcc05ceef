"""The Python API: what the command line does, for scripts and notebooks.

    from flowerbed import Federation

    lab = Federation("lab")
    result = lab.run("examples/breast_cancer", config={"num-server-rounds": 5})
    result.raise_for_status()

Errors are those of `flowerbed.errors`; each has one line that says what to do.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from flowerbed import control, health, runs, simulation, status
from flowerbed.errors import UsageError
from flowerbed.federation import FederationFolder, find
from flowerbed.runs.drive import NODE_TIMEOUT, RunResult
from flowerbed.runs.events import OnEvent
from flowerbed.runs.flwr import RunInfo
from flowerbed.runs.settings import Override
from flowerbed.runs.source import Source

if TYPE_CHECKING:
    from flowerbed.session import Session


@dataclass(frozen=True)
class Federation:
    """A standing federation.

    `name` is its folder's under `inventories/`, or the folder's path; `runs_folder` is where results come home.
    Nothing is connected until a method is called, and nothing stays connected after it. Raises UsageError for an
    unknown one.
    """

    name: str | Path = "lab"
    runs_folder: Path = Path("runs")
    folder: FederationFolder = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Find its folder."""
        object.__setattr__(self, "folder", find(self.name))

    def run(
        self,
        app: str | Path | None = None,
        *,
        server_code: Path | None = None,
        client_code: Path | None = None,
        config: Override | Iterable[Override] = (),
        profile: str | None = None,
        timeout: float | None = None,
        node_timeout: float | None = NODE_TIMEOUT,
        retries: int = 0,
        on_event: OnEvent | None = None,
    ) -> RunResult:
        """Run an app to its end and bring its results home.

        `app` is a folder, `git+URL@REF#subdirectory=PATH`, or a .fab file; without it `server_code` and `client_code`
        are two Python files, each with an `app` in it. `config` overrides the app's run config: values by key, the
        path of a TOML file, `key=value`, or several of these, of which the last counts; `profile` names a set of
        overrides in the app's pyproject.toml, which comes before them. After `timeout` seconds the run is stopped,
        and so it is when it has waited `node_timeout` seconds for nodes (None: never). A run that Flower loses, as when
        the coordinator restarts, is submitted again as by `retry`, `retries` times at most. `on_event` is called with
        each event of the run. Ctrl-C leaves the run going.

        Raises UsageError for an app or a config that is wrong, before anything is sent, and WorkFailed when the
        federation cannot be reached; how the run ended is in the result.
        """
        with runs.source.configured(app, server_code, client_code, config, profile) as (opened, overrides):
            result = self._start(opened, overrides, on_event, timeout=timeout, node_timeout=node_timeout)
        while result.verdict.lost and retries > 0:
            retries -= 1
            result = self.retry(result.run_id, timeout=timeout, node_timeout=node_timeout, on_event=on_event)
        return result

    def retry(
        self,
        run_id: str,
        *,
        timeout: float | None = None,
        node_timeout: float | None = NODE_TIMEOUT,
        detach: bool = False,
        on_event: OnEvent | None = None,
    ) -> RunResult:
        """Run the app of a run that has ended once more, with the same configuration.

        It goes on from that run's last checkpoint where the app keeps some and says how to (`App.resume`). `detach`
        returns as soon as the SuperLink has the run; all else is as for `run`.

        Raises UsageError for a run that goes on or completed, that was submitted from elsewhere, or whose app has
        changed since, and WorkFailed when the federation cannot be reached.
        """
        folder = runs.results.find(self.runs_folder, run_id) or self._bring_home(run_id)
        with runs.retry.opened(folder) as (opened, overrides):
            return self._start(
                opened,
                overrides,
                on_event,
                timeout=timeout,
                node_timeout=node_timeout,
                detach=detach,
                retry_of=run_id,
            )

    def simulate(
        self,
        app: str | Path | None = None,
        *,
        server_code: Path | None = None,
        client_code: Path | None = None,
        config: Override | Iterable[Override] = (),
        profile: str | None = None,
        sites: int | None = None,
        data: Path | None = None,
        timeout: float | None = None,
        node_timeout: float | None = NODE_TIMEOUT,
        on_event: OnEvent | None = None,
        on_step: Callable[[str], None] = lambda step: None,
    ) -> RunResult:
        """Run an app on this machine as it would run on the federation, in Flower's simulation.

        Sites, their node config, the release and, in the lab, the sites' data are the federation's. `data` is a folder
        with one folder of data for each site; `sites` asks for so many made-up sites instead. `on_step` hears what
        is prepared; everything else is as for `run`. Ctrl-C ends the simulation.

        Raises what `flowerbed.simulation.simulate` does.
        """
        with runs.source.configured(app, server_code, client_code, config, profile) as (opened, overrides):
            return simulation.simulate(
                self.folder,
                opened.folder,
                overrides,
                sites=sites,
                data=data,
                timeout=timeout,
                node_timeout=node_timeout,
                origin=opened.origin,
                on_event=on_event,
                on_step=on_step,
                into=self.runs_folder,
            )

    def submit(
        self,
        app: str | Path | None = None,
        *,
        server_code: Path | None = None,
        client_code: Path | None = None,
        config: Override | Iterable[Override] = (),
        profile: str | None = None,
        on_event: OnEvent | None = None,
    ) -> "Run":
        """Start a run and leave it to itself; parameters and errors as for `run`."""
        with runs.source.configured(app, server_code, client_code, config, profile) as (opened, overrides):
            started = self._start(opened, overrides, on_event, detach=True)
        return self.get(started.run_id)

    def get(self, run_id: str) -> "Run":
        """A run of this federation by its id; UsageError for what cannot be one."""
        return Run(self, runs.checked(run_id))

    def runs(self, limit: int = 20) -> list[RunInfo]:
        """What the SuperLink knows of the newest `limit` runs, the newest first."""
        with control.open_way(self.folder) as way, runs.control(way.connection) as api:
            return api.runs(limit)

    def unfinished(self) -> list["Run"]:
        """The runs that were submitted from here and whose results are not home, the oldest first."""
        return [self.get(run_id) for run_id in runs.results.waited_for(self.runs_folder)]

    def connect(
        self,
        client_code: str | Path,
        *,
        config: Override | Iterable[Override] = (),
        patience: float | None = None,
        on_event: OnEvent | None = None,
    ) -> "Session":
        """Ship client code to the sites and open a session, in which the caller's own loop asks them.

        `client_code` is a Python file with a ClientApp `app`, or an app whose ClientApp is taken. The session is a
        context manager; unlike all else here it stays connected until it is closed. `patience` is in seconds, ten
        minutes if not given; parameters and errors are as for `session.open_session`.
        """
        from flowerbed import session  # noqa: PLC0415 - Flower's records take half a second to import

        stack = ExitStack()
        try:
            way = stack.enter_context(control.open_way(self.folder))
            return session.open_session(
                way.connection,
                way.shell,
                client_code,
                deployed=way.deployed,
                config=config,
                patience=session.PATIENCE if patience is None else patience,
                into=self.runs_folder,
                on_event=on_event,
                on_close=stack.close,
            )
        except BaseException:
            stack.close()
            raise

    def status(self) -> status.Status:
        """What the federation is like now: hosts, units, nodes, certificates, the latest runs."""
        return status.look(self.folder)

    def health(self) -> health.Health:
        """Whether every host and site is well; whatever does not answer is in the result."""
        return health.examine(self.folder)

    def _start(
        self,
        opened: Source,
        overrides: Mapping[str, object],
        on_event: OnEvent | None,
        *,
        timeout: float | None = None,
        node_timeout: float | None = NODE_TIMEOUT,
        detach: bool = False,
        retry_of: str | None = None,
    ) -> RunResult:
        with control.open_way(self.folder) as way:
            return runs.submit_and_follow(
                way.connection,
                way.shell,
                opened.folder,
                overrides,
                deployed=way.deployed,
                expected_sites=len(way.deployed.sites) or None,
                timeout=timeout,
                node_timeout=node_timeout,
                detach=detach,
                origin=opened.origin,
                retry_of=retry_of,
                on_event=on_event,
                into=self.runs_folder,
            )

    def _bring_home(self, run_id: str) -> Path:
        """The folder of a run that has ended and was followed by nobody."""
        run = self.get(run_id)
        if not (info := run.info()).is_finished:
            where = f"{run_id} --federation {self.folder.name}"
            raise UsageError(
                f"run {run_id} is {info.status}: `flowerbed wait {where}` follows it, `flowerbed stop {where}` stops it"
            )
        folder = run.wait().folder
        assert folder is not None  # noqa: S101 - it has ended
        return folder


@dataclass(frozen=True)
class Run:
    """One run on a federation."""

    federation: Federation
    run_id: str

    def info(self) -> RunInfo:
        """What the SuperLink knows of it; UsageError when it has no such run."""
        with self._control() as api:
            return api.run(self.run_id)

    def wait(self, timeout: float | None = None, on_event: OnEvent | None = None) -> RunResult:
        """Follow it from its first line to its end, and bring its results home if they are not there.

        After `timeout` seconds it is left going, and the result says `running`.
        """
        with control.open_way(self.federation.folder) as way:
            return runs.follow(
                way.connection,
                way.shell,
                self.run_id,
                deployed=way.deployed,
                timeout=timeout,
                on_event=on_event,
                into=self.federation.runs_folder,
            )

    def log(self, *, follow: bool = False) -> Iterator[str]:
        """The lines of its log: those that are there, or with `follow` all until it ends."""
        home = runs.results.find(self.federation.runs_folder, self.run_id)
        if home is not None:
            yield from runs.results.log_of(home)
            return
        with self._control() as api, api.log(self.run_id, follow=follow) as stream:
            api.run(self.run_id)  # says so where there is no such run
            yield from (runs.plain(line.text) for line in stream.lines())

    def stop(self) -> None:
        """Stop it; WorkFailed when it is finished already."""
        with self._control() as api:
            api.stop(self.run_id)

    @contextmanager
    def _control(self) -> Iterator[runs.Control]:
        with control.open_way(self.federation.folder) as way, runs.control(way.connection) as api:
            yield api


__all__ = ["Federation", "Run", "RunResult"]
