"""Split the breast cancer data of scikit-learn over hospitals that differ as hospitals do.

    python prepare.py OUT_DIR hospital-a hospital-b ...

writes OUT_DIR/<site>/breast_cancer.csv for 2 to 50 sites. Every patient is at one hospital; hospitals differ in
size (up to about four times), in how many of their patients are ill, and in the size of the tumours they see. A
quarter of each hospital's patients are held out (column `split`). The same names give the same files.
"""

import csv
import re
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_breast_cancer

FILE = "breast_cancer.csv"
FEWEST, MOST = 2, 50
_SEED = 569
_HELD_OUT = 0.25
# How strongly hospitals differ; with 0 all would be alike.
_SIZES, _ILL, _TUMOURS = 0.7, 0.35, 0.5


def prepare(out: Path, sites: list[str]) -> list[Path]:
    """Write one file per site and return their paths; ValueError for impossible names or numbers."""
    if not FEWEST <= len(sites) <= MOST:
        raise ValueError(f"{len(sites)} sites: the data's 569 patients serve {FEWEST} to {MOST} hospitals")
    if len(set(sites)) != len(sites) or not all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", s) for s in sites):
        raise ValueError("sites: give each a name of its own of letters, digits, dots and dashes")
    data = load_breast_cancer()
    malignant = 1 - data.target  # scikit-learn calls benign 1
    header = [name.replace(" ", "_") for name in data.feature_names]
    files = []
    for site, (train, test) in zip(sites, _split(data.data, malignant, len(sites)), strict=True):
        file = out / site / FILE
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow([*header, "malignant", "split"])
            for rows, name in ((train, "train"), (test, "test")):
                writer.writerows([*data.data[row].tolist(), int(malignant[row]), name] for row in rows)
        files.append(file)
    return files


def _split(
    features: NDArray[np.float64], malignant: NDArray[np.int64], count: int
) -> list[tuple[list[int], list[int]]]:
    """Deal all patients out: per site the rows to train on and those held out, both classes in each part."""
    rng = np.random.default_rng(_SEED + count)
    radius = features[:, 0]
    tumour = (radius - radius.mean()) / radius.std()
    spread = np.linspace(-1, 1, count)
    sizes = np.exp(_SIZES * rng.permutation(spread))
    ill = np.exp(_ILL * rng.permutation(spread))
    taste = _TUMOURS * rng.permutation(spread)
    rows: list[dict[int, list[int]]] = [{0: [], 1: []} for _ in range(count)]
    for label in (0, 1):
        weight = sizes * (ill if label else 1 / ill)
        patients = list(rng.permutation(np.flatnonzero(malignant == label)))
        for site, number in enumerate(_shares(weight, len(patients))):
            # A hospital draws those patients more often whose tumours suit it.
            pull = np.exp(taste[site] * tumour[patients])
            drawn = rng.choice(len(patients), size=number, replace=False, p=pull / pull.sum())
            # Drawn first are those who suit best: shuffled, so that the held-out ones are like the others.
            rows[site][label] = [patients[i] for i in rng.permutation(drawn)]
            patients = [patient for i, patient in enumerate(patients) if i not in set(drawn.tolist())]
    result = []
    for of_site in rows:
        train, test = [], []
        for label in (0, 1):
            held_out = max(1, round(_HELD_OUT * len(of_site[label])))
            test += of_site[label][:held_out]
            train += of_site[label][held_out:]
        result.append((sorted(map(int, train)), sorted(map(int, test))))
    return result


def _shares(weight: NDArray[np.float64], total: int, least: int = 2) -> list[int]:
    """Whole numbers in proportion to the weights, at least `least` each, that add up to the total."""
    exact = least + (total - least * len(weight)) * weight / weight.sum()
    shares = np.floor(exact).astype(int)
    for site in np.argsort(shares - exact)[: total - shares.sum()]:
        shares[site] += 1
    return [int(share) for share in shares]


def main() -> int:
    """Command line."""
    if len(sys.argv) < 2 + FEWEST:
        print("usage: prepare.py OUT_DIR SITE SITE ...", file=sys.stderr)
        return 2
    try:
        files = prepare(Path(sys.argv[1]), sys.argv[2:])
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    for file in files:
        print(file)
    return 0


if __name__ == "__main__":
    sys.exit(main())
