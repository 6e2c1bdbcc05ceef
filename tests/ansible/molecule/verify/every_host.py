"""What holds on every host of every scenario, after the role was applied twice."""

from typing import Any

from tests.ansible.molecule.fixtures import CONVERGE, HOSTS, Machine, play

EXPOSURE = 2.0
# What a service may write besides its own folders; all of these are its own too, and gone when it ends.
PRIVATE = {"/dev/mqueue", "/dev/shm", "/tmp", "/var/tmp"}  # noqa: S108
# Where code of the federation runs: libraries compile while they run, and set their threads' affinity.
APPS_NEED = {"choose processors", "run code from memory"}
CAP_NET_BIND_SERVICE = 1 << 10


def test_a_check_right_after_would_change_nothing() -> None:
    changed = {host: counts["changed"] for host, counts in play(CONVERGE, "--check")[-1]["hosts"].items()}
    assert changed == dict.fromkeys([host["name"] for host in HOSTS], 0)


def test_the_units_are_those_that_should_be_there_and_run(each_machine: Machine) -> None:
    listed = each_machine.host.check_output("systemctl list-units 'flower-*.service' --plain --no-legend")
    states = {line.split()[0].removesuffix(".service"): line.split()[2] for line in listed.splitlines()}
    # SuperExec starts what has the libraries imported; it does not start at boot by itself, and ends after a while.
    alone = {unit: state for unit, state in states.items() if not unit.endswith("app-warm")}
    assert alone == dict.fromkeys(each_machine.units, "active")
    assert {states[unit] for unit in states.keys() - alone.keys()} <= {"active"}


def test_each_unit_starts_at_boot(each_machine: Machine) -> None:
    enabled = {unit: each_machine.host.service(unit).is_enabled for unit in each_machine.units}
    assert enabled == dict.fromkeys(each_machine.units, True)


def test_each_unit_is_exposed_to_two_of_ten_at_most(each_machine: Machine) -> None:
    units = " ".join(f"{unit}.service" for unit in each_machine.units)
    analyze = f"for unit in {units}; do systemd-analyze security --no-pager $unit | tail -1; done"
    said = each_machine.host.check_output(analyze).splitlines()
    exposures = {line.split("for ")[1].split(".service")[0]: float(line.split(": ")[1].split()[0]) for line in said}
    assert exposures.keys() == each_machine.units.keys()
    assert {unit: exposure for unit, exposure in exposures.items() if exposure > EXPOSURE} == {}


def test_nothing_listens_where_it_should_not(each_machine: Machine) -> None:
    sockets = each_machine.host.check_output("ss --no-header --listening --numeric --tcp --udp").splitlines()
    assert sorted(line.split()[4] for line in sockets) == sorted(each_machine.listens)


def test_a_service_writes_into_its_own_folders_alone(each_machine: Machine, service: str) -> None:
    # An instance that runs apps has what it may write in memory alone.
    private = PRIVATE - {"/var/tmp"} if service in each_machine.instances else PRIVATE  # noqa: S108 - a name to compare, no file
    assert set(each_machine.inside(service)["writable"]) == private | set(has(each_machine, service)["writes"])


def test_a_service_sees_nothing_that_others_left_in_shared_folders(each_machine: Machine, service: str) -> None:
    assert each_machine.inside(service)["left by others"] == []


def test_a_service_has_no_privilege_and_gains_none(each_machine: Machine, service: str) -> None:
    inside = each_machine.inside(service)
    assert inside["user"] != "root"
    assert inside["new privileges"] == "1"
    assert inside["setuid program"] == inside["user"]
    sets = {int(value, 16) for value in inside["capabilities"].values()}
    assert sets <= ({0, CAP_NET_BIND_SERVICE} if service == "flower-gateway" else {0})
    # A port below 1024 needs a capability, which only counts in the host's own user namespace.
    assert inside["own user namespace"] is (sets == {0})


def test_outside_of_a_sandbox_the_probes_setuid_program_makes_root(each_machine: Machine) -> None:
    each_machine.inside(next(unit for unit, has in each_machine.units.items() if "writes" in has))
    assert each_machine.host.check_output("setpriv --reuid=65534 --clear-groups flowerbed-setuid-id -un") == "root"


def test_a_service_opens_no_foreign_socket_families(each_machine: Machine, service: str) -> None:
    families = each_machine.inside(service)["socket families"]
    assert {family for family, came in families.items() if came == "done"} == {"AF_INET", "AF_INET6", "AF_UNIX"}


def test_a_service_sees_no_process_of_another_user(each_machine: Machine, service: str) -> None:
    assert each_machine.inside(service)["foreign processes"] == []


def test_a_service_can_do_nothing_to_the_machine(each_machine: Machine, service: str) -> None:
    possible = {what for what, came in each_machine.inside(service)["kernel"].items() if came == "done"}
    assert possible == (APPS_NEED if has(each_machine, service).get("runs_apps") else set())


def has(machine: Machine, service: str) -> dict[str, Any]:
    """What molecule.yml says of a service."""
    return {**machine.units, **machine.instances}[service]
