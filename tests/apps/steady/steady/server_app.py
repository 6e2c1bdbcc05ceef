"""FedAvg with a checkpoint after each round; the model's first number says how many rounds it has seen."""

import os
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train to the last round, from the beginning or from an earlier run's last checkpoint."""
    config, results = context.run_config, Path(os.environ["FLOWERBED_RESULTS"])
    done, weights = 0, _first(int(config["size"]))
    if config["resume-from"]:
        done, weights = _last(results / str(config["resume-from"]) / "checkpoints")
    folder = results / str(context.run_id) / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)

    def keep(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        """Keep the model, whole or not at all."""
        partial = folder / "partial"
        with partial.open("wb") as stream:
            np.save(stream, arrays.to_numpy_ndarrays()[0])
        partial.replace(folder / f"{done + server_round}.npy")
        return MetricRecord({"kept": done + server_round})

    strategy = FedAvg(
        fraction_evaluate=0.0,
        min_train_nodes=int(config["min-nodes"]),
        min_evaluate_nodes=0,
        min_available_nodes=int(config["min-nodes"]),
    )
    strategy.start(
        grid=grid,
        initial_arrays=ArrayRecord([weights]),
        num_rounds=int(config["num-server-rounds"]) - done,
        timeout=float(config["reply-timeout"]),
        evaluate_fn=keep,
    )


def _first(size: int) -> np.ndarray:
    # Chunks that are alike travel once, and the SuperLink keeps them once: real models have none.
    weights = np.random.default_rng(0).standard_normal(size)
    weights[0] = 0.0
    return weights


def _last(folder: Path) -> tuple[int, np.ndarray]:
    files = sorted(folder.glob("*.npy"), key=lambda file: int(file.stem))
    return int(files[-1].stem), np.load(files[-1], allow_pickle=False)
