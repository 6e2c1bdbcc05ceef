"""Puts tables that tests made into the README, each between two marks."""

import re

from flowerbed.paths import REPOSITORY

README = REPOSITORY / "README.md"


def with_table(text: str, name: str, table: str) -> str:
    """The README's text with this table between the marks of that name."""
    begin, end = f"<!-- {name}: made by a test -->", f"<!-- end of {name} -->"
    between = re.compile(f"{re.escape(begin)}.*{re.escape(end)}", re.DOTALL)
    assert between.search(text), f"the README has no place for {name}"
    return between.sub(lambda _: f"{begin}\n\n{table}\n\n{end}", text)


def put(name: str, table: str) -> None:
    """Write the README anew with this table."""
    README.write_text(with_table(README.read_text(), name, table))
