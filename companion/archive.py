"""Results of runs too large for a reader's machine, committed as small files in book/archive/."""

import hashlib
import io
import itertools
import json
import os
import re
import secrets
import shutil
from pathlib import Path
from typing import Any

from companion.errors import UsageError, known
from companion.files import plain
from companion.notebooks import names
from companion.results import PARTS, pictures, read

FIGURE_KIB = 100  # a figure kept is no larger


def archive(root: Path, path: Path, label: str) -> list[Path]:
    """Keep a finished run's parameters, records, provenance and small figures in book/archive/.

    root: project folder. path: the NAME.json of the run, from any machine, its NAME.ipynb beside
        it. label: letters, digits and hyphens: what is special about the run.
    Writes NAME-LABEL.json and NAME-LABEL/FIGURE.png, .svg or .webp, which a picture above
    FIGURE_KIB KiB becomes, halved where that is not enough. Curves above it are left out, and so
    are all figures of a run on data of the user's, which are not ours to show; the JSON says so. A
    folder among the parameters is kept by its last part: the rest says something of the machine,
    nothing of the run.
    What an earlier run of this label left is replaced at the end, when all is on the disk: an
    interruption or a full disk leaves that run whole.
    Returns the paths written. Raises UsageError on another file or label.
    """
    check_label(label)
    if path.is_dir():
        raise UsageError(f"{path} is a folder, needs the NAME.json of a finished run")
    (result,) = read(path)
    known("notebook", result["notebook"], names(root))
    kept = {part: result[part] for part in PARTS}
    kept["parameters"] = shortened(kept["parameters"])
    name = f"{kept['notebook']}-{label}"
    folder = root / "book" / "archive"
    kept["figures"] = {}
    figures: dict[Path, bytes] = {}
    assets = result["provenance"].get("assets", ())
    private = any(asset["private"] for asset in assets)
    for title, picture in pictures(result).items():
        data, suffix, halvings = _small(picture["mime"], picture["data"])
        about = {"caption": picture["caption"], "alt": picture["alt"], "halved": halvings}
        if private:
            about["left_out"] = "the data are the user's"
        elif data is None:
            about["left_out"] = f"{len(picture['data']) / 1024:.0f} KiB"
        else:
            about |= {
                "file": f"{name}/{title}.{suffix}",
                "sha256": hashlib.sha256(data).hexdigest(),
            }
            figures[folder / about["file"]] = data
        kept["figures"][title] = about
    to = folder / f"{name}.json"
    text = json.dumps(plain(kept), indent=1, allow_nan=False) + "\n"
    _write(folder, {**figures, to: text.encode()})
    for left in set((folder / name).glob("*")) - figures.keys():  # of an earlier run
        left.unlink()
    if not figures and (folder / name).is_dir():
        (folder / name).rmdir()
    return [to, *figures]


def shortened(parameters: dict[str, Any]) -> dict[str, Any]:
    """Parameters of a run as the archive keeps them: of a path outside, the last part."""
    return {
        key: os.path.basename(value.rstrip("/")) if _outside(value) else value
        for key, value in parameters.items()
    }


def check_label(label: str) -> None:
    """Raise UsageError where a label is none: it becomes part of a file's name."""
    if not re.fullmatch("[a-z0-9-]+", label):
        raise UsageError(f"label {label!r}: allowed are small letters, digits and hyphens")


def _write(folder, files):
    """Write {path: bytes} aside in a folder, then rename them in this order; leave equal ones."""
    files = {
        path: data
        for path, data in files.items()
        if not path.is_file() or path.read_bytes() != data
    }
    aside = folder / f".{secrets.token_hex(4)}"
    aside.mkdir(parents=True)
    try:
        for number, data in enumerate(files.values()):
            (aside / str(number)).write_bytes(data)
        for number, path in enumerate(files):
            path.parent.mkdir(exist_ok=True)
            os.replace(aside / str(number), path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _small(mime, data):
    """A picture of at most FIGURE_KIB, the end of its file's name and how often it was halved.

    The picture is None where it cannot be so small.
    """
    limit, suffix = FIGURE_KIB * 1024, {"image/png": "png", "image/svg+xml": "svg"}[mime]
    if len(data) <= limit:
        return data, suffix, 0
    if suffix == "svg":
        return None, suffix, 0
    from PIL import Image

    with Image.open(io.BytesIO(data)) as opened:
        picture = opened.convert("RGB")
    for halvings in itertools.count():
        stream = io.BytesIO()
        picture.save(stream, "webp", quality=90, method=6)
        if stream.tell() <= limit:
            return stream.getvalue(), "webp", halvings
        picture = picture.reduce(2)


def _outside(value):
    """Whether a parameter is a path that leads out of the project."""
    return isinstance(value, str) and (os.path.isabs(value) or value.startswith(("..", "~")))
