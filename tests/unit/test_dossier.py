"""The officer's page names only proofs that exist."""

import ast

from flowerbed import dossier
from flowerbed.paths import REPOSITORY


def test_every_test_that_the_page_names_is_there() -> None:
    for stop in dossier.STOPS:
        file, _, name = stop.test.partition("::")
        tree = ast.parse((REPOSITORY / file).read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, stop
