"""What a run leaves in the coordinator's audit trail: who ran which app, and how it ended; never what it computed."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from flowerbed import journal
from flowerbed.errors import FlowerbedError
from flowerbed.runs.app import App
from flowerbed.runs.connection import Deployed, Remote
from flowerbed.runs.flwr import RunInfo
from flowerbed.runs.follow import Round
from flowerbed.runs.verdict import Verdict


class Trail:
    """Writes in the background and in order, so that no run waits for its entries."""

    def __init__(self, remote: Remote, deployed: Deployed) -> None:
        self._remote = remote
        self._deployed = deployed
        self._writer = ThreadPoolExecutor(1)
        self._writing: list[Future[None]] = []

    def submitted(self, run_id: str, app: App) -> None:
        """Somebody at this machine started a run."""
        name = f"{app.publisher}/{app.name} {app.version}"
        self._write("submitted", f"run {run_id} of {name} was submitted", run_id, name, app.fab_hash)

    def finished(self, run: RunInfo, verdict: Verdict, rounds: Sequence[Round]) -> None:
        """A run ended; the verdict's reason stays here, since an app may have written data into it."""
        name = f"{run.app} {run.version}"
        replies = sum(phase.results or 0 for round_ in rounds for phase in round_.phases)
        detail = f"rounds: {len(rounds)}, replies: {replies}"
        message = f"run {run.run_id} of {name} ended: {verdict.status}, {detail}"
        self._write("finished", message, run.run_id, name, run.fab_hash, result=verdict.status, detail=detail)

    def close(self) -> str:
        """Wait until all is written; why something is not, or nothing."""
        self._writer.shutdown()
        failures = [one.exception() for one in self._writing]
        return next((str(failure) for failure in failures if isinstance(failure, FlowerbedError)), "")

    def _write(self, event: str, message: str, run_id: str, app: str, app_hash: str, **more: str) -> None:
        known = {"federation": self._deployed.name, "by": journal.operator()}
        fields = {**known, "run": run_id, "app": app, "app_hash": app_hash, **more}
        self._writing.append(self._writer.submit(self._remote.record, f"run.{event}", message, fields))
