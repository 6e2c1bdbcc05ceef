"""Seed 001: hospitals with a configuration each, enrolled round by round; checkpoints; jobs in turn and at a time."""

import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flowerbed import release
from flowerbed.paths import REPOSITORY
from tests.e2e.conftest import SITES, Standing, make, up

ROUNDS = 3
EXAMPLE = REPOSITORY / "examples" / "pytorch_hospitals"
# PyTorch's CPU build is on no usual index; where this machine's configuration names no place for it, this one has it.
_INDEX = "https://download.pytorch.org/whl/cpu"
_TORCH = "2.13.0+cpu"
_PLACES = ("FIND_LINKS", "EXTRA_INDEX_URL")
_MACHINES = """network = "10.84.0.0/16"

sites = {
  hospital-a = { labels = { region = "north" } }
  hospital-b = { labels = { region = "north" }, node_config = { batch-size = "32", learning-rate = "0.03" } }
  hospital-c = { labels = { region = "south" }, node_config = { augment = "true" } }
}
"""


@dataclass
class Hospitals:
    """The federation, and what one does with the example on it."""

    standing: Standing

    def run(self, *words: str) -> dict[str, Any]:
        """Run the example on the hosts."""
        return self.standing.succeed("run", str(EXAMPLE), "--federation", self.standing.path, *words)

    def simulate(self, *words: str) -> dict[str, Any]:
        """Run the example in a simulation of the hosts."""
        return self.standing.succeed("simulate", str(EXAMPLE), "--federation", self.standing.path, *words)

    def files(self, run: dict[str, Any]) -> Path:
        """What the ServerApp wrote, at home."""
        return self.standing.work / run["folder"] / "files"


@pytest.fixture(scope="module")
def hospitals(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hospitals]:
    """The federation, standing; taken down afterwards, also after a failure."""
    made = make(tmp_path_factory.mktemp("pytorch"), "pytorch", SITES, "10.84.0.0/16")
    (made.federation.path / "lab.tfvars").write_text(_MACHINES)
    configured = any(os.environ.get(f"{tool}_{name}") for tool in ("PIP", "UV") for name in _PLACES)
    index = "" if configured else f"--extra-index-url {_INDEX}\n"
    made.federation.lock.unlink()
    made.federation.lock.with_suffix(".in").write_text(f"{index}numpy\ntorch=={_TORCH}\n")
    command = [sys.executable, str(EXAMPLE / "prepare.py"), str(made.federation.data), *SITES]
    subprocess.run(command, check=True, capture_output=True)
    with up(made):
        yield Hospitals(made)


@pytest.fixture(scope="module")
def whole(hospitals: Hospitals) -> dict[str, Any]:
    """A run of all rounds over all hospitals."""
    return hospitals.run("-c", f"num-server-rounds={ROUNDS}")


@pytest.fixture(scope="module")
def simulated(hospitals: Hospitals) -> dict[str, Any]:
    """The same run in a simulation."""
    return hospitals.simulate("-c", f"num-server-rounds={ROUNDS}")


@pytest.fixture(scope="module")
def northern(hospitals: Hospitals) -> dict[str, Any]:
    """A round over the hospitals in the north."""
    return hospitals.run("--profile", "north-only", "-c", "num-server-rounds=1")


def test_the_release_has_no_package_for_a_gpu(hospitals: Hospitals) -> None:
    packages = release.of(hospitals.standing.federation).packages
    assert packages["torch"].endswith("+cpu")
    assert [name for name in packages if name.startswith(("nvidia", "cuda", "triton"))] == []


def test_hospitals_learn_to_read_digits(whole: dict[str, Any]) -> None:
    assert whole["status"] == "completed"
    accuracies = [entry["evaluate"]["metrics"]["accuracy"] for entry in whole["rounds"]]
    assert accuracies[-1] > 0.95 > accuracies[0]


@pytest.mark.parametrize(("host", "kind"), [("hospital-a", "clientapp"), ("coordinator", "serverapp")])
def test_pytorch_is_imported_once_and_apps_are_forked_from_that(
    hospitals: Hospitals, whole: dict[str, Any], host: str, kind: str
) -> None:
    assert whole["status"] == "completed"
    unit = f"flower-{kind}-warm"
    machine = hospitals.standing.host(host)
    pid = machine.check_output(f"systemctl show --property=MainPID --value {unit}")
    assert "libtorch_cpu" in machine.check_output(f"cat /proc/{pid}/maps")
    assert "not imported beforehand" not in machine.check_output(f"journalctl --unit={unit}")
    if kind == "clientapp":  # of six messages the first ones came while it imported
        forks = machine.check_output(
            f"journalctl --unit={unit} --output=json --output-fields=_PID | grep -o '_PID[^,}}]*'"
        )
        assert len(set(forks.splitlines()) - {f'_PID":"{pid}"'}) >= 3


def test_the_simulation_has_the_metrics_of_the_hosts_at_every_round(
    whole: dict[str, Any], simulated: dict[str, Any]
) -> None:
    assert (simulated["simulation"], whole["simulation"]) == (True, False)
    assert simulated["release"] == whole["release"]
    assert [entry["round"] for entry in simulated["rounds"]] == [1, 2, 3]
    for here, there in zip(simulated["rounds"], whole["rounds"], strict=True):
        for phase in ("train", "evaluate"):
            assert here[phase]["metrics"] == pytest.approx(there[phase]["metrics"], rel=1e-6)


def test_a_hospital_without_the_label_gets_no_round(hospitals: Hospitals, northern: dict[str, Any]) -> None:
    assert northern["status"] == "completed"
    assert [entry["train"]["results"] for entry in northern["rounds"]] == [2]
    sent = _sent(hospitals, northern)
    assert {kind: sorted(sent[kind]) for kind in sent} == {
        "query": ["hospital-a", "hospital-b", "hospital-c"],
        "train": ["hospital-a", "hospital-b"],
        "evaluate": ["hospital-a", "hospital-b"],
    }


def test_who_was_enrolled_and_why_others_were_not_is_written_down(
    hospitals: Hospitals, northern: dict[str, Any]
) -> None:
    notes = json.loads((hospitals.files(northern) / "enrolment.json").read_text())["sites"]
    assert {note["site"]: note["why_not"] for note in notes} == {
        "hospital-a": "",
        "hospital-b": "",
        "hospital-c": "label region is south, not north",
    }
    log = (hospitals.standing.work / northern["folder"] / "log.txt").read_text()
    assert "Client hospital-c excluded from round 1: label region is south, not north" in log
    assert "Client hospital-a enrolled in round 1" in log


def test_a_hospital_with_too_few_images_or_without_its_data_gets_no_round(hospitals: Hospitals) -> None:
    broken = hospitals.standing.federation.data / "hospital-c" / "digits.npz"
    whole_file = broken.read_bytes()
    broken.write_bytes(whole_file[:100])
    try:
        run = hospitals.run("-c", "num-server-rounds=1", "-c", "min-examples=200", "-c", "min-sites=1")
    finally:
        broken.write_bytes(whole_file)
    notes = json.loads((hospitals.files(run) / "enrolment.json").read_text())["sites"]
    why = {note["site"]: note["why_not"] for note in notes}
    assert why["hospital-b"] == ""
    assert why["hospital-a"] == "183 examples, fewer than 200"
    assert "digits.npz is not what prepare.py writes" in why["hospital-c"]
    assert sorted(_sent(hospitals, run)["train"]) == ["hospital-b"]


def test_every_round_leaves_a_checkpoint_and_the_best_is_the_best(hospitals: Hospitals, whole: dict[str, Any]) -> None:
    folder = hospitals.files(whole) / "checkpoints"
    accuracies = {entry["round"]: entry["evaluate"]["metrics"]["accuracy"] for entry in whole["rounds"]}
    best = max(accuracies, key=lambda number: accuracies[number])
    assert sorted(file.name for file in folder.iterdir()) == ["best.pt", *(f"round-{one}.pt" for one in accuracies)]
    assert _sha256(folder / "best.pt") == _sha256(folder / f"round-{best}.pt")


def test_a_run_goes_on_from_a_checkpoint_as_if_it_had_not_stopped(hospitals: Hospitals, whole: dict[str, Any]) -> None:
    resumed = hospitals.run(
        "-c", f"num-server-rounds={ROUNDS}", "-c", f"resume-from={whole['run_id']}/round-{ROUNDS - 1}.pt"
    )
    assert [entry["round"] for entry in resumed["rounds"]] == [ROUNDS]
    for phase in ("train", "evaluate"):
        expected = whole["rounds"][-1][phase]["metrics"]
        assert resumed["rounds"][0][phase]["metrics"] == pytest.approx(expected, rel=1e-6)


def test_a_run_that_has_nothing_left_to_do_says_so(hospitals: Hospitals, whole: dict[str, Any]) -> None:
    config = ["-c", f"num-server-rounds={ROUNDS}", "-c", f"resume-from={whole['run_id']}", "--json"]
    done = hospitals.standing.flowerbed("run", str(EXAMPLE), "--federation", hospitals.standing.path, *config)
    assert done.returncode == 1
    assert "the checkpoint has done 3: ask for more" in json.loads(done.stdout)["reason"]


def _sent(hospitals: Hospitals, run: dict[str, Any]) -> dict[str, list[str]]:
    """Which hospitals got messages of which type, by what the coordinator noted as they left."""
    notes = f"/var/lib/flower/results/.flowerbed/{run['run_id']}/replies.jsonl"
    lines = hospitals.standing.host("coordinator").file(notes).content_string.splitlines()
    names = {node: site for site, node in run["sites"].items()}
    found: dict[str, list[str]] = {}
    for entry in map(json.loads, lines):
        if entry["event"] == "sent":
            found.setdefault(entry["type"], []).append(names[entry["node"]])
    return found


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def test_jobs_run_in_turn_and_at_a_time_each_with_its_own_results(hospitals: Hospitals) -> None:
    command = [hospitals.standing.program, "run", str(EXAMPLE), "--federation", hospitals.standing.path, "--json"]
    both = [
        subprocess.Popen(
            [*command, "--profile", profile], cwd=hospitals.standing.work, stdout=subprocess.PIPE, text=True
        )
        for profile in ("quick", "north-only")
    ]
    first, second = (json.loads(one.communicate()[0]) for one in both)
    third = hospitals.run("--profile", "quick")
    assert {one["status"] for one in (first, second, third)} == {"completed"}
    assert first["submitted"] < second["finished"] and second["submitted"] < first["finished"], "at the same time"
    assert third["submitted"] >= max(first["finished"], second["finished"]), "in turn"
    assert len({one["folder"] for one in (first, second, third)}) == 3
    assert [len(one["rounds"]) for one in (first, second)] == [1, 3]
    assert (first["rounds"][0]["train"]["sampled"], second["rounds"][0]["train"]["sampled"]) == (3, 2)
    # The same job has the same result, whatever ran beside it.
    assert first["rounds"][0]["evaluate"]["metrics"] == pytest.approx(third["rounds"][0]["evaluate"]["metrics"])


def test_logs_and_checkpoints_come_home_in_a_folder_of_date_and_time(
    hospitals: Hospitals, whole: dict[str, Any]
) -> None:
    assert re.fullmatch(r"runs/\d{4}-\d\d-\d\d/\d\d-\d\d-\d\d(-\d+)?", whole["folder"])
    log = (hospitals.standing.work / whole["folder"] / "log.txt").read_text()
    assert "hospital-a" in log and "enrolled" in log
