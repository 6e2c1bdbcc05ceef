"""Lab hosts: real machines to their users, systemd-nspawn containers to this one."""

import shutil
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from pathlib import Path

from flowerbed.errors import UsageError
from flowerbed.lab import disk, image, network, power, spec
from flowerbed.lab.spec import HostSpec, Places
from flowerbed.lab.system import DISKS, RUN, locked, preflight, require_root


@dataclass(frozen=True)
class HostState:
    """A host as it is now; `cut` is what it is cut off from: "", `peers` or `all`."""

    federation: str
    name: str
    address: str
    alive: bool
    cut: str


def create(wanted: HostSpec) -> None:
    """Make a host and wait until its SSH server answers; a living host of the same spec is left as it is.

    A host that died is made afresh. If the host cannot be started, nothing of it is left.

    Raises:
        UsageError: the spec is wrong, its address or network is taken, or a living host of that name differs.
        EnvironmentLacks: this machine cannot carry lab hosts.
        WorkFailed: the host did not start; the message holds its console's last line.
    """
    preflight()
    federation, name = wanted.federation, wanted.name
    spec.check(wanted)
    base = image.ensure(wanted.suite)
    places = Places(federation, name)
    with _host_lock(places):
        if power.is_on(places):
            if spec.read(federation, name) != wanted:
                raise UsageError(
                    f"host {name} of federation {federation} exists already and differs: "
                    f"python -m flowerbed.lab destroy --federation {federation} --name {name}"
                )
            disk.publish_host_key(wanted)
            return
        _destroy(places)
        try:
            with _federation_lock(federation):
                spec.check(wanted)  # once more: another host may have taken the address in the meantime
                network.ensure(federation, wanted.cidr)
                spec.write(wanted, base)
            if wanted.data and wanted.make_data:
                Path(wanted.data).mkdir(parents=True, exist_ok=True)
            disk.prepare(wanted)
            disk.publish_host_key(wanted)
            power.on(wanted, base)
        except BaseException:
            _destroy(places)
            raise


def destroy(federation: str, name: str) -> None:
    """Take a host's power and remove it, and the network with the last one. An unknown host is no error."""
    preflight()
    places = Places(federation, name)
    with _host_lock(places):
        _destroy(places)


def destroy_all(federation: str) -> None:
    """Destroy every host of a federation, and its network."""
    preflight()
    for name in spec.names(federation):
        destroy(federation, name)
    with _federation_lock(federation):
        _remove_network_without_hosts(federation)


def stop(federation: str, name: str) -> None:
    """Shut a host down in order; its disk stays. A host that is off already is no error."""
    preflight()
    places = Places(federation, name)
    with _host_lock(places):
        spec.known(federation, name)
        power.off(places, orderly=True)


def kill(federation: str, name: str) -> None:
    """Cut a host's power: every process ends at once; its disk stays as it is."""
    preflight()
    places = Places(federation, name)
    with _host_lock(places):
        spec.known(federation, name)
        power.off(places, orderly=False)


def start(federation: str, name: str) -> None:
    """Power a host on again, with its disk as it was; a host that is on is left as it is.

    Raises:
        UsageError: there is no such host.
        WorkFailed: the host did not start.
    """
    preflight()
    places = Places(federation, name)
    with _host_lock(places):
        known = spec.known(federation, name)
        if power.is_on(places):
            return
        power.off(places, orderly=False)
        with _federation_lock(federation):
            network.ensure(federation, known.cidr)
        power.on(known, spec.image_of(federation, name))


def cut(federation: str, name: str, *, everything: bool = False) -> None:
    """Cut a host off from its peers until `restore`, even over a restart.

    Args:
        federation: the federation's name.
        name: the host's name.
        everything: cut SSH from this machine too.
    """
    preflight()
    spec.known(federation, name)
    with _federation_lock(federation):
        network.cut(federation, Places(federation, name).interface, everything=everything)


def restore(federation: str, name: str) -> None:
    """Undo `cut`."""
    preflight()
    spec.known(federation, name)
    with _federation_lock(federation):
        network.restore(federation, Places(federation, name).interface)


def hosts(federation: str | None = None) -> list[HostState]:
    """Return the hosts of a federation, or of all, sorted by federation and name."""
    require_root()
    found = []
    for one in [federation] if federation else sorted(path.name for path in DISKS.glob("*")):
        known = [known for name in spec.names(one) if (known := spec.read(one, name))]
        cuts = network.cuts(one) if known else {}
        for host in known:
            places = Places(one, host.name)
            state = HostState(one, host.name, host.address, power.is_on(places), cuts.get(places.interface, ""))
            found.append(state)
    return found


def _host_lock(places: Places) -> AbstractContextManager[None]:
    return locked(RUN / f"{places.federation}.{places.name}.lock")


def _federation_lock(federation: str) -> AbstractContextManager[None]:
    return locked(RUN / f"{federation}.lock")


def _destroy(places: Places) -> None:
    known = spec.read(places.federation, places.name)
    power.off(places, orderly=False)  # nothing of the host is kept that an orderly end would save
    if known is not None:
        with suppress(OSError):  # its folder may be gone
            known.published_key.unlink()
        if known.data and known.make_data:
            with suppress(OSError):  # it holds data, which is not the lab's to remove
                Path(known.data).rmdir()
    with _federation_lock(places.federation):
        if network.exists(places.federation):
            network.restore(places.federation, places.interface)
        shutil.rmtree(places.disk, ignore_errors=True)
        _remove_network_without_hosts(places.federation)


def _remove_network_without_hosts(federation: str) -> None:
    if spec.names(federation):
        return
    network.remove(federation)
    shutil.rmtree(RUN / federation, ignore_errors=True)
    shutil.rmtree(DISKS / federation, ignore_errors=True)
    with suppress(OSError):  # other federations stand
        DISKS.rmdir()
        shutil.rmtree(RUN / "starting", ignore_errors=True)
