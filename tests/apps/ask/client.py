"""Answers with what a ClientApp finds at its site."""

import os
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.query()
def answer(message: Message, context: Context) -> Message:
    """Node config, run config, and the environment, the volume and the secret that the role was told to give."""
    found = {f"node.{key}": value for key, value in context.node_config.items()}
    found |= {f"run.{key}": value for key, value in context.run_config.items()}
    found["environment"] = os.environ.get("WARD", "")
    volume = Path("/srv/reference/Apache-2.0")
    found["volume"] = volume.read_text()[:200] if volume.exists() else ""
    secret = Path(os.environ.get("CREDENTIALS_DIRECTORY", "/nowhere")) / "database"
    found["secret"] = secret.read_text() if secret.exists() else ""
    return Message(RecordDict({"answer": ConfigRecord(found)}), reply_to=message)
