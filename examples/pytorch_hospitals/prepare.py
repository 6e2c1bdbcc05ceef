"""Split scikit-learn's images of handwritten digits over hospitals that differ as hospitals do.

    python prepare.py OUT_DIR hospital-a hospital-b ...

writes OUT_DIR/<site>/digits.npz for 2 to 40 sites: 1797 real images of 8 by 8 pixels in all, each at one hospital.
Hospitals differ in size (up to about six times) and in the digits that they see. A fifth of each hospital's images
is held out. The same names give the same files.
"""

import re
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

FILE = "digits.npz"
FEWEST, MOST = 2, 40
_SEED = 1797
_HELD_OUT = 0.2
# How strongly hospitals differ; with 0 all would be alike.
_SIZES, _DIGITS = 0.9, 0.6


def prepare(out: Path, sites: list[str]) -> list[Path]:
    """Write one file per site and return their paths; ValueError for impossible names or numbers."""
    if not FEWEST <= len(sites) <= MOST:
        raise ValueError(f"{len(sites)} sites: the 1797 images serve {FEWEST} to {MOST} hospitals")
    if len(set(sites)) != len(sites) or not all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", s) for s in sites):
        raise ValueError("sites: give each a name of its own of letters, digits, dots and dashes")
    digits = load_digits()
    images, labels = digits.images.astype(np.uint8), digits.target.astype(np.int64)
    files = []
    for site, rows in zip(sites, _deal(labels, len(sites)), strict=True):
        held_out = max(1, round(_HELD_OUT * len(rows)))
        test, train = rows[:held_out], rows[held_out:]
        file = out / site / FILE
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(
            file,
            train_images=images[train],
            train_labels=labels[train],
            test_images=images[test],
            test_labels=labels[test],
        )
        files.append(file)
    return files


def _deal(labels: NDArray[np.int64], count: int) -> list[NDArray[np.int64]]:
    """Deal all images out: per site its rows, in a random order."""
    rng = np.random.default_rng(_SEED + count)
    sizes = np.exp(_SIZES * rng.permutation(np.linspace(-1, 1, count)))
    rows: list[list[int]] = [[] for _ in range(count)]
    for digit in range(10):
        weight = sizes * np.exp(_DIGITS * rng.normal(size=count))
        of_digit = rng.permutation(np.flatnonzero(labels == digit))
        ends = np.round(np.cumsum(weight / weight.sum()) * len(of_digit)).astype(int)
        for site, part in enumerate(np.split(of_digit, ends[:-1])):
            rows[site] += part.tolist()
    return [rng.permutation(np.array(of_site)) for of_site in rows]


if __name__ == "__main__":
    try:
        for written in prepare(Path(sys.argv[1]), sys.argv[2:]):
            print(written)
    except IndexError:
        sys.exit("usage: python prepare.py OUT_DIR SITE SITE ...")
    except ValueError as error:
        sys.exit(f"error: {error}")
