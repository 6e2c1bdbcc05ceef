"""What code that the federation pushes can do at a site, tried by a real app through the real way."""

import json
from pathlib import Path
from typing import Any

import pytest

from flowerbed.paths import REPOSITORY
from tests.e2e.conftest import SITES, Standing

PROBE = REPOSITORY / "tests" / "apps" / "probe"
UNITS = {
    "coordinator": [
        "flower-superlink",
        "flower-superexec-serverapp",
        "flower-serverapp.socket",
        "flower-serverapp-warm",  # until ten minutes after a start or a run
        "flower-serverapp-warm.socket",
        "flower-gateway",
        "flower-egress@superlink",
        "flower-egress@gateway",
        "flower-egress@firewall",
        "flower-expiry.timer",
        "flower-backup.timer",
    ],
    "hospital-a": [
        "flower-supernode",
        "flower-superexec-clientapp",
        "flower-clientapp.socket",
        "flower-clientapp-warm",  # until ten minutes after a start or a message
        "flower-clientapp-warm.socket",
        "flower-egress@supernode",
        "flower-egress@firewall",
        "flower-expiry.timer",
    ],
}
# An instance for each message, and the services that stand.
EXPOSED = [("coordinator", "flower-serverapp@any"), ("hospital-a", "flower-clientapp@any")]
EXPOSED += [(name, unit) for name, units in UNITS.items() for unit in units if "." not in unit]
# Where apps are forked; hospital-c starts each of them anew, and the coordinator does when it is tried again.
FORKED = {"hospital-a": "clientapp", "hospital-b": "clientapp", "coordinator": "serverapp"}
PLAIN = "coordinator, not forked"
PLACES = [*SITES, "coordinator", PLAIN]
READY = """
import socket, sys
with socket.socket(socket.AF_UNIX) as line:
    line.connect(f"/run/flower/{sys.argv[1]}-warm.sock")
    assert line.recv(1)
"""
PID = "systemctl show --property=MainPID --value"
# They run nobody's code, and stay for a while; 0 where there is none.
FORKED_FROM = f"{PID} flower-clientapp-warm flower-serverapp-warm"
TMP_MEGABYTES = 128  # inventories/lab
TASKS = 512
REFUSED = ("PermissionError", "OSError", "FileNotFoundError", "CalledProcessError")


@pytest.fixture(scope="module")
def attempts(standing: Standing) -> Any:
    """Run the probe app on all sites and read what each attempt came to."""
    standing.host("hospital-a").check_output("mkdir -p /srv/other-hospital && touch /srv/other-hospital/patients")
    for site in SITES:  # so that nothing but the sandbox stands in the way of writing
        standing.host(site).check_output("chmod -R a+w /srv/hospital")
    for host, kind in FORKED.items():  # it may still be importing
        standing.host(host).check_output(f"timeout 120 python3 -c '{READY}' {kind}")
    peer = standing.host("hospital-b").run("hostname -I").stdout.split()[0]
    targets = f"{standing.gateway}:443 {standing.gateway}:22 {peer}:22 192.0.2.1:443 127.0.0.1:22 [::1]:22"
    settings = [f'targets="{targets}"', 'site-targets="127.0.0.1:9094"', 'coordinator-targets="127.0.0.1:8000"']
    words = [word for setting in settings for word in ("-c", setting)]
    found = tried(standing, words)
    units = "flower-serverapp-warm.socket flower-serverapp-warm"
    standing.host("coordinator").check_output(f"systemctl stop {units}")
    found[PLAIN] = tried(standing, words)["coordinator"]
    standing.host("coordinator").check_output(f"systemctl start {units}")
    return found


def tried(standing: Standing, words: list[str]) -> Any:
    """What the attempts came to, by host."""
    done = standing.succeed("run", str(PROBE), "--federation", standing.path, *words)
    return json.loads((Path(standing.work) / done["folder"] / "files" / "attempts.json").read_text())


def host_of(standing: Standing, place: str) -> Any:
    """The host of a place."""
    return standing.host(place.partition(",")[0])


def test_apps_are_forked_where_the_host_wants_it_so_and_all_that_follows_holds_for_both(attempts: Any) -> None:
    assert {place for place in PLACES if attempts[place]["parent's number"] == "1"} == set(FORKED)


@pytest.mark.parametrize("site", SITES)
def test_an_app_reads_its_sites_data_and_cannot_change_it(attempts: Any, site: str) -> None:
    assert attempts[site]["read own data"] == "done"
    assert attempts[site]["write into own data"] == "OSError"
    assert attempts[site]["change own data"] == "OSError"


@pytest.mark.parametrize("site", SITES)
def test_an_app_cannot_read_keys_secrets_or_the_supernodes_state(attempts: Any, site: str) -> None:
    read = {what: came for what, came in attempts[site].items() if what.startswith("read ") and what != "read own data"}
    assert len(read) == 7
    assert set(read.values()) <= {"PermissionError", "FileNotFoundError"}
    assert attempts[site]["list the SuperNode's state"] == "PermissionError"


def test_an_app_cannot_see_another_sites_data_on_the_same_host(attempts: Any) -> None:
    assert attempts["hospital-a"]["list another folder of /srv"] == "FileNotFoundError"


@pytest.mark.parametrize("place", PLACES)
def test_an_app_writes_into_its_own_state_folder_alone(attempts: Any, place: str) -> None:
    assert attempts[place]["write to the state folder"] == "done"
    assert attempts[place]["write to /tmp"] == "done"
    for what in ("write outside the state folder", "write to /etc", "write to /var/lib"):
        assert attempts[place][what] in ("OSError", "PermissionError"), what


@pytest.mark.parametrize("place", PLACES)
def test_what_an_app_writes_to_tmp_nobody_else_sees(standing: Standing, attempts: Any, place: str) -> None:
    assert attempts[place]["write to /tmp"] == "done"
    assert not host_of(standing, place).file("/tmp/flowerbed-probe").exists  # noqa: S108 - nothing is made there


@pytest.mark.parametrize("place", PLACES)
def test_an_app_has_no_privilege_and_gains_none(attempts: Any, place: str) -> None:
    assert attempts[place]["capabilities"] == "0" * 16
    assert attempts[place]["new privileges"] == "1"
    assert attempts[place]["become root"] == "PermissionError"
    assert attempts[place]["make a user namespace"] in REFUSED
    for what in ("make a mount namespace", "mount", "take back a capability"):
        assert attempts[place][what] == "PermissionError", what


@pytest.mark.parametrize("place", PLACES)
def test_an_app_opens_no_foreign_socket_families(attempts: Any, place: str) -> None:
    for family in ("packet", "netlink", "raw"):
        assert attempts[place][f"open a {family} socket"] in REFUSED


@pytest.mark.parametrize("site", SITES)
def test_a_clientapp_reaches_the_supernodes_port_and_nothing_else(attempts: Any, site: str) -> None:
    assert open_for(attempts[site]) == ["connect to 127.0.0.1:9094"]


@pytest.mark.parametrize("place", ["coordinator", PLAIN])
def test_a_serverapp_reaches_no_address_and_not_the_port_of_the_control_api(attempts: Any, place: str) -> None:
    assert open_for(attempts[place]) == []


def open_for(came: dict[str, str]) -> list[str]:
    """The targets that let an app connect; each app tries seven."""
    connections = {what: came for what, came in came.items() if what.startswith("connect to ")}
    assert len(connections) == 7
    return [what for what, came in connections.items() if came == "done"]


@pytest.mark.parametrize("place", PLACES)
def test_an_app_asks_no_name_server_and_no_other_program_of_the_host(attempts: Any, place: str) -> None:
    assert attempts[place]["ask a name server"] == "PermissionError"
    assert attempts[place]["ask a name server of the network"] in REFUSED
    assert attempts[place]["talk to another program's socket"] == "none"


@pytest.mark.parametrize("site", SITES)
def test_an_app_starts_no_message_of_its_own(attempts: Any, site: str) -> None:
    assert attempts[site]["start a message of its own"] == "FileNotFoundError"
    assert attempts[site]["have a message forked"] == "FileNotFoundError"


@pytest.mark.parametrize("place", PLACES)
def test_an_app_sees_no_process_of_another_user(attempts: Any, place: str) -> None:
    assert attempts[place]["see other processes"] == "none"


@pytest.mark.parametrize("place", PLACES)
def test_an_app_traces_and_signals_no_process(attempts: Any, place: str) -> None:
    assert attempts[place]["trace a process"] == "PermissionError"
    assert attempts[place]["signal other processes"] == "none"


@pytest.mark.parametrize("place", PLACES)
def test_an_app_that_forks_without_end_is_stopped_early(attempts: Any, place: str) -> None:
    assert 0 < int(attempts[place]["fork without end"]) < TASKS


@pytest.mark.parametrize("place", PLACES)
def test_an_app_that_fills_the_disk_fills_its_own_memory_to_the_limit(attempts: Any, place: str) -> None:
    assert int(attempts[place]["fill /tmp"]) <= TMP_MEGABYTES
    assert int(attempts[place]["fill shared memory"]) <= TMP_MEGABYTES


@pytest.mark.parametrize("site", SITES)
def test_a_later_message_works_and_finds_no_file_and_no_process_of_the_one_before(attempts: Any, site: str) -> None:
    assert attempts[site]["leave a process"] == attempts[site]["leave a login script"] == "done"
    assert attempts[site]["left"] == "none"
    assert attempts[site]["processes"] == "none"


@pytest.mark.parametrize("place", PLACES)
def test_after_the_run_no_process_and_no_file_of_an_app_is_left_but_its_results(
    standing: Standing, attempts: Any, place: str
) -> None:
    assert attempts[place]["leave a process"] == "done"
    host = host_of(standing, place)
    # One that lost its turn, as on a slow host, hears of it when it asks for its message.
    host.check_output(f'while pgrep -u flower-app | grep -vxF "$({FORKED_FROM})"; do sleep 0.5; done')
    owned = host.check_output("find / -xdev -user flower-app").splitlines()
    assert [path for path in owned if not path.startswith("/var/lib/flower/results")] == []


# By a fork of the process that has the libraries imported; and by an instance, where there is no such process.
@pytest.mark.parametrize(("program", "others"), [("warm.py", 1), ("instance.py", 0)])
def test_a_message_ends_with_the_program_that_brought_it_and_its_token_is_in_no_process_list(
    standing: Standing, program: str, others: int
) -> None:
    host = standing.host("hospital-a")
    host.check_output(f"systemctl {'start' if others else 'stop'} flower-clientapp-warm.socket flower-clientapp-warm")
    # Put together there, so that the shell that runs this does not show it itself.
    seen = host.check_output(
        f"token=$(printf secr%s et); count() {{ pgrep --full --count '[/]{program}' || true; }};"
        f"until [ $(count) = {others} ]; do sleep 0.1; done;"
        "setpriv --reuid=flower-superexec --clear-groups /opt/flower/bin/flwr-clientapp"
        ' --runtime-api-address 127.0.0.1:9094 --insecure --token "$token" 2>/dev/null & relay=$!;'
        f"until [ $(count) -gt {others} ]; do sleep 0.1; done;"
        "ps -ww -eo args; kill -KILL $relay;"
        f"until [ $(count) = {others} ]; do sleep 0.1; done; echo ended"
    )
    host.check_output("systemctl start flower-clientapp-warm.socket flower-clientapp-warm")
    assert seen.endswith("ended")
    assert program in seen
    assert "secret" not in seen.split()


@pytest.mark.parametrize(("name", "kind"), [("hospital-a", "clientapp"), ("coordinator", "serverapp")])
def test_the_libraries_are_imported_before_the_first_message_comes(standing: Standing, name: str, kind: str) -> None:
    host = standing.host(name)
    host.check_output(f"systemctl stop flower-{kind}-warm && systemctl restart flower-superexec-{kind}")
    assert host.service(f"flower-{kind}-warm").is_running


def test_a_site_that_stops_its_superexec_has_nothing_left_that_runs_apps(standing: Standing) -> None:
    host = standing.host("hospital-a")
    host.check_output("systemctl stop flower-superexec-clientapp")
    try:
        assert not host.service("flower-clientapp-warm").is_running
    finally:
        host.check_output("systemctl start flower-superexec-clientapp")


def test_an_unmounted_disk_is_let_go_of_and_the_next_forks_see_what_lies_there_then(standing: Standing) -> None:
    host = standing.host("hospital-a")
    new = (
        "before=$(pid); %s;"
        "for _ in $(seq 300); do case $(pid) in 0|$before) sleep 0.1 ;; *) break ;; esac; done;"
        "ls /proc/$(pid)/root/srv/hospital"
    )
    seen = f"timeout 120 python3 -c '{READY}' clientapp; pid() {{ {PID} flower-clientapp-warm; }}; {new}"
    host.check_output("mkdir /srv/new && mount -t tmpfs none /srv/new && touch /srv/new/patients")
    try:
        assert host.check_output(seen % "mount --bind /srv/new /srv/hospital") == "patients"
        assert host.check_output(seen % "umount /srv/hospital") == "breast_cancer.csv"
        assert "/srv/new" not in host.check_output("umount /srv/new && cat /proc/[0-9]*/mountinfo")
    finally:
        host.run("grep -q ' /srv/hospital .* - tmpfs ' /proc/self/mountinfo && umount /srv/hospital")
        host.run("umount /srv/new; rmdir /srv/new")


@pytest.mark.parametrize("program", ["flwr-agentapp", "flwr-simulation", "flwr-serverapp"])
def test_superexec_starts_nothing_but_clientapps_at_a_site(standing: Standing, program: str) -> None:
    done = standing.host("hospital-a").run(f"setpriv --reuid=flower-superexec --clear-groups /opt/flower/bin/{program}")
    assert done.rc == 1
    assert done.stderr.startswith(f"{program} may not run here: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("user", ["flower-app", "nobody"])
def test_nobody_but_superexec_hands_over_messages(standing: Standing, user: str) -> None:
    done = standing.host("hospital-a").run(f"setpriv --reuid={user} --clear-groups /opt/flower/bin/flwr-clientapp")
    assert (done.rc, done.stderr) == (1, "flwr-clientapp may not run here: Permission denied\n")


def test_each_message_stands_in_the_audit_trail_with_its_run_and_its_apps_hash(
    standing: Standing, attempts: Any
) -> None:
    expected = standing.flowerbed("app", "hash", str(PROBE)).stdout.split()[0]
    for place in ("hospital-a", "coordinator"):
        said = standing.host(place).check_output(
            "journalctl --output=json FLOWERBED_APP=flowerbed/probe _UID=$(id -u flower-superexec)"
        )
        entries = [json.loads(line) for line in said.splitlines()]
        assert {entry["FLOWERBED_APP_HASH"] for entry in entries} == {expected}
        assert {entry["FLOWERBED_EVENT"] for entry in entries} == {"app.started", "app.finished"}
        assert {entry["FLOWERBED_RESULT"] for entry in entries if "FLOWERBED_RESULT" in entry} == {"done"}


@pytest.mark.parametrize(("name", "unit"), EXPOSED)
def test_every_unit_is_exposed_to_two_of_ten_at_most(standing: Standing, name: str, unit: str) -> None:
    said = standing.host(name).check_output(f"systemd-analyze security --no-pager {unit}.service | tail -1")
    exposure = float(said.split("service:")[1].split()[0])
    # One capability more, which counts in the unit's own user namespace alone.
    assert exposure <= (2.1 if unit.endswith("-warm") else 2.0)


def test_the_list_of_units_is_complete(standing: Standing) -> None:
    for name, units in UNITS.items():
        listed = standing.host(name).check_output("systemctl list-units 'flower-*' --plain --no-legend").splitlines()
        names = {line.split()[0].removesuffix(".service") for line in listed}
        # What a timer starts comes and goes.
        assert {one for one in names if f"{one}.timer" not in names} == set(units)
