"""An interactive session: an operator's own loop asks the sites, call by call.

A session is a run of a small app: the client code, which the sites load for every call, and as ServerApp a bridge that
passes calls and replies between the sites and this process. The way is the federation's own, SSH to the coordinator.
"""

from flowerbed.session.line import Coordinator
from flowerbed.session.pack import PATIENCE, packed
from flowerbed.session.replies import Replies, Reply
from flowerbed.session.session import Session, open_session

__all__ = ["PATIENCE", "Coordinator", "Replies", "Reply", "Session", "open_session", "packed"]
