"""The operator's secrets can be opened by the operator alone, and git never has them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from flowerbed import check, custody, deploy, doctor
from flowerbed.console import Steps
from flowerbed.errors import UsageError
from flowerbed.federation import FederationFolder

FLOWERBED = str(Path(sys.executable).with_name("flowerbed"))


@pytest.fixture
def federation(tmp_path: Path) -> FederationFolder:
    """A federation outside of this repository, in a repository of its own, with a key that everybody can read."""
    made = FederationFolder(tmp_path / "by-hand")
    made.ssh_key.parent.mkdir(parents=True)
    made.secrets.chmod(0o755)
    for file in (made.ssh_key, made.ssh_key.with_suffix(".pub")):
        file.write_text("a key\n")
        file.chmod(0o644)
    git(made, "init", "--quiet")
    return made


def git(federation: FederationFolder, *words: str) -> str:
    command = ["git", "-C", str(federation.path), *words]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_up_closes_an_open_secrets_folder_before_anything_else(
    federation: FederationFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match=r"hosts\.yml does not exist"):
        deploy.up(federation, Steps())
    assert "could be opened by others: closed" in " ".join(capsys.readouterr().err.split())
    modes = {path.relative_to(federation.path).as_posix(): path.stat().st_mode & 0o777 for path in secrets(federation)}
    assert modes == {
        "secrets": 0o700,
        "secrets/ssh": 0o700,
        "secrets/ssh/id_ed25519": 0o600,
        "secrets/ssh/id_ed25519.pub": 0o644,
    }
    assert custody.close(federation) == []


def test_a_check_closes_nothing(federation: FederationFolder) -> None:
    with pytest.raises(UsageError):
        deploy.up(federation, Steps(), check=True)
    assert federation.secrets.stat().st_mode & 0o777 == 0o755


def test_a_folder_that_cannot_be_closed_is_named_with_the_remedy(federation: FederationFolder) -> None:
    path = federation.path
    read_only = f"mount --bind {path} {path} && mount -o remount,bind,ro {path} && exec {FLOWERBED} up {path}"
    done = subprocess.run(["unshare", "--mount", "sh", "-c", read_only], capture_output=True, text=True, check=False)
    assert done.returncode == UsageError.exit_code
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    assert "secrets is open to other users and cannot be closed" in line
    assert "put a link in its place" in line


def test_git_does_not_see_the_secrets_of_a_protected_federation(federation: FederationFolder) -> None:
    custody.make(federation)
    git(federation, "add", "--all")
    assert git(federation, "ls-files") == ""


def test_secrets_in_git_are_named_and_nothing_is_brought_up(federation: FederationFolder) -> None:
    git(federation, "add", "--all")
    assert custody.tracked(federation) == ["secrets/ssh/id_ed25519"]
    with pytest.raises(UsageError, match=r"id_ed25519 is in git: `git .* rm -r --cached") as refused:
        deploy.up(federation, Steps())
    (finding,) = check.examine_files(federation)
    assert finding.message in str(refused.value)
    done = subprocess.run([FLOWERBED, "doctor", str(federation.path), "--json"], capture_output=True, check=False)
    (found,) = [one for one in json.loads(done.stdout)["findings"] if one["platform"] == "git"]
    assert (found["ok"], found["remedy"]) == (False, custody.remedy(federation))
    remedy = found["remedy"].split("`")[1]
    subprocess.run(remedy, shell=True, check=True, capture_output=True)  # noqa: S602 - what we tell people to type
    assert doctor.examine_secrets([federation])[0].ok


def secrets(federation: FederationFolder) -> list[Path]:
    return [path for path in [federation.secrets, *federation.secrets.rglob("*")] if path.name != ".gitignore"]
