"""Runs the attempts at the site."""

import json

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from probe import attempts

app = ClientApp()


@app.query()
def query(message: Message, context: Context) -> Message:
    """Try everything and reply what happened."""
    found = attempts.at_site(str(context.node_config["data-path"]), str(context.run_config["targets"]).split())
    answer = {"site": str(context.node_config["site"]), "attempts": json.dumps(found)}
    return Message(content=RecordDict({"answer": ConfigRecord(answer)}), reply_to=message)
