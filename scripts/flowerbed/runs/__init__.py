"""The driver: runs an app on a standing federation and brings the results home."""

from flowerbed.runs import review, source
from flowerbed.runs.app import App, check
from flowerbed.runs.connection import Connection, Deployed, Remote
from flowerbed.runs.drive import RunResult, follow, submit_and_follow
from flowerbed.runs.events import Event
from flowerbed.runs.flwr import Control, Run, control
from flowerbed.runs.progress import Progress, metrics_table
from flowerbed.runs.verdict import Verdict

__all__ = [
    "App",
    "Connection",
    "Control",
    "Deployed",
    "Event",
    "Progress",
    "Remote",
    "Run",
    "RunResult",
    "Verdict",
    "check",
    "control",
    "follow",
    "metrics_table",
    "review",
    "source",
    "submit_and_follow",
]
