"""Moves a weight towards the site's own value."""

import time

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


def _site(context: Context) -> int:
    return int(context.node_config["partition-id"])


@app.train()
def train(message: Message, context: Context) -> Message:
    """Take one step; or fail, or be slow, as the run config says."""
    config = context.run_config
    if config["behaviour"] == "clients-error" or (config["behaviour"] == "client-error" and _site(context) == 1):
        raise ValueError(f"no column 'age' in the data of partition {_site(context)}")
    if config["behaviour"] == "slow" and _site(context) == 1:
        time.sleep(float(config["slow.seconds"]))
    weights = message.content["arrays"].to_numpy_ndarrays()[0]
    weights = weights + float(config["learning-rate"]) * (1.0 + _site(context) - weights)
    return _reply(message, weights, {"loss": float(np.abs(weights).mean()), "num-examples": 10 + _site(context)})


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Tell how far the weight is from the site's value."""
    weights = message.content["arrays"].to_numpy_ndarrays()[0]
    metrics = {
        "accuracy": 0.5 + 0.25 * _site(context),
        "distance": float(np.abs(weights - 1.0 - _site(context)).mean()),
        "num-examples": 10 + _site(context),
    }
    return _reply(message, None, metrics)


def _reply(message: Message, weights: np.ndarray | None, metrics: dict[str, float]) -> Message:
    content = RecordDict({"metrics": MetricRecord(metrics)})
    if weights is not None:
        content["arrays"] = ArrayRecord([weights])
    return Message(content=content, reply_to=message)
