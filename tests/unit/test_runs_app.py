"""An app is refused before anything of it is sent, in one line that names the file and the reason."""

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from flowerbed.errors import UsageError
from flowerbed.runs.app import App, check
from flowerbed.runs.fab import FAB_LIMIT
from flowerbed.runs.flwr import environment, flwr_command

APPS = Path(__file__).parents[1] / "apps"


PACKAGES = {"flwr": "1.41.0", "numpy": "2.2.0"}


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A copy of the tiny app to spoil."""
    return shutil.copytree(APPS / "tiny", tmp_path / "tiny", ignore=shutil.ignore_patterns("__pycache__"))


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


def refusal(path: Path) -> str:
    with pytest.raises(UsageError) as refused:
        check(path)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def flwr_build(app: Path, into: Path) -> str:
    """The hash of the FAB that Flower itself makes."""
    into.mkdir()
    subprocess.run(
        [flwr_command(), "build", "--app", str(app)], cwd=into, env=environment(into), check=True, capture_output=True
    )
    return hashlib.sha256(next(into.glob("*.fab")).read_bytes()).hexdigest()


def test_the_fab_hash_is_flowers_own(tiny: Path, tmp_path: Path) -> None:
    with (tiny / "pyproject.toml").open("a") as toml:
        toml.write("\n[tool.flwr.federations]\ndefault = 'x'\n[tool.flwr.federations.x]\naddress = 'a:1'\n")
    replace(tiny / "pyproject.toml", 'publisher = "flowerbed"', 'publisher = "flowerbed"\nfab-exclude = ["notes/*.md"]')
    (tiny / ".gitignore").write_text("# local\nignored/\n*.yaml\n!kept.yaml\n")
    for file in (
        "ignored/a.py",
        "b.yaml",
        "kept.yaml",
        "lib/c.py",
        "test_d.py",
        "notes/e.md",
        "notes/f.json",
        "LICENSE",
    ):
        (tiny / file).parent.mkdir(exist_ok=True)
        (tiny / file).write_text("# text\n")
    app = check(tiny)
    copy = app.copy(tmp_path / "copy")
    assert set(app.files) == {
        *("pyproject.toml", "LICENSE", "kept.yaml", "notes/f.json"),
        *("tiny/__init__.py", "tiny/client_app.py", "tiny/server_app.py"),
    }
    # The copy is what is submitted: `flwr run` would comment out the connections in the original.
    assert "federations" not in (copy / "pyproject.toml").read_text()
    assert check(copy).fab_hash == app.fab_hash == flwr_build(copy, tmp_path / "out")


def test_what_flower_does_not_pack_is_told(tiny: Path) -> None:
    (tiny / "weights.npz").write_bytes(b"0")
    (tiny / ".git").mkdir()
    (tiny / ".git" / "HEAD").write_text("ref")
    assert list(check(tiny).left_out) == ["weights.npz"]


def test_a_path_that_is_no_folder(tmp_path: Path) -> None:
    assert refusal(tmp_path / "no").endswith(
        "no is not a folder: give the app's folder, the one with its pyproject.toml"
    )


def test_a_folder_without_pyproject(tmp_path: Path) -> None:
    assert refusal(tmp_path) == f"{tmp_path}/pyproject.toml does not exist: `flwr new` makes an app to begin with"


def test_a_pyproject_that_is_no_toml(tiny: Path) -> None:
    replace(tiny / "pyproject.toml", 'name = "tiny"', "name = tiny")
    assert refusal(tiny).startswith(f"{tiny}/pyproject.toml: Invalid value (at line 2")


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        ("[tool.flwr.app.components]", "[tool.flwr.app.parts]", "section [tool.flwr.app.components] is missing"),
        ("clientapp =", "client =", "clientapp is missing in [tool.flwr.app.components]"),
        ('publisher = "flowerbed"', "", "publisher is missing in [tool.flwr.app]"),
        ('version = "1.2.3"', "", "version is missing in [project]"),
        ('name = "tiny"', 'name = "my_app"', "[project] name 'my_app' must begin with a letter"),
        ('"tiny.server_app:app"', '"tiny.server_app"', "must be module:attribute, as in 'package.server_app:app'"),
        (
            "evaluate = true",
            "evaluate = [1]",
            "evaluate in [tool.flwr.app.config] must be a boolean, a number or a string",
        ),
        ('"numpy>=1.26"', '"numpy>=>1"', "[project] dependencies: "),
        (
            'publisher = "f',
            'fab-include = ["*.csv"]\npublisher = "f',
            "pattern '*.csv' matches no file that Flower packs",
        ),
        (
            'publisher = "f',
            'fab-exclude = []\npublisher = "f',
            "fab-exclude in [tool.flwr.app] must be a list of patterns",
        ),
    ],
)
def test_a_pyproject_that_flower_would_refuse(tiny: Path, old: str, new: str, reason: str) -> None:
    replace(tiny / "pyproject.toml", old, new)
    message = refusal(tiny)
    assert message.startswith(f"{tiny}/pyproject.toml: ") and reason in message


def test_a_component_whose_file_is_not_there(tiny: Path) -> None:
    (tiny / "tiny" / "client_app.py").unlink()
    assert refusal(tiny).endswith(f"'tiny.client_app:app', but {tiny}/tiny/client_app.py does not exist")


def test_a_component_that_flower_does_not_pack(tiny: Path) -> None:
    (tiny / "tiny" / "client_app.py").rename(tiny / "tiny" / "test_client.py")
    replace(tiny / "pyproject.toml", "tiny.client_app:app", "tiny.test_client:app")
    assert refusal(tiny).endswith("but Flower does not pack tiny/test_client.py: rename or move it")


def test_a_component_that_is_not_assigned(tiny: Path) -> None:
    replace(tiny / "tiny" / "server_app.py", "app = ServerApp()", "def app() -> None: ...")
    assert refusal(tiny) == (
        f"{tiny}/tiny/server_app.py: assigns no 'app', which serverapp = 'tiny.server_app:app' names"
    )


def test_a_syntax_error_is_told_with_its_line(tiny: Path) -> None:
    (tiny / "tiny" / "model.py").write_text("import numpy\n\ndef broken(:\n")
    assert refusal(tiny) == f"{tiny}/tiny/model.py, line 3: invalid syntax"


def test_an_app_that_is_too_large(tiny: Path) -> None:
    noise = b"".join(
        hashlib.sha256(bytes([n % 256, n // 256 % 256, n // 65536])).hexdigest().encode() for n in range(330_000)
    )
    (tiny / "table.json").write_bytes(noise)
    message = refusal(tiny)
    assert f"Flower takes {FAB_LIMIT / 1e6:.1f}; the largest file is table.json" in message


@pytest.fixture(scope="module")
def app() -> App:
    return check(APPS / "tiny")


@pytest.mark.parametrize(
    ("item", "value"),
    [
        ("num-server-rounds=3", {"num-server-rounds": 3}),
        ("learning-rate=0.1", {"learning-rate": 0.1}),
        ("learning-rate=1", {"learning-rate": 1.0}),
        ("evaluate=false", {"evaluate": False}),
        ("behaviour=slow", {"behaviour": "slow"}),
        ('behaviour="quoted text"', {"behaviour": "quoted text"}),
        ("behaviour=7", {"behaviour": "7"}),
        ("behaviour=it's = fine", {"behaviour": "it's = fine"}),
        ("slow.seconds=2.5", {"slow.seconds": 2.5}),
    ],
)
def test_overrides_have_the_types_of_the_app(app: App, item: str, value: dict[str, object]) -> None:
    found = app.settings.overrides([item])
    assert found == value
    assert [type(each) for each in found.values()] == [type(each) for each in value.values()]


@pytest.mark.parametrize(
    ("item", "reason"),
    [
        ("num-server-rounds=3.5", "-c num-server-rounds=3.5: the app wants a whole number, as in num-server-rounds=1"),
        (
            "num-server-rounds=many",
            "-c num-server-rounds=many: the app wants a whole number, as in num-server-rounds=1",
        ),
        (
            "num-server-rounds=true",
            "-c num-server-rounds=True: the app wants a whole number, as in num-server-rounds=1",
        ),
        ("evaluate=1", "-c evaluate=1: the app wants true or false, as in evaluate=true"),
        ("evaluate", "-c evaluate: write it as key=value, or give a .toml file"),
    ],
)
def test_overrides_of_another_type_are_refused(app: App, item: str, reason: str) -> None:
    with pytest.raises(UsageError) as refused:
        app.settings.overrides([item])
    assert str(refused.value) == reason


def test_an_override_that_the_app_does_not_know_is_refused_with_those_it_does(app: App) -> None:
    with pytest.raises(UsageError, match=r"-c rounds: tiny has no such setting .*\(it has: behaviour, evaluate, .*\)"):
        app.settings.overrides(["rounds=3"])
    with pytest.raises(UsageError, match="tiny has no such setting"):
        app.settings.overrides([{"rounds": 3}])


def test_a_release_with_everything_is_accepted(app: App) -> None:
    app.check_release("lab", "r1", {"Flwr": "1.41.0", "numpy": "2.2.0"})


@pytest.mark.parametrize(
    ("packages", "lacks"),
    [
        ({"flwr": "1.41.0"}, "'numpy>=1.26'"),
        ({"flwr": "1.41.0", "numpy": "1.25.2"}, "'numpy>=1.26' (it has 1.25.2)"),
        ({}, "'flwr>=1.40', 'numpy>=1.26'"),
    ],
)
def test_a_release_that_lacks_a_dependency_is_named(app: App, packages: dict[str, str], lacks: str) -> None:
    with pytest.raises(UsageError) as refused:
        app.check_release("lab", "r1", packages)
    assert f"release r1 lacks {lacks}; add: `flowerbed release add lab " in str(refused.value)
    assert str(refused.value).endswith("'numpy>=1.26'`, then `flowerbed up lab`")


def test_a_dependency_for_another_python_is_not_asked_for(tiny: Path) -> None:
    replace(tiny / "pyproject.toml", '"numpy>=1.26"', '"numpy>=1.26", "tomli ; python_version < \'3.0\'"')
    check(tiny).check_release("lab", "r1", {"flwr": "1.41.0", "numpy": "2.2.0"})


MODULES = {"flwr", "numpy"}


def test_an_import_that_the_release_lacks_is_named_with_file_and_line(tiny: Path) -> None:
    (tiny / "tiny" / "task.py").write_text("import json\nimport torch.nn as nn\n")
    replace(tiny / "tiny" / "client_app.py", "import numpy", "from tiny import task\nimport numpy")
    with pytest.raises(UsageError) as refused:
        check(tiny).check_release("lab", "r1", PACKAGES, MODULES)
    assert f"{tiny}/tiny/task.py, line 2: release r1 lacks the module 'torch'" in str(refused.value)
    check(tiny).check_release("lab", "r1", PACKAGES, MODULES | {"torch"})


@pytest.mark.parametrize(
    "code",
    [
        "try:\n    import torch\nexcept ImportError:\n    torch = None\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import torch\n",
        "def later():\n    import torch\n",
        "from . import server_app\n",
        "from .server_app import app as other\n",
        "import tiny.server_app\n",
    ],
)
def test_an_import_that_may_fail_or_is_the_apps_own_is_let_through(tiny: Path, code: str) -> None:
    file = tiny / "tiny" / "client_app.py"
    file.write_text(code + file.read_text())
    check(tiny).check_release("lab", "r1", PACKAGES, MODULES)


def test_a_file_that_neither_component_imports_may_import_what_it_likes(tiny: Path) -> None:
    (tiny / "prepare.py").write_text("import pandas\n")
    check(tiny).check_release("lab", "r1", PACKAGES, MODULES)
