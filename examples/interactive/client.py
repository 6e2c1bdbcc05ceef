"""What runs at each hospital: count its patients, train on them, test on those held out.

The session sends this file to the sites; each function answers one task. Numbers leave the hospital, patients do not.
"""

import csv
from pathlib import Path

import numpy as np
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.query("count")
def count(message: Message, context: Context) -> Message:
    """How many patients there are, and how many of them are ill."""
    _, ill, held_out = patients(context)
    numbers = {"patients": len(ill), "malignant": int(ill.sum()), "held-out": int(held_out.sum())}
    return Message(RecordDict({"numbers": MetricRecord(numbers)}), reply_to=message)


@app.query("sums")
def sums(message: Message, context: Context) -> Message:
    """What it takes to know mean and deviation of every feature over all hospitals: sums, and sums of squares."""
    features, _, held_out = patients(context)
    training = features[~held_out]
    arrays = ArrayRecord([np.array(len(training)), training.sum(axis=0), (training**2).sum(axis=0)])
    return Message(RecordDict({"sums": arrays}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """Go on from the model that came: steps of gradient descent on the hospital's own patients."""
    weights, mean, deviation = message.content["model"].to_numpy_ndarrays()
    features, ill, held_out = patients(context)
    x, y = scaled(features, mean, deviation)[~held_out], ill[~held_out]
    settings = message.content["settings"]
    for _ in range(settings["steps"]):
        error = 1 / (1 + np.exp(-x @ weights)) - y
        weights = weights - settings["rate"] * (x.T @ error / len(y))
    numbers = MetricRecord({"patients": len(y)})
    return Message(RecordDict({"model": ArrayRecord([weights]), "numbers": numbers}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Test the model on the patients that it has not seen."""
    weights, mean, deviation = message.content["model"].to_numpy_ndarrays()
    features, ill, held_out = patients(context)
    right = (scaled(features, mean, deviation)[held_out] @ weights > 0) == ill[held_out]
    numbers = MetricRecord({"patients": len(right), "right": int(right.sum())})
    return Message(RecordDict({"numbers": numbers}), reply_to=message)


def patients(context: Context) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read the hospital's file: features, who is ill, and who is held out."""
    file = Path(str(context.node_config["data-path"])) / "breast_cancer.csv"
    with file.open(newline="", encoding="utf-8") as stream:
        _, *rows = csv.reader(stream)
    values = np.array([row[:-1] for row in rows], dtype=float)
    return values[:, :-1], values[:, -1] == 1, np.array([row[-1] == "test" for row in rows])


def scaled(features: np.ndarray, mean: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Features around 0 with deviation 1, and a column of ones for the intercept."""
    return np.column_stack([(features - mean) / deviation, np.ones(len(features))])
