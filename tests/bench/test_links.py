"""A large model over slow lines: 200 MB to ten hospitals of 20 Mbit/s each, beside what the lines allow at best."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from flowerbed import lab
from flowerbed.lab import network
from flowerbed.lab.spec import Places
from tests.bench.record import Figure, save
from tests.e2e.conftest import Standing, make, up

APP = Path(__file__).parents[1] / "apps" / "steady"
SITES = [f"hospital-{number:02}" for number in range(10)]
MEGABITS = 20
MEGABYTES = 200
OURS, FLOOR = "Flowerbed", "the lines alone"
NOTES = (
    f"One round with a model of {MEGABYTES} MB to {len(SITES)} hospitals, each behind a line of {MEGABITS} Mbit/s both "
    "ways, all on one machine with two cores. The lines alone: the model there and back at that rate."
)


@pytest.fixture(scope="module")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """A federation whose hospitals have slow lines."""
    made = make(tmp_path_factory.mktemp("links"), "links", SITES, "10.76.0.0/16")
    entries = "".join(f'  {site} = {{ node_config = {{ partition-id = "{n}" }} }}\n' for n, site in enumerate(SITES))
    (made.federation.path / "lab.tfvars").write_text(f'network = "{made.network}"\n\nsites = {{\n{entries}}}\n')
    (made.federation.path / "group_vars" / "supernode.yml").open("a").write("supernode_preload: [numpy]\n")
    lab.image.ensure()
    with up(made):
        shape = ("root", "tbf", "rate", f"{MEGABITS}mbit", "burst", "64kb", "latency", "400ms")
        for site in SITES:
            interface = Places(made.federation.name, site).interface
            network.inside(made.federation.name, ("tc", "qdisc", "replace", "dev", interface, *shape))
            made.host(site).check_output(f"tc qdisc replace dev host0 {' '.join(shape)}")
        yield made


def test_the_gateway_is_not_what_limits(standing: Standing) -> None:
    settings = {"size": MEGABYTES * 1_000_000 // 8, "seconds": 0.0, "min-nodes": len(SITES), "num-server-rounds": 1}
    words = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    coordinator = standing.host("coordinator")
    since = coordinator.check_output("date +@%s")
    answer = standing.succeed("run", str(APP), "--federation", standing.path, "-c", "reply-timeout=3000.0", *words)
    assert answer["status"] == "completed", answer["reason"]
    refused = coordinator.check_output(
        f"journalctl --sync; journalctl -t flower_gateway --since={since} --output=cat"
        ' | grep -E \'"status": ?"?(408|413|499|50[0-9])\' || true'
    )
    (seconds,) = [entry["train"]["seconds"] for entry in answer["rounds"] if "train" in entry]
    floor = 2 * MEGABYTES * 8 / MEGABITS
    what = f"{MEGABYTES} MB, {len(SITES)} hospitals, {MEGABITS} Mbit/s: a round"
    figure = Figure(what, "s", {OURS: [seconds], FLOOR: [floor]}, (OURS, FLOOR), 2)
    save("links", "./scripts/test bench -k test_links", [figure], NOTES)
    assert refused == "", "the gateway let nobody wait in vain and cut nobody off"
    assert figure.ratios()[0] <= 2
