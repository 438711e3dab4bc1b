"""Numbers and tables as a page shows them."""

import math
from collections.abc import Iterable, Sequence


def number(value: object) -> str:
    """Return a value as text: four significant digits, no exponent where none is needed."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)


def table(head: Sequence[object], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a Markdown table; head and each row are sequences of cells."""

    def line(cells):
        # a line break or a bar would end the cell
        cells = (" ".join(str(cell).split()).replace("|", "\\|") for cell in cells)
        return "| " + " | ".join(cells) + " |"

    return [line(head), line(["---"] * len(head)), *map(line, rows)]


def cards(head: Sequence[object], rows: Iterable[Sequence[object]]) -> list[str]:
    """Return the lines of a table of a page whose rows are cards on a phone: see `book.css`."""
    return [":::{table}", ":class: scoreboard", "", *table(head, rows), ":::"]


def duration(seconds: float) -> str:
    """Return seconds as text: seconds up to two minutes, then minutes."""
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
