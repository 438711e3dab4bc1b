"""Gaussian textures, laws of their patches, and transport between Gaussian measures."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from otlib import _check
from otlib._ambient import plain

__all__ = [
    "edge_patch_law",
    "edge_patches",
    "mixture",
    "posterior",
    "random_phase",
    "sample",
    "stochastic_map",
    "texture",
    "texture_patch_law",
    "transport_map",
    "w2",
]


@plain
def texture(
    shape: Sequence[int], kernel_sd: float, std: float, mean: float, generator: torch.Generator
) -> Tensor:
    """Isotropic periodic Gaussian texture: blurred white noise (Mignon et al. 2023, Fig. 1).

    shape: (C, H, W); the channels are independent.
    kernel_sd: standard deviation of the blur in pixels, >= 0.
    std: standard deviation of a pixel, > 0, of the law and not of the sample. mean: its mean.
    generator: torch.Generator of the white noise.

    Returns (C, H, W) float32 on the generator's device, not clipped.
    Raises ValueError on a bad shape or number.
    """
    _check.shape(shape)
    _check.positive("std", std)
    _check.number("mean", mean)
    _check.generator(generator)
    modulus = _modulus(shape[1], shape[2], kernel_sd)
    noise = torch.randn(shape, generator=generator, dtype=torch.float32, device=generator.device)
    return mean + std * torch.fft.ifft2(torch.fft.fft2(noise) * modulus.to(noise)).real


@plain
def texture_patch_law(
    patch: int, kernel_sd: float, std: float, mean: float, image_size: int
) -> tuple[Tensor, Tensor]:
    """Gaussian law of the patches of a one-channel square `texture`: N1 of Mignon et al., Fig. 1.

    patch: side of the patches in pixels. kernel_sd, std, mean: as in `texture`.
    image_size: side of the texture in pixels, >= patch; its period.

    Returns the mean (patch^2,) and the exact covariance (patch^2, patch^2), float64 on the CPU. The
    covariance of a smooth texture is singular to working precision: `sample` takes it as it is.
    Raises ValueError on a bad number.
    """
    _check.whole("patch", patch)
    _check.whole("image_size", image_size, least=patch)
    _check.positive("std", std)
    _check.number("mean", mean)
    correlation = torch.fft.ifft2(_modulus(image_size, image_size, kernel_sd).square()).real
    place = torch.arange(patch * patch, device="cpu")
    row, column = place // patch, place % patch
    # differences are negative too: indices count from the end, which is the period
    covariance = std**2 * correlation[row[:, None] - row, column[:, None] - column]
    return torch.full_like(covariance[0], mean), covariance


@plain
def random_phase(exemplar: Tensor, generator: torch.Generator) -> Tensor:
    """Random phase texture: the exemplar's Fourier modulus, new phases (Galerne et al. 2011).

    exemplar: (C, H, W) float32 or float64, any device, taken as periodic.
    generator: torch.Generator of the noise whose phases are added; all channels get the same, so
        that they keep their phase differences and hence their colours.

    Returns (C, H, W) with the exemplar's mean, dtype and device. Raises ValueError on bad pixels.
    """
    _check.image("exemplar", exemplar)
    _check.generator(generator)
    sides = exemplar.shape[1:]
    noise = torch.randn(sides, generator=generator, dtype=exemplar.dtype, device=generator.device)
    # the phases of a real noise are uniform and odd, so that the result is real
    phase = torch.fft.rfft2(noise.to(exemplar.device)).sgn()
    phase[0, 0] = 1
    return torch.fft.irfft2(torch.fft.rfft2(exemplar) * phase, s=sides)


@plain
def edge_patches(
    n: int, patch: int, edge: float, mean: float, generator: torch.Generator
) -> Tensor:
    """Patches with one horizontal edge, for N2 of Mignon et al. 2023, Fig. 1.

    Above and below a row drawn uniformly among the patch - 1 inner ones a patch is mean + edge / 2
    and mean - edge / 2, or the reverse, with probability 1/2 each.

    n: number of patches >= 1. patch: side >= 2. edge: height of the edge >= 0. mean: mean value.
    generator: torch.Generator.

    Returns (n, patch^2) float32 on the generator's device.
    Raises ValueError on a bad number.
    """
    _check.whole("n", n)
    _check_edge(patch, edge, mean)
    _check.generator(generator)
    draw: dict[str, Any] = {"generator": generator, "device": generator.device}
    row = torch.randint(1, patch, (n, 1), **draw)
    sign = 2 * torch.randint(2, (n, 1), **draw) - 1
    above = torch.arange(patch, device=generator.device) < row
    half = torch.full_like(above, edge / 2, dtype=torch.float32)
    column = mean + sign * torch.where(above, half, -half)
    return column.repeat_interleave(patch, 1)


@plain
def edge_patch_law(patch: int, edge: float, mean: float) -> tuple[Tensor, Tensor]:
    """Gaussian with the mean and covariance of `edge_patches`: N2 of Mignon et al. 2023, Fig. 1.

    Rows i and j lie on different sides of the edge with probability |i - j| / (patch - 1), so their
    covariance is edge^2 / 4 (1 - 2 |i - j| / (patch - 1)).

    patch: side >= 2. edge: height of the edge >= 0. mean: mean value.

    Returns the mean (patch^2,) and the covariance (patch^2, patch^2), of rank patch - 1; float64 on
    the CPU. Raises ValueError on a bad number.
    """
    _check_edge(patch, edge, mean)
    row = torch.arange(patch * patch, dtype=torch.float64, device="cpu") // patch
    apart = (row[:, None] - row).abs() / (patch - 1)
    return torch.full_like(row, mean), edge**2 / 4 * (1 - 2 * apart)


@plain
def sample(mean: Tensor, cov: Tensor, n: int, generator: torch.Generator) -> Tensor:
    """Draw from a Gaussian whose covariance may be singular.

    mean: (d,) float32 or float64, any device. cov: (d, d) symmetric, eigenvalues >= 0 to rounding.
    n: number of draws >= 1. generator: torch.Generator.

    Returns (n, d) in the dtype and on the device of the mean; computed in float64.
    Raises ValueError on a mean or covariance of bad shape or values, n < 1.
    """
    _check_mean("mean", mean, "cov", cov)
    _check.whole("n", n)
    _check.generator(generator)
    root = _root("cov", cov)
    white = torch.randn(
        (n, root.shape[1]), generator=generator, dtype=torch.float64, device=generator.device
    )
    return (mean + white.to(root) @ root.mT).to(mean)


@plain
def mixture(
    draws: Sequence[Callable[[int], Tensor]],
    weights: Sequence[float],
    n: int,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Draw from a mixture of laws, such as .8 N1 + .2 N2 of Mignon et al. 2023, Fig. 1.

    draws: one function n -> (n, d) tensor for each component.
    weights: their probabilities, of sum 1.
    n: number of draws >= 1. generator: torch.Generator of the components' counts.

    Returns the samples (n, d), grouped by component, and their components (n,) int64 on the same
    device. Raises ValueError on weights that are no probabilities of the draws, n < 1.
    """
    _check.whole("n", n)
    _check.generator(generator)
    chances = torch.tensor(list(weights), dtype=torch.float64, device=generator.device)
    if len(draws) != len(chances) or not (chances >= 0).all() or not abs(chances.sum() - 1) < 1e-6:
        raise ValueError(f"weights must be {len(draws)} numbers >= 0 of sum 1, got {list(weights)}")
    picked = torch.multinomial(chances, n, replacement=True, generator=generator)
    counts = picked.bincount(minlength=len(draws)).tolist()
    samples = torch.cat([draw(m) for draw, m in zip(draws, counts, strict=True) if m])
    return samples, picked.sort().values.to(samples.device)


@plain
def posterior(
    y: Tensor, weights: Tensor, means: Tensor, covs: Tensor, noise_cov: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Law of X given Y = X + noise, X a Gaussian mixture: again a mixture (Flam et al. 2012).

    y: (n, d) float32 or float64, any device, the one of all. weights: (k,) >= 0 of sum 1.
    means: (k, d). covs: (k, d, d), each may be singular.
    noise_cov: (d, d) covariance of the Gaussian noise, positive definite.

    Returns the weights (n, k), means (n, k, d) and covariances (k, d, d) of the components given
    each y, in float64; sum_k weights means is the MMSE estimate. Raises ValueError on bad values
    or shapes.
    """
    _check.cloud("y", y)
    for name, tensor in dict(weights=weights, means=means, covs=covs, noise_cov=noise_cov).items():
        _check.finite(name, tensor)
    k, d = len(weights), y.shape[1]
    if (means.shape, covs.shape, noise_cov.shape) != ((k, d), (k, d, d), (d, d)):
        raise ValueError(
            f"means, covs, noise_cov must have shapes {(k, d)}, {(k, d, d)}, {(d, d)}, "
            f"got {tuple(means.shape)}, {tuple(covs.shape)}, {tuple(noise_cov.shape)}"
        )
    devices = {tensor.device for tensor in (y, weights, means, covs, noise_cov)}
    if len(devices) > 1:
        raise ValueError(f"y must be on the device of all, got {sorted(map(str, devices))}")
    if weights.ndim != 1 or (weights < 0).any() or abs(weights.sum() - 1) > 1e-4:
        raise ValueError(f"weights must be numbers >= 0 of sum 1, got {weights.tolist()}")
    for cov in covs:
        _root("covs", cov)
    if _root("noise_cov", noise_cov).shape[1] < d:
        raise ValueError("noise_cov must be positive definite, got a singular matrix")
    y, weights, means, covs, noise = (t.double() for t in (y, weights, means, covs, noise_cov))
    seen = torch.distributions.MultivariateNormal(means, covs + noise)
    given = (weights.log() + seen.log_prob(y[:, None])).softmax(1)
    gain = torch.linalg.solve(covs + noise, covs).mT
    moved = means + torch.einsum("kde,nke->nkd", gain, y[:, None] - means)
    return given, moved, covs - gain @ covs


@plain
def w2(mean0: Tensor, cov0: Tensor, mean1: Tensor, cov1: Tensor) -> Tensor:
    """Squared 2-Wasserstein distance of two Gaussians, cost |x - y|^2.

    mean0, mean1: (d,) float32 or float64. cov0, cov1: (d, d), may be singular.

    Returns a float64 scalar >= 0, without the cancellation of the textbook's difference of traces.
    Raises ValueError on means or covariances of bad shape or values.

    >>> mean0, mean1 = torch.tensor([0.0]), torch.tensor([3.0])
    >>> w2(mean0, torch.tensor([[1.0]]), mean1, torch.tensor([[4.0]]))  # 3^2 + (1 - 2)^2
    tensor(10., dtype=torch.float64)
    """
    _check_mean("mean0", mean0, "cov0", cov0)
    _check_mean("mean1", mean1, "cov1", cov1)
    root0, root1 = _root("cov0", cov0), _root("cov1", cov1)
    turn, seen = _alignment(root0, root1)
    # |X0 - X1|^2 of the best coupling: what is matched, and what root0 has no direction for
    matched = root0 - root1 @ turn
    unseen = root1 - root1 @ seen
    apart = mean0.double() - mean1.double()
    return apart.square().sum() + matched.square().sum() + unseen.square().sum()


@plain
def transport_map(cov0: Tensor, cov1: Tensor) -> Tensor:
    """Matrix of the optimal transport between centred Gaussians: eq. (2) of Adrai et al. 2023.

    T = cov0^-1/2 (cov0^1/2 cov1 cov0^1/2)^1/2 cov0^-1/2, evaluated with one inverse root instead
    of two, so that T cov0 T' = cov1 holds for ill-conditioned covariances too. `dot.fit` calls
    `stochastic_map`, which gives the same matrix at full rank and goes on where this raises.

    cov0: (d, d) float32 or float64, positive definite. cov1: (d, d), may be singular.

    Returns T (d, d) in the dtype and on the device of cov0; computed in float64.
    Raises ValueError on bad covariances, and where cov0 is singular to its dtype's precision:
    `stochastic_map` is for those.

    >>> transport_map(torch.diag(torch.tensor([1.0, 4.0])), torch.diag(torch.tensor([9.0, 4.0])))
    tensor([[3., 0.],
            [0., 1.]])
    """
    root0, root1 = _root("cov0", cov0), _root("cov1", cov1)
    if root0.shape[1] < len(cov0):
        raise ValueError(
            f"cov0 must be non-singular, got rank {root0.shape[1]} of {len(cov0)} to rounding"
        )
    turn, _ = _alignment(root0, root1)
    return (root1 @ turn @ _pinv(root0)).to(cov0)


@plain
def stochastic_map(cov0: Tensor, cov1: Tensor, rtol: float = 1e-6) -> tuple[Tensor, Tensor]:
    """Optimal transport from a Gaussian that may be singular: eq. (5) of Adrai et al. 2023.

    X1 = M X0 + W with W independent of X0: the matrix takes X0 where it varies, the noise makes up
    for the directions it lacks. Where cov1 is non-singular this is the closed form
    M = cov1^1/2 (cov1^1/2 cov0 cov1^1/2)^1/2 cov1^-1/2 cov0^+; evaluated so that W is a covariance
    and the coupling optimal where cov1 is singular too, which that formula does not give.

    cov0, cov1: (d, d) float32 or float64.
    rtol: eigenvalues of cov0 up to rtol times the largest count as 0 (its clamped pseudo-inverse);
        the smaller, the larger the gain of M and the smaller the noise.

    Returns M (d, d) and the covariance of W (d, d), with M cov0 M' + cov(W) = cov1, in the dtype
    and on the device of cov0; computed in float64. Raises ValueError on bad covariances, an rtol
    that is not between 0 and 1.

    >>> stochastic_map(torch.zeros(1, 1), torch.tensor([[4.0]]))  # from a point all is noise
    (tensor([[0.]]), tensor([[4.]]))
    """
    if _check.positive("rtol", rtol) >= 1:
        raise ValueError(f"rtol must be a number < 1, got {rtol!r}")
    root0, root1 = _root("cov0", cov0, rtol), _root("cov1", cov1)
    turn, seen = _alignment(root0, root1)
    unseen = root1 - root1 @ seen
    return (root1 @ turn @ _pinv(root0)).to(cov0), (unseen @ unseen.mT).to(cov0)


def _modulus(height, width, kernel_sd):
    """Fourier modulus (H, W) of the Gaussian blur, scaled to keep the variance of white noise."""
    _check.positive("kernel_sd", kernel_sd, zero=True)
    fy, fx = (
        torch.fft.fftfreq(side, dtype=torch.float64, device="cpu") for side in (height, width)
    )
    modulus = torch.exp(-2 * (math.pi * kernel_sd) ** 2 * (fy[:, None].square() + fx.square()))
    return modulus / modulus.square().mean().sqrt()


def _check_edge(patch, edge, mean):
    _check.whole("patch", patch, least=2)
    _check.positive("edge", edge, zero=True)
    _check.number("mean", mean)


def _check_mean(name, mean, of, cov):
    _check.finite(name, mean)
    _check.finite(of, cov)
    if mean.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{name} must be float32 or float64, got {mean.dtype}")
    if mean.device != cov.device:
        raise ValueError(f"{name} must be on {cov.device} like {of}, got {mean.device}")
    if mean.ndim != 1 or cov.shape != (len(mean), len(mean)):
        raise ValueError(
            f"{name} must have shape (d,) for {of} (d, d), "
            f"got {tuple(mean.shape)} for {tuple(cov.shape)}"
        )


def _root(name, cov, rtol=0.0):
    """R (d, r) in float64 with R R' = cov, r the rank to rounding or to rtol; orthogonal columns.

    Eigenvalues, not Cholesky, which fails on the singular covariances of smooth patches.
    """
    _check.finite(name, cov)
    if cov.ndim != 2 or cov.shape[0] != cov.shape[1] or not len(cov):
        raise ValueError(f"{name} must be a (d, d) matrix, got {tuple(cov.shape)}")
    scale = cov.abs().max()
    if (cov - cov.mT).abs().max() > 1e-4 * scale:
        raise ValueError(
            f"{name} must be symmetric, got |{name} - {name}'| up to "
            f"{(cov - cov.mT).abs().max().item():.3g}"
        )
    values, vectors = torch.linalg.eigh(cov.double())
    if values[0] < -1e-4 * scale:
        raise ValueError(f"{name} must have eigenvalues >= 0, got {values[0].item():.3g}")
    keep = values > max(rtol, len(cov) * torch.finfo(cov.dtype).eps) * values[-1].clamp(min=0)
    return vectors[:, keep] * values[keep].sqrt()


def _pinv(root):
    """Pseudo-inverse (r, d) of a root with orthogonal columns."""
    return (root / root.square().sum(0)).mT


def _alignment(root0, root1):
    """Matrices (r1, r0) and (r1, r1): what turns root1 nearest to root0, and what of root1 it uses.

    With root0' root1 = U S V' they are V U' and V V' over the singular values that are not 0: the
    optimal coupling of Z ~ N(0, I) is X0 = root0 Z, X1 = root1 (V U' Z + what V V' leaves free).
    """
    if len(root0) != len(root1) or root0.device != root1.device:
        raise ValueError(
            f"cov1 must be {len(root0)} x {len(root0)} on {root0.device} like cov0, "
            f"got {len(root1)} x {len(root1)} on {root1.device}"
        )
    cross = root0.mT @ root1
    u, s, vh = torch.linalg.svd(cross, full_matrices=False)
    keep = s > max(cross.shape) * torch.finfo(s.dtype).eps * s[:1]
    u, v = u[:, keep], vh[keep].mT
    return v @ u.mT, v @ v.mT
