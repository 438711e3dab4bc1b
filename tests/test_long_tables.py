"""Long tables move into folds; short ones stay."""

import csv

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


@pytest.mark.parametrize("rows", [0, long_tables.MOST, long_tables.MOST + 1])
def test_a_long_table_is_folded_with_its_rows_as_csv(tmp_path, rows):
    given = cell(table(rows))
    found = long_tables.folded([given], tmp_path, "page")
    if rows <= long_tables.MOST:
        assert found == [given] and given.outputs and not list(tmp_path.iterdir())
        return
    code, fold = found
    assert code.outputs == []
    assert f"Table: ends, {rows} rows" in fold.source and table(rows)[-1] in fold.source
    with (tmp_path / "page-ends.csv").open(newline="") as file:
        told = list(csv.reader(file))
    assert told == [HEAD, *([f"row {k}", f"{k} | {k}"] for k in range(rows))]


def test_two_long_tables_of_a_cell_have_names_of_their_own(tmp_path):
    found = long_tables.folded([cell(table(20), table(2), table(30))], tmp_path, "page")
    assert len(found[0].outputs) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "page-ends-1.csv",
        "page-ends-2.csv",
    ]
    assert "20 rows" in found[1].source and "30 rows" in found[2].source
