"""Patches of an image as a point cloud, the way back, and the Gaussian pyramid."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from otlib import _check, operators
from otlib._ambient import plain

__all__ = ["Moments", "adjoint", "average", "draw", "extract", "moments", "pyramid"]


class Moments(NamedTuple):
    """What the patches of an image, or of a set of them, say of their law; float64."""

    number: int  # of patches
    mean: Tensor  # (d,)
    scatter: Tensor  # (d, d), sum of (x - mean)(x - mean)'

    @property
    def covariance(self) -> Tensor:
        """Unbiased covariance (d, d); zero for one patch."""
        return self.scatter / max(self.number - 1, 1)


@plain
def extract(image: Tensor, patch: int, stride: int = 1, periodic: bool = False) -> Tensor:
    """All patch x patch patches on a grid: (P_n x)_n of Mignon et al. 2023, eq. (3).

    image: (C, H, W) float32 or float64, any device and value range, H and W >= patch.
    patch, stride: pixels, >= 1. Patches start at rows and columns 0, stride, 2 stride, ...
    periodic: start at every such pixel and wrap round the borders; else stay inside the image.

    Returns (N, C * patch * patch), rows of the grid first, each flattened as (C, patch, patch).
    N = ceil(H / stride) ceil(W / stride) where periodic, else
    ((H - patch) // stride + 1) ((W - patch) // stride + 1). Differentiable.
    Raises ValueError on bad pixels, an image smaller than a patch, patch or stride < 1.

    >>> image = torch.arange(9.0).view(1, 3, 3)
    >>> extract(image, patch=2, stride=2).tolist()
    [[0.0, 1.0, 3.0, 4.0]]
    """
    _check.image("image", image)
    _grid(image.shape, patch, stride, periodic)
    batch = image[None]
    if periodic:
        batch = F.pad(batch, (0, patch - 1, 0, patch - 1), mode="circular")
    return F.unfold(batch, patch, stride=stride)[0].mT.contiguous()


@plain
def adjoint(
    patches: Tensor, shape: Sequence[int], patch: int, stride: int = 1, periodic: bool = False
) -> Tensor:
    """Transpose of `extract`: add every patch back where it came from.

    patches: (N, C * patch * patch) float32 or float64, any device.
    shape: (C, H, W) of the image. patch, stride, periodic: as in `extract`.

    Returns (C, H, W), 0 where no patch lies. Differentiable. Raises ValueError on NaN or inf,
    patches that do not fit the shape, an image smaller than a patch, patch or stride < 1.

    >>> image = torch.arange(9.0).view(1, 3, 3)
    >>> q = torch.tensor([[1.0, -2.0, 0.0, 3.0]]).expand(4, 4)
    >>> (extract(image, 2) * q).sum(), (image * adjoint(q, (1, 3, 3), 2)).sum()  # <Pu, q>, <u, P'q>
    (tensor(56.), tensor(56.))
    """
    _check.cloud("patches", patches)
    rows, columns = _grid(shape, patch, stride, periodic)
    channels, height, width = shape
    expected = (rows * columns, channels * patch * patch)
    if tuple(patches.shape) != expected:
        raise ValueError(f"patches must have shape {expected}, got {tuple(patches.shape)}")
    wrap = patch - 1 if periodic else 0
    image = F.fold(patches.mT[None], (height + wrap, width + wrap), patch, stride=stride)[0]
    return _unwrap(_unwrap(image, 1, wrap), 2, wrap)


@plain
def average(
    patches: Tensor, shape: Sequence[int], patch: int, stride: int = 1, periodic: bool = False
) -> Tensor:
    """Image in which every pixel is the mean of the patches that cover it.

    Arguments, errors: as in `adjoint`. Returns (C, H, W); a pixel that no patch covers (stride >
    patch, or a last row or column that the grid does not reach) is 0. Differentiable. The fold of
    Adrai et al. 2023, sec. 4.1.
    """
    total = adjoint(patches, shape, patch, stride, periodic)
    cover = adjoint(torch.ones_like(patches), shape, patch, stride, periodic)
    return total / cover.clamp(min=1)


@plain
def moments(image: Tensor, patch: int) -> Moments:
    """Mean and scatter of all overlapping patches of an image: appendix B.3 of Adrai et al. 2023.

    image, patch: as in `extract`, pixels or latents.

    Returns Moments of dimension C patch^2, float64 on the image's device. Raises ValueError as
    `extract` does.
    """
    cloud = extract(image, patch).double()
    mean = cloud.mean(0)
    centred = cloud - mean
    return Moments(len(cloud), mean, centred.mT @ centred)


@plain
def draw(cloud: Tensor, most: float, generator: torch.Generator | None) -> Tensor:
    """At most so many of the points, without repetition; all of them in order where they fit.

    cloud: (N, ...), any type and device. most: >= 1, inf for all. generator: torch.Generator on the
        CPU, left as it is where all fit, and None only there.

    Returns (min(N, most), ...). Raises ValueError on a bad number or generator.
    """
    if most != math.inf:
        _check.whole("most", most)
    if len(cloud) <= most:
        return cloud
    _check.generator(generator, cpu=True)
    chosen = torch.randperm(len(cloud), generator=generator, device="cpu")[: int(most)]
    return cloud[chosen.to(cloud.device)]


@plain
def pyramid(image: Tensor, levels: int, periodic: bool = False) -> list[Tensor]:
    """Gaussian pyramid: 4 x 4 Gaussian of sd 1, then every second pixel (Mignon et al., eq. (9)).

    image: (C, H, W) float32 or float64, any device and value range.
    levels: number of images, >= 1; L + 1 in the paper's notation.
    periodic: wrap the blur, halving each side (up); else a side n becomes (n - 4) // 2 + 1.

    Returns a list of `levels` images, the first the image itself. Differentiable.
    Raises ValueError on bad pixels, levels < 1, more levels than the image holds.
    """
    _check.image("image", image)
    _check.whole("levels", levels)
    kernel = operators.gaussian_kernel(4, 1.0)
    images = [image]
    while len(images) < levels:
        if min(images[-1].shape[1:]) < 4:
            height, width = image.shape[1:]
            raise ValueError(
                f"levels must be at most {len(images)} for {height} x {width}, got {levels}"
            )
        images.append(operators.blur(images[-1], kernel, 2, periodic))
    return images


def _grid(shape, patch, stride, periodic):
    """Numbers of patch rows and columns, after the checks that all functions share."""
    _check.whole("patch", patch)
    _check.whole("stride", stride)
    _check.shape(shape)
    _, height, width = shape
    if height < patch or width < patch:
        raise ValueError(
            f"patch must be at most the image's {height} x {width} pixels, got {patch}"
        )
    room = 1 if periodic else patch
    return (height - room) // stride + 1, (width - room) // stride + 1


def _unwrap(image, dim, wrap):
    """Add the last `wrap` rows (dim 1) or columns (dim 2), the wrapped ones, to the first."""
    if not wrap:
        return image
    body, tail = image.split((image.shape[dim] - wrap, wrap), dim)
    head, rest = body.split((wrap, body.shape[dim] - wrap), dim)
    return torch.cat((head + tail, rest), dim)
