"""What a page was run with where its document has another value."""

import contextlib
import re
from typing import Any

from companion.markdown import table
from companion.notebooks import purpose
from companion.run import Plan

MOST = 4  # rows; the fold *Rerun this page* has all
_PAPER = re.compile(r"\s*\((?:paper|slides): ([^;()]+)[^()]*\)")


def departures(todo: Plan) -> str:
    """A short table of the parameters whose comment tells another value of the document.

    todo: Plan. Returns Markdown, "" where there is none.
    """
    found = []
    for name, value in todo.parameters.items():
        meaning = purpose(todo.notebook.parameters[name])
        told = _PAPER.search(meaning)
        if told and "not " not in told[1] and not _same(told[1], value):
            found.append((_PAPER.sub("", meaning) or f"`{name}`", told[1], f"`{value!r}`"))
    if not found:
        return ""
    rest = len(found) - MOST
    more = f" {rest} more {'is' if rest == 1 else 'are'} in the fold below." if rest > 0 else ""
    lines = [f"**What was run here**, where the document has another value.{more}", ""]
    return "\n".join([*lines, *table(("", "document", "here"), found[:MOST]), ""])


def _same(told: str, value: Any) -> bool:
    """Whether one of the values that a comment tells, as in `3 or 5`, is this one."""
    for text in re.split(r" or |, ", told):
        if text == str(value):
            return True
        with contextlib.suppress(TypeError, ValueError):
            if float(text) == float(value):
                return True
    return False
