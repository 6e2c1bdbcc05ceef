"""Decides how a run ended. Flower's exit codes do not tell, nor does the run's status alone."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from flowerbed.runs.follow import Phase, Round

COMPLETED, INCOMPLETE, FAILED = "completed", "incomplete", "failed"
STOPPED, TIMED_OUT, RUNNING = "stopped", "timed-out", "running"
_APP_FAILED = "ServerApp failed with exception"
"""What Flower says of a run whose ServerApp raised; of others it says that a task expired or failed."""
_CUT_OFF = ("Failed to push object with ID '", "Failed to pull object with ID '")
"""What Flower itself raises in a ServerApp whose SuperLink went away while a message was handed over."""


@dataclass(frozen=True)
class Verdict:
    """How a run ended."""

    status: str
    """`completed`: every reply that was expected came. `incomplete`: it ended, but replies failed or are
    missing. `failed`: the ServerApp failed, or no site ever trained. `stopped`: somebody
    stopped it. `timed-out`: we did, when its time was over. `running`: it goes on without us."""
    reason: str
    """One line why."""
    exit_code: int
    """0 for `completed`, and for a run that was to be left going."""
    lost: bool = False
    """Whether Flower lost the run, and not the app: the same run, submitted again, may well succeed."""


def decide(
    status: str,
    details: str,
    rounds: Sequence[Round],
    *,
    planned: int | None = None,
    error: str | None = None,
    expected_sites: int | None = None,
    nodes: Collection[str] = (),
    timed_out: str | None = None,
    name_of: Callable[[str], str] = "node {}".format,
) -> Verdict:
    """Judge a finished run.

    `status` and `details` are the SuperLink's, `rounds`, `planned` and `error` come from the log,
    `expected_sites` is the number of sites that ought to have been online (None: any), `nodes` are the node ids of
    all sites as far as they are known, `name_of` gives a site's name for a node id, `timed_out` why we stopped the run
    (None: we did not).
    """
    if status == "finished:stopped":
        return Verdict(TIMED_OUT, timed_out, 1) if timed_out else Verdict(STOPPED, "somebody stopped it", 1)
    if status != "finished:completed":
        why = error or details or f"the SuperLink says '{status}' without a reason"
        if error is None and not details.startswith(_APP_FAILED):
            return Verdict(FAILED, f"{_lost(rounds, planned, expected_sites)}: {why}", 1, lost=True)
        if any(words in why for words in _CUT_OFF):
            return Verdict(FAILED, f"lost, its SuperLink went away: {why}", 1, lost=True)
        return Verdict(FAILED, why, 1)
    faults = _faults(rounds, planned, expected_sites, name_of, nodes)
    phases = [phase for round_ in rounds for phase in round_.phases]
    if not faults:
        return Verdict(COMPLETED, _praise(rounds, phases), 0)
    more = f"; and {len(faults) - 1} more" if len(faults) > 1 else ""
    trained = [phase for phase in phases if phase.kind == "train"] or phases
    nobody = bool(trained) and not any(phase.results for phase in trained)
    return Verdict(FAILED if nobody else INCOMPLETE, faults[0] + more, 1)


def without_files(verdict: Verdict, why: str) -> Verdict:
    """The same verdict when the ServerApp's files did not come home: nothing is complete without them."""
    status = INCOMPLETE if verdict.status == COMPLETED else verdict.status
    reason = f"{verdict.reason}; its files did not come home: {why}"
    return replace(verdict, status=status, reason=reason, exit_code=verdict.exit_code or 1)


def _lost(rounds: Sequence[Round], planned: int | None, expected_sites: int | None) -> str:
    """What Flower lost: all of it, or a ServerApp that had done its work and was not heard to end."""
    phases = [phase for round_ in rounds for phase in round_.phases]
    if planned is None or not phases or _faults(rounds, planned, expected_sites, str):
        return "lost, its ServerApp is gone"
    return f"lost at its end, after {_praise(rounds, phases)}: its ServerApp was not heard to end"


def _faults(
    rounds: Sequence[Round],
    planned: int | None,
    expected_sites: int | None,
    name_of: Callable[[str], str],
    nodes: Collection[str] = (),
) -> list[str]:
    faults = []
    for round_ in rounds:
        for phase in round_.phases:
            where = f"round {round_.number} {phase.kind}"
            if phase.failures or phase.missing:
                faults.append(f"{where}: {replies(phase)}{_why(phase, name_of)}")
            elif expected_sites is not None and phase.online is not None and phase.online < expected_sites:
                absent = _absent(phase, name_of, nodes)
                faults.append(f"{where}: {phase.online} of {expected_sites} sites were online{absent}")
    begun = max((round_.number for round_ in rounds), default=0)
    if planned is not None and begun < planned:
        faults.append(f"{begun} of {planned} rounds took place")
    return faults


def _absent(phase: Phase, name_of: Callable[[str], str], nodes: Collection[str]) -> str:
    """Name the sites that were not online; where fewer were asked than were online, nobody knows."""
    if len(phase.asked) != phase.online:
        return ""
    names = sorted({name_of(node) for node in nodes} - {name_of(node) for node in phase.asked})
    return f" ({', '.join(names)} {'was' if len(names) == 1 else 'were'} not)" if names else ""


def replies(phase: Phase) -> str:
    """Say how many replies came, of how many."""
    expected = phase.sampled
    if expected is None and phase.results is not None:
        expected = phase.results + (phase.failures or 0)
    return f"{phase.results or 0} of {expected if expected is not None else '?'} replies"


def _why(phase: Phase, name_of: Callable[[str], str]) -> str:
    # What a site refused comes first: nothing that failed elsewhere mends it.
    errors = sorted(phase.errors, key=lambda error: not error.refused)
    why = [error.told(name_of(error.node_id)) for error in errors]
    if phase.missing:
        silent = ", ".join(map(name_of, phase.silent)) if len(phase.silent) == phase.missing else str(phase.missing)
        why.append(f"{silent} did not reply in time")
    return f" ({'; '.join(why)})" if why else ""


def _praise(rounds: Sequence[Round], phases: Sequence[Phase]) -> str:
    if not phases:
        return "finished; the app logs no rounds, so replies were not counted"
    count = len([round_ for round_ in rounds if round_.phases])
    total = sum(phase.results or 0 for phase in phases)
    return f"{count} round{'s' if count != 1 else ''}, all {total} replies"
