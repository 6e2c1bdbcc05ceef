"""Asks every node once, without a strategy."""

from flwr.app import Context, Message, MessageType, RecordDict
from flwr.serverapp import Grid, ServerApp

app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Broadcast, wait, and be silent about it."""
    questions = [
        Message(RecordDict(), dst_node_id=node, message_type=MessageType.QUERY) for node in grid.get_node_ids()
    ]
    list(grid.send_and_receive(questions, timeout=300))
