"""The bars that tqdm draws for a terminal, read back as numbers."""

import io
import re
from collections.abc import Callable
from typing import Any

CELLS = "cells"  # label of the bar of a notebook's cells
_BAR = re.compile(
    r"(?P<label>[^\r\n]*?):? +\d+%\|[^|]*\| (?P<done>[\d.]+)/(?P<total>[\d.]+) "
    r"\[[\d:]+<(?P<left>\d+(?::\d+)+|\?)[,\]]"
)


def read(text: str) -> dict[str, Any] | None:
    """The bar that a line holds: {"label", "done", "total", "left"}, left in seconds or None.

    text: what tqdm writes for one state of a bar. Returns None where there is no bar.
    """
    found = _BAR.match(text)
    if found is None:
        return None
    left: int | None = None
    if found["left"] != "?":
        left = 0
        for part in found["left"].split(":"):
            left = 60 * left + int(part)
    return {
        "label": found["label"].strip(),
        "done": float(found["done"]),
        "total": float(found["total"]),
        "left": left,
    }


class Bars(io.TextIOBase):
    """A stream that looks like a terminal, and tells of the bars drawn on it."""

    def __init__(self, told: Callable[[dict[str, Any]], object]) -> None:
        """told: function of a bar as `read` gives it."""
        self.told, self.rest = told, ""

    def isatty(self) -> bool:
        """Bars of what lasts are drawn on terminals alone."""
        return True

    def write(self, text: str) -> int:
        """Look at what is drawn; a piece may end anywhere in a bar."""
        *whole, self.rest = re.split(r"[\r\n]", self.rest + text)
        found = [bar for piece in (*whole, self.rest) if (bar := read(piece)) is not None]
        for bar in {bar["label"]: bar for bar in found}.values():
            self.told(bar)
        self.rest = self.rest[-1000:]  # a line without an end is no bar
        return len(text)
