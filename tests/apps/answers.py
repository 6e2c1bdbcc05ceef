"""Client code of a session: answers with what it was asked, or fails, or is slow, as the task says."""

import os
import time

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


def _site(context: Context) -> int:
    """Which of the sites this is, whatever the federation says of it."""
    if "partition-id" in context.node_config:
        return int(context.node_config["partition-id"])
    return ord(str(context.node_config["site"])[-1]) - ord("a")


@app.train()
def train(message: Message, context: Context) -> Message:
    """Give back everything that came, and the arrays with the site's number added."""
    arrays = [np.asarray(each + _site(context)) for each in message.content["arrays"].to_numpy_ndarrays()]
    content = RecordDict({name: record for name, record in message.content.items() if name != "arrays"})
    content["arrays"] = ArrayRecord(arrays)
    return Message(content, reply_to=message)


@app.query()
def query(message: Message, context: Context) -> Message:
    """Tell who this is."""
    who = ConfigRecord(
        {"site": _site(context), "pid": os.getpid(), "run-config": str(context.run_config.get("greeting"))}
    )
    return Message(RecordDict({"who": who}), reply_to=message)


@app.query("slow")
def slow(message: Message, context: Context) -> Message:
    """Take the seconds that the site was told to take."""
    time.sleep(float(message.content["config"][f"seconds-{_site(context)}"]))
    return Message(RecordDict({"metrics": MetricRecord({"site": _site(context)})}), reply_to=message)


@app.query("fail")
def fail(message: Message, context: Context) -> Message:
    """Fail at the second site alone."""
    if _site(context) == 1:
        raise ValueError("no column 'age'\n\x1b[31min this data")
    return Message(RecordDict({"metrics": MetricRecord({"site": _site(context)})}), reply_to=message)


@app.evaluate("large")
def large(message: Message, context: Context) -> Message:
    """Give back an array of as many megabytes as asked for, whose every value is the site's number."""
    values = np.full(int(message.content["config"]["megabytes"]) * 125_000, _site(context), dtype=np.float64)
    values[0] = float(np.sum([each.sum() for each in message.content["arrays"].to_numpy_ndarrays()]))
    return Message(RecordDict({"arrays": ArrayRecord([values])}), reply_to=message)
