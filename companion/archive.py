"""Results of runs too large for a reader's machine, committed as small JSON under book/archive/."""

import glob
import json
import os
import re

from companion.notebooks import UsageError, known, names, project_root
from companion.provenance import otlib_hash
from companion.run import write_aside

KEPT = ("notebook", "profile", "parameters", "records", "provenance")


def archive(root, path, label):
    """Keep a finished run's parameters, records and provenance as book/archive/NAME-LABEL.json.

    root: project folder. path: the NAME.json of the run, from any machine. label: letters, digits
        and hyphens: what is special about the run.
    Returns the path written. A folder among the parameters is kept by its last part: the rest says
    something of the machine and nothing of the run. Raises UsageError on another file or label.
    """
    if not re.fullmatch("[a-z0-9-]+", label):
        raise UsageError(f"label {label!r}: allowed are small letters, digits and hyphens")
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
        kept = {key: result[key] for key in KEPT}
    except FileNotFoundError as error:
        raise UsageError(f"{path} is missing") from error
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is not the NAME.json of a finished run") from error
    known("notebook", kept["notebook"], names(root))
    kept["parameters"] = {
        key: os.path.basename(value.rstrip("/")) if _outside(value) else value
        for key, value in kept["parameters"].items()
    }
    to = root / "book" / "archive" / f"{kept['notebook']}-{label}.json"
    write_aside(to, json.dumps(kept, indent=1, allow_nan=False) + "\n")
    return to


def archived(pattern):
    """Read the archived runs that a pattern names, from inside a notebook.

    pattern: from the project's folder, such as "book/archive/NAME-*.json".
    Returns {title: result}; the title says label, profile, device and date of the run, and whether
    otlib has changed since.
    """
    root, found = project_root(), {}
    for name in sorted(glob.glob(pattern, root_dir=root)):
        result = json.loads((root / name).read_text(encoding="utf-8"))
        facts = result["provenance"]
        label = os.path.basename(name).removesuffix(".json").partition("-")[2]
        title = f"{label}, {result['profile']}, {facts['device']}, {facts['date'][:10]}"
        same = facts["otlib"] == otlib_hash()
        found[title + ("" if same else ", otlib has changed since")] = result
    return found


def _outside(value):
    """Whether a parameter is a path that leads out of the project."""
    return isinstance(value, str) and (os.path.isabs(value) or value.startswith(("..", "~")))
