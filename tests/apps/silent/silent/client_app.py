"""Answers a question."""

from flwr.app import Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp

app = ClientApp()


@app.query()
def query(message: Message, context: Context) -> Message:
    """Say which partition this is."""
    answer = MetricRecord({"partition": int(context.node_config["partition-id"])})
    return Message(content=RecordDict({"answer": answer}), reply_to=message)
