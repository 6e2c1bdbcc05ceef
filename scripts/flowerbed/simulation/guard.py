"""Runs a SuperLink that ends when whoever started it is gone, however that ended.

Runs with the simulation's own Python, which has Flower and not Flowerbed.
"""

import importlib
import os
import signal
import sys
import threading


def main() -> None:
    """Run `flower-superlink` with our arguments until it ends or our standard input does."""
    threading.Thread(target=_end_with_the_starter, daemon=True).start()
    sys.argv[0] = "flower-superlink"
    importlib.import_module("flwr.superlink.cli").flower_superlink()


def _end_with_the_starter() -> None:
    sys.stdin.buffer.read()  # nobody writes: it returns when the other end is closed
    os.killpg(0, signal.SIGTERM)


if __name__ == "__main__":
    main()
