"""The yardstick: the same model with all patients in one place, which the hospitals' data protection forbids.

python central.py FOLDER ...

prints the accuracy on the held-out patients of all FOLDERs together.
"""

import sys
import tomllib
from pathlib import Path

import numpy as np
from breast_cancer import model
from breast_cancer.data import Patients, load


def train_centrally(folders: list[Path]) -> tuple[model.Weights, float]:
    """Train on all folders' patients together until it converges; return the model and its accuracy."""
    text = (Path(__file__).parent / "pyproject.toml").read_text(encoding="utf-8")
    penalty = tomllib.loads(text)["tool"]["flwr"]["app"]["config"]["penalty"]
    train, held_out = (_together(list(part)) for part in zip(*map(load, folders), strict=True))
    weights = model.train(model.initial(), train, epochs=1000, penalty=penalty)
    return weights, model.evaluate(weights, held_out)[1]


def _together(parts: list[Patients]) -> Patients:
    return Patients(
        np.concatenate([part.features for part in parts]), np.concatenate([part.malignant for part in parts])
    )


if __name__ == "__main__":
    print(f"accuracy {train_centrally([Path(name) for name in sys.argv[1:]])[1]:.4f}")
