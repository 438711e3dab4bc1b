"""Parts, enlargements and fine detail of images."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from otlib import operators


def middle(image: Tensor, height: int, width: int) -> Tensor:
    """Cut the middle out of an image: at most height x width pixels.

    image: (C, H, W). Returns (C, min(height, H), min(width, W)).
    """
    top, left = (max(0, n - m) // 2 for n, m in zip(image.shape[1:], (height, width), strict=True))
    return image[:, top : top + height, left : left + width]


def enlarge(image: Tensor, factor: int, size: int, before: int = 0) -> Tensor:
    """Interpolate an image bicubically, and repeat its border where it has to be wider.

    image: (C, h, w) float32 or float64. factor: whole number >= 1. size: side of the result,
        pixels >= factor h + before. before: pixels that are repeated above and on the left.
    Returns (C, size, size).
    """
    inside = F.interpolate(image[None], scale_factor=factor, mode="bicubic")
    below, right = (size - before - n for n in inside.shape[2:])
    return F.pad(inside, (before, right, before, below), mode="replicate")[0]


def details(image: Tensor, side: int = 5, border: int = 0) -> Tensor:
    """What a Gaussian blur of one pixel removes: edges and grain.

    image: (C, H, W) float32 or float64. side: of the blur's kernel, pixels. border: pixels left out
        on each side; from side // 2 on nothing of the periodic border is seen.
    Returns (C, H - 2 border, W - 2 border).
    """
    removed = image - operators.blur(image, operators.gaussian_kernel(side, 1.0), periodic=True)
    height, width = image.shape[1:]
    return removed[:, border : height - border, border : width - border]


def most_different(one: Tensor, other: Tensor, side: int) -> tuple[int, int, int]:
    """Find the square in which two images differ most, by the mean absolute difference.

    one, other: (1, H, W). side: of the square, pixels.
    Returns (row, column, side), as `figures.images` takes it for its insets.
    """
    means = F.avg_pool2d((one - other).abs()[None], side, stride=1)[0, 0]
    row, column = np.unravel_index(int(means.argmax()), means.shape)
    return int(row), int(column), side


def in_noise(image: Tensor, padding: int, generator: torch.Generator) -> Any:
    """Lay an image into a border of uniform noise.

    image: (C, H, W). padding: width of the border, pixels. generator: on the CPU, of the noise.
    Returns the (C, H + 2 padding, W + 2 padding) image on its device and the index of its inside.
    """
    channels, height, width = image.shape
    rows, columns = (slice(padding, padding + n) for n in (height, width))
    wide = torch.rand(channels, height + 2 * padding, width + 2 * padding, generator=generator)
    wide = wide.to(image)
    wide[:, rows, columns] = image
    return wide, (slice(None), rows, columns)


def beside(large: Tensor, small: Tensor) -> Tensor:
    """Lay a small image to the right of a large one, both at their own scale, on white.

    large: (C, H, W), clipped to [0, 1]. small: (C, h, w), h <= H. Returns (C, H, W + w + w // 8).
    """
    channels, height, width = large.shape
    h, w = small.shape[1:]
    canvas = torch.ones(channels, height, width + w + w // 8)
    canvas[:, :, :width] = large.cpu().clamp(0, 1)
    canvas[:, :h, -w:] = small.cpu()
    return canvas
