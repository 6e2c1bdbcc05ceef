"""The driver: runs an app on a standing federation and brings the results home."""

from flowerbed.runs import report, results, retry, review, source
from flowerbed.runs.app import App, check
from flowerbed.runs.connection import Connection, Deployed, Remote
from flowerbed.runs.drive import NODE_TIMEOUT, RunResult, follow, submit_and_follow
from flowerbed.runs.events import Event
from flowerbed.runs.flwr import Control, RunInfo, checked, control
from flowerbed.runs.follow import plain
from flowerbed.runs.progress import Progress, metrics_table
from flowerbed.runs.verdict import RUNNING, Verdict

__all__ = [
    "NODE_TIMEOUT",
    "RUNNING",
    "App",
    "Connection",
    "Control",
    "Deployed",
    "Event",
    "Progress",
    "Remote",
    "RunInfo",
    "RunResult",
    "Verdict",
    "check",
    "checked",
    "control",
    "follow",
    "metrics_table",
    "plain",
    "report",
    "results",
    "retry",
    "review",
    "source",
    "submit_and_follow",
]
