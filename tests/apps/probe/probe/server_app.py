"""Asks every site, tries the same where the ServerApp runs, and writes down the answers."""

import json
import os
import time
from pathlib import Path

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.serverapp import Grid, ServerApp

from probe import attempts

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Collect one answer per site."""
    while len(nodes := list(grid.get_node_ids())) < int(context.run_config["sites"]):
        time.sleep(1)
    answers: dict[str, dict[str, str]] = {}
    for later in (False, True):
        step = RecordDict({"step": ConfigRecord({"later": later})})
        messages = [Message(content=step, message_type="query", dst_node_id=node) for node in nodes]
        for reply in grid.send_and_receive(messages, timeout=180):
            answer = reply.content["answer"]
            answers.setdefault(answer["site"], {}).update(json.loads(answer["attempts"]))
    targets = [*str(context.run_config["targets"]).split(), *str(context.run_config["coordinator-targets"]).split()]
    answers["coordinator"] = {**attempts.everywhere(targets), **attempts.last()}
    folder = Path(os.environ["FLOWERBED_RESULTS"]) / str(context.run_id)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "attempts.json").write_text(json.dumps(answers))
