"""Seed 000: a project from `flwr new`, a SuperLink, SuperNodes with a node config, and `flwr run … --stream`."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.e2e.conftest import SITES, Standing
from tests.seeds.conftest import ASK

HOSTS = ["coordinator", *SITES]
TEMPLATES = "1.24.0"
"""The last Flower that carries the templates of `flwr new`; later ones fetch them from Flower's own server."""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Flower's quickstart for NumPy, made by Flower's own `flwr new` and not touched."""
    folder = tmp_path_factory.mktemp("quickstart")
    fetch = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", f"flwr=={TEMPLATES}", "--dest", "."]
    subprocess.run(fetch, cwd=folder, check=True)
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        wheel.extractall(folder / "flower")
    new = [sys.executable, "-c", "from flwr.cli.app import app; app()", "new", "my-project"]
    environment = {**os.environ, "PYTHONPATH": str(folder / "flower"), "FLWR_TELEMETRY_ENABLED": "0"}
    environment["FLWR_HOME"] = str(folder / "home")
    command = [*new, "--framework", "NumPy", "--username", "flower"]
    subprocess.run(command, cwd=folder, env=environment, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    return folder / "my-project"


def test_plain_flwr_runs_the_untouched_quickstart_and_streams_its_log(standing: Standing, project: Path) -> None:
    done = standing.flwr("run", str(project), "flowerbed", "--stream", "-c", "num-server-rounds=1")
    assert done.returncode == 0, done.stderr
    assert "aggregate_evaluate: Received 3 results and 0 failures" in done.stdout
    assert "Saving final model to disk" in done.stdout


def test_plain_flwr_is_not_let_into_a_simulation_that_the_project_names_as_its_default(
    standing: Standing, project: Path
) -> None:
    toml = project / "pyproject.toml"
    toml.write_text(toml.read_text().replace("# [tool.flwr", "[tool.flwr").replace("# options", "options"))
    assert "\n[tool.flwr.federations.local-simulation]\noptions" in toml.read_text()
    done = standing.flwr("run", str(project), "--stream")
    assert done.returncode == 2
    assert "name the federation's, `flwr run" in done.stderr


def test_flowerbed_runs_it_too_and_brings_home_what_it_saved_in_its_working_folder(
    standing: Standing, project: Path
) -> None:
    run = standing.succeed("run", str(project), "--federation", standing.path, "-c", "num-server-rounds=1")
    assert (run["status"], run["app"]["name"]) == ("completed", "my-project")
    assert (standing.work / run["folder"] / "files" / "final_model.npz").stat().st_size > 0


def test_every_other_command_of_flwr_works(standing: Standing) -> None:
    nodes = standing.flwr("supernode", "list", "--format", "json")
    assert len(json.loads(nodes.stdout)["nodes"]) == len(SITES)
    listed = standing.flwr("list", "--format", "json")
    run_id = json.loads(listed.stdout)["runs"][0]["run-id"]
    shown = standing.flwr("log", str(run_id), "--show")
    assert shown.returncode == 0 and "[ROUND 1/1]" in shown.stdout


def test_each_client_app_sees_its_own_node_config(standing: Standing) -> None:
    run = standing.succeed("run", *ASK, "--federation", standing.path, "-c", "sites=3")
    answers = json.loads((standing.work / run["folder"] / "files" / "answers.json").read_text())
    for number, site in enumerate(SITES):
        answer = answers[run["sites"][site]]
        assert (answer["node.partition-id"], answer["node.num-partitions"]) == (number, len(SITES))
        assert answer["node.site"] == site


def test_server_app_and_client_apps_run_as_processes_of_their_own_beside_superlink_and_supernodes(
    standing: Standing,
) -> None:
    started = standing.succeed("audit", "log", standing.path, "--event", "app.started")["entries"]
    programs = {host: {entry["fields"]["detail"] for entry in started if entry["host"] == host} for host in HOSTS}
    assert programs == {"coordinator": {"flwr-serverapp"}, **{site: {"flwr-clientapp"} for site in SITES}}
    for host, unit in (("coordinator", "flower-superlink"), ("hospital-a", "flower-supernode")):
        assert standing.host(host).check_output(f"systemctl show --property=User --value {unit}") == unit
