"""A site's patients: read from its own file and scaled by published ranges."""

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FILE = "breast_cancer.csv"

# Lowest and highest value of each feature, as published with the data set (Breast Cancer Wisconsin, Diagnostic).
# Every site scales by these, so that no site need tell its own.
RANGES: dict[str, tuple[float, float]] = {
    "mean_radius": (6.981, 28.11),
    "mean_texture": (9.71, 39.28),
    "mean_perimeter": (43.79, 188.5),
    "mean_area": (143.5, 2501.0),
    "mean_smoothness": (0.053, 0.163),
    "mean_compactness": (0.019, 0.345),
    "mean_concavity": (0.0, 0.427),
    "mean_concave_points": (0.0, 0.201),
    "mean_symmetry": (0.106, 0.304),
    "mean_fractal_dimension": (0.05, 0.097),
    "radius_error": (0.112, 2.873),
    "texture_error": (0.36, 4.885),
    "perimeter_error": (0.757, 21.98),
    "area_error": (6.802, 542.2),
    "smoothness_error": (0.002, 0.031),
    "compactness_error": (0.002, 0.135),
    "concavity_error": (0.0, 0.396),
    "concave_points_error": (0.0, 0.053),
    "symmetry_error": (0.008, 0.079),
    "fractal_dimension_error": (0.001, 0.03),
    "worst_radius": (7.93, 36.04),
    "worst_texture": (12.02, 49.54),
    "worst_perimeter": (50.41, 251.2),
    "worst_area": (185.2, 4254.0),
    "worst_smoothness": (0.071, 0.223),
    "worst_compactness": (0.027, 1.058),
    "worst_concavity": (0.0, 1.252),
    "worst_concave_points": (0.0, 0.291),
    "worst_symmetry": (0.156, 0.664),
    "worst_fractal_dimension": (0.055, 0.208),
}
COLUMNS = [*RANGES, "malignant", "split"]

Matrix = NDArray[np.float64]


class BadData(ValueError):
    """A site's data cannot be used; the message names the file and what is wrong in it."""


@dataclass(frozen=True)
class Patients:
    """Scaled features, one row per patient, and 1 for a malignant tumour or 0 for a benign one."""

    features: Matrix
    malignant: Matrix

    def __len__(self) -> int:
        """How many patients."""
        return len(self.malignant)


def load(folder: Path) -> tuple[Patients, Patients]:
    """Read a site's file: the patients to train on, and those held out. Raises BadData."""
    file = folder / FILE
    try:
        with file.open(newline="", encoding="utf-8") as stream:
            header, *rows = list(csv.reader(stream)) or [[]]
    except OSError as error:
        raise BadData(f"{file} cannot be read: {error.strerror}") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise BadData(f"{file} is no CSV file: {error}") from None
    if header != COLUMNS:
        wrong = [column for column in COLUMNS if column not in header]
        wrong += [column for column in header if column not in COLUMNS]
        raise BadData(f"{file} has wrong columns, see {wrong[0] if wrong else 'their order'}: {', '.join(COLUMNS)}")
    train = _patients(file, rows, "train")
    if not 0 < train.malignant.mean() < 1:
        raise BadData(f"{file} has one kind of tumour alone to train on: both are needed")
    return train, _patients(file, rows, "test")


def _patients(file: Path, rows: list[list[str]], split: str) -> Patients:
    lowest, highest = np.array(list(RANGES.values())).T
    values = []
    for line, row in enumerate(rows, start=2):
        if len(row) != len(COLUMNS) or row[-1] not in ("train", "test") or row[-2] not in ("0", "1"):
            raise BadData(f"{file} line {line}: {len(COLUMNS)} values, malignant 0 or 1, split train or test")
        if row[-1] == split:
            try:
                values.append([float(value) for value in row[:-1]])
            except ValueError:
                raise BadData(f"{file} line {line} holds a value that is no number") from None
    if not values:
        raise BadData(f"{file} has no rows with split {split}")
    table = np.array(values)
    if not np.isfinite(table).all():
        raise BadData(f"{file} holds a value that is not finite")
    return Patients(2 * (table[:, :-1] - lowest) / (highest - lowest) - 1, table[:, -1])
