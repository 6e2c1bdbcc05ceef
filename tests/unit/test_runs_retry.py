"""A run that is done again is the same run: its app, its configuration, from its last checkpoint."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from flowerbed.errors import UsageError
from flowerbed.runs import app, retry
from flowerbed.runs.source import inline

APPS = Path(__file__).parents[1] / "apps"
RESUME = '\n[tool.flowerbed]\nresume = "behaviour"\n'


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """The app's folder, to be changed."""
    return Path(shutil.copytree(APPS / "tiny", tmp_path / "tiny"))


def home(tmp_path: Path, app_hash: str, origin: object, **more: Any) -> Path:
    """The folder of a run that is home."""
    record = {"run_id": "4711", "status": "failed", "origin": str(origin), "app": {"fab_hash": app_hash}}
    settings = {"overrides": {"num-server-rounds": 5}, "config": {}, "files": []}
    (tmp_path / "run.json").write_text(json.dumps(record | settings | more))
    return tmp_path


def overrides(folder: Path) -> dict[str, Any]:
    """What the run would be submitted with."""
    with retry.opened(folder) as (_, found):
        return found


def test_the_same_configuration_is_submitted_again(tmp_path: Path, tiny: Path) -> None:
    assert overrides(home(tmp_path, app.check(tiny).fab_hash, tiny)) == {"num-server-rounds": 5}


@pytest.mark.parametrize(("files", "begin"), [(["checkpoints/1.npy"], "4711"), (["metrics.json"], None)])
def test_it_goes_on_from_the_last_checkpoint_where_there_is_one(
    tmp_path: Path, tiny: Path, files: list[str], begin: str | None
) -> None:
    toml = tiny / "pyproject.toml"
    toml.write_text(toml.read_text() + RESUME)
    found = overrides(home(tmp_path, app.check(tiny).fab_hash, tiny, files=files))
    assert found.get("behaviour") == begin


def test_an_app_of_two_files_is_done_again_as_well(tmp_path: Path) -> None:
    server, client = APPS / "ask" / "server.py", APPS / "ask" / "client.py"
    with inline(server, client, {"rounds": 2}) as made:
        packed = app.check(made.folder).fab_hash
    folder = home(tmp_path, packed, f"{server} {client}", config={"rounds": 2})
    with retry.opened(folder) as (found, _):
        assert app.check(found.folder).settings.defaults == {"rounds": 2}


def test_an_app_that_has_changed_is_refused(tmp_path: Path, tiny: Path) -> None:
    folder = home(tmp_path, app.check(tiny).fab_hash, tiny)
    (tiny / "tiny" / "more.py").write_text("x = 1\n")
    with pytest.raises(UsageError, match="has changed since"):
        overrides(folder)


def test_a_run_that_completed_is_refused(tmp_path: Path, tiny: Path) -> None:
    with pytest.raises(UsageError, match="completed"):
        overrides(home(tmp_path, "", tiny, status="completed"))


def test_a_setting_to_go_on_from_must_be_one_that_takes_a_runs_id(tiny: Path) -> None:
    toml = tiny / "pyproject.toml"
    toml.write_text(toml.read_text() + RESUME.replace("behaviour", "megabytes"))
    with pytest.raises(UsageError, match="must name a setting"):
        app.check(tiny)
