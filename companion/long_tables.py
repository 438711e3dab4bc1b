"""The long tables of a page: each in a fold of its own, its rows as CSV beside it."""

import base64
import re
from typing import Any

from companion.page.as_csv import as_csv

MOST = 12  # rows that stand open
_BAR = re.compile(r"(?<!\\)\|")  # between two cells: one in a cell is escaped


def folded(cells: list[Any], name: str) -> list[Any]:
    """The cells of a page, long tables moved out of the outputs of their cells into folds.

    cells: of the executed notebook; name: of the page. Returns a new list, with a Markdown cell
    behind each such cell. The CSV is in the page: that of another run of it has other numbers.
    """
    import nbformat

    found = []
    for cell in cells:
        found.append(cell)
        if cell.cell_type != "code":
            continue
        texts = [output.get("data", {}).get("text/markdown", "") for output in cell.outputs]
        tables = [rows(text) for text in texts]
        long = [place for place, table in enumerate(tables) if len(table) > MOST + 1]
        cell.outputs = [out for place, out in enumerate(cell.outputs) if place not in long]
        for number, place in enumerate(long, 1):
            title = cell.metadata.get("name", "table") + f"-{number}" * (len(long) > 1)
            table = tables[place]
            data = base64.b64encode(as_csv(table).encode()).decode()
            file = f'download="{name}-{title}.csv" href="data:text/csv;base64,{data}"'
            lines = [
                f"::::{{admonition}} Table: {title.replace('-', ' ')}, {len(table) - 1} rows",
                ":class: dropdown note",
                "",
                texts[place],
                "",
                f"<a {file}>The same as CSV</a>",
                "::::",
            ]
            told = nbformat.v4.new_markdown_cell("\n".join(lines), id=f"table-{title}"[:64])
            found.append(told)
    return found


def rows(text: str) -> list[list[str]]:
    """The head and the rows of the one table that a Markdown text is, as texts; else []."""
    lines = text.strip().splitlines()
    if len(lines) < 2 or not all(line.startswith("|") for line in lines):
        return []
    cells = [[cell.strip() for cell in _BAR.split(line)[1:-1]] for line in lines]
    return [[cell.replace("\\|", "|") for cell in row] for row in [cells[0], *cells[2:]]]
