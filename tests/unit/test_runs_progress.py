"""What people see of a run: a line per phase where it is written to a file, a line per round in a terminal."""

import io
from pathlib import Path

from rich.console import Console
from test_runs_follow import read

from flowerbed.runs.events import (
    FederationReached,
    LogLine,
    Reconnecting,
    RunEnded,
    RunLeft,
    RunSubmitted,
    SitesMissing,
)
from flowerbed.runs.follow import PhaseDone
from flowerbed.runs.progress import Progress
from flowerbed.runs.verdict import Verdict, decide

SITES = {"evaluate": {"hospital-b": {"accuracy": 0.75}, "hospital-a": {"accuracy": 0.5, "num-examples": 10}}}


def shown(name: str, *, terminal: bool = False, verbose: bool = False) -> str:
    follower, events = read(name)
    output = io.StringIO()
    console = Console(file=output, force_terminal=terminal, width=100, color_system=None)
    errors = [error for event in events if isinstance(event, PhaseDone) for error in event.phase.errors]
    with Progress(console, verbose=verbose) as progress:
        progress(FederationReached("lab", {"hospital-b": errors[0].node_id} if errors else {}))
        progress(RunSubmitted("4711", "tiny", "lab", ("weights.npz",)))
        progress(LogLine("a line of the app"))
        for event in events:
            progress(event)
        verdict = decide("finished:completed", "", follower.rounds, name_of=lambda _: "hospital-b")
        progress(RunEnded(verdict, Path("runs/2026-02-03/04-05-06"), tuple(follower.rounds), {2: SITES}))
    return output.getvalue()


def test_without_a_terminal_every_phase_is_a_line() -> None:
    lines = shown("success").splitlines()
    assert lines[:8] == [
        "run 4711: tiny on lab",
        "not sent, Flower packs code and settings alone: weights.npz",
        "round 0 server size 0",
        "round 1/2 train 2/2 loss 0.381",
        "round 1/2 evaluate 2/2 accuracy 0.631 distance 1.143",
        "round 1/2 server size 1.143",
        "round 2/2 train 2/2 loss 0.6667",
        "round 2/2 evaluate 2/2 accuracy 0.631 distance 0.8571",
    ]
    assert lines[-2:] == [
        "completed: 2 rounds, all 8 replies",
        "results: runs/2026-02-03/04-05-06 (report.html shows them)",
    ]


def test_the_end_shows_the_metrics_of_each_round_and_of_each_site() -> None:
    text = shown("success")
    rows = [line.replace("│", " ").split() for line in text.splitlines()]
    assert ["2", "0.6667", "0.631", "0.8571", "2"] in rows
    assert ["hospital-a", "0.5", "10"] in rows
    assert ["hospital-b", "0.75"] in rows


def test_in_a_terminal_a_finished_round_is_one_line() -> None:
    lines = [line.rstrip() for line in shown("success", terminal=True).splitlines()]
    assert any(
        line.endswith("round 1/2  train 2/2 loss 0.381  evaluate 2/2 accuracy 0.631 distance 1.143  server size 1.143")
        for line in lines
    )


def test_a_site_that_failed_is_named_with_its_reason() -> None:
    assert "round 1/1 train 1/2 loss 0.5 (hospital-b failed with ValueError: no column 'age'" in shown("client_error")


def test_an_error_of_the_server_app_is_shown_at_once() -> None:
    assert "the ServerApp failed: RuntimeError: the checkpoint to start from does not exist" in shown("server_error")


def test_waiting_is_shown_with_who_is_missing() -> None:
    assert "waiting for nodes: 0 online, 2 needed" in shown("waiting")
    output = io.StringIO()
    with Progress(Console(file=output)) as progress:
        progress(SitesMissing(("hospital-a", "hospital-b")))
        progress(Reconnecting("connection lost"))
    assert output.getvalue().splitlines() == [
        "not online: hospital-a, hospital-b",
        "the log broke off, reconnecting: connection lost",
    ]


def test_a_run_that_is_left_going_says_how_to_come_back() -> None:
    output = io.StringIO()
    with Progress(Console(file=output, width=40)) as progress:
        progress(RunLeft(Verdict("running", "left going; `flowerbed logs 4711 --federation lab` follows it", 130)))
    assert output.getvalue() == "running: left going; `flowerbed logs 4711 --federation lab` follows it\n"


def test_the_apps_own_log_is_shown_on_request() -> None:
    assert "a line of the app" not in shown("success")
    assert "a line of the app" in shown("success", verbose=True)


def test_markup_in_an_apps_words_stays_text() -> None:
    output = io.StringIO()
    with Progress(Console(file=output)) as progress:
        progress(RunEnded(Verdict("failed", "KeyError: [bold]", 1), Path("runs/x"), ()))
    assert "failed: KeyError: [bold]" in output.getvalue()
