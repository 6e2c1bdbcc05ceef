"""What is submitted when a run is done again: its app, its configuration, and where it goes on from."""

import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from flowerbed.errors import UsageError
from flowerbed.runs import app as apps
from flowerbed.runs import results, source
from flowerbed.runs.flwr import ConfigValue
from flowerbed.runs.verdict import COMPLETED

CHECKPOINTS = "checkpoints/"
"""Where in a run's folder of results an app keeps its checkpoints, if it keeps any."""
_TWO_FILES = re.compile(r"(/.*\.py) (/.*\.py)")


@contextmanager
def opened(folder: Path) -> Iterator[tuple[source.Source, dict[str, ConfigValue]]]:
    """Give the app of the run that is home in `folder`, and its overrides, as long as the context lasts.

    An app that names its setting for it (`App.resume`) goes on from the run's last checkpoint, where there is one.
    Raises UsageError for a run that completed or was submitted from elsewhere, and for an app that has changed since.
    """
    record = results.read(folder)
    run_id = record["run_id"]
    if record["status"] == COMPLETED:
        raise UsageError(f"run {run_id} completed: there is nothing to do again")
    if record["origin"] is None:
        raise UsageError(f"run {run_id} was not submitted from here: run its app again where it was")
    with ExitStack() as stack:
        found, overrides = _source(stack, record)
        app = apps.check(found.folder)
        if app.fab_hash != record["app"]["fab_hash"]:
            raise UsageError(
                f"{found.origin} is not what run {run_id} ran, it has changed since: `flowerbed run` it anew"
            )
        saved = any(file.startswith(CHECKPOINTS) for file in record["files"])
        resumed = {app.resume: run_id} if app.resume and saved else {}
        yield found, {**overrides, **resumed}


def _source(stack: ExitStack, record: dict[str, Any]) -> tuple[source.Source, dict[str, ConfigValue]]:
    files = _TWO_FILES.fullmatch(record["origin"])
    if files is None:
        return stack.enter_context(source.opened(record["origin"])), dict(record["overrides"])
    return stack.enter_context(source.inline(Path(files[1]), Path(files[2]), record["config"])), {}
