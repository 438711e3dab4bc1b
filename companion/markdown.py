"""Numbers and tables as a page shows them."""

import math


def number(value):
    """Return a value as text: four significant digits, no exponent where none is needed."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and math.isinf(value):
        return "∞" if value > 0 else "−∞"
    return f"{value:.4g}" if isinstance(value, int | float) else str(value)


def table(head, rows):
    """Return the lines of a Markdown table; head and each row are sequences of cells."""

    def line(cells):
        # a line break or a bar would end the cell
        cells = (" ".join(str(cell).split()).replace("|", "\\|") for cell in cells)
        return "| " + " | ".join(cells) + " |"

    return [line(head), line(["---"] * len(head)), *map(line, rows)]
