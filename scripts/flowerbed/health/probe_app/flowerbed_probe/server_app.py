"""Asks the sites that are online now, waits for none that is not, and writes down what each replied."""

import json
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid, ServerApp

from . import model

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Train a few rounds; a site that failed in one is not asked again."""
    weights: model.Array = np.zeros(model.FEATURES)
    found: dict[int, dict[str, Any]] = {node: {"ok": True, "losses": []} for node in grid.get_node_ids()}
    for number in range(1, int(context.run_config["num-server-rounds"]) + 1):
        asked = [node for node, told in found.items() if told["ok"]]
        weights = _round(grid, number, asked, weights, found, float(context.run_config["reply-timeout"]))
    features, labels = model.generate(0)
    right = float(np.mean((features @ weights > 0) == (labels > 0)))
    print(f"the model is right in {right:.2f} of all cases", flush=True)
    folder = Path(os.environ["FLOWERBED_RESULTS"]) / str(context.run_id)
    folder.mkdir(parents=True, exist_ok=True)
    document = {"accuracy": right, "sites": {str(node): told for node, told in found.items()}}
    (folder / "probe.json").write_text(json.dumps(document))


def _round(
    grid: Grid, number: int, asked: list[int], weights: model.Array, found: dict[int, dict[str, Any]], seconds: float
) -> model.Array:
    """Let the sites train, and give the mean of what they learned."""
    content = RecordDict({"arrays": ArrayRecord([weights])})
    messages = [
        Message(content=content, message_type="train", dst_node_id=node, group_id=str(number)) for node in asked
    ]
    learned: list[model.Array] = []
    began = time.monotonic()
    silent = set(asked)
    for reply in grid.send_and_receive(messages, timeout=seconds):
        node = reply.metadata.src_node_id
        if node not in found:  # the SuperLink replies in the name of a node that went offline
            continue
        silent.discard(node)
        problem = reply.error.reason if reply.has_error() else _problem(reply, found[node]["losses"])
        found[node]["seconds"] = time.monotonic() - began
        if problem:
            found[node].update(ok=False, problem=problem)
        else:
            learned.append(_arrays(reply).to_numpy_ndarrays()[0])
    for node in silent:
        found[node].update(ok=False, problem=f"no reply within {seconds:.0f} s, or it went offline")
    mean: model.Array = np.mean(learned, axis=0) if learned else weights
    return mean


def _problem(reply: Message, losses: list[float]) -> str:
    """What is wrong with a reply; notes its loss."""
    metrics, data = reply.content["metrics"], reply.content["data"]
    if not isinstance(metrics, MetricRecord) or not isinstance(data, ConfigRecord):
        return "its reply is none of this app's"
    before, after = metrics["loss-before"], metrics["loss-after"]
    losses.append(float(after) if isinstance(after, int | float) else float("nan"))
    if not isinstance(before, int | float) or not losses[-1] < before:
        return f"it did not learn: the loss was {before} before and {after} after training"
    return str(data["problem"])


def _arrays(reply: Message) -> ArrayRecord:
    arrays = reply.content["arrays"]
    if not isinstance(arrays, ArrayRecord):
        raise TypeError("the reply holds no weights")
    return arrays
