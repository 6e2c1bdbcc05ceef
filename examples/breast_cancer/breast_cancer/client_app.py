"""What runs at a site: train on its patients, test on those held out, return parameters and numbers alone."""

from pathlib import Path

from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from breast_cancer import model
from breast_cancer.data import BadData, load

app = ClientApp()


@app.train()
def train(message: Message, context: Context) -> Message:
    """One round of training."""
    patients, _ = load(data_folder(context))
    weights = model.train(
        message.content.array_records["arrays"].to_numpy_ndarrays(),
        patients,
        epochs=int(context.run_config["local-epochs"]),
        penalty=float(context.run_config["penalty"]),
    )
    loss, _ = model.evaluate(weights, patients)
    metrics = MetricRecord({"loss": loss, "num-examples": len(patients)})
    return Message(RecordDict({"arrays": ArrayRecord(weights), "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Test the averaged model on the site's held-out patients."""
    _, held_out = load(data_folder(context))
    loss, accuracy = model.evaluate(message.content.array_records["arrays"].to_numpy_ndarrays(), held_out)
    metrics = MetricRecord({"accuracy": accuracy, "loss": loss, "num-examples": len(held_out)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def data_folder(context: Context) -> Path:
    """The site's folder: node config `data-path`, or in a simulation the node's share of `data-root`."""
    path = str(context.node_config.get("data-path", ""))
    if path:
        return Path(path)
    root = str(context.run_config["data-root"])
    if not root or "partition-id" not in context.node_config:
        raise BadData("the node config has no data-path: set it to the folder with the site's breast_cancer.csv")
    sites = sorted(folder for folder in Path(root).glob("*") if folder.is_dir())
    if not sites:
        raise BadData(f"data-root {root} holds no folders of sites")
    return sites[int(context.node_config["partition-id"]) % len(sites)]
