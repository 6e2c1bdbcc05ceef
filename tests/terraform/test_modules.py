"""The Terraform code by itself: formatted, described, and its own tests pass, all without a network."""

import re
import subprocess
from pathlib import Path

import pytest

from flowerbed.paths import INVENTORIES, PLATFORMS
from tests.terraform.aws import THRIFTY, blocks, cli_config, terraform

TERRAFORM = PLATFORMS.parent
MODULES = sorted(folder for folder in (TERRAFORM / "modules").iterdir() if folder.is_dir())
ROOTS = sorted(folder for folder in PLATFORMS.iterdir() if folder.is_dir())
AWS = PLATFORMS / "aws"


@pytest.fixture(scope="module", params=ROOTS, ids=lambda folder: folder.name)
def platform(request: pytest.FixtureRequest) -> Path:
    """Each platform's folder."""
    folder: Path = request.param
    return folder


@pytest.fixture(scope="module")
def initialised(platform: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of an initialised platform; Terraform's files are kept out of the repository."""
    folder = tmp_path_factory.mktemp("terraform")
    environment = {"TF_DATA_DIR": str(folder), **THRIFTY}
    if "hashicorp/aws" in (platform / "versions.tf").read_text():
        environment |= {"TF_CLI_CONFIG_FILE": str(cli_config(folder))}
    terraform(platform, "init", environment=environment)
    return environment


def test_everything_is_formatted() -> None:
    done = subprocess.run(
        ["terraform", "fmt", "-check", "-recursive", str(TERRAFORM), str(INVENTORIES)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_a_platform_is_valid(platform: Path, initialised: dict[str, str]) -> None:
    assert "Success" in terraform(platform, "validate", environment=initialised)


def test_a_platforms_own_tests_pass(platform: Path, initialised: dict[str, str]) -> None:
    assert re.search(r"Success! \d+ passed, 0 failed", terraform(platform, "test", environment=initialised))


def test_every_refusal_has_a_test_that_expects_it(platform: Path) -> None:
    expected = [name for test in (platform / "tests").glob("*.tftest.hcl") for name in _expected(test)]
    for block, checks in _checks(platform).items():
        assert expected.count(block) >= checks, block


@pytest.mark.parametrize(
    "folder", [folder for folder in MODULES if folder.name.startswith("aws")], ids=lambda f: f.name
)
def test_every_refusal_of_a_module_has_a_test_that_expects_it(folder: Path) -> None:
    runs = re.findall(r'^run "\w+" \{\n(.*?)^\}', (AWS / "tests/modules.tftest.hcl").read_text(), re.M | re.S)
    own = [run for run in runs if f'source = "../../modules/{folder.name}/tests/variables"' in run]
    expected = [name for run in own for name in _names(run)]
    for block, checks in _checks(folder).items():
        assert expected.count(block) >= checks, block


@pytest.mark.parametrize("folder", [*MODULES, *ROOTS], ids=lambda folder: f"{folder.parent.name}-{folder.name}")
def test_every_variable_and_output_is_described(folder: Path) -> None:
    for file in ("variables.tf", "outputs.tf"):
        found = blocks(folder, file)
        assert found
        assert [name for name, body in found.items() if "description" not in body] == []


@pytest.mark.parametrize("folder", MODULES, ids=lambda folder: folder.name)
def test_a_modules_readme_names_every_input_and_output(folder: Path) -> None:
    readme = (folder / "README.md").read_text()
    assert sorted(re.findall(r"^\| `(\w+)` \|", readme, re.M)) == sorted(blocks(folder, "variables.tf"))
    assert re.findall(r"`(\w+)`", readme.split("Outputs:")[1]) == list(blocks(folder, "outputs.tf"))


def test_a_region_is_one_file_that_differs_from_the_others_in_its_name_alone() -> None:
    files = sorted(AWS.glob("region_*.tf"))
    names = [file.stem.removeprefix("region_").replace("_", "-") for file in files]
    text = [
        file.read_text().replace(name, "REGION").replace(name.replace("-", "_"), "REGION")
        for file, name in zip(files, names, strict=True)
    ]
    assert len(set(text)) == 1
    assert re.findall(r"^    ([\w-]+) += \"", (AWS / "regions.tf").read_text(), re.M) == names
    listed = re.findall(r"module\.sites_(\w+),", (AWS / "main.tf").read_text())
    assert [name.replace("_", "-") for name in listed] == names


def _checks(folder: Path) -> dict[str, int]:
    """Count a folder's validations and preconditions by the block that they stand in."""
    found = {}
    for file, kind in (("variables.tf", "var"), ("outputs.tf", "output")):
        for name, body in blocks(folder, file).items():
            if checks := len(re.findall(r"^  (?:validation|precondition) \{", body, re.M)):
                found[f"{kind}.{name}"] = checks
    return found


def _expected(test: Path) -> list[str]:
    return _names(test.read_text())


def _names(text: str) -> list[str]:
    """Every block that a run expects to fail."""
    return [
        name for names in re.findall(r"expect_failures = \[(.*?)\]", text, re.S) for name in re.split(r",\s*", names)
    ]
