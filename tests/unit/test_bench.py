"""What the benchmarks' files say, and what a comparison of two of them tells."""

import json
from collections import Counter
from pathlib import Path

import pytest

from tests.bench import compare, limits, profile
from tests.bench.record import Figure


def result(folder: Path, name: str, ours: list[float], bare: list[float]) -> Path:
    """A benchmark's file with one figure."""
    file = folder / f"{name}.json"
    figure = Figure("a round", "s", {"ours": ours, "bare": bare}, ("ours", "bare"), 1.1)
    file.write_text(json.dumps({"benchmark": "run", "figures": [figure.to_json()]}))
    return file


def test_a_figure_has_the_spread_of_both_sides_and_of_the_ratio_of_each_turn() -> None:
    known = Figure("a round", "s", {"ours": [1.0, 4.0, 2.0], "bare": [2.0, 4.0, 8.0]}, ("ours", "bare"), 1.1).to_json()
    assert known["sides"]["ours"] == {"values": [1.0, 4.0, 2.0], "min": 1.0, "median": 2.0, "max": 4.0}
    assert known["ratio"] == {
        "of": ["ours", "bare"],
        "values": [0.5, 1.0, 0.25],
        "min": 0.25,
        "median": 0.5,
        "max": 1.0,
    }


@pytest.mark.parametrize(
    ("after", "verdict", "code"),
    [([1.3, 1.4, 1.5], "worse", 1), ([0.9, 1.4, 1.5], "noise", 0), ([0.4, 0.5, 0.6], "better", 0)],
)
def test_what_became_worse_beyond_noise_is_said_and_is_the_exit_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], after: list[float], verdict: str, code: int
) -> None:
    before = result(tmp_path, "before", [0.8, 1.0, 1.2], [1.0, 1.0, 1.0])
    now = result(tmp_path, "after", [value * 3 for value in after], [3.0, 3.0, 3.0])
    assert compare.main([str(before), str(now)]) == code
    said = capsys.readouterr().out
    assert said.startswith(f"{verdict:7}a round: 1.00 (0.80 to 1.20) -> {after[1]:.2f} ")


def test_what_cannot_be_compared_is_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other.json"
    other.write_text('{"benchmark": "up-03", "figures": []}')
    known = str(result(tmp_path, "known", [1.0], [1.0]))
    for words in ([known], [known, str(tmp_path / "missing.json")], [known, str(other)]):
        assert compare.main(words) == 2
        assert len(capsys.readouterr().err.splitlines()) == 1


def test_what_more_hospitals_take_is_reckoned_from_what_one_of_them_costs() -> None:
    figures = [Figure("10 hospitals that wait: processor a minute", "s", {"SuperLink": [3.0]})]
    for megabytes in (1, 10):
        what = f"10 hospitals, {megabytes} MB"
        # Half a second for a hospital, and 0.02 for each of its megabytes; two on the disk for each of the model's.
        figures.append(Figure(f"{what}: processor a round", "s", {"SuperLink": [10 * (0.5 + 0.02 * megabytes)]}))
        figures.append(Figure(f"{what}: the database at most", "MB", {"SuperLink": [2.0 * 10 * megabytes]}))
    document = {"benchmark": "scale-10", "figures": [figure.to_json() for figure in figures]}
    known = limits.costs([document])
    assert known is not None
    assert (known.waiting, known.database) == (0.3, 2.0)
    assert (known.round, known.megabyte) == (pytest.approx(0.5), pytest.approx(0.02))
    assert limits.plan([document])[-1] == "| 1000 | 300 s | 11.7 min | 41.7 min | 20.0 GB | 200 GB |"
    assert limits.costs([{**document, "figures": document["figures"][:2]}]) is None


def test_what_programs_took_between_two_looks_adds_up_to_what_all_took() -> None:
    before = Counter({(1, "superlink.py"): 3.0, (2, "supernode.py"): 1.0})
    after = Counter({(1, "superlink.py"): 4.0, (3, "supernode.py"): 0.5, (4, "sshd"): 0.001})
    found = profile.by_program(before, after, 2.0)
    assert found == {"superlink.py": 1.0, "supernode.py": 0.5, profile.OTHERS: 0.5}


def test_a_program_of_python_is_known_by_its_file() -> None:
    assert (
        profile.program(["/opt/flower/current/bin/python", "-P", "/opt/libexec/superlink.py", "--port", ""])
        == "superlink.py"
    )
    assert profile.program(["nginx: worker process"]) == "nginx"
