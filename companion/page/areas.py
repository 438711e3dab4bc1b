"""Which areas of an image a restoration leaves as they were."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from otlib import operators

# An area is left below the one and restored above the other, in units of a form's mean change.
LEFT, RESTORED = 0.25, 0.5


def changed(changes: Mapping[str, Tensor], unit: str, patch: int) -> dict[str, Tensor]:
    """How much restorations change at each pixel: |u - y|^2, averaged over a patch around it.

    changes: {form: (1, H, W) float32, u - y}. unit: the form whose mean over the image is 1.
    patch: side, pixels; the image is periodic.
    Returns {form: (1, H, W) >= 0}.
    """
    window = torch.full((patch, patch), 1 / patch**2)
    squares = {form: change.square() for form, change in changes.items()}
    mean = squares[unit].mean()
    return {f: operators.blur(one, window, periodic=True) / mean for f, one in squares.items()}


class Shares(NamedTuple):
    """The shares of images that are left and that are restored, in [0, 1]: (n, m) each."""

    left: np.ndarray
    restored: np.ndarray


def shares(maps: Sequence[Sequence[Mapping[str, Tensor]]]) -> dict[str, Shares]:
    """How much of each image is left and how much restored.

    maps: of `changed`, n rows of m images. Returns {form: Shares}.
    """

    def over(form, holds):
        share = lambda image: float(holds(image[form]).double().mean())
        return np.array([[share(image) for image in row] for row in maps])

    left, restored = (lambda x: x < LEFT), (lambda x: x > RESTORED)
    return {form: Shares(over(form, left), over(form, restored)) for form in maps[0][0]}
