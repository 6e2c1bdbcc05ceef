"""An app's run config is overridden by its profiles, by TOML files and by key=value; what does not fit is refused."""

import shutil
from pathlib import Path

import pytest

from flowerbed.errors import UsageError
from flowerbed.runs.app import check
from flowerbed.runs.settings import Settings, loose

APPS = Path(__file__).parents[1] / "apps"
PROFILES = """
[tool.flowerbed.profiles.quick]
num-server-rounds = 1
learning-rate = 1

[tool.flowerbed.profiles.slow]
slow.seconds = 3.5
behaviour = "slow"
"""


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """A copy of the tiny app."""
    return shutil.copytree(APPS / "tiny", tmp_path / "tiny", ignore=shutil.ignore_patterns("__pycache__"))


@pytest.fixture
def settings(app: Path) -> Settings:
    """Its settings with two profiles."""
    with (app / "pyproject.toml").open("a") as file:
        file.write(PROFILES)
    return check(app).settings


def test_a_profile_comes_first_and_the_last_override_counts(settings: Settings, tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("num-server-rounds = 5\n[slow]\nseconds = 2\n")
    found = settings.overrides([str(file), "num-server-rounds=7", {"evaluate": False}], "quick")
    assert found == {"num-server-rounds": 7, "learning-rate": 1.0, "slow.seconds": 2.0, "evaluate": False}
    assert [type(value) for value in found.values()] == [int, float, float, bool]
    assert settings.overrides([], "slow") == {"slow.seconds": 3.5, "behaviour": "slow"}


def test_an_unknown_profile_is_refused_with_those_there_are(settings: Settings) -> None:
    with pytest.raises(UsageError, match=r"profile quik: tiny has none of this name \(it has: quick, slow\)"):
        settings.overrides([], "quik")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("rounds = 1", "mine.toml: rounds: tiny has no such setting"),
        ("num-server-rounds = 1.5", "mine.toml: num-server-rounds=1.5: the app wants a whole number"),
        ("num-server-rounds = [1]", "mine.toml: num-server-rounds must be a boolean, a number or a string"),
        ("num-server-rounds = ", "mine.toml: Invalid value"),
    ],
)
def test_a_file_that_does_not_fit_is_refused_by_its_name(
    settings: Settings, tmp_path: Path, text: str, reason: str
) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    with pytest.raises(UsageError) as refused:
        settings.overrides([file])
    assert reason in str(refused.value) and str(file) in str(refused.value)


def test_a_file_that_is_not_there_is_named(settings: Settings) -> None:
    with pytest.raises(UsageError, match=r"-c no\.toml: it cannot be read: No such file"):
        settings.overrides(["no.toml"])


@pytest.mark.parametrize(
    ("profile", "reason"),
    [
        ("[tool.flowerbed.profiles.a]\nrounds = 1", "[tool.flowerbed.profiles.a] rounds: tiny has no such setting"),
        ("[tool.flowerbed.profiles.a]\nevaluate = 1", "[tool.flowerbed.profiles.a] evaluate=1: the app wants true or"),
        ("[tool.flowerbed.profiles]\na = 1", "[tool.flowerbed.profiles.a] must be a table"),
        ("[tool.flowerbed]\nprofiles = 1", "[tool.flowerbed.profiles] must hold a table for each profile"),
    ],
)
def test_an_app_whose_profile_does_not_fit_is_refused(app: Path, profile: str, reason: str) -> None:
    with (app / "pyproject.toml").open("a") as file:
        file.write(f"\n{profile}\n")
    with pytest.raises(UsageError) as refused:
        check(app)
    assert f"{app / 'pyproject.toml'}: {reason}" in str(refused.value)


def test_two_files_take_what_is_given(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text("rate = 0.5\n[model]\ndepth = 2\n")
    assert loose([str(file), "label=icu", "rate=1"]) == {"rate": 1, "model.depth": 2, "label": "icu"}
