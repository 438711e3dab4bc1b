"""Long tables move into folds; short ones stay."""

import base64
import csv
import re

import nbformat.v4
import pytest

from companion import long_tables, markdown

HEAD = ["name", "a | b"]


def cell(*tables, name="ends"):
    made = nbformat.v4.new_code_cell("show()", metadata={"name": name})
    made.outputs = [
        nbformat.v4.new_output("display_data", {"text/markdown": "\n".join(table)})
        for table in tables
    ]
    return made


def table(rows):
    return markdown.table(HEAD, [[f"row {k}", f"{k} | {k}"] for k in range(rows)])


def test_rows_are_those_of_the_table():
    assert long_tables.rows("\n".join(table(2))) == [HEAD, ["row 0", "0 | 0"], ["row 1", "1 | 1"]]


@pytest.mark.parametrize("text", ["", "words", "| no table |", "before\n| a |\n| --- |\n| 1 |"])
def test_what_is_no_table_alone_has_no_rows(text):
    assert long_tables.rows(text) == []


def told(fold, name):
    """The rows of the CSV in a fold."""
    data = re.search(rf'download="{name}" href="data:text/csv;base64,([^"]+)"', fold.source)[1]
    return list(csv.reader(base64.b64decode(data).decode().splitlines()))


@pytest.mark.parametrize("rows", [0, long_tables.MOST, long_tables.MOST + 1])
def test_a_long_table_is_folded_with_its_rows_as_csv(rows):
    given = cell(table(rows))
    found = long_tables.folded([given], "page")
    if rows <= long_tables.MOST:
        assert found == [given] and given.outputs
        return
    code, fold = found
    assert code.outputs == []
    assert f"Table: ends, {rows} rows" in fold.source and table(rows)[-1] in fold.source
    assert told(fold, "page-ends.csv") == [HEAD, *([f"row {k}", f"{k} | {k}"] for k in range(rows))]


def test_two_long_tables_of_a_cell_have_names_of_their_own():
    found = long_tables.folded([cell(table(20), table(2), table(30))], "page")
    assert len(found[0].outputs) == 1
    assert len(told(found[1], "page-ends-1.csv")) == 21
    assert len(told(found[2], "page-ends-2.csv")) == 31
