"""Replies with the node config."""

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.query()
def query(message: Message, context: Context) -> Message:
    """Tell it."""
    return Message(RecordDict({"told": ConfigRecord(dict(context.node_config))}), reply_to=message)
