"""Denoising diffusion restoration models: a diffusion model and a linear measurement (2022)."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from otlib import _check
from otlib._ambient import plain

__all__ = ["sample"]

# singular values up to this share of the largest count as 0: a division would amplify rounding
_CUTOFF = 1e-3


@plain
def sample(
    measurement: Tensor,
    sd: float,
    rows: Tensor,
    columns: Tensor,
    predict: Callable[[Tensor, int], Tensor],
    levels: Sequence[float],
    generator: torch.Generator,
    eta: float = 0.85,
    eta_b: float = 1.0,
) -> Tensor:
    """Draw an image that a measurement may come from: eqs. (6) to (8) of Kawar et al. 2022.

    The measurement is y = A x B' + noise in every channel. In the bases of the singular vectors of
    A and B it is one noisy number for each coefficient of x, or none. The coefficients descend
    through noise of smaller and smaller level; the network's prediction fills in what the
    measurement lacks.

    measurement: (C, h, w) float32 or float64, any device, in the network's units.
    sd: standard deviation of its noise, >= 0, same units.
    rows, columns: A (h, H) and B (w, W), h <= H and w <= W.
    predict: function of x (C, H, W) with noise of level levels[t], and of t, to its estimate of
        the clean image (C, H, W).
    levels: noise levels of the descent, falling, > 0; the first must be at least the largest
        noise of a measured coefficient, sd over its singular value.
    generator: torch.Generator.
    eta, eta_b: share of fresh noise, and weight of the measurement where it is finer than the
        level; both in [0, 1]. 0.85 and 1 in the paper, with 20 levels.

    Returns (C, H, W). It is no draw from the posterior: with many levels below sd the measurement
    outweighs the prior. Raises ValueError on bad pixels, numbers or shapes.
    """
    _check.image("measurement", measurement)
    _check.positive("sd", sd, zero=True)
    for name, value in (("eta", eta), ("eta_b", eta_b)):
        _check.positive(name, value, zero=True)
        if value > 1:
            raise ValueError(f"{name} must be at most 1, got {value}")
    for name, matrix, side in (("rows", rows, 1), ("columns", columns, 2)):
        n = measurement.shape[side]
        _check.finite(name, matrix)
        if matrix.ndim != 2 or len(matrix) != n or matrix.shape[1] < n:
            raise ValueError(f"{name} must have shape ({n}, >= {n}), got {tuple(matrix.shape)}")
        if not matrix.any():
            raise ValueError(f"{name} must measure something, got zeros only")
    falling = [_check.positive("levels", level) for level in levels]
    if not falling or falling != sorted(falling, reverse=True):
        raise ValueError(f"levels must be falling numbers, at least one, got {falling}")
    _check.generator(generator)
    left, gain_rows, across = torch.linalg.svd(rows.double())
    right, gain_columns, down = torch.linalg.svd(columns.double())
    left, right, across, down = (basis.to(measurement) for basis in (left, right, across, down))
    h, w = measurement.shape[1:]
    gain = measurement.new_zeros(across.shape[0], down.shape[0])
    gain[:h, :w] = torch.outer(gain_rows, gain_columns).to(gain)
    seen = gain > _CUTOFF * gain.max()
    measured = measurement.new_zeros(len(measurement), *gain.shape)
    measured[:, :h, :w] = left.mT @ measurement @ right
    measured = torch.where(seen, measured / gain, 0.0)
    noise = torch.where(seen, sd / gain, torch.inf)  # of a measured coefficient
    largest = noise[seen].max().item()
    if largest > falling[0]:
        raise ValueError(f"levels must start at {largest:g} or above, got {falling[0]:g}")

    def draw():
        shape, where = measured.shape, generator.device
        white = torch.randn(shape, generator=generator, dtype=measured.dtype, device=where)
        return white.to(measured.device)

    keep = (1 - eta**2) ** 0.5
    spread = (falling[0] ** 2 - torch.where(seen, noise, 0.0) ** 2).sqrt()
    x = measured + spread * draw()
    for t, (level, after) in enumerate(zip(falling, [*falling[1:], 0.0], strict=True)):
        guess = across @ predict(across.mT @ x @ down, t) @ down.mT
        fine = noise <= after  # the measurement is finer than the level: (8), third case
        mean = torch.where(
            fine,
            (1 - eta_b) * guess + eta_b * measured,
            guess
            # second case, else first: what is kept of the noise, the measurement's or the state's
            + keep * after * torch.where(seen, (measured - guess) / noise, (x - guess) / level),
        )
        left_over = (after**2 - (eta_b * torch.where(fine, noise, 0.0)) ** 2).clamp(min=0).sqrt()
        x = mean + torch.where(fine, left_over, eta * after) * draw()
    return across.mT @ x @ down
