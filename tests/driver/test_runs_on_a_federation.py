"""What a run on a real federation promises: the truth about its end, and its results at home."""

import json
from pathlib import Path

from flowerbed.errors import WorkFailed
from flowerbed.runs import submit_and_follow
from flowerbed.runs.drive import Event
from flowerbed.runs.transfer import receive, send_command
from loopback import LoopbackFederation


class LocalFiles:
    """The coordinator's files where the coordinator is this machine."""

    def run(self, command: list[str]) -> str:
        raise WorkFailed(f"{command[0]} is not needed")

    def fetch(self, path: str, into: Path) -> None:
        receive(send_command(path), path, into)


def test_a_run_follows_its_overrides_and_comes_home(standing: LoopbackFederation, apps: Path, tmp_path: Path) -> None:
    events: list[Event] = []
    result = submit_and_follow(
        standing.connection,
        LocalFiles(),
        apps / "tiny",
        {"learning-rate": 0.25},
        deployed=standing.deployed,
        expected_sites=2,
        on_event=events.append,
        into=tmp_path,
    )
    assert (result.verdict.status, result.exit_code) == ("completed", 0), result.verdict
    assert result.folder is not None
    print(json.dumps(result.to_json(), indent=1))
    print((result.folder / "metrics.csv").read_text())
    print(sorted(str(f.relative_to(result.folder)) for f in result.folder.rglob("*")))
