"""An app is a folder, a git reference, a FAB, or two Python files."""

import hashlib
import re
import shutil
import subprocess
import zipfile
from pathlib import Path

import pytest

from flowerbed.errors import UsageError
from flowerbed.runs.app import check
from flowerbed.runs.flwr import environment, flwr_command
from flowerbed.runs.settings import loose
from flowerbed.runs.source import configured, has_connections, inline, opened

APPS = Path(__file__).parents[1] / "apps"


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=n", "-c", "user.email=e@example.org", "-c", "init.defaultBranch=main")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two commits, the first tagged v1; the app is in a folder."""
    path = tmp_path_factory.mktemp("git") / "apps"
    shutil.copytree(APPS / "tiny", path / "examples" / "tiny", ignore=shutil.ignore_patterns("__pycache__"))
    git(path, "init", "--quiet")
    for version in ("1.2.3", "1.2.4"):
        toml = path / "examples" / "tiny" / "pyproject.toml"
        toml.write_text(toml.read_text().replace("1.2.3", version))
        git(path, "add", ".")
        git(path, "commit", "--quiet", "-m", version)
        git(path, "tag", f"v{version}")
    return path


def test_a_folder_is_itself() -> None:
    with opened(str(APPS / "tiny")) as source:
        assert (source.folder, source.origin) == (APPS / "tiny", str(APPS / "tiny"))


@pytest.mark.parametrize(("ref", "version"), [("", "1.2.4"), ("@main", "1.2.4"), ("@v1.2.3", "1.2.3")])
def test_a_git_reference_is_a_branch_or_a_tag(repository: Path, ref: str, version: str) -> None:
    with opened(f"git+file://{repository}{ref}#subdirectory=examples/tiny") as source:
        assert check(source.folder).version == version
        tag = git(repository, "rev-parse", f"v{version}")
        assert source.origin == f"git+file://{repository}@{tag}#subdirectory=examples/tiny"
    assert not source.folder.exists()


def test_a_git_reference_is_a_commit(repository: Path) -> None:
    commit = git(repository, "rev-parse", "v1.2.3")
    with opened(f"git+file://{repository}@{commit}#subdirectory=examples/tiny") as source:
        assert check(source.folder).version == "1.2.3"


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("git+file://{}@no-such#subdirectory=examples/tiny", "no-such"),
        ("git+file://{}/not-here", "does not appear to be a git repository"),
        ("git+file://{}#subdirectory=nowhere", "the repository has no folder 'nowhere'"),
        ("git+file://{}#subdirectory=../..", "the repository has no folder '../..'"),
        ("git+", "write it as git+https://host/repo.git@REF"),
    ],
)
def test_a_git_reference_that_leads_nowhere_is_told_in_one_line(repository: Path, reference: str, reason: str) -> None:
    with pytest.raises(UsageError) as refused, opened(reference.format(repository)):
        pass
    assert reason in str(refused.value) and "\n" not in str(refused.value)


def test_two_files_are_an_app_with_the_config_that_is_given() -> None:
    server, client = APPS / "silent" / "silent" / "server_app.py", APPS / "silent" / "silent" / "client_app.py"
    with inline(server, client, loose(["rounds=3", "rate=0.5", "label=icu", "on=true"])) as source:
        app = check(source.folder)
        assert dict(app.settings.defaults) == {"rounds": 3, "rate": 0.5, "label": "icu", "on": True}
        assert set(app.files) == {"pyproject.toml", "client_app.py", "server_app.py"}
        assert source.origin == f"{server} {client}"


def test_two_files_are_checked_under_their_own_names(tmp_path: Path) -> None:
    good = APPS / "silent" / "silent" / "client_app.py"
    broken, empty = tmp_path / "broken.py", tmp_path / "empty.py"
    broken.write_text("x = (\n")
    empty.write_text("")
    for file, reason in [
        (broken, f"{broken}, line 1: "),
        (empty, f"{empty}: assigns no 'app'"),
        (tmp_path / "no.py", f"{tmp_path}/no.py is not a Python file"),
        (shutil.copyfile(good, tmp_path / good.name), "have the same name"),
    ]:
        with pytest.raises(UsageError) as refused, inline(file, good, {}):
            pass
        assert reason in str(refused.value)


def test_two_files_have_a_name_that_changes_with_them(tmp_path: Path) -> None:
    server, client = APPS / "silent" / "silent" / "server_app.py", tmp_path / "7 wards.py"
    client.write_text((APPS / "silent" / "silent" / "client_app.py").read_text())
    names = []
    for text in ("", "# another\n"):
        client.write_text(client.read_text() + text)
        with inline(server, client, {}) as source:
            names.append(check(source.folder).name)
    assert all(re.fullmatch(r"server-app-7-wards-[0-9a-f]{8}", name) for name in names)
    assert names[0] != names[1]


def test_a_fault_in_one_of_two_files_is_told_where_the_user_has_it(tmp_path: Path) -> None:
    client = tmp_path / "client.py"
    client.write_text("import torch\napp = 1\n")
    server = APPS / "silent" / "silent" / "server_app.py"
    with pytest.raises(UsageError) as refused, inline(server, client, {}) as source:
        check(source.folder).check_release("lab", None, {}, {"flwr"})
    assert "client.py, line 1: the release of lab lacks the module 'torch'" in str(refused.value)
    assert "flowerbed-app-" not in str(refused.value)


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """The tiny app as Flower itself packs it."""
    command = [flwr_command(), "build", "--app", str(APPS / "tiny")]
    subprocess.run(command, cwd=tmp_path, env=environment(tmp_path), check=True, capture_output=True)
    return next(tmp_path.glob("*.fab"))


def test_a_fab_is_the_app_that_was_packed(packed: Path) -> None:
    with opened(str(packed)) as source:
        assert check(source.folder).fab_hash == hashlib.sha256(packed.read_bytes()).hexdigest()
        assert source.origin == str(packed)
    assert not source.folder.exists()


def rewritten(fab: Path, **changes: str) -> Path:
    """The FAB with other content under some names."""
    with zipfile.ZipFile(fab) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(fab, "w") as archive:
        for name, content in {**contents, **changes}.items():
            archive.writestr(name, content)
    return fab


def test_a_fab_that_is_none_is_refused(packed: Path, tmp_path: Path) -> None:
    (tmp_path / "text.fab").write_text("text")
    for fab, reason in [
        (tmp_path / "text.fab", "it is no FAB"),
        (tmp_path / "no.fab", "is no file"),
        (rewritten(packed, **{"../../out.py": "x = 1"}), "'../../out.py' leads out of it"),
    ]:
        with pytest.raises(UsageError) as refused, opened(str(fab)):
            pass
        assert reason in str(refused.value) and "\n" not in str(refused.value)


def test_a_fab_that_would_travel_with_another_hash_is_refused(packed: Path) -> None:
    rewritten(packed, **{"tiny/more.py": "x = 1"})
    with pytest.raises(UsageError, match="packs it to another hash: build it again"), opened(str(packed)):
        pass


def test_what_to_run_is_one_app_or_two_files(tmp_path: Path) -> None:
    for words in [(None, None, None), ("app", tmp_path, None), (None, tmp_path, None)]:
        with pytest.raises(UsageError, match="name what to run"), configured(*words):
            pass


def test_connections_of_an_apps_own_are_seen(tmp_path: Path) -> None:
    assert not has_connections(tmp_path) and not has_connections(APPS / "tiny")
    (tmp_path / "pyproject.toml").write_text('[tool.flwr.federations]\ndefault = "local-simulation"\n')
    assert has_connections(tmp_path)
