"""Adds one to the model, in its own time."""

import time

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Take a step; slowly, or not at all, if this is the partition that the run config names."""
    config, partition = context.run_config, int(context.node_config["partition-id"])
    if partition == config["failing-partition"]:
        raise ValueError(f"no column 'age' in the data of partition {partition}")
    time.sleep(float(config["slow-seconds"] if partition == config["slow-partition"] else config["seconds"]))
    weights = message.content["arrays"].to_numpy_ndarrays()[0] + 1.0
    # What two sites reply alike, the SuperLink would keep once.
    weights[1:] += 1e-6 * partition
    content = {
        "arrays": ArrayRecord([weights]),
        "metrics": MetricRecord({"steps": float(weights[0]), "num-examples": 1}),
    }
    return Message(content=RecordDict(content), reply_to=message)
