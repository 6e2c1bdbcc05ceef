"""A site's images: read from its own file."""

import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

FILE = "digits.npz"
_BRIGHTEST = 16.0


class BadData(ValueError):
    """A site's data cannot be used; the message names the file and what is wrong with it."""


@dataclass(frozen=True)
class Images:
    """Images of 8 by 8 pixels between 0 and 1, and which digit each shows."""

    pixels: torch.Tensor
    digits: torch.Tensor

    def __len__(self) -> int:
        """How many images."""
        return len(self.digits)


def load(folder: Path) -> tuple[Images, Images]:
    """Read a site's file: the images to train on, and those held out. Raises BadData."""
    file = folder / FILE
    try:
        with np.load(file, allow_pickle=False) as arrays:
            parts = [_images(arrays[f"{part}_images"], arrays[f"{part}_labels"]) for part in ("train", "test")]
    except OSError as error:
        raise BadData(f"{file} cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, zipfile.BadZipFile) as error:
        raise BadData(f"{file} is not what prepare.py writes: {error}") from None
    train, test = parts
    return train, test


def _images(pixels: np.ndarray, digits: np.ndarray) -> Images:
    if pixels.shape[1:] != (8, 8) or digits.shape != pixels.shape[:1] or not len(digits):
        raise ValueError(f"images of shape {pixels.shape} and labels of shape {digits.shape}")
    scaled = torch.from_numpy(pixels.astype(np.float32) / _BRIGHTEST).unsqueeze(1)
    return Images(scaled, torch.from_numpy(digits.astype(np.int64)))
