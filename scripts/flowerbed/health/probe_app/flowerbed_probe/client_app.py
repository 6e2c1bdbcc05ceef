"""Trains at the site, and looks at its folder of data; nothing that is in there is sent."""

from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from . import model

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """Train on numbers of this site's own, and say by how much the loss fell."""
    received = message.content["arrays"]
    if not isinstance(received, ArrayRecord):
        raise TypeError("the message holds no weights")
    before = received.to_numpy_ndarrays()[0]
    features, labels = model.generate(context.node_id % (1 << 32))
    after = model.train(before, features, labels)
    metrics: dict[str, int | float | list[int] | list[float]] = {
        "loss-before": model.loss(before, features, labels),
        "loss-after": model.loss(after, features, labels),
        "num-examples": len(labels),
    }
    content = RecordDict(
        {
            "arrays": ArrayRecord([after]),
            "metrics": MetricRecord(metrics),
            "data": ConfigRecord({"problem": _data_problem(str(context.node_config.get("data-path", "")))}),
        }
    )
    return Message(content=content, reply_to=message)


def _data_problem(path: str) -> str:
    """What keeps an app from the site's data; empty if nothing does, or there is none."""
    if not path:
        return ""
    try:
        entries = sorted(Path(path).iterdir())
        for entry in entries:
            if entry.is_file():
                with entry.open("rb") as file:
                    file.read(1)
                break
    except OSError as error:
        return f"{path} cannot be read: {error.strerror}"
    return "" if entries else f"{path} is empty"
