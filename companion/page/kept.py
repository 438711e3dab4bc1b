"""Runs kept in book/archive/, read from inside a notebook."""

import json
from pathlib import Path
from typing import Any

from companion.errors import UsageError
from companion.files import named, numbers, project_root
from companion.keys import changed


def files(pattern: str) -> list[Path]:
    """Find files kept in the archive, from inside a notebook.

    pattern: from the project's folder, such as "book/archive/NAME-*.json".
    Returns a sorted list of Path. Where there is no project around, they are those that the
    installed package carries.
    """
    try:
        root = project_root()
    except UsageError:
        root = Path(__file__).parents[1]  # which has book/archive/ inside, see pyproject.toml
    return named(pattern, root)


def archived(pattern: str) -> dict[str, dict]:
    """Read the archived runs that a pattern names.

    pattern: as for `files`.
    Returns {title: result}; the title tells the label, profile, device and date of the run, and
    which code of its page has changed since, as the entry `changed` of the result does. Raises
    UsageError for a file that is none.
    """
    found = {}
    for path in files(pattern):
        try:
            result = json.loads(path.read_text(encoding="utf-8"))
            if "records" in result:  # what has none is of `make bench`
                result["records"] = numbers(result["records"])
            facts = result["provenance"]
            told = [path.stem.partition("-")[2], result.get("profile")]
            told += [facts["device"], facts["date"][:10]]
            result["changed"] = since(facts)
        except (ValueError, LookupError, TypeError, AttributeError) as error:
            raise UsageError(f"{path} is no run kept, or damaged: {error!r}") from error
        if result["changed"]:
            most = ", ".join(result["changed"][:3]) + ", ..." * (len(result["changed"]) > 3)
            told.append(f"changed since: {most}")
        found[", ".join(text for text in told if text)] = result
    return found


def since(facts: dict[str, Any]) -> list[str]:
    """The files of a page's code that have changed since a run of it, sorted.

    facts: provenance of the run. Notebooks count where the project is around.
    """
    try:
        root = project_root()
    except UsageError:
        root = None
    told = facts["code"].items()
    return changed({file: was for file, was in told if root or file.endswith(".py")}, root)


def values(run: dict) -> dict[str, Any]:
    """The records of a run without units: {name: value}. run: of `archived`."""
    return {name: entry["value"] for name, entry in run["records"].items()}
