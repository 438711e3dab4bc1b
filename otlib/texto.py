"""Texto, a rival of Houdard et al. 2020, Fig. 4: Leclaire and Rabin 2019, Galerne et al. 2018.

Patches are transported from coarse to fine, by maps that are learnt once; overlapping patches are
averaged. At each scale the patches of the image so far, a mixture of Gaussians, go to patches of
the exemplar by semi-discrete transport in two layers: to a cell of targets, then within it.

    model = fit(exemplar, generator=random)
    image = draw(model, 512, 512, generator=random)
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture
from torch import Tensor

from otlib import _check, patches, semidual, softmin
from otlib._ambient import plain

__all__ = ["Layers", "Model", "Scale", "assign", "draw", "fit", "layers", "mixture", "spots"]

_FITTED = 5000  # patches of an image, at most, from which its mixture is estimated


class Layers(NamedTuple):
    """A map to M targets in two layers, K cells and the targets of each."""

    centres: Tensor  # (K, d), means of the targets of a cell
    coarse: Tensor  # (K,), their potential
    targets: Tensor  # (M, d)
    cells: Tensor  # (M,) int64, the cell of a target
    fine: Tensor  # (M,), the potential of each among those of its cell


class Scale(NamedTuple):
    """What Texto does at one scale."""

    map: Layers
    patch: int  # side, pixels
    finer: Tensor | None  # (M, C (2 patch)^2), the targets at the next scale; None at the finest


class Model(NamedTuple):
    """A fitted Texto."""

    coarsest: Tensor  # (C, h, w), the exemplar at its coarsest scale
    scales: tuple[Scale, ...]  # from coarse to fine


@plain
@torch.no_grad()
def fit(
    exemplar: Tensor,
    *,
    patch: int = 3,
    levels: int = 4,
    targets: int = 1000,
    components: int = 10,
    cells: int = 10,
    draws: int = 500,
    steps: int = 300,
    generator: torch.Generator,
) -> Model:
    """Learn the maps of Texto, scale by scale; Leclaire and Rabin 2019, sec. 4.

    exemplar: (C, H, W) float32 or float64, any device; sides multiples of 2^(levels - 1).
    patch: side of the patches, pixels. levels: scales. targets: patches of the exemplar, at most,
        to which a scale transports. components: Gaussians of the law of an image's patches.
    draws: points of that law for each step of an ascent. cells, steps: see `layers`.
    generator: torch.Generator on the CPU.

    Each law is estimated on one image that the coarser scales have made, of twice the sides.
    Returns a Model. Raises ValueError on bad pixels or numbers, sides that the scales do not
    divide, levels of less than a patch.
    """
    _check.image("exemplar", exemplar)
    sizes = dict(targets=targets, components=components, cells=cells, draws=draws, steps=steps)
    for name, number in sizes.items():  # before any work
        _check.whole(name, number)
    _check.generator(generator, cpu=True)
    pyramid = patches.pyramid(exemplar, levels, periodic=True)
    _divided("exemplar's sides", exemplar.shape[1:], 1 << (levels - 1))
    height, width = (2 * side for side in pyramid[-1].shape[1:])  # few waves make its contrast
    image = spots(pyramid[-1], height, width, generator)
    scales = []
    for level in reversed(range(levels)):
        law = mixture(patches.extract(image, patch, periodic=True), components, generator)
        pool = patches.extract(pyramid[level], patch)
        places = torch.arange(len(pool), device="cpu")
        chosen = patches.draw(places, targets, generator).to(pool.device)
        source = _draws(law, draws, generator)
        found = layers(source, pool[chosen], cells=cells, steps=steps, generator=generator)
        finer = None
        if level:  # row for row where `pool` was
            finer = patches.extract(pyramid[level - 1], 2 * patch, stride=2)[chosen]
        scales.append(Scale(found, patch, finer))
        if level:
            image = _refined(image, scales[-1])
    return Model(pyramid[-1], tuple(scales))


@plain
@torch.no_grad()
def draw(model: Model, height: int, width: int, *, generator: torch.Generator) -> Tensor:
    """Draw a texture of any size that is no smaller than the exemplar.

    model: of `fit`. height, width: pixels, multiples of 2^(scales - 1), at least the exemplar's.
    generator: torch.Generator on the CPU.

    Returns (C, height, width), periodic, in the exemplar's type and on its device. Raises
    ValueError on bad numbers.
    """
    _check.whole("height", height)
    _check.whole("width", width)
    _check.generator(generator, cpu=True)
    stride = 1 << (len(model.scales) - 1)
    _divided("height and width", (height, width), stride)
    image = spots(model.coarsest, height // stride, width // stride, generator)
    for scale in model.scales:
        image = _refined(image, scale)
    return image


@plain
@torch.no_grad()
def spots(exemplar: Tensor, height: int, width: int, generator: torch.Generator) -> Tensor:
    """The Gaussian texture with the mean and the autocorrelation of an exemplar, of any size.

    exemplar: (C, h, w) float32 or float64, any device. height, width: pixels, >= h and w.
    generator: torch.Generator on the CPU, of the white noise, which all channels share.

    The noise is convolved with the exemplar less its mean over sqrt(h w), zero around it (Galerne
    et al. 2011, sec. III). Returns (C, height, width), periodic. Raises ValueError on bad pixels or
    sides that are too small.
    """
    _check.image("exemplar", exemplar)
    _check.generator(generator, cpu=True)
    size, least = (height, width), exemplar.shape[1:]
    if height < least[0] or width < least[1]:
        raise ValueError(f"sides must be at least the exemplar's {tuple(least)}, got {size}")
    mean = exemplar.mean((1, 2), keepdim=True)
    spot = torch.fft.rfft2((exemplar - mean) / least.numel() ** 0.5, s=size)
    noise = torch.randn(size, generator=generator, dtype=exemplar.dtype, device="cpu")
    return mean + torch.fft.irfft2(spot * torch.fft.rfft2(noise.to(exemplar.device)), s=size)


@plain
@torch.no_grad()
def mixture(
    cloud: Tensor, components: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """A mixture of Gaussians with the likelihood of points, by expectation and maximisation.

    cloud: (n, d) float32 or float64, any device. components: at most; no more than n.
    generator: torch.Generator on the CPU: of the points taken where they are many, and the start.

    Returns (weights (k,), means (k, d), covariances (k, d, d)) in the type and on the device of
    the points. Raises ValueError on bad points or numbers.
    """
    _check.cloud("cloud", cloud)
    _check.whole("components", components)
    _check.generator(generator, cpu=True)
    points = patches.draw(cloud, _FITTED, generator).double().cpu().numpy()
    known = GaussianMixture(
        min(components, len(np.unique(points, axis=0))),
        init_params="random_from_data",  # k-means would warn of equal points
        random_state=_number(generator),
    ).fit(points)
    like = lambda values: torch.from_numpy(values).to(cloud)
    return like(known.weights_), like(known.means_), like(known.covariances_)


@plain
@torch.no_grad()
def layers(
    source: Callable[[], Tensor],
    y: Tensor,
    *,
    cells: int = 10,
    steps: int = 300,
    generator: torch.Generator,
) -> Layers:
    """A semi-discrete map in two layers: Leclaire and Rabin 2019, sec. 3.

    source: function () -> (n, d) fresh points, in the type and device of y. y: (M, d) targets of
        equal mass. cells: of the first layer, at most, found by k-means.
    steps: of the averaged stochastic ascent of each layer (`semidual.ascend_averaged`).
    generator: torch.Generator on the CPU, of k-means' start.

    The first layer transports to the centres, each with the mass of its targets; the second, in
    each cell, the points that go there to its targets. With one cell that is semi-discrete
    transport, with more it is dearer, and cheaper to find and to apply. Returns the Layers. Raises
    ValueError on bad points or numbers.
    """
    _check.cloud("y", y)
    _check.whole("cells", cells)
    _check.whole("steps", steps)
    _check.generator(generator, cpu=True)
    points = y.double().cpu().numpy()
    number = min(cells, len(np.unique(points, axis=0)))
    clusters = KMeans(number, n_init=1, random_state=_number(generator)).fit(points)
    member = torch.from_numpy(clusters.labels_.astype(np.int64)).to(y.device)
    centres = torch.stack([y[member == k].mean(0) for k in range(number)])
    share = member.bincount(minlength=number).to(y) / len(y)
    coarse = _potential(source, centres, steps, b=share)
    # coordinates that keep the cells farther apart than any targets are
    corners = (
        4 * (y - y.mean(0)).norm(dim=1).max() * torch.eye(number, dtype=y.dtype, device=y.device)
    )

    def within():
        x = source()
        return torch.cat((x, corners[softmin.hardmin(x, centres, coarse)[1]]), 1)

    spread = number * float((y - centres[member]).square().sum(1).mean())  # a target has 1 / M
    fine = _potential(within, torch.cat((y, corners[member]), 1), steps, spread)
    return Layers(centres, coarse, y, member, fine)


@plain
@torch.no_grad()
def assign(x: Tensor, found: Layers) -> Tensor:
    """The target of each point: its cell first, then the target within.

    x: (n, d) in the type and on the device of the targets. found: of `layers`.
    Returns (n,) int64, rows of `found.targets`. Raises ValueError on bad points.
    """
    _, falls = softmin.hardmin(x, found.centres, found.coarse)
    to = torch.empty_like(falls)
    for k in range(len(found.centres)):
        here, its = falls == k, (found.cells == k).nonzero()[:, 0]
        if here.any():
            _, within = softmin.hardmin(x[here], found.targets[its], found.fine[its])
            to[here] = its[within]
    return to


def _potential(source, y, steps, scale=None, b=None):
    """Of the averaged ascent; a step of 4 in units of the targets' variance wobbles little yet."""
    scale = float((y - y.mean(0)).square().sum(1).mean()) if scale is None else scale
    if not scale:  # targets that are all alike
        return torch.zeros_like(y[:, 0])
    return semidual.ascend_averaged(source, y, b=b, step=4 * scale, max_iter=steps)


def _draws(law, n, generator):
    """A function that draws n points of a mixture."""
    weights, means, covs = law
    chances, roots = weights.cpu(), torch.linalg.cholesky(covs)

    def source():
        of = torch.multinomial(chances, n, replacement=True, generator=generator)
        white = torch.randn(n, means.shape[1], generator=generator, dtype=means.dtype, device="cpu")
        of, white = of.to(means.device), white.to(means.device)
        return means[of] + (roots[of] @ white[..., None])[..., 0]

    return source


def _refined(image, scale):
    """Transport the patches of an image; where there is a next scale, to patches of that."""
    cloud, patch = patches.extract(image, scale.patch, periodic=True), scale.patch
    to = assign(cloud, scale.map)
    if scale.finer is None:
        return patches.average(scale.map.targets[to], image.shape, patch, periodic=True)
    shape = (len(image), *(2 * side for side in image.shape[1:]))
    return patches.average(scale.finer[to], shape, 2 * patch, 2, periodic=True)


def _number(generator):
    return int(torch.randint(2**31 - 1, (), generator=generator, device="cpu"))


def _divided(name, sides, stride):
    if any(side % stride for side in sides):
        raise ValueError(f"{name} must be multiples of {stride}, got {sides[0]} x {sides[1]}")
