"""Numbers of kept runs in the words of a page: {kept}`LABEL:RECORD:FORMAT`; an extension of Sphinx
for the pages that are no notebooks."""

import re
from pathlib import Path
from typing import Any

from companion.errors import UsageError, known
from companion.verdicts import kept_runs

_KEPT = re.compile(r"\{kept\}`([^:`]+):(\w+)(?::([^`]*))?`")


def setup(app: Any) -> dict[str, bool]:
    """Connect to Sphinx."""
    app.connect("source-read", _read)
    return {"parallel_read_safe": True}


def quoted(text: str, name: str, kept: list[dict[str, Any]]) -> str:
    """A page's text with the numbers of its kept runs in their places.

    text: Markdown. name: of the page, "" for one that is no notebook. kept: runs of
        `verdicts.kept_runs`. As `{glue:text}` shows a record of the run that the page is made from,
        {kept}`LABEL:RECORD:FORMAT` shows one of the run in book/archive/NAME-LABEL.json; FORMAT is
        of Python. On a page that is no notebook NAME-LABEL stands for LABEL.
    Raises UsageError, with the nearest name, for a label or a record that is not there, and for a
    format that the value does not take.
    """
    runs = {
        ("" if name else f"{run['notebook']}-") + run["kept"].partition(",")[0]: run
        for run in kept
        if name in ("", run["notebook"])
    }

    def value(found):
        label, record, form = found.groups(default="")
        records = runs[known("archived run", label, runs)]["records"]
        told = records[known("record", record, records)]["value"]
        try:
            return format(told, form)
        except ValueError as error:
            where = f"notebook {name!r}: " if name else ""
            raise UsageError(f"{where}{found[0]}: {error}") from error

    return _KEPT.sub(value, text)


def _read(app, page, source):
    # those of notebooks were put into their places before they were written
    if "{kept}" in source[0] and not page.startswith("sections/"):
        source[0] = quoted(source[0], "", kept_runs(Path(app.srcdir).parent))
