"""The federations on which the project's seed documents are walked through, each test named after its document."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import SITES, Standing, make, up

APPS = Path(__file__).parents[1] / "apps"
ASK = ("--server-code", str(APPS / "ask" / "server.py"), "--client-code", str(APPS / "ask" / "client.py"))
"""The words that run an app of two files."""


@pytest.fixture(scope="session")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """A federation of three hospitals, each with its share of the data in its node config."""
    made = make(tmp_path_factory.mktemp("seeds"), "seeds", SITES, "10.86.0.0/16")
    entries = "\n".join(
        f'  {site} = {{ node_config = {{ partition-id = "{number}", num-partitions = "{len(SITES)}" }} }}'
        for number, site in enumerate(SITES)
    )
    platform = made.federation.path / "lab.tfvars"
    platform.write_text(f'network = "{made.network}"\n\nsites = {{\n{entries}\n}}\n')
    with up(made):
        yield made
