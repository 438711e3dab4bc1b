"""Numbers of kept runs in the words of a page: {kept}`LABEL:RECORD:FORMAT`."""

import re
from typing import Any

from companion.errors import UsageError, known

_KEPT = re.compile(r"\{kept\}`([^:`]+):(\w+)(?::([^`]*))?`")


def quoted(text: str, name: str, kept: list[dict[str, Any]]) -> str:
    """A page's text with the numbers of its kept runs in their places.

    text: Markdown. name: of the page. kept: runs of `verdicts.kept_runs`. As `{glue:text}` shows a
    record of the run that the page is made from, {kept}`LABEL:RECORD:FORMAT` shows one of the run
    in book/archive/NAME-LABEL.json; FORMAT is of Python.
    Raises UsageError, with the nearest name, for a label or a record that is not there, and for a
    format that the value does not take.
    """
    runs = {run["kept"].partition(",")[0]: run for run in kept if run["notebook"] == name}

    def value(found):
        label, record, form = found.groups(default="")
        records = runs[known("kept run", label, runs)]["records"]
        told = records[known("record", record, records)]["value"]
        try:
            return format(told, form)
        except ValueError as error:
            raise UsageError(f"notebook {name!r}: {found[0]}: {error}") from error

    return _KEPT.sub(value, text)
