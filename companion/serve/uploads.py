"""Images that a reader sends: looked at before anything opens them, kept as long as a run."""

import contextlib
import hashlib
import io
import re
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from companion.errors import UsageError
from companion.files import write_aside

UPLOADS = ".companion/uploads"
MOST_BYTES, MOST_PIXELS = 20 * 2**20, 24_000_000  # of a file, of an image
FORMATS = {"PNG": "png", "JPEG": "jpg", "TIFF": "tif", "BMP": "bmp", "WEBP": "webp"}
_UNUSED = 3600  # seconds that an image may wait for a run


def keep(root: Path, name: str, data: bytes) -> dict[str, Any]:
    """Keep an image under the hash of its content.

    root: project folder; name: of the reader's file, for messages; data: bytes.
    Returns {"path", from the project's folder, "height", "width"}. Raises UsageError for what is
    too large, no image, or none that `otlib.assets.images.read` takes.
    """
    from PIL import Image, UnidentifiedImageError  # late: as is torch, below

    name = called(name)
    if len(data) > MOST_BYTES:
        raise UsageError(f"{name}: more than {MOST_BYTES // 2**20} MiB")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            # the head alone; Pillow would hand other formats to other programs
            with Image.open(io.BytesIO(data), formats=list(FORMATS)) as image:
                (width, height), kind = image.size, str(image.format)
    except UnidentifiedImageError as error:
        raise UsageError(f"{name}: no image; allowed are {', '.join(FORMATS)}") from error
    except Image.DecompressionBombError as error:
        raise UsageError(_large(name)) from error
    except Exception as error:  # of any kind, by the format and by where a file is damaged
        raise UsageError(f"{name}: a damaged image") from error
    if width * height > MOST_PIXELS:
        raise UsageError(f"{_large(name)}, got {width} x {height}")
    place = f"{UPLOADS}/{hashlib.sha256(data).hexdigest()[:16]}.{FORMATS.get(kind, 'png')}"
    write_aside(root / place, data)
    (root / place).touch()  # sent again it is as young as a new one
    from otlib.assets import images

    try:
        images.read(root / place)
    except ValueError as error:
        remove(root, place)
        raise UsageError(str(error).replace(str(root / place), name)) from error
    return {"path": place, "height": height, "width": width}


def called(name: str) -> str:
    """A reader's file in a message: the end of its name, as letters that do no harm."""
    return re.sub(r"[^\w. -]", "_", name)[-80:] or "file"


def remove(root: Path, place: str) -> None:
    """Delete an image of `keep`; place: its path from the project's folder, any other is left."""
    if re.fullmatch(rf"{re.escape(UPLOADS)}/[0-9a-f]{{16}}\.[a-z]+", place):
        (root / place).unlink(missing_ok=True)


def tidy(root: Path, used: Callable[[str], bool]) -> None:
    """Delete the images that no run uses and that have waited long for one.

    used: function of a path from the project's folder.
    """
    for path in (root / UPLOADS).glob("*"):
        place = f"{UPLOADS}/{path.name}"
        with contextlib.suppress(FileNotFoundError):  # another may tidy, too
            if not used(place) and path.stat().st_mtime < time.time() - _UNUSED:
                path.unlink()


def _large(name):
    return f"{name}: more than {MOST_PIXELS // 10**6} million pixels"
