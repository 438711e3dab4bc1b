"""Where a notebook keeps a training that is not done."""

import os
import re
from pathlib import Path


def unfinished(name: str) -> Path | None:
    """The file for the state of a training, beside the finished jobs of `companion.page.jobs`.

    name: of the training, in letters and digits, once a notebook.
    Returns a Path in a folder that `companion run` keeps until the run is whole; None where a page
    runs alone.
    """
    parts = os.environ.get("COMPANION_PARTS")
    return Path(parts) / f"{re.sub('[^a-z0-9]+', '-', name.lower())}.unfinished" if parts else None
