"""Where a run comes from: the commit, and the cell in which its kernel tells the rest."""

import os
import subprocess
from pathlib import Path
from typing import Any

# The last cell of every run. nbval must not compare it: memory differs from run to run.
CELL = "from companion.page.facts import report\n\nreport()"
TAGS = ["provenance", "remove-cell", "nbval-skip"]


def commit(root: Path) -> dict[str, Any]:
    """Return {"commit", "dirty"} of the checkout at root; both None where root is not one."""
    try:
        top = _git(root, "rev-parse", "--show-toplevel")
        if os.path.realpath(top) != os.path.realpath(root):
            return {"commit": None, "dirty": None}
        return {
            "commit": _git(root, "rev-parse", "HEAD"),
            "dirty": bool(_git(root, "status", "--porcelain")),
        }
    except (FileNotFoundError, subprocess.CalledProcessError):  # no git, no repository, no commit
        return {"commit": None, "dirty": None}


def _git(root, *arguments):
    result = subprocess.run(
        ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
    )
    return result.stdout.strip()
