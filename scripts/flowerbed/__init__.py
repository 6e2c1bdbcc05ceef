"""Flower federations from bare machines to a finished training run."""

__version__ = "0.1.0"
