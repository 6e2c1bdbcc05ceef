"""The audit trail: who ran and changed what, from all hosts; it outlasts a reboot, and nobody else writes into it."""

import getpass
import json
import socket
from typing import Any

import pytest

from flowerbed import lab, runs
from tests.e2e.conftest import EXAMPLE, SITES, Standing

WHO = f"{getpass.getuser()}@{socket.gethostname()}"
LAST = SITES[-1]


def log(standing: Standing, *words: str, code: int = 0) -> dict[str, Any]:
    """What `flowerbed audit log` answers."""
    done = standing.flowerbed("audit", "log", standing.path, "--json", *words)
    assert done.returncode == code, done.stdout + done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


@pytest.fixture(scope="module")
def trail(standing: Standing) -> dict[str, Any]:
    """The whole trail, after somebody on a site, and a service of Flower's, wrote into the journal."""
    entry = f"SYSLOG_IDENTIFIER=flowerbed\\nFLOWERBED_EVENT=app.refused\\nFLOWERBED_SITE={LAST}\\nMESSAGE=by "
    for name, user in ((LAST, "root"), (LAST, "nobody"), ("coordinator", "flower-gateway")):
        write = f"printf '{entry}{user}\\n' | logger --journald"
        standing.host(name).check_output(f"setpriv --reuid={user} --clear-groups sh -c %s", write)
    return log(standing)


def test_the_trail_says_who_ran_which_app_and_how_it_ended(trail: dict[str, Any]) -> None:
    runs_: dict[str, dict[str, Any]] = {}
    for entry in trail["entries"]:
        if entry["event"].startswith("run."):
            runs_.setdefault(entry["fields"]["run"], {})[entry["event"]] = entry["fields"]
    complete = [entries for entries in runs_.values() if entries.keys() == {"run.submitted", "run.finished"}]
    assert complete
    for entries in complete:
        assert {fields["by"] for fields in entries.values()} == {WHO}
    hashes = {fields["app_hash"] for entries in complete for fields in entries.values()}
    assert runs.check(EXAMPLE).fab_hash in hashes
    assert "completed" in {entries["run.finished"]["result"] for entries in complete}


def test_the_trail_says_when_up_changed_the_federation(trail: dict[str, Any]) -> None:
    changed = [entry for entry in trail["entries"] if entry["event"] == "federation.changed"]
    assert changed[0]["fields"]["by"] == WHO
    assert set(changed[0]["fields"]["detail"].split(", ")) >= {"coordinator", LAST}


def test_entries_are_in_the_order_of_time_and_can_be_chosen(standing: Standing, trail: dict[str, Any]) -> None:
    times = [entry["time"] for entry in trail["entries"]]
    assert times == sorted(times)
    chosen = log(standing, "--since", "5m", "--event", "app.refused", "--site", LAST)
    assert [entry["message"] for entry in chosen["entries"]] == ["by root", "by flower-gateway"]


def test_entries_that_somebody_else_wrote_are_left_out_and_counted(trail: dict[str, Any]) -> None:
    assert "by nobody" not in {entry["message"] for entry in trail["entries"]}
    assert trail["forged"][LAST] == 1


def test_a_host_that_is_off_is_named_and_its_entries_are_there_again_after_a_reboot(
    standing: Standing, trail: dict[str, Any]
) -> None:
    """Although its own settings would let the journal go."""
    volatile = "printf '[Journal]\\nStorage=volatile\\n' >/etc/systemd/journald.conf.d/20-hospital.conf"
    standing.host(LAST).check_output(volatile)
    lab.stop(standing.federation.name, LAST)
    try:
        without = log(standing, code=1)
    finally:
        lab.start(standing.federation.name, LAST)
        standing.forget_hosts()
    assert list(without["unreachable"]) == [LAST]
    assert "does not answer by SSH" in without["unreachable"][LAST]
    assert without["entries"] == [entry for entry in trail["entries"] if entry["host"] != LAST]
    again = log(standing)
    assert again["entries"][: len(trail["entries"])] == trail["entries"]
