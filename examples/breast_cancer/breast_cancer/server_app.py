"""What runs on the coordinator: average the sites' models, and write down the result."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from flwr.app import ArrayRecord, Context, Message, MetricRecord
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from breast_cancer import model
from breast_cancer.data import RANGES

app = ServerApp()


class FedAvgPerSite(FedAvg):
    """FedAvg that also keeps each site's own numbers, by node id."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.rounds: list[dict[str, Any]] = []

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """Average the models; a round that no site finished ends the run."""
        replies = list(replies)
        arrays, metrics = super().aggregate_train(server_round, replies)
        if arrays is None or metrics is None:
            raise RuntimeError(f"round {server_round}: no site returned a model, see the reasons above")
        self._keep(server_round, "train", metrics, _numbers(replies))
        return arrays, metrics

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Average the sites' results, and keep and print each of them."""
        replies = list(replies)
        metrics = super().aggregate_evaluate(server_round, replies)
        if metrics is None:
            raise RuntimeError(f"round {server_round}: no site tested the model, see the reasons above")
        numbers = _numbers(replies)
        self._keep(server_round, "evaluate", metrics, numbers)
        for site, of_site in numbers.items():
            accuracy, patients = of_site["accuracy"], of_site["num-examples"]
            print(f"round {server_round} site {site}: accuracy {accuracy:.4f} on {patients} patients", flush=True)
        return metrics

    def _keep(self, server_round: int, phase: str, metrics: MetricRecord, sites: dict[str, dict[str, Any]]) -> None:
        """Write a phase down in the form that Flowerbed's driver reads per site."""
        self.rounds.append({"round": server_round, "phase": phase, "metrics": dict(metrics), "sites": sites})


def _numbers(replies: list[Message]) -> dict[str, dict[str, Any]]:
    """Per site that replied its metrics; the node id as text, as it exceeds JSON's exact integers."""
    good = [reply for reply in replies if not reply.has_error()]
    return {str(reply.metadata.src_node_id): dict(reply.content["metrics"]) for reply in good}


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run the rounds; write `model.json` and `metrics.json` to $FLOWERBED_RESULTS/<run id>/."""
    rounds, sites = (int(context.run_config[key]) for key in ("num-server-rounds", "min-sites"))
    if rounds < 1 or sites < 1:
        raise ValueError(f"num-server-rounds is {rounds} and min-sites {sites}: both must be 1 or more")
    # All connected sites take part: the fractions of FedAvg are 1 by default.
    strategy = FedAvgPerSite(min_train_nodes=sites, min_evaluate_nodes=sites, min_available_nodes=sites)
    result = strategy.start(grid=grid, initial_arrays=ArrayRecord(model.initial()), num_rounds=rounds)

    coefficients, intercept = result.arrays.to_numpy_ndarrays()
    folder = Path(os.environ.get("FLOWERBED_RESULTS", "results")) / str(context.run_id)
    folder.mkdir(parents=True, exist_ok=True)
    _write(
        folder / "model.json",
        {
            "kind": "logistic regression: malignant if intercept + sum of coefficient * scaled feature > 0",
            "scaling": "2 * (value - lowest) / (highest - lowest) - 1",
            "intercept": float(intercept[0]),
            "features": [
                {"name": name, "lowest": low, "highest": high, "coefficient": float(coefficient)}
                for (name, (low, high)), coefficient in zip(RANGES.items(), coefficients, strict=True)
            ],
        },
    )
    _write(folder / "metrics.json", {"run_id": str(context.run_id), "rounds": strategy.rounds})
    accuracy = strategy.rounds[-1]["metrics"]["accuracy"]
    print(f"accuracy {accuracy:.4f} on the held-out patients of all sites; written to {folder}", flush=True)


def _write(file: Path, content: dict[str, Any]) -> None:
    """Write complete or not at all: the driver may collect at any time."""
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    partial.replace(file)
