"""A logistic regression and the numbers that it learns from."""

import numpy as np
from numpy.typing import NDArray

FEATURES = 4
Array = NDArray[np.float64]
_TRUTH: Array = np.array([1.5, -2.0, 0.5, 1.0])


def generate(seed: int, count: int = 200) -> tuple[Array, Array]:
    """Features, and the labels that the truth gives them."""
    features = np.random.default_rng(seed).normal(size=(count, FEATURES))
    return features, (features @ _TRUTH > 0).astype(np.float64)


def loss(weights: Array, features: Array, labels: Array) -> float:
    """The mean cross entropy."""
    expected = _expected(weights, features)
    return float(-np.mean(labels * np.log(expected) + (1 - labels) * np.log(1 - expected)))


def train(weights: Array, features: Array, labels: Array, steps: int = 50) -> Array:
    """Descend the gradient so many steps."""
    for _ in range(steps):
        weights = weights - 0.5 * features.T @ (_expected(weights, features) - labels) / len(labels)
    return weights


def _expected(weights: Array, features: Array) -> Array:
    return np.clip(1 / (1 + np.exp(-features @ weights)), 1e-9, 1 - 1e-9)
