"""The Terraform code by itself: formatted, valid, described, and its own tests pass, all without a network."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from flowerbed.paths import PLATFORMS

TERRAFORM = PLATFORMS.parent
LAB = [TERRAFORM / "modules" / "lab_host", PLATFORMS / "lab"]


@pytest.fixture(scope="module")
def initialised(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of an initialised lab platform; Terraform's files are kept out of the repository."""
    environment = os.environ | {"TF_DATA_DIR": str(tmp_path_factory.mktemp("terraform"))}
    _terraform("init", environment=environment)
    return environment


def test_everything_is_formatted() -> None:
    done = subprocess.run(
        ["terraform", "fmt", "-check", "-recursive", str(TERRAFORM)], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_lab_is_valid(initialised: dict[str, str]) -> None:
    assert "Success" in _terraform("validate", environment=initialised)


def test_the_labs_own_tests_pass(initialised: dict[str, str]) -> None:
    assert re.search(r"Success! \d+ passed, 0 failed", _terraform("test", environment=initialised))


def test_every_refusal_of_the_lab_has_a_test_that_expects_it() -> None:
    tests = (PLATFORMS / "lab/tests/refused.tftest.hcl").read_text()
    for block, checks in _checks().items():
        assert tests.count(f"expect_failures = [{block}]") >= checks, block


@pytest.mark.parametrize("folder", LAB, ids=lambda folder: folder.name)
def test_every_variable_and_output_is_described(folder: Path) -> None:
    for file in ("variables.tf", "outputs.tf"):
        blocks = re.findall(r'^(?:variable|output) "(\w+)" \{\n(.*?)^\}', (folder / file).read_text(), re.M | re.S)
        assert blocks
        assert [name for name, body in blocks if "description" not in body] == []


def test_the_modules_readme_names_every_input_and_output() -> None:
    module = LAB[0]
    readme = (module / "README.md").read_text()
    inputs = re.findall(r'^variable "(\w+)"', (module / "variables.tf").read_text(), re.M)
    outputs = re.findall(r'^output "(\w+)"', (module / "outputs.tf").read_text(), re.M)
    assert sorted(re.findall(r"^\| `(\w+)` \|", readme, re.M)) == sorted(inputs)
    assert re.findall(r"`(\w+)`", readme.split("Outputs:")[1]) == outputs


def _checks() -> dict[str, int]:
    """Count the lab's validations and preconditions by the block that they stand in."""
    found = {}
    for file, kind in (("variables.tf", "var"), ("outputs.tf", "output")):
        text = (PLATFORMS / "lab" / file).read_text()
        for name, body in re.findall(r'^(?:variable|output) "(\w+)" \{\n(.*?)^\}', text, re.M | re.S):
            if checks := len(re.findall(r"^  (?:validation|precondition) \{", body, re.M)):
                found[f"{kind}.{name}"] = checks
    return found


def _terraform(*arguments: str, environment: dict[str, str]) -> str:
    words = ["terraform", f"-chdir={PLATFORMS / 'lab'}", *arguments, "-no-color"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
