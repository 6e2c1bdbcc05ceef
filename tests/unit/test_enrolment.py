"""The example's rules of enrolment, and the images that it deals out."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from flowerbed.paths import REPOSITORY

EXAMPLE = REPOSITORY / "examples" / "pytorch_hospitals"


def _module(name: str, file: Path) -> ModuleType:
    """Load one file of the example, whose package needs PyTorch as a whole."""
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


enrolment = _module("example_enrolment", EXAMPLE / "pytorch_hospitals" / "enrolment.py")
images = _module("example_prepare", EXAMPLE / "prepare.py")
CONFIG = {"enrol-label": "region=north, scanner=mri", "min-examples": 50, "min-free-memory": 100}
GOOD = {"site": "a", "labels": {"region": "north", "scanner": "mri"}, "examples": 50, "free_memory": 100}


@pytest.mark.parametrize(
    ("change", "why_not"),
    [
        ({}, ""),
        ({"labels": {"region": "south", "scanner": "mri"}}, "label region is south, not north"),
        ({"labels": {"region": "north"}}, "it has no label scanner"),
        ({"examples": 49}, "49 examples, fewer than 50"),
        ({"free_memory": 99}, "99 MB of memory free, less than 100"),
        ({"why_not": "its data cannot be read", "examples": 0}, "its data cannot be read"),
    ],
)
def test_a_site_is_excluded_by_the_first_rule_that_it_breaks(change: dict[str, object], why_not: str) -> None:
    assert enrolment.Rules.read(CONFIG).against(enrolment.Candidate(**(GOOD | change))) == why_not


def test_without_a_label_every_site_is_enrolled() -> None:
    rules = enrolment.Rules.read({**CONFIG, "enrol-label": ""})
    assert rules.against(enrolment.Candidate("b", examples=50, free_memory=100)) == ""


@pytest.mark.parametrize("text", ["north", "region=", "=north"])
def test_a_label_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=f"enrol-label '{text}': write it as key=value"):
        enrolment.Rules.read({**CONFIG, "enrol-label": text})


@pytest.mark.parametrize("count", [2, 3, 10, 40])
def test_every_image_is_at_one_hospital_and_hospitals_differ(tmp_path: Path, count: int) -> None:
    files = images.prepare(tmp_path, [f"hospital-{number}" for number in range(count)])
    sizes, seen = [], []
    for file in files:
        with np.load(file) as arrays:
            sizes.append(len(arrays["train_labels"]))
            assert len(arrays["test_labels"]) > 0
            seen += [image.tobytes() for part in ("train", "test") for image in arrays[f"{part}_images"]]
    assert len(seen) == 1797
    assert max(sizes) > 2 * min(sizes)


def test_the_same_names_give_the_same_images(tmp_path: Path) -> None:
    first, second = (images.prepare(tmp_path / name, ["a", "b"]) for name in ("one", "two"))
    for left, right in zip(first, second, strict=True):
        with np.load(left) as one, np.load(right) as two:
            assert all((one[name] == two[name]).all() for name in one.files)
