"""A run that is stopped ends at the sites as well, which then take new work."""

import json

from tests.leaving.conftest import TINY, Known, wait_until

SLEEPS = ("-c", 'behaviour="slow"', "-c", "slow.seconds=3600.0", "-c", "min-nodes=2")


def at_work(known: Known, site: str) -> list[str]:
    """The processes of ClientApps at a site, without the one that they are forked from."""
    forked_from = "systemctl show --property=MainPID --value flower-clientapp-warm"
    shown = known.standing.host(site).check_output(f'pgrep -u flower-app | grep -vxF "$({forked_from})" || true')
    return shown.splitlines()


def sleeps(known: Known, run: str) -> bool:
    """Whether the slow hospital works on the run's message, and the other one is done with it."""
    said = known.standing.host("hospital-b").check_output("journalctl -t flowerbed -o json --no-pager")
    entries = [json.loads(line) for line in said.splitlines()]
    started = any((e.get("FLOWERBED_EVENT"), e.get("FLOWERBED_RUN")) == ("app.started", run) for e in entries)
    return started and bool(at_work(known, "hospital-b")) and not at_work(known, "hospital-a")


def test_the_clientapp_of_a_stopped_run_is_gone_within_a_minute_or_so_and_the_site_takes_new_work(known: Known) -> None:
    standing = known.standing
    for _ in range(2):  # one after another, as many as a site has room for
        started = standing.succeed("run", str(TINY), "--federation", standing.path, "--detach", *SLEEPS)
        run = started["run_id"]
        assert wait_until(lambda run=run: sleeps(known, run), 240)
        standing.succeed("stop", run, "--federation", standing.path)
        assert wait_until(lambda: not at_work(known, "hospital-b"), 120)
        told = standing.host("hospital-b").check_output(
            f"journalctl -t flowerbed FLOWERBED_RUN={run} -o json --no-pager"
        )
        results = [json.loads(line).get("FLOWERBED_RESULT") for line in told.splitlines()]
        assert "ended" in results
    done = standing.succeed("run", str(TINY), "--federation", standing.path, "-c", "min-nodes=2")
    assert done["status"] == "completed"


def test_a_superexec_that_starts_anew_leaves_no_supernode_waiting(known: Known) -> None:
    standing = known.standing
    started = standing.succeed("run", str(TINY), "--federation", standing.path, "--detach", *SLEEPS)
    run = started["run_id"]
    assert wait_until(lambda: sleeps(known, run), 240)
    standing.host("hospital-b").check_output("systemctl restart flower-superexec-clientapp")
    ended = standing.flowerbed("wait", run, "--federation", standing.path, "--json")
    assert json.loads(ended.stdout)["status"] in ("incomplete", "failed"), ended.stdout
    done = standing.succeed("run", str(TINY), "--federation", standing.path, "-c", "min-nodes=2")
    assert done["status"] == "completed"
