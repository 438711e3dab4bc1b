"""Images from files."""

import os
import sys
import warnings
from collections.abc import Container
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from otlib import _check
from otlib._ambient import plain

__all__ = ["SUFFIXES", "below", "grey", "mask", "named", "read", "resize", "size"]

#: Endings of image files, in small letters.
SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"}
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
# tags of EXIF and TIFF
_BITS, _PHOTOMETRIC, _ORIENTATION, _PLANES, _KIND = 258, 262, 274, 284, 339
# samples of 16 bits: Pillow's name of the same layout with its bytes in the other order
_SWAPPED = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}


@plain
def read(path: str | Path) -> Tensor:
    """Read an image file as (C, H, W) float32 in [0, 1]: C is 1 for grey and 3 for RGB.

    path: a file of up to 16 bits a channel or with a palette, in a format that Pillow reads. It is
        turned upright where it tells its orientation; of several pages or frames it is the first.
        A palette of greys only is grey. Transparency is dropped where every pixel is opaque.

    Raises FileNotFoundError where there is no such file; ValueError where it cannot be read as an
    image, holds other values (CMYK, float, signed, 32 bits), or has transparent pixels.
    """
    pixels = _pixels(path)
    if pixels.white is None:
        raise ValueError(f"{path} must be grey or RGB of 8 or 16 bits, got mode {pixels.mode}")
    if not pixels.opaque.all():
        raise ValueError(f"{path} must have no transparent pixels; put it on a background")
    scaled = torch.from_numpy(pixels.values.astype(np.float32) / pixels.white)
    return scaled.movedim(-1, 0).contiguous()


def mask(path: str | Path) -> Tensor:
    """Read which pixels a mask marks: those of any level above 0, of any depth, colour or palette.

    path: as of `read`, or of 32 bits, signed or float. Transparent pixels are not marked. A JPEG
        does not keep the level 0: there those above half its highest level are.

    Returns (H, W) bool. Raises as `read` does.
    """
    pixels = _pixels(path)
    if pixels.values is None:
        raise ValueError(f"{path} must be grey, RGB or with a palette, got mode {pixels.mode}")
    levels = np.abs(pixels.values.astype(np.float64)).max(-1)
    least = levels.max() / 2 if pixels.lossy else 0
    return torch.from_numpy((levels > least) & pixels.opaque)


def size(path: str | Path) -> tuple[int, int]:
    """Height and width in pixels of what `read` would return.

    path: of an image file; only a PNG without an orientation is decoded for it.

    Raises as `read` does where there is no file or no image.
    """

    def upright(image):
        width, height = image.size
        # Pillow's size of a TIFF is that of the turned image
        turned = image.format != "TIFF" and image.getexif().get(_ORIENTATION) in (5, 6, 7, 8)
        return (width, height) if turned else (height, width)

    return _opened(path, upright)


def below(folder: str | Path) -> list[Path]:
    """List the image files of a folder, at any depth and behind links, each folder once.

    folder: a path. Its files count by their ending, see SUFFIXES: what cannot be opened, such as a
        link to nothing, is for the reader to tell.

    Returns a sorted list of Path. Warns of folders that cannot be listed.
    """
    found, seen = [], set()

    def passed(error):
        where = os.path.relpath(error.filename, folder)
        warnings.warn(f"{folder}: passed over: {where}: {error.strerror}", stacklevel=3)

    for place, folders, files in os.walk(folder, onerror=passed, followlinks=True):
        identity = os.path.realpath(place)
        if identity in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(identity)
        folders.sort()
        found += [Path(place, file) for file in files if Path(file).suffix.lower() in SUFFIXES]
    return sorted(found)


def named(argument: str, value: object, names: Container[str]) -> bool:
    """Whether a value is one of the names; all else is a path.

    argument: for a message. value: a text, or a Path. names: texts.

    Warns where a file or folder of the working folder has that name too: it is not taken.
    """
    if not (isinstance(value, str) and value in names):
        return False
    if os.path.lexists(value):
        warnings.warn(
            f"{argument} {value!r} is a name; for the path give './{value}'", stacklevel=3
        )
    return True


@plain
def grey(image: Tensor) -> Tensor:
    """Luma of an image, by the weights .299, .587, .114 (ITU-R BT.601).

    image: (1 or 3, H, W) float32 or float64; one channel is grey already.

    Returns (1, H, W). Raises ValueError on bad pixels or another number of channels.
    """
    _check.image("image", image)
    if image.shape[0] not in (1, 3):
        raise ValueError(f"image must have 1 or 3 channels, got {image.shape[0]}")
    if image.shape[0] == 1:
        return image
    return torch.tensordot(image.new_tensor(_LUMA), image, 1)[None]


@plain
def resize(image: Tensor, size: int) -> Tensor:
    """Resize the central square of an image: bicubic with antialiasing, clamped to [0, 1].

    image: (C, H, W) float32 or float64 in [0, 1], any device.
    size: side of the result in pixels, >= 1.

    Returns (C, size, size). Raises ValueError on bad pixels, another scale, size < 1.
    """
    _check.image("image", image)
    _check.levels("image", image, share=_check.NOISE)
    _check.whole("size", size)
    side = min(image.shape[1:])
    top, left = ((length - side) // 2 for length in image.shape[1:])
    square = image[None, :, top : top + side, left : left + side]
    if side == size:
        return square[0]
    how: dict[str, Any] = {"mode": "bicubic", "antialias": True, "align_corners": False}
    return F.interpolate(square, (size, size), **how)[0].clamp(0, 1)


class _Pixels(NamedTuple):
    """What a file holds, before any conversion."""

    mode: str  # Pillow's, for a message
    values: np.ndarray | None  # (H, W, C), C = 1 for grey and 3 for RGB; None for other channels
    white: int | None  # the value of white; None where the file does not tell
    opaque: np.ndarray | None  # (H, W) bool
    lossy: bool  # whether no level is kept exactly


def _pixels(path):
    image, layout, tags = _opened(path, _decoded)
    mode, clear = image.mode, image.info.get("transparency")
    lossy = image.format in ("JPEG", "MPO")
    values, alpha = np.asarray(image), mode in ("LA", "La", "RGBA", "RGBa")
    white: int | None = 255
    if mode in ("P", "PA"):
        colours = np.reshape(image.getpalette(), (-1, 3))
        values, alpha, clear = np.asarray(image.convert("RGBA")), True, None
        if (colours == colours[:, :1]).all():
            values = values[..., [0, 3]]
    elif mode == "1":
        values = values * np.uint8(255)
    elif mode.startswith("I;16"):
        white = 4095 if layout == "I;12" else 65535
        if tags.get(_PHOTOMETRIC) == 0:  # 0 is white, which Pillow minds in 8 bits only
            values = white - values
    elif layout == "LA;16B":  # four bytes a pixel
        values, white = _bytes(path, lambda layout: "RGBA").view(">u2"), 65535
    elif mode in ("RGB", "RGBA") and tags.get(_PLANES) == 2 and max(tags.get(_BITS, (1,))) > 8:
        raise ValueError(f"{path} must hold its colours side by side, got 16 bits in planes")
    elif mode in ("RGB", "RGBA") and ";16" in layout:  # of which Pillow gives the upper eight
        low = _bytes(path, lambda layout: layout[:-1] + _SWAPPED[layout[-1]])
        values, white = values.astype(np.uint16) << 8 | low, 65535
    elif layout in ("L;2", "L;4") and clear is not None:
        clear *= {"L;2": 85, "L;4": 17}[layout]
    elif mode in ("I", "F"):
        white = 65535 if image.format == "PPM" and mode == "I" else None
    elif mode not in ("L", "RGB", "LA", "La", "RGBA", "RGBa"):
        return _Pixels(mode, None, None, None, lossy)
    values = values if values.ndim == 3 else values[..., None]
    opaque = np.ones(values.shape[:2], bool)
    if alpha:
        values, opaque = values[..., :-1], values[..., -1] == white
    elif clear is not None and white is not None:
        opaque = (values != np.asarray(clear) % (white + 1)).any(-1)
    if set(tags.get(_KIND, (1,))) != {1}:
        mode, white = f"{mode}, signed or float", None
    return _Pixels(mode, values, white, opaque, lossy)


def _decoded(image, relabel=None):
    """Decode an image, its samples read as those of another layout where `relabel` names it.

    Returns it upright, the layout of its samples in the file by Pillow's name where it is PNG or
    TIFF, else "", and the tags of a TIFF.
    """
    layout, tags = "", dict(getattr(image, "tag_v2", {}))
    if image.format in ("PNG", "TIFF"):
        args = image.tile[0].args
        layout = args if isinstance(args, str) else args[0]
    if relabel:
        new = relabel(layout)
        changed = [new if isinstance(t.args, str) else (new, *t.args[1:]) for t in image.tile]
        image.tile = [t._replace(args=args) for t, args in zip(image.tile, changed, strict=True)]
    image.load()
    upright = ImageOps.exif_transpose(image)
    upright.format = image.format
    return upright, layout, tags


def _bytes(path, relabel):
    return np.asarray(_opened(path, lambda image: _decoded(image, relabel)[0]))


def _opened(path, look):
    """What `look` makes of a file that Pillow opened."""
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path} is no file")
    try:
        with warnings.catch_warnings():
            # what Pillow takes for an attack at twice the size is refused; below it is a large file
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            # from an open file: by its name Pillow would map a turned TIFF in the wrong shape
            with open(path, "rb") as file, Image.open(file) as image:
                return look(image)
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} cannot be read as an image: unknown format") from error
    except Exception as error:  # of any kind, by the format and by where a file is damaged
        why = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise ValueError(f"{path} cannot be read as an image: {why}") from error
