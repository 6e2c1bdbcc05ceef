"""FedAvg that keeps what each site replied, and writes it where Flowerbed fetches it."""

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


class KeepSites(FedAvg):
    """Remembers each site's metrics of an evaluation."""

    rounds: list[dict[str, object]]

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Keep the replies by node id, then aggregate them."""
        replies = list(replies)
        sites = {
            str(reply.metadata.src_node_id): dict(reply.content["metrics"]) for reply in replies if reply.has_content()
        }
        self.rounds.append({"round": server_round, "sites": sites})
        return super().aggregate_evaluate(server_round, replies)


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train, or fail before any round."""
    config = context.run_config
    if config["behaviour"] == "server-error":
        raise RuntimeError("the checkpoint to start from does not exist")
    strategy = KeepSites(
        fraction_evaluate=1.0 if config["evaluate"] else 0.0,
        min_train_nodes=int(config["min-nodes"]),
        min_evaluate_nodes=int(config["min-nodes"]) if config["evaluate"] else 0,
        min_available_nodes=int(config["min-nodes"]),
    )
    strategy.rounds = []
    result = strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord([np.zeros(3)]),
        num_rounds=int(config["num-server-rounds"]),
        timeout=float(config["reply-timeout"]),
        evaluate_fn=_measure if config["server-evaluate"] else None,
    )
    folder = Path(os.environ["FLOWERBED_RESULTS"]) / str(context.run_id)
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    (folder / "metrics.json").write_text(json.dumps({"rounds": strategy.rounds}))
    if config["megabytes"]:
        _write_large(folder / "large.bin", int(config["megabytes"]))
    if result.arrays:
        np.save(folder / "checkpoints" / "final.npy", result.arrays.to_numpy_ndarrays()[0])


def _write_large(file: Path, megabytes: int) -> None:
    """Write so much that no compression helps, and its sum beside it."""
    digest = hashlib.sha256()
    with file.open("wb") as stream:
        for _ in range(megabytes):
            block = os.urandom(1_000_000)
            digest.update(block)
            stream.write(block)
    file.with_suffix(".sha256").write_text(digest.hexdigest())


def _measure(_: int, arrays: ArrayRecord) -> MetricRecord:
    """Evaluate the global model where the server is."""
    return MetricRecord({"size": float(np.abs(arrays.to_numpy_ndarrays()[0]).sum())})
