"""Runs the attempts at the site."""

import json

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from probe import attempts

app = ClientApp()


@app.query()
def query(message: Message, context: Context) -> Message:
    """Try everything, or in a later message look what came of it, and reply what happened."""
    targets = [*str(context.run_config["targets"]).split(), *str(context.run_config["site-targets"]).split()]
    found = (
        attempts.afterwards()
        if message.content["step"]["later"]
        else attempts.at_site(str(context.node_config["data-path"]), targets)
    )
    answer = {"site": str(context.node_config["site"]), "attempts": json.dumps(found)}
    return Message(content=RecordDict({"answer": ConfigRecord(answer)}), reply_to=message)
