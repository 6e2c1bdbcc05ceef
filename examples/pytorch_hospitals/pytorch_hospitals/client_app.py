"""What runs at a site: say what it has, train on its images, test on those held out."""

import zlib
from pathlib import Path

from flwr.app import ArrayRecord, ConfigRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

from pytorch_hospitals import model
from pytorch_hospitals.data import BadData, Images, load

app = ClientApp()


@app.query()
def query(message: Message, context: Context) -> Message:
    """Say what the rules of enrolment ask: the site's name, labels, number of images, and health."""
    config = context.node_config
    about: dict[str, str | bool] = {"site": str(config.get("site", "")), "healthy": True, "why-not": ""}
    about |= {key: str(value) for key, value in config.items() if key.startswith("label-")}
    images = 0
    try:
        images = len(_images(context)[0])
    except BadData as error:
        about |= {"healthy": False, "why-not": str(error)}
    numbers = MetricRecord({"num-examples": images, "free-memory": _free_memory()})
    return Message(RecordDict({"site": ConfigRecord(about), "numbers": numbers}), reply_to=message)


@app.train()
def train(message: Message, context: Context) -> Message:
    """One round of training, in the way that the site's node config says."""
    server_round = int(message.content.config_records["config"]["server-round"])
    site = str(context.node_config.get("site", ""))
    model.be_deterministic(int(context.run_config["seed"]) + zlib.crc32(f"{site} {server_round}".encode()))
    images, _ = _images(context)
    setting = {**context.run_config, **context.node_config}
    state, loss = model.train(
        message.content.array_records["arrays"].to_torch_state_dict(),
        images,
        epochs=int(setting["local-epochs"]),
        batch_size=int(setting["batch-size"]),
        learning_rate=float(setting["learning-rate"]),
        augment=bool(setting["augment"]),
    )
    metrics = MetricRecord({"loss": loss, "num-examples": len(images)})
    return Message(RecordDict({"arrays": ArrayRecord(state), "metrics": metrics}), reply_to=message)


@app.evaluate()
def evaluate(message: Message, context: Context) -> Message:
    """Test the averaged model on the site's held-out images."""
    model.be_deterministic(int(context.run_config["seed"]))
    _, held_out = _images(context)
    loss, accuracy = model.evaluate(message.content.array_records["arrays"].to_torch_state_dict(), held_out)
    metrics = MetricRecord({"accuracy": accuracy, "loss": loss, "num-examples": len(held_out)})
    return Message(RecordDict({"metrics": metrics}), reply_to=message)


def _images(context: Context) -> tuple[Images, Images]:
    folder = str(context.node_config.get("data-path", ""))
    if not folder:
        raise BadData("the node config has no data-path: set it to the folder with the site's digits.npz")
    return load(Path(folder))


def _free_memory() -> int:
    """Megabytes that the site's machine has left."""
    for line in Path("/proc/meminfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) // 1024
    return 0
