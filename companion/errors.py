"""What is told to the user in one line."""

import difflib
from collections.abc import Collection
from typing import Any


class UsageError(Exception):
    """What was asked for cannot be done as asked; the message is one line for the user."""


def known(kind: str, name: str, allowed: Collection[str]) -> str:
    """Return name if it is among the allowed ones; else raise UsageError with the nearest."""
    if name in allowed:
        return name
    hint = f"{near} " if (near := nearest(name, allowed)) else ""
    raise UsageError(f"unknown {kind} {name!r}: {hint}(known: {', '.join(allowed) or 'none'})")


def first_mistake(error: Any) -> tuple[list[str], str]:
    """Where the first mistake that pydantic found lies, outermost key first, and what it is.

    error: its ValidationError.
    """
    first = error.errors()[0]
    return [str(part) for part in first["loc"]], first["msg"].removeprefix("Value error, ")


def nearest(name: str, allowed: Collection[str]) -> str:
    """The allowed name that is most like this one, as a question; "" where none is."""
    near = difflib.get_close_matches(name, allowed, n=1, cutoff=0.4)
    return f"did you mean {near[0]!r}?" if near else ""
