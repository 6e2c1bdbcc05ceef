"""The example's promises: hospitals that differ, one model as good as a central one, nothing but numbers travel.

The app's own ServerApp and ClientApp run here against each other in one process, without Flower's services.
"""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Error, Message, RecordDict, UserConfig, UserConfigValue
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity
from sklearn.datasets import load_breast_cancer

from flowerbed.paths import REPOSITORY

EXAMPLE = REPOSITORY / "examples" / "breast_cancer"
sys.path.insert(0, str(EXAMPLE))

import central  # noqa: E402
from breast_cancer import client_app, data, server_app  # noqa: E402
from prepare import prepare  # noqa: E402

DEFAULTS: UserConfig = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["tool"]["flwr"]["app"]["config"]


class OneProcess(Grid):
    """Hands every message to the app's own ClientApp, as the node that it is for; an exception becomes its reply."""

    def __init__(self, folders: list[Path]) -> None:
        # Real node ids are as large.
        self.folders = {2**63 + number: folder for number, folder in enumerate(folders)}
        self.replies: list[Message] = []

    def get_node_ids(self) -> Iterable[int]:
        return list(self.folders)

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> list[Message]:
        replies = [self._execute(message) for message in messages]
        self.replies += replies
        return replies

    def _execute(self, message: Message) -> Message:
        node = message.metadata.dst_node_id
        try:
            return client_app.app(message, context(node, {"data-path": str(self.folders[node])}))
        except Exception as error:
            return Message(Error(code=2, reason=str(error)), reply_to=message)

    def set_run(self, run_id: int) -> None:
        raise NotImplementedError

    @property
    def run(self) -> Any:
        raise NotImplementedError

    def create_message(self, *args: Any, **options: Any) -> Message:
        raise NotImplementedError

    def get_nodes(self, *args: Any, **options: Any) -> Any:
        raise NotImplementedError

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        raise NotImplementedError

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        raise NotImplementedError


def context(node: int, node_config: UserConfig, **run_config: UserConfigValue) -> Context:
    given = {key.replace("_", "-"): value for key, value in run_config.items()}
    return Context(7, node, node_config, RecordDict(), {**DEFAULTS, **given})


def federate(folders: list[Path], **run_config: UserConfigValue) -> tuple[OneProcess, dict[str, Any]]:
    """Run the app's ServerApp over the folders' sites and return what it wrote to its results."""
    grid = OneProcess(folders)
    server_app.app(grid, context(1, {}, **run_config))
    results = Path(os.environ["FLOWERBED_RESULTS"]) / "7"
    return grid, {file.name: json.loads(file.read_text()) for file in results.iterdir()}


@pytest.fixture(autouse=True)
def _as_in_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What Flower's process for a ServerApp sets before it calls the app."""
    monkeypatch.setenv("FLOWERBED_RESULTS", str(tmp_path / "results"))
    for key, value in (("_run_id", 7), ("_node_id", 1), ("_task_id", 1)):
        monkeypatch.setattr(TaskIdentity, key, value)


def hospitals(out: Path, count: int) -> list[Path]:
    return [file.parent for file in prepare(out, [f"hospital-{number}" for number in range(count)])]


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize("sites", [3, 10])
def test_three_rounds_are_as_accurate_as_all_data_in_one_place(tmp_path: Path, sites: int) -> None:
    folders = hospitals(tmp_path, sites)
    _, written = federate(folders)
    accuracy = written["metrics.json"]["rounds"][-1]["metrics"]["accuracy"]
    assert accuracy >= 0.95
    assert abs(accuracy - central.train_centrally(folders)[1]) <= 0.02


def test_every_site_takes_part_in_every_round_and_is_reported_by_its_node_id(tmp_path: Path) -> None:
    grid, written = federate(hospitals(tmp_path, 4), num_server_rounds=2)
    rounds = written["metrics.json"]["rounds"]
    phases = [(entry["round"], entry["phase"]) for entry in rounds]
    assert phases == [(1, "train"), (1, "evaluate"), (2, "train"), (2, "evaluate")]
    for entry in rounds:
        assert set(entry["sites"]) == {str(node) for node in grid.folders}
    patients = [site["num-examples"] for entry in rounds[:2] for site in entry["sites"].values()]
    assert sum(patients) == 569


def test_the_model_comes_home_with_its_features_and_classifies_raw_patients(tmp_path: Path) -> None:
    _, written = federate(hospitals(tmp_path, 3))
    model = written["model.json"]
    real = load_breast_cancer()
    low, high, coefficients = (
        np.array([feature[key] for feature in model["features"]]) for key in ("lowest", "highest", "coefficient")
    )
    assert [feature["name"].replace("_", " ") for feature in model["features"]] == list(real.feature_names)
    score = (2 * (real.data - low) / (high - low) - 1) @ coefficients + model["intercept"]
    assert ((score > 0) == (real.target == 0)).mean() >= 0.95


def test_nothing_but_parameters_counts_and_metrics_leave_a_site(tmp_path: Path) -> None:
    grid, _ = federate(hospitals(tmp_path, 3), num_server_rounds=1)
    for reply in grid.replies:
        content = reply.content
        assert set(content) <= {"arrays", "metrics"}
        assert set(content["metrics"]) <= {"accuracy", "loss", "num-examples"}
        if "arrays" in content:
            assert [array.shape for array in content.array_records["arrays"].to_numpy_ndarrays()] == [(30,), (1,)]


def test_ranges_are_the_published_ones() -> None:
    description = load_breast_cancer().DESCR
    published = re.findall(r"\((?:mean|standard error|worst)\): +([\d.]+) +([\d.]+)", description)
    assert list(data.RANGES.values()) == [(float(low), float(high)) for low, high in published]


@pytest.mark.parametrize("sites", [2, 3, 10, 50])
def test_hospitals_share_no_patient_and_can_all_train(tmp_path: Path, sites: int) -> None:
    prepared = [rows(folder / data.FILE) for folder in hospitals(tmp_path, sites)]
    patients = [tuple(row[name] for name in data.RANGES) for site in prepared for row in site]
    assert len(set(patients)) == len(patients) == 569
    for site in prepared:
        assert {row["malignant"] for row in site if row["split"] == "train"} == {"0", "1"}
        assert any(row["split"] == "test" for row in site)


def test_hospitals_differ_as_hospitals_do(tmp_path: Path) -> None:
    prepared = [rows(folder / data.FILE) for folder in hospitals(tmp_path, 10)]
    sizes = [len(site) for site in prepared]
    ill = [sum(row["malignant"] == "1" for row in site) / len(site) for site in prepared]
    radius = [sum(float(row["mean_radius"]) for row in site) / len(site) for site in prepared]
    assert max(sizes) > 2 * min(sizes)
    assert max(ill) > 1.5 * min(ill)
    assert max(radius) > 1.1 * min(radius)


def test_the_same_names_give_the_same_files(tmp_path: Path) -> None:
    first, second = (hospitals(tmp_path / name, 5) for name in ("first", "second"))
    for one, other in zip(first, second, strict=True):
        assert (one / data.FILE).read_bytes() == (other / data.FILE).read_bytes()


@pytest.mark.parametrize("sites", [["a"], ["a", "a"], ["a", "../b"], [f"s{n}" for n in range(51)]])
def test_impossible_sites_are_refused_before_anything_is_written(tmp_path: Path, sites: list[str]) -> None:
    with pytest.raises(ValueError, match="site"):
        prepare(tmp_path / "out", sites)
    assert not (tmp_path / "out").exists()


def _no_file(file: Path) -> None:
    file.unlink()


def _no_column(file: Path) -> None:
    file.write_text(file.read_text().replace("worst_area", "area"))


def _no_number(file: Path) -> None:
    lines = file.read_text().splitlines()
    lines[3] = "none" + lines[3][lines[3].index(",") :]
    file.write_text("\n".join(lines))


def _one_class(file: Path) -> None:
    file.write_text("\n".join(line for line in file.read_text().splitlines() if ",1,train" not in line))


def _not_finite(file: Path) -> None:
    lines = file.read_text().splitlines()
    lines[3] = "nan" + lines[3][lines[3].index(",") :]
    file.write_text("\n".join(lines))


def _empty(file: Path) -> None:
    file.write_text("")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (_no_file, "cannot be read: No such file"),
        (_no_column, "wrong columns, see worst_area"),
        (_no_number, "line 4 holds a value that is no number"),
        (_not_finite, "not finite"),
        (_one_class, "one kind of tumour"),
        (_empty, "wrong columns"),
    ],
)
def test_unusable_data_is_named_in_one_line_with_its_path(
    tmp_path: Path, spoil: Callable[[Path], None], said: str
) -> None:
    file = hospitals(tmp_path, 2)[0] / data.FILE
    spoil(file)
    with pytest.raises(data.BadData) as raised:
        data.load(file.parent)
    assert str(raised.value).startswith(f"{file} ")
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_site_that_fails_leaves_the_run_to_the_others_and_its_absence_shows(tmp_path: Path) -> None:
    folders = hospitals(tmp_path, 3)
    _no_file(folders[0] / data.FILE)
    grid, written = federate(folders)
    failed = str(next(iter(grid.folders)))
    assert all(
        set(entry["sites"]) == {str(n) for n in grid.folders} - {failed} for entry in written["metrics.json"]["rounds"]
    )


def test_a_round_that_no_site_finishes_fails_the_run(tmp_path: Path) -> None:
    folders = hospitals(tmp_path, 2)
    for folder in folders:
        _no_file(folder / data.FILE)
    with pytest.raises(RuntimeError, match="round 1: no site returned a model"):
        federate(folders)


def test_the_log_tells_each_sites_accuracy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid, _ = federate(hospitals(tmp_path, 2), num_server_rounds=1)
    log = capsys.readouterr().out
    for node in grid.folders:
        assert re.search(rf"round 1 site {node}: accuracy 0\.\d+ on \d+ patients", log)


def test_a_node_without_a_data_path_is_told_what_it_lacks() -> None:
    with pytest.raises(data.BadData, match="no data-path"):
        client_app.data_folder(context(5, {}))


def test_in_a_simulation_each_node_takes_a_site_of_its_own(tmp_path: Path) -> None:
    folders = hospitals(tmp_path, 3)
    found = [
        client_app.data_folder(context(node, {"partition-id": node, "num-partitions": 3}, data_root=str(tmp_path)))
        for node in range(3)
    ]
    assert found == folders


def test_a_test_of_the_model_does_not_import_scikit_learn(tmp_path: Path) -> None:
    code = "import sys, breast_cancer.client_app; assert 'sklearn' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=EXAMPLE, check=True)


def test_the_app_packs_into_a_fab(tmp_path: Path) -> None:
    copy = shutil.copytree(EXAMPLE, tmp_path / "app", ignore=shutil.ignore_patterns("__pycache__"))
    flwr = shutil.which("flwr", path=str(Path(sys.executable).parent))
    assert flwr
    environment = {**os.environ, "FLWR_HOME": str(tmp_path / "flwr"), "FLWR_TELEMETRY_ENABLED": "0"}
    environment["FLWR_DISABLE_UPDATE_CHECK"] = "1"
    subprocess.run([flwr, "build"], cwd=copy, env=environment, check=True, capture_output=True)
    (fab,) = copy.glob("flowerbed.breast-cancer.*.fab")
    with zipfile.ZipFile(fab) as packed:
        names = packed.namelist()
    assert {"pyproject.toml", "breast_cancer/client_app.py", "breast_cancer/server_app.py"} <= set(names)
    assert fab.stat().st_size < 10 * 2**20
