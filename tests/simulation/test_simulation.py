"""An app runs on this machine as on the hosts, and nothing of it stays. Takes minutes: `./scripts/test simulation`.

That a simulation has the metrics of real hosts is in tests/seeds, where there are some.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from flowerbed import Federation
from flowerbed.errors import UsageError
from flowerbed.paths import INVENTORIES, REPOSITORY
from flowerbed.runs import submit_and_follow
from flowerbed.simulation import engine
from tests.driver.loopback import LoopbackFederation

EXAMPLE = REPOSITORY / "examples" / "breast_cancer"
APPS = REPOSITORY / "tests" / "apps"
SITES = ["hospital-a", "hospital-b", "hospital-c"]
FLOWERBED = str(Path(sys.executable).with_name("flowerbed"))


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Federation:
    """A federation that was never brought up: an inventory, a release, and the hospitals' data."""
    folder = tmp_path_factory.mktemp("simulation") / "planned"
    folder.mkdir()
    for name in ("release.in", "release.lock"):
        (folder / name).write_text((INVENTORIES / "lab" / name).read_text())
    (folder / "hosts.yml").write_text(json.dumps(_hosts()))
    command = [sys.executable, str(EXAMPLE / "prepare.py"), str(folder / "data"), *SITES]
    subprocess.run(command, check=True, capture_output=True)
    return Federation(folder, runs_folder=folder.parent / "runs")


def _hosts() -> dict[str, Any]:
    """Three hospitals that differ in labels and node config."""
    sites: dict[str, Any] = {site: {"supernode_data_path": "/srv/hospital"} for site in SITES}
    sites["hospital-a"] |= {"supernode_labels": {"region": "north"}, "supernode_node_config": {"batch-size": 8}}
    sites["hospital-b"] |= {"supernode_node_config": {"partition-id": 7, "ratio": 0.5, "augment": True}}
    hosts = {"superlink": {"hosts": {"coordinator": {}}}, "gateway": {"hosts": {"coordinator": {}}}}
    return {"all": {"children": {**hosts, "supernode": {"hosts": sites}}}}


def test_each_site_is_told_its_own_node_config_and_where_its_data_are_here(lab: Federation) -> None:
    result = lab.simulate(APPS / "teller")
    assert result.folder is not None, result.verdict
    told = json.loads((result.folder / "files" / "told.json").read_text())
    data = lab.folder.data
    assert sorted(told, key=lambda config: str(config["site"])) == [
        {"site": "hospital-a", "data-path": str(data / "hospital-a"), "label-region": "north", "batch-size": 8},
        {"site": "hospital-b", "data-path": str(data / "hospital-b"), "partition-id": 7, "ratio": 0.5, "augment": True},
        {"site": "hospital-c", "data-path": str(data / "hospital-c")},
    ]


def test_a_simulation_has_the_results_of_a_run(lab: Federation) -> None:
    result = lab.simulate(EXAMPLE, config={"num-server-rounds": 1})
    assert (result.verdict.status, result.exit_code) == ("completed", 0), result.verdict
    assert result.record["simulation"] is True
    assert result.folder is not None and (result.folder / "files" / "model.json").exists()
    assert sorted(result.record["sites"]) == SITES
    assert set(result.record["rounds"][0]["sites"]["evaluate"]) == set(SITES)
    assert _left() == []


def test_a_simulation_has_the_metrics_of_sites_on_a_network(lab: Federation, tmp_path: Path) -> None:
    config = {"num-server-rounds": 2, "min-sites": len(SITES)}
    simulated = lab.simulate(EXAMPLE, config=config)
    network = LoopbackFederation(tmp_path)
    try:
        network.start_superlink()
        for site in SITES:
            network.register(site)
        for site in SITES:
            network.start_supernode(site, f'data-path="{lab.folder.data / site}"')
        network.wait_online()
        deployed = submit_and_follow(
            network.connection,
            engine.ThisMachine(),
            EXAMPLE,
            config,
            deployed=network.deployed,
            into=tmp_path / "runs",
        )
    finally:
        network.stop()
    assert (simulated.exit_code, deployed.exit_code) == (0, 0), (simulated.verdict, deployed.verdict)
    for here, there in zip(simulated.record["rounds"], deployed.record["rounds"], strict=True):
        for phase in ("train", "evaluate"):
            assert here[phase]["metrics"] == pytest.approx(there[phase]["metrics"], rel=1e-6)
            assert sorted(here["sites"][phase]) == sorted(there["sites"][phase]) == SITES
            for site in SITES:
                assert here["sites"][phase][site] == pytest.approx(there["sites"][phase][site], rel=1e-6)


def test_as_many_sites_as_asked_take_the_data_in_turn(lab: Federation) -> None:
    result = lab.simulate(EXAMPLE, config={"num-server-rounds": 1}, sites=5)
    sites = result.record["rounds"][0]["sites"]["train"]
    assert sorted(sites) == [f"site-{number}" for number in range(1, 6)]
    assert sites["site-1"] == sites["site-4"] != sites["site-2"]


def test_a_site_that_fails_is_named_as_on_the_hosts(lab: Federation) -> None:
    broken = lab.folder.data / "hospital-c" / "breast_cancer.csv"
    text = broken.read_text()
    broken.write_text("nothing\n")
    try:
        result = lab.simulate(EXAMPLE, config={"num-server-rounds": 1})
    finally:
        broken.write_text(text)
    assert (result.verdict.status, result.exit_code) == ("incomplete", 1)
    assert "hospital-c failed with" in result.verdict.reason
    assert _left() == []


def test_a_site_whose_data_are_elsewhere_is_refused_by_name(lab: Federation, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"hospital-a does not exist.*make it"):
        lab.simulate(EXAMPLE, data=tmp_path)


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_what_ends_the_command_ends_the_simulation(lab: Federation, tmp_path: Path, ending: signal.Signals) -> None:
    words = [FLOWERBED, "simulate", str(EXAMPLE), "--federation", str(lab.folder.path), "-c", "num-server-rounds=500"]
    # Whoever runs the tests in the background has them ignore Ctrl-C; an operator's terminal does not.
    words = ["env", "--default-signal=INT", *words]
    with subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("round 1/500 train"):
                break
        folder = _folder()
        assert folder.is_dir()
        process.send_signal(ending)
        process.stderr.read()
    assert process.returncode == (-signal.SIGKILL if ending is signal.SIGKILL else 130)
    deadline = time.monotonic() + 30
    while (_left() or folder.exists()) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert _left() == []
    assert not folder.exists()


def _folder() -> Path:
    """The folder of the simulation that goes on."""
    return Path(next(iter(_processes().values()))).parent


def _left() -> list[str]:
    """The processes of simulations that this test started and that go on."""
    return list(_processes())


def _processes() -> dict[str, str]:
    """They, to the files that describe their simulations."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            environment = (entry / "environ").read_bytes()
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue
        ours = f"PYTEST_CURRENT_TEST={os.environ['PYTEST_CURRENT_TEST'].split(' ')[0]}".encode()
        described = environment.partition(b"\0FLOWERBED_SIMULATION=")[2].partition(b"\0")[0]
        if described and ours in environment:
            found[f"{entry.name} {command}"] = described.decode()
    return found
