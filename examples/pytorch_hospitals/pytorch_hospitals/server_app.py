"""What runs on the coordinator: enrol sites, average their models, keep checkpoints."""

import os
import time
from logging import INFO
from pathlib import Path

from flwr.app import ArrayRecord, Context
from flwr.common.logger import log
from flwr.serverapp import Grid, ServerApp

from pytorch_hospitals import checkpoints, model
from pytorch_hospitals.enrolment import Rules
from pytorch_hospitals.strategy import EnrolByRule

app = ServerApp()
_LOOK_SECONDS = 3.0


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds; `checkpoints/` and `enrolment.json` go to $FLOWERBED_RESULTS/<run id>/."""
    config = context.run_config
    last, min_sites = int(config["num-server-rounds"]), int(config["min-sites"])
    if last < 1 or min_sites < 1:
        raise ValueError(f"num-server-rounds is {last} and min-sites {min_sites}: both must be 1 or more")
    folder = Path(os.environ.get("FLOWERBED_RESULTS", "results")) / str(context.run_id)
    strategy = EnrolByRule(Rules.read(config), folder, min_sites=min_sites)
    first, state = 1, model.initial(int(config["seed"]))
    if config["resume-from"]:
        first, state = _resumed(str(config["resume-from"]), strategy)
        if first > last:
            raise ValueError(f"num-server-rounds is {last}, and the checkpoint has done {first - 1}: ask for more")
    _wait_for(min_sites, grid)
    strategy.run(grid, ArrayRecord(state), first, last)
    print(f"best accuracy {strategy.best:.4f}; written to {folder}", flush=True)


def _resumed(resume_from: str, strategy: EnrolByRule) -> tuple[int, model.State]:
    """Where the run goes on, and from what; the best of the earlier rounds stays the best until one is better."""
    file = checkpoints.find(resume_from)
    found = checkpoints.load(file)
    best_file = file.with_name(checkpoints.BEST)
    best = checkpoints.load(best_file) if best_file.is_file() else found
    if best.server_round > found.server_round:  # it came after the checkpoint that was asked for
        best, best_file = found, file
    strategy.best = best.accuracy
    checkpoints.keep_as_best(best_file if best_file.is_file() else file, strategy.folder / checkpoints.FOLDER)
    log(INFO, "Resuming after round %s, from %s", found.server_round, file)
    return found.server_round + 1, found.state


def _wait_for(sites: int, grid: Grid) -> None:
    """Wait as Flower's own strategies do, in their words."""
    while (connected := len(list(grid.get_node_ids()))) < sites:
        log(INFO, "Waiting for nodes to connect: %d connected (minimum required: %d).", connected, sites)
        time.sleep(_LOOK_SECONDS)
