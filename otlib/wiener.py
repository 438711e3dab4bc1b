"""The best linear restoration: the posterior mean under a stationary Gaussian prior (Wiener 1949).

What a prior must beat to have learnt more of photographs than their spectrum.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from otlib import _check
from otlib._ambient import plain

__all__ = ["Stationary", "draw", "fit", "restorer"]

_PIECE = 2  # sides of the windows, in lags


class Stationary(NamedTuple):
    """Second moments of photographs, the same everywhere in an image."""

    mean: Tensor  # (C,) float64
    colours: Tensor  # (C, C): rows are an orthonormal basis of the colours, uncorrelated in it
    covariance: Tensor  # (C, 2 side - 1, 2 side - 1): of each at lags -(side - 1) to side - 1


@plain
@torch.no_grad()
def fit(photographs: Sequence[Tensor], side: int) -> Stationary:
    """Mean, colours and autocovariances of photographs.

    photographs: (C, H, W) float32 or float64 each, on the CPU; those with sides >= 2 `side` count.
    side: of the images to restore, pixels: lags are shorter.

    The autocovariances are those of windows of 2 `side`, not divided by the number of pairs at a
    lag, which makes them those of a law (Bartlett's window). Returns a Stationary. Raises
    ValueError on bad pixels, a bad side, and where no photograph is large enough.
    """
    window = _PIECE * _check.whole("side", side)
    windows = []
    for photograph in photographs:
        _check.image("photographs", photograph)
        if min(photograph.shape[1:]) < window:
            continue
        pieces = photograph.double().unfold(1, window, window).unfold(2, window, window)
        windows += list(pieces.flatten(1, 2).movedim(1, 0))
    if not windows:
        raise ValueError(f"photographs must have sides >= {window} pixels, got none that has")
    count = len(windows) * window**2
    mean = torch.stack([piece.sum((1, 2)) for piece in windows]).sum(0) / count
    centred = lambda piece: piece - mean[:, None, None]
    scatter = sum(centred(piece).flatten(1) @ centred(piece).flatten(1).mT for piece in windows)
    colours = torch.linalg.eigh(scatter / count).eigenvectors.mT
    power = torch.zeros(len(mean), 2 * window, window + 1, dtype=torch.float64, device="cpu")
    for piece in windows:
        turned = torch.einsum("kc,chw->khw", colours, centred(piece))
        power += torch.fft.rfft2(turned, (2 * window, 2 * window)).abs().square()
    lags = torch.fft.irfft2(power / count, (2 * window, 2 * window)).roll((side - 1,) * 2, (1, 2))
    return Stationary(mean, colours, lags[:, : 2 * side - 1, : 2 * side - 1].contiguous())


@plain
@torch.no_grad()
def restorer(
    prior: Stationary, sd: float, rows: Tensor, columns: Tensor
) -> Callable[[Tensor], Tensor]:
    """Posterior mean of x given y = A x B' + noise: m + K M' (M K M' + sd^2)^-1 (y - M m).

    prior: of `fit`. sd: standard deviation of the noise, >= 0, in its units.
    rows, columns: A (h, H) and B (w, W) of `ddrm.sample`, H and W at most the side of the fit; M is
        their Kronecker product.

    Returns a function of a measurement (C, h, w) to an image (C, H, W) of its dtype. Raises
    ValueError on a bad sd, matrices that do not fit, and where M K M' + sd^2 is singular.
    """
    _check.positive("sd", sd, zero=True)
    most = (prior.covariance.shape[1] + 1) // 2
    for name, matrix in (("rows", rows), ("columns", columns)):
        _check.finite(name, matrix)
        if matrix.ndim != 2 or not 1 <= matrix.shape[1] <= most:
            raise ValueError(f"{name} must be (n, <= {most}), got {tuple(matrix.shape)}")
    rows, columns = rows.double().cpu(), columns.double().cpu()
    height, width = rows.shape[1], columns.shape[1]
    lags_of = lambda n: torch.arange(n, device="cpu")[:, None] - torch.arange(n, device="cpu")
    down, across = (lags_of(n) + most - 1 for n in (height, width))
    size, gains = len(rows) * len(columns), []
    for lags in prior.covariance:
        block = lags[down[:, None, :, None], across[None, :, None, :]]  # K as (H, W, H, W)
        # one axis at a time: M itself would cost as many products as K has entries for each row
        cross = torch.einsum("bw,awij->abij", columns, torch.einsum("ah,hwij->awij", rows, block))
        seen = torch.einsum("abij,ci->abcj", cross, rows)
        seen = torch.einsum("abcj,dj->abcd", seen, columns).reshape(size, size)
        cross = cross.reshape(size, height * width)
        seen.diagonal().add_(sd**2)
        root, failed = torch.linalg.cholesky_ex(seen)
        if failed:
            raise ValueError(f"sd must be > 0 for this prior and operator, got {sd:g}")
        gains.append((cross, root))
    level = rows.sum(1)[:, None] * columns.sum(1)  # what the operator makes of a constant

    def restore(measurement):
        _check.image("measurement", measurement)
        shape = (len(prior.mean), len(rows), len(columns))
        if tuple(measurement.shape) != shape:
            raise ValueError(f"measurement must be {shape}, got {tuple(measurement.shape)}")
        centred = measurement.double().cpu() - prior.mean[:, None, None] * level
        turned = torch.einsum("kc,chw->khw", prior.colours, centred).flatten(1)
        found = [
            cross.mT @ torch.cholesky_solve(one[:, None], root)[:, 0]
            for (cross, root), one in zip(gains, turned, strict=True)
        ]
        image = torch.einsum("kc,kn->cn", prior.colours, torch.stack(found))
        image = image.view(len(image), height, width) + prior.mean[:, None, None]
        return image.to(measurement)

    return plain(restore)


@plain
@torch.no_grad()
def draw(prior: Stationary, side: int, generator: torch.Generator) -> Tensor:
    """Draw an image of the prior, with the covariances of a square without borders.

    prior: of `fit`. side: pixels, at most that of the fit. generator: torch.Generator on the CPU.

    Returns (C, side, side) float32, not clipped. Raises ValueError on a bad side or generator.
    """
    most = (prior.covariance.shape[1] + 1) // 2
    if _check.whole("side", side) > most:
        raise ValueError(f"side must be at most {most}, got {side}")
    _check.generator(generator, cpu=True)
    # lags of a torus of twice the side, where the plane's law fits but for rounding
    lag = torch.arange(2 * most, device="cpu") - most
    lag = torch.where(lag == -most, most - 1, lag) + most - 1
    torus = prior.covariance[:, lag[:, None], lag].roll((-most, -most), (1, 2))
    spectrum = torch.fft.fft2(torus).real.clamp(min=0)
    white = torch.randn(torus.shape, generator=generator, dtype=torch.float64, device="cpu")
    turned = torch.fft.ifft2(torch.fft.fft2(white) * spectrum.sqrt()).real[:, :side, :side]
    return (torch.einsum("kc,khw->chw", prior.colours, turned) + prior.mean[:, None, None]).float()
