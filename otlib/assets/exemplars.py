"""Exemplars of the texture pages: photographs that scikit-image carries, or a reader's file."""

import hashlib
from pathlib import Path

import numpy as np
import skimage.data
import torch
from torch import Tensor

from otlib import _check, patches
from otlib._ambient import plain
from otlib.assets.images import named, read
from otlib.assets.used import note

__all__ = ["CARRIED", "load"]

#: The exemplars that scikit-image carries, each 512 x 512 pixels, by the name of its function.
CARRIED = {
    "brick": "brick",
    "grass": "grass",
    "gravel": "gravel",
    "tissue": "immunohistochemistry",  # the one in colour
}


@plain
def load(name: str, size: int) -> tuple[Tensor, ...]:
    """A square of a texture, and a second one of the same texture.

    name: of CARRIED, or the path of an image file: see `images.read`; "./brick" is a file so named.
    size: side of the squares, pixels. A carried photograph is halved, by blur and subsampling, as
        long as it stays at least twice as large: the squares show a quarter of it at each size. A
        file is taken as it is.

    Returns two (C, size, size) float32 in [0, 1], from the top left and the bottom right: they
    overlap where the picture is less than twice as large. Raises ValueError on a picture smaller
    than `size` or flat, and as `read` does.
    """
    _check.whole("size", size)
    if named("exemplar", name, CARRIED):
        photograph = np.asarray(getattr(skimage.data, CARRIED[name])())
        image = torch.from_numpy(np.atleast_3d(photograph).astype(np.float32) / 255).movedim(-1, 0)
        while min(image.shape[1:]) >= 4 * size:
            image = patches.pyramid(image, 2, periodic=True)[1]
    else:
        image = read(name)
        digest = hashlib.sha256(Path(name).read_bytes()).hexdigest()
        note("exemplar", Path(name).name, digest, "the user's", private=True)
    height, width = image.shape[1:]
    if min(height, width) < size:
        raise ValueError(
            f"exemplar {name} must have at least {size} x {size} pixels, got {height} x {width}"
        )
    _check.varied(f"exemplar {name}", image[:, :size, :size])
    squares = image[:, :size, :size], image[:, height - size :, width - size :]
    return tuple(square.contiguous() for square in squares)
