"""Flower federations from bare machines to a finished training run."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowerbed.api import Federation, Run
    from flowerbed.session import Replies, Reply, Session

__version__ = "0.1.0"
__all__ = ["Federation", "Replies", "Reply", "Run", "Session"]
_OF_SESSIONS = ("Replies", "Reply", "Session")


def __getattr__(name: str) -> Any:
    """Import the Python API when it is asked for: the Ansible plugins import this package, too, and need none of it."""
    if name in __all__:
        return getattr(importlib.import_module(f"flowerbed.{'session' if name in _OF_SESSIONS else 'api'}"), name)
    raise AttributeError(f"module 'flowerbed' has no attribute '{name}'")
