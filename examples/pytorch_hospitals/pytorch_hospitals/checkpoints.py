"""A run's checkpoints: one file a round, the best once more, and the way to find one to go on from."""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pytorch_hospitals.model import State

FOLDER = "checkpoints"
BEST = "best.pt"


@dataclass(frozen=True)
class Checkpoint:
    """The model after a round, and how good it was on the held-out images."""

    server_round: int
    accuracy: float
    loss: float
    state: State


def save(folder: Path, checkpoint: Checkpoint, *, best: bool) -> None:
    """Write round-N.pt, and best.pt as well if it is the best so far; each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"round-{checkpoint.server_round}.pt"
    content: dict[str, Any] = {
        "round": checkpoint.server_round,
        "accuracy": checkpoint.accuracy,
        "loss": checkpoint.loss,
        "model": checkpoint.state,
    }
    partial = file.with_suffix(".partial")
    torch.save(content, partial)
    partial.replace(file)
    if best:
        keep_as_best(file, folder)


def keep_as_best(file: Path, folder: Path) -> None:
    """Copy a checkpoint to best.pt, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{BEST}.partial"
    shutil.copyfile(file, partial)
    partial.replace(folder / BEST)


def load(file: Path) -> Checkpoint:
    """Read a checkpoint, which can hold no code; ValueError when it is none."""
    try:
        content = torch.load(file, weights_only=True, map_location="cpu")
        return Checkpoint(int(content["round"]), float(content["accuracy"]), float(content["loss"]), content["model"])
    except Exception as error:  # what torch raises for a damaged file is not documented
        raise ValueError(f"{file} is no checkpoint: {' '.join(str(error).split())[:200]}") from None


def find(resume_from: str) -> Path:
    """The file that `resume-from` means: a run's last checkpoint, or the file itself.

    A path that is not absolute is below $FLOWERBED_RESULTS, where each run has a folder by its id. ValueError when
    there is none.
    """
    place = Path(os.environ.get("FLOWERBED_RESULTS", "results")) / resume_from
    run, _, name = resume_from.rpartition("/")
    for candidate in (place, place.parent / FOLDER / name if run else place):
        if candidate.is_file():
            return candidate
    for folder in (place / FOLDER, place):
        files = sorted(folder.glob("round-*.pt"), key=lambda file: int(file.stem.removeprefix("round-")))
        if files:
            return files[-1]
    raise ValueError(f"resume-from '{resume_from}': there is no checkpoint at {place}")
