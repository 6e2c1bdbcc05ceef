"""The README's tables are those that the tests made last."""

import pytest

from tests import readme
from tests.bench import limits, record
from tests.faults import results as faults
from tests.upgrade import matrix

TABLES = {
    record.NAME: lambda: record.table(record.read()),
    limits.NAME: lambda: limits.table(record.read()),
    faults.NAME: faults.short,
    matrix.NAME: matrix.table,
}


@pytest.mark.parametrize("name", TABLES)
def test_the_readme_has_the_table_as_it_was_made(name: str) -> None:
    text = readme.README.read_text()
    assert text == readme.with_table(text, name, TABLES[name]())


def test_the_page_of_all_figures_is_that_of_the_benchmarks_files() -> None:
    assert record.PAGE.read_text() == record.page(record.read())
