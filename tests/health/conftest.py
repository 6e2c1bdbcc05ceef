"""A federation of two hospitals that is well; the second runs approved apps alone."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.conftest import Standing, make, up

SITES = ["hospital-a", "hospital-b"]


@pytest.fixture(scope="session")
def standing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Standing]:
    """The federation; taken down afterwards, also after a failure."""
    made = make(tmp_path_factory.mktemp("health"), "hea-test", SITES, "10.121.0.0/16")
    variables = made.federation.path / "host_vars"
    variables.mkdir()
    (variables / "hospital-b.yml").write_text("supernode_apps: enforce\n")
    with up(made):
        yield made


def document(standing: Standing, code: int, *words: str) -> dict[str, Any]:
    """What a command says with --json, when it ends with this exit code."""
    done = standing.flowerbed(words[0], standing.path, *words[1:], "--json")
    assert done.returncode == code, done.stdout + done.stderr
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer
