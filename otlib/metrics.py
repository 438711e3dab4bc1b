"""How near an image is to its reference (PSNR, SSIM), and one set to another (KID, FID, W2)."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from skimage.metrics import structural_similarity
from torch import Tensor

from otlib import _check, gaussian, patches
from otlib._ambient import plain
from otlib._rounding import costs

__all__ = [
    "bootstrap",
    "fid",
    "gelbrich",
    "inception_score",
    "interval",
    "kid",
    "moments",
    "patch_w2",
    "pooled_psnr",
    "psnr",
    "ssim",
]

_WINDOW = 11  # side of the Gaussian window of Wang et al. 2004


@plain
def psnr(x: Tensor, reference: Tensor, border: int = 0, peak: float = 1.0) -> float:
    """Peak signal-to-noise ratio in dB: 10 log10(peak^2 / mean squared error), nothing clipped.

    x, reference: (C, H, W) float32 or float64, same shape; the mean is over pixels and channels.
        reference has values in [0, peak]; a half more or less is let pass, as overshoot.
    border: pixels left out on each side, >= 0 (6 in Mignon et al. 2023, Table I).
    peak: value of white > 0: 1 for values in [0, 1].

    Returns a float, inf for identical images. Raises ValueError on bad pixels, different shapes,
    a border that leaves nothing, peak <= 0, a reference of another scale.

    >>> reference = torch.full((1, 2, 2), 0.5)
    >>> round(psnr(reference + 0.1, reference), 3)  # an error of a tenth
    20.0
    """
    _check.positive("peak", peak)
    x, reference = _check.pair(x, reference, border, 1, peak)
    error = (x - reference).square().mean().item()
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)


@plain
def ssim(x: Tensor, reference: Tensor, border: int = 0) -> float:
    """Structural similarity of Wang et al. 2004: 11 x 11 Gaussian window of sd 1.5, mean over all.

    x, reference: (C, H, W) float32 or float64 with values in [0, 1], same shape. Nothing is
        clipped: a half more or less is let pass, and in x any value at one pixel in 20, as noise
        has them; what is beyond, such as [-1, 1] or [0, 255], is another scale.
    border: pixels left out on each side, >= 0.

    Returns a float, 1 for identical images. Raises ValueError on bad pixels, different shapes, a
    border that leaves less than the window, another scale.
    """
    x, reference = _check.pair(x, reference, border, _WINDOW)
    _check.levels("x", x, share=_check.NOISE)
    return float(
        structural_similarity(
            x.numpy(),
            reference.numpy(),
            data_range=1.0,
            channel_axis=0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


@plain
def pooled_psnr(
    images: Sequence[Tensor],
    references: Sequence[Tensor],
    weights: Tensor | None = None,
    peak: float = 1.0,
) -> float:
    """PSNR in dB of the squared error averaged over all images, not the mean of their PSNRs.

    images, references: lists of (C, H, W) float32 or float64, pair by pair of the same shape.
    weights: (n,) how often each pair counts, >= 0; once by default: see `bootstrap`.
    peak: as in `psnr`.

    Returns a float, inf for identical images. Raises ValueError as `psnr` does and on lists of
    different lengths.
    """
    _check.positive("peak", peak)
    if not len(images) == len(references) > 0:
        raise ValueError(
            f"references must be as many as images, > 0, got {len(references)} for {len(images)}"
        )
    pairs = [_check.pair(x, y, 0, 1, peak) for x, y in zip(images, references, strict=True)]
    errors = torch.stack([(x - y).square().mean() for x, y in pairs])
    weights = _weights(weights, len(errors))
    error = (weights @ errors / weights.sum()).item()
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)


@plain
def kid(x: Tensor, y: Tensor, paired: bool = False, weights: Tensor | None = None) -> float:
    """Kernel Inception Distance (Binkowski et al. 2018): unbiased MMD^2, kernel (x'y/d + 1)^3.

    x: (n, d) features, n >= 2; y: (m, d), m >= 2.
    paired: the rows of x and y belong together, as restored images and their sources do: then no
        row meets its own partner, which would be more alike than two draws (Gretton et al. 2012,
        eq. (4)); identical sets give 0 and n = m.
    weights: (n,) how often each pair counts, where paired: see `bootstrap`.

    Returns a float, below 0 where the sets are nearer than their own members. Raises ValueError on
    features that do not fit, weights without pairs or with fewer than 2 above 0.
    """
    x, y = _clouds(x, y, paired, weights)
    u = _weights(weights, len(x), least=2)
    v = u if paired else _weights(None, len(y))
    kernel = [(a @ b.mT / x.shape[1] + 1) ** 3 for a, b in ((x, x), (y, y), (x, y))]

    def mean(values, left, right, apart):
        chance = left[:, None] * right
        if apart:  # a row and itself, and the copies of it that a bootstrap draws
            chance = chance.fill_diagonal_(0)
        return ((chance * values).sum() / chance.sum()).item()

    within = mean(kernel[0], u, u, True) + mean(kernel[1], v, v, True)
    return within - 2 * mean(kernel[2], u, v, paired)


@plain
def fid(x: Tensor, y: Tensor, weights: Tensor | None = None) -> float:
    """Frechet Inception Distance (Heusel et al. 2017): squared W2 of the two fitted Gaussians.

    Biased upwards on small sets: `kid` is the one to trust there.

    x: (n, d) features, n >= 2; y: (m, d), m >= 2. weights: (n,) of both, n = m: see `bootstrap`.

    Returns a float >= 0. Raises ValueError on features that do not fit, weights of sum 1 or less.
    """
    x, y = _clouds(x, y, weights is not None, weights)
    if len(x) + len(y) < x.shape[1]:  # the distance lies in the span of the rows
        basis = torch.linalg.qr(torch.cat([x, y]).mT).Q
        x, y = x @ basis, y @ basis
    laws = []
    for cloud in (x, y):
        w = _weights(weights, len(cloud), least=2)
        if not w.sum() > 1:
            raise ValueError(f"weights must have a sum > 1, as counts have, got {w.sum():g}")
        mean = w @ cloud / w.sum()
        centred = cloud - mean
        laws += [mean, (w[:, None] * centred).mT @ centred / (w.sum() - 1)]
    return gaussian.w2(*laws).item()


@plain
def inception_score(probabilities: Tensor, weights: Tensor | None = None) -> float:
    """Inception Score (Salimans et al. 2016): exp of the mean KL(p(class | image) | p(class)).

    probabilities: (n, classes) >= 0, rows of sum 1. weights: (n,), see `bootstrap`.

    Returns a float from 1 to min(n, classes). Raises ValueError on rows that are no probabilities.
    """
    _check.cloud("probabilities", probabilities)
    p = probabilities.double()
    if (p < 0).any() or ((p.sum(1) - 1).abs() > 1e-4).any():
        raise ValueError("probabilities must be >= 0 with rows of sum 1")
    weights = _weights(weights, len(p))
    weights = weights / weights.sum()
    entropies = torch.special.entr(p).sum(1)
    return torch.exp(torch.special.entr(weights @ p).sum() - weights @ entropies).item()


@plain
def moments(images: Sequence[Tensor], patch: int = 3) -> list[patches.Moments]:
    """Moments of the overlapping patches of each image, for `gelbrich`.

    images: list of (C, H, W) float32 or float64, pixels or latents, H and W >= patch.
    patch: side of the patches, >= 1.

    Returns one `patches.Moments` an image. Raises ValueError on bad pixels, an empty list, images
    of different channels, one smaller than a patch.
    """
    _check.whole("the number of images", len(images))
    found = [patches.moments(image, patch) for image in images]
    for image, one in zip(images, found, strict=True):
        if len(one.mean) != len(found[0].mean):
            raise ValueError(f"images must have {len(images[0])} channels each, got {len(image)}")
    return found


@plain
def gelbrich(
    x: Sequence[patches.Moments], y: Sequence[patches.Moments], weights: Tensor | None = None
) -> float:
    """Gelbrich distance of the patches of two sets: W2 of Gaussians with their two moments.

    The perceptual distance of the theory behind Adrai et al. 2023, sec. 2.1; it bounds W2 below.

    x, y: `moments` of the sets. weights: (n,) how often each pair of images counts, where both
        sets have n: see `bootstrap`.

    Returns a float >= 0, in the units of the images; not squared. Raises ValueError on moments of
    different patches or weights that do not fit.
    """
    if len(x[0].mean) != len(y[0].mean):
        raise ValueError(
            f"y must have moments of {len(x[0].mean)} dimensions, got {len(y[0].mean)}"
        )
    laws = []
    for found in (x, y):
        means, scatters = (torch.stack(part) for part in list(zip(*found, strict=True))[1:])
        number = torch.tensor([float(one.number) for one in found], device="cpu").to(means)
        w = _weights(weights, len(number)).to(number)
        mass = w * number / (w @ number)
        mean = mass @ means
        apart = means - mean
        within = torch.einsum("n,nij->ij", w, scatters) / (w @ number)
        laws += [mean, within + (mass[:, None] * apart).mT @ apart]
    return gaussian.w2(*laws).sqrt().item()


@plain
def patch_w2(
    x: Sequence[Tensor],
    y: Sequence[Tensor],
    patch: int = 3,
    count: int | None = None,
    generator: torch.Generator | None = None,
) -> float:
    """Exact 2-Wasserstein distance of the empirical patches of two sets, cost |p - q|^2.

    That is eq. (1) of Adrai et al. 2023, for patches in the place of images.

    x, y: lists of (C, H, W) float32 or float64, pixels or latents, H and W >= patch.
    patch: side of the patches >= 1. count: patches drawn from each set without repetition, which
        takes of the order of count^2 memory; all by default. generator: torch.Generator of the
        draws on the CPU.

    Returns a float >= 0, in the units of the images; not squared. Raises ValueError on bad pixels,
    sets of different channels, an empty set, count < 1.

    >>> x, y = [torch.zeros(1, 3, 3)], [torch.full((1, 3, 3), 0.5)]
    >>> patch_w2(x, y)  # 9 pixels, each moved by a half
    1.5
    """
    import ot  # late: seconds, and no other measure needs it

    clouds = []
    for name, images in (("x", x), ("y", y)):
        _check.whole(f"the number of images in {name}", len(images))
        cloud = torch.cat([patches.extract(image, patch) for image in images]).double().cpu()
        if count is not None:
            _check.whole("count", count)
            cloud = patches.draw(cloud, count, generator)
        clouds.append(cloud)
    _check.cloud("y", clouds[1], like=clouds[0])
    cost = costs(*clouds).numpy()  # POT's own takes |x|^2 - 2 xy + |y|^2
    return math.sqrt(ot.emd2([], [], cost, numItermax=10_000_000))


@plain
def bootstrap(
    statistic: Callable[[Tensor], float], count: int, draws: int = 200, seed: int = 0
) -> Tensor:
    """Values of a number on resampled sets of images (Efron 1979).

    statistic: function of weights (count,) float64, how often each image is drawn, to a float.
    count: images >= 2. draws: resamplings >= 1. seed: of the draws; the same seed and count give
        the same resamples, so that the values of two numbers can be compared one by one.

    Returns (draws,) float64. A resample of one image alone has no spread and is drawn again. Raises
    ValueError on bad numbers.
    """
    _check.whole("count", count, least=2)
    _check.whole("draws", draws)
    _check.whole("seed", seed, least=0)
    rng = np.random.default_rng(seed)
    values: list[float] = []
    while len(values) < draws:
        weights = rng.multinomial(count, np.full(count, 1 / count))
        if weights.max() < count:
            values.append(statistic(torch.from_numpy(weights).double()))
    return torch.tensor(values, dtype=torch.float64, device="cpu")


@plain
def interval(values: Tensor, level: float = 0.9) -> tuple[float, float]:
    """Percentile interval of the values of `bootstrap`.

    values: (draws,). level: probability covered, between 0 and 1.

    Returns (low, high), the percentiles (1 - level) / 2 and (1 + level) / 2. Raises ValueError on
    another level, and on values that are no such tensor of finite numbers.
    """
    _check.finite("values", values)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"values must be a non-empty (draws,) tensor, got {tuple(values.shape)}")
    if _check.positive("level", level) >= 1:
        raise ValueError(f"level must be a number < 1, got {level!r}")
    low, high = np.quantile(values.numpy(), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _weights(weights, count, least=1):
    """Weights as float64 (count,), at least so many of them above 0; ones by default."""
    if weights is None:
        return torch.ones(count, dtype=torch.float64, device="cpu")
    _check.finite("weights", weights)
    if weights.shape != (count,) or (weights < 0).any() or (weights > 0).sum() < least:
        raise ValueError(
            f"weights must be ({count},) numbers >= 0, {least} or more of them > 0, "
            f"got {weights.tolist()}"
        )
    return weights.double()


def _clouds(x, y, paired, weights):
    """Both sets of features in float64 on the CPU, checked."""
    _check.cloud("x", x)
    _check.cloud("y", y, like=x)
    if min(len(x), len(y)) < 2:
        raise ValueError(f"x and y must have at least 2 rows, got {len(x)} and {len(y)}")
    if weights is not None and not paired:
        raise ValueError("weights must be None where the sets are not paired")
    if paired and len(x) != len(y):
        raise ValueError(f"y must have the {len(x)} rows of x, its partners, got {len(y)}")
    return x.detach().double().cpu(), y.detach().double().cpu()
