"""The notebook in examples/interactive runs as it stands there, and computes what it shows."""

import csv
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from flowerbed.paths import REPOSITORY
from tests.e2e.conftest import Standing

EXAMPLE = REPOSITORY / "examples" / "interactive"


@dataclass(frozen=True)
class Executed:
    folder: Path
    texts: list[str]
    """What each cell of code printed and gave."""


@pytest.fixture(scope="module")
def executed(standing: Standing, tmp_path_factory: pytest.TempPathFactory) -> Executed:
    """The notebook, beside its client code, after all its cells were executed against the federation."""
    folder = tmp_path_factory.mktemp("notebook")
    shutil.copy(EXAMPLE / "client.py", folder)
    notebook = nbformat.read(EXAMPLE / "fedavg.ipynb", as_version=4)
    (first,) = [cell for cell in notebook.cells if 'federation = "lab"' in cell.source]
    first.source = first.source.replace('"lab"', repr(standing.path))
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    return Executed(folder, ["".join(map(_text, cell.outputs)) for cell in notebook.cells if cell.cell_type == "code"])


def _text(output: nbformat.NotebookNode) -> str:
    return str(output["text"] if output.output_type == "stream" else output["data"]["text/plain"])


def test_it_asks_all_three_hospitals(executed: Executed) -> None:
    assert executed.texts[1] == "('hospital-a', 'hospital-b', 'hospital-c')"
    rows = [line.split() for line in executed.texts[3].splitlines()[1:]]
    assert [row[0] for row in rows] == ["hospital-a", "hospital-b", "hospital-c"]
    assert sum(int(row[1]) for row in rows) == 569  # every patient of the data set is at one of them


def test_the_mean_over_all_hospitals_is_that_of_all_patients_together(executed: Executed, standing: Standing) -> None:
    radii = []
    for file in standing.federation.data.glob("*/breast_cancer.csv"):
        with file.open(newline="") as stream:
            radii += [float(row["mean_radius"]) for row in csv.DictReader(stream) if row["split"] == "train"]
    mean = sum(radii) / len(radii)
    assert executed.texts[4].startswith(
        f"{len(radii)} patients to train on, 30 features each; mean radius {mean:.2f} mm"
    )


def test_the_averaged_model_sees_nearly_all_held_out_patients_rightly(executed: Executed) -> None:
    rounds = executed.texts[5].splitlines()
    assert [line.split(":")[0] for line in rounds] == [f"round {number}" for number in range(1, 6)]
    assert all("3 hospitals" in line and "of 144 held-out" in line for line in rounds)
    assert float(rounds[-1].split()[-1].rstrip("%")) > 95


def test_it_closes_its_session_and_brings_the_run_home(executed: Executed) -> None:
    status, folder = executed.texts[6].split()
    assert status == "completed"
    assert json.loads((executed.folder / folder / "run.json").read_text())["status"] == "completed"
