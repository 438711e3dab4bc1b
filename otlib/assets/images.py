"""Images from files."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, UnidentifiedImageError

from otlib import _check
from otlib._ambient import plain

__all__ = ["SUFFIXES", "grey", "read", "resize"]

#: Endings of image files, in small letters.
SUFFIXES = {".png", ".jpg", ".jpeg", ".tif", ".tiff", ".bmp", ".webp"}
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601


@plain
def read(path):
    """Read an image file as (C, H, W) float32 in [0, 1]: C is 1 for grey and 3 for RGB.

    path: a file of 1, 8 or 16 bits a channel or with a palette, in a format that Pillow reads
        (which gives colour of 16 bits at 8). An alpha channel is dropped where it is opaque.

    Raises FileNotFoundError where there is no such file; ValueError where it cannot be read as an
    image, holds other channels (CMYK, float), or has transparent pixels.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file")
    try:
        with Image.open(path) as image:
            image.load()
    except UnidentifiedImageError as error:
        raise ValueError(f"{path} cannot be read as an image: unknown format") from error
    # what Pillow raises on a damaged file depends on the format and on where it is damaged
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        why = " ".join(str(error).split())
        raise ValueError(f"{path} cannot be read as an image: {why}") from error
    if image.mode in ("P", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode in ("LA", "RGBA"):
        if image.getextrema()[-1][0] < 255:
            raise ValueError(f"{path} must have no transparent pixels; put it on a background")
        image = image.convert(image.mode[:-1])
    if image.mode == "1":
        image = image.convert("L")
    deep = image.mode.startswith("I")  # 16 bits, in some versions of Pillow as 32
    values = np.asarray(image)
    if (
        not deep and image.mode not in ("L", "RGB")
    ) or not 0 <= values.min() <= values.max() < 2**16:
        raise ValueError(f"{path} must be grey or RGB of 8 or 16 bits, got mode {image.mode}")
    scaled = torch.from_numpy(values.astype(np.float32) / (65535 if deep else 255))
    return scaled.movedim(-1, 0) if scaled.ndim == 3 else scaled[None]


@plain
def grey(image):
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
def resize(image, size):
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
    how = {"mode": "bicubic", "antialias": True, "align_corners": False}
    return F.interpolate(square, (size, size), **how)[0].clamp(0, 1)
