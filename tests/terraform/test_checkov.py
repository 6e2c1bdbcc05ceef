"""checkov has no complaint about the Terraform code, but for those that the code itself answers with a reason."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flowerbed.paths import PLATFORMS, REPOSITORY

LOCK = Path(__file__).with_name("checkov.lock")
VALIDATION = re.compile(r"^  validation \{\n.*?^  \}\n", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def checkov() -> Path:
    """The program, from its own lock: what it needs conflicts with what Flowerbed needs."""
    digest = hashlib.sha256(LOCK.read_bytes() + sys.version.encode()).hexdigest()[:12]
    folder = REPOSITORY / "build" / f"checkov-{digest}"
    if not (folder / "done").exists():
        shutil.rmtree(folder, ignore_errors=True)
        uv = [shutil.which("uv", path=Path(sys.executable).parent) or "uv"]
        subprocess.run([*uv, "venv", "--quiet", "--no-config", "--python", sys.executable, folder], check=True)
        install = ["pip", "install", "--quiet", "--no-config", "--no-deps", "--require-hashes", "--python", folder]
        subprocess.run([*uv, *install, "-r", LOCK], check=True)
        (folder / "done").touch()
    return folder / "bin" / "checkov"


@pytest.fixture(scope="module")
def report(checkov: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[dict[str, object]]]:
    """What it says about the code without the validations, which it does not look at and reads for a minute."""
    copy = tmp_path_factory.mktemp("checkov") / "terraform"
    shutil.copytree(PLATFORMS.parent, copy, ignore=shutil.ignore_patterns("tests", ".terraform*"))
    for file in copy.rglob("variables.tf"):
        file.write_text(VALIDATION.sub("", file.read_text()))
    words = ["--framework", "terraform", "--skip-download", "--compact", "--quiet", "--output", "json"]
    done = subprocess.run(
        [checkov, "--directory", copy, *words],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"HCL_PARSE_TIMEOUT_SEC": "60"},
    )
    said = json.loads(done.stdout)
    assert said["summary"]["parsing_errors"] == 0, said["results"]["parsing_errors"]
    assert said["summary"]["passed"] > 0
    results: dict[str, list[dict[str, object]]] = said["results"]
    return results


def test_checkov_has_no_complaint(report: dict[str, list[dict[str, object]]]) -> None:
    failed = sorted(
        {f"{check['check_id']} {check['resource']}: {check['check_name']}" for check in report["failed_checks"]}
    )
    assert failed == []


def test_every_complaint_that_is_passed_over_has_a_reason() -> None:
    skips = [
        line.strip()
        for file in PLATFORMS.parent.rglob("*.tf")
        for line in file.read_text().splitlines()
        if "checkov:skip" in line
    ]
    assert skips
    assert [line for line in skips if not re.fullmatch(r"#checkov:skip=CKV2?_AWS_\d+:.{30,}", line)] == []
