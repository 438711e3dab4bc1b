"""Clouds like those of the pages: patches of a noisy photograph against patches of a clean one."""

from typing import NamedTuple

import skimage
import torch

from otlib import operators, patches


class Problem(NamedTuple):
    """Two centred clouds, x (N, d) on a full grid of an image of that shape, y (M, d); float32."""

    x: torch.Tensor
    y: torch.Tensor
    eps: float
    rho: float
    shape: tuple
    size: int


def problem(rows, columns, m, *, size=6, eps=2e-4, rho=0.01, noise=0.1, seed=0, device="cpu"):
    """Patches of a noisy crop of a photograph, and clean patches from another part of it.

    rows, columns: positions of the size x size patches of x, so N = rows * columns; at most
        256 - size + 1 rows. m: patches in y, drawn without replacement. size: pixels.
    eps, rho: squared grey levels. noise: standard deviation, grey levels in [0, 1].
    device: of the clouds.
    Returns a Problem; the mean of y is taken off both clouds.
    """
    generator = torch.Generator().manual_seed(seed)
    photograph = torch.from_numpy(skimage.img_as_float32(skimage.data.gravel()))[None]
    crop = photograph[:, : rows + size - 1, : columns + size - 1]
    x = patches.extract(operators.gaussian_noise(crop, noise, generator), size)
    pool = patches.extract(photograph[:, 256:], size)
    y = patches.draw(pool, m, generator)
    centre = y.mean(0)
    x, y = (x - centre).to(device), (y - centre).to(device)
    return Problem(x, y, eps, rho, tuple(crop.shape), size)


def image_gradient(problem, gradient):
    """The gradient in the image whose patches are x, from the one in x (N, d): the adjoint."""
    return patches.adjoint(gradient.double(), problem.shape, problem.size)


def exact_softmin(problem, h):
    """Soft-min in float64 by dense log-sum-exp, independent of otlib's; h (M,). Returns (N,)."""
    y, h = problem.y.double(), h.double()
    found = []
    for x in problem.x.double().split(512):
        cost = (x.square().sum(1)[:, None] + y.square().sum(1) - 2 * x @ y.T).clamp(min=0)
        found.append(-problem.eps * torch.logsumexp((h - cost) / problem.eps, 1))
    return torch.cat(found)
