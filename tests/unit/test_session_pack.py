"""The app of a session holds the client code and the bridge, and is the same app whenever the code is the same."""

from pathlib import Path

import pytest

from flowerbed.errors import UsageError
from flowerbed.paths import REPOSITORY
from flowerbed.runs import check
from flowerbed.session import packed

EXAMPLE = REPOSITORY / "examples" / "breast_cancer"
CLIENT = "from flwr.clientapp import ClientApp\napp = ClientApp()\n"


@pytest.fixture
def client(tmp_path: Path) -> Path:
    (tmp_path / "client.py").write_text(CLIENT)
    return tmp_path / "client.py"


def fab_hash(*arguments: object) -> str:
    with packed(*arguments) as (source, _):  # type: ignore[arg-type] - any of its parameters
        return check(source.folder).fab_hash


def test_the_hash_that_a_site_approves_depends_on_the_code_alone(client: Path, tmp_path: Path) -> None:
    first = fab_hash(client)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "client.py").write_text(CLIENT)
    assert fab_hash(elsewhere / "client.py") == first
    assert fab_hash(str(client), {"epochs": 3}) != first
    client.write_text(CLIENT + "# other code\n")
    assert fab_hash(client) != first


def test_a_file_brings_its_run_config(client: Path) -> None:
    with packed(client, ["epochs=3", "name=x"]) as (source, overrides):
        assert overrides == {}
        assert check(source.folder).settings.defaults.items() >= {("epochs", 3), ("name", "x")}
        assert source.origin == str(client)


def test_of_an_app_the_clientapp_is_taken_with_its_settings() -> None:
    with packed(EXAMPLE, {"local-epochs": 2}) as (source, overrides):
        app = check(source.folder)
        assert app.name == "breast-cancer-session"
        assert app.modules == ["flowerbed_session.bridge", "breast_cancer.client_app"]
        assert overrides == {"local-epochs": 2}
        assert app.settings.defaults["local-epochs"] == 15
        assert app.requirements == check(EXAMPLE).requirements


def test_an_app_that_names_what_it_packs_packs_the_bridge_as_well(tmp_path: Path) -> None:
    app = tmp_path / "app"
    app.mkdir()
    (app / "code.py").write_text(CLIENT + "from flwr.serverapp import ServerApp\nserver = ServerApp()\n")
    (app / "pyproject.toml").write_text(
        '[project]\nname = "a"\nversion = "1"\n[tool.flwr.app]\npublisher = "p"\nfab-include = ["/code.py"]\n'
        '[tool.flwr.app.components]\nserverapp = "code:server"\nclientapp = "code:app"\n'
    )
    with packed(app) as (source, _):
        assert "flowerbed_session/bridge.py" in check(source.folder).files


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("client.py", "app = (", r"client.py, line 1: '\(' was never closed"),
        ("client.py", "other = 1", "client.py: assigns no 'app'"),
        ("flowerbed_session.py", CLIENT, "rename the file"),
        ("client.txt", CLIENT, "client.txt is not a Python file"),
    ],
)
def test_client_code_that_is_none_is_refused(tmp_path: Path, name: str, content: str, why: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UsageError, match=why), packed(tmp_path / name):
        pass


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"absent.py is not a Python file"), packed(tmp_path / "absent.py"):
        pass


def test_a_later_complaint_names_the_file_that_the_user_knows(client: Path) -> None:
    with pytest.raises(UsageError, match=f"^{client}, line 1"), packed(client) as (source, _):
        raise UsageError(f"{source.folder / 'client.py'}, line 1: no such module")
