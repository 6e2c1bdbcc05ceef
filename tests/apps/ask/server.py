"""Asks every site one question and writes the answers down, by node id."""

import json
import os
import time
from pathlib import Path

from flwr.app import Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Wait for as many sites as the run config says, then ask them."""
    while len(nodes := list(grid.get_node_ids())) < int(context.run_config.get("sites", 1)):
        time.sleep(1)
    questions = [Message(RecordDict(), dst_node_id=node, message_type="query") for node in nodes]
    answers = {
        str(reply.metadata.src_node_id): dict(reply.content["answer"])
        for reply in grid.send_and_receive(questions)
        if reply.has_content()
    }
    folder = Path(os.environ["FLOWERBED_RESULTS"]) / str(context.run_id)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "answers.json").write_text(json.dumps(answers))
    print(f"{len(answers)} of {len(nodes)} sites answered", flush=True)
