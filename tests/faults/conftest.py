"""One federation of five hospitals, which all faults happen to."""

from collections.abc import Iterator

import pytest

from tests.e2e.conftest import Standing, make, up
from tests.faults.bed import SITES, Bed
from tests.faults.faults import GATEWAY_NAME


def prepare(made: Standing) -> None:
    """Number the hospitals, so that an app can tell them apart, and give the gateway a name."""
    entries = "\n".join(
        f'  {site} = {{ node_config = {{ partition-id = "{number}", num-partitions = "{len(SITES)}" }} }}'
        for number, site in enumerate(SITES)
    )
    platform = made.federation.path / "lab.tfvars"
    platform.write_text(f'network = "{made.network}"\n\nsites = {{\n{entries}\n}}\n')
    settings = {
        "gateway": f"gateway_dns_names: [{GATEWAY_NAME}]",
        "superlink": f"authority_permitted_dns: [localhost, {GATEWAY_NAME}]",
    }
    for group, setting in settings.items():
        with (made.federation.path / "group_vars" / f"{group}.yml").open("a") as variables:
            variables.write(f"{setting}\n")


@pytest.fixture(scope="session")
def bed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """The federation; taken down afterwards, also after a failure."""
    made = make(tmp_path_factory.mktemp("faults"), "faults", SITES, "10.151.0.0/16")
    prepare(made)
    with up(made):
        yield Bed(made)
