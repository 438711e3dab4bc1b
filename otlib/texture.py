"""Textures by transport between patches: Houdard et al. 2020, sec. 3, and how to measure one.

    L(u) = sum_l max_phi f(phi, u_l),   f the semi-dual between the patches of u_l and v_l

is eq. (10) of Houdard et al.; u_l and v_l are the scales of a Gaussian pyramid. The cost is the
paper's 1/2 |x - y|^2: a loss here is half the `semidual` value, 1/2 sum_l W2^2 at its maximum.
Synthesised images are periodic. Of the exemplar only the patches inside are targets, so that its
seam is not learnt.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import ot
import torch
import torch.nn.functional as F
from torch import Tensor

from otlib import _check, patches, semidual, softmin
from otlib._ambient import plain
from otlib.restore import restore

__all__ = ["copied", "distances", "inpaint", "kwatra", "loss", "shuffle", "sliced", "synthesise"]

_ROBUST = 0.8  # exponent of the distances in the energy of Kwatra et al. 2005


@plain
def synthesise(
    exemplar: Tensor,
    start: Tensor,
    *,
    patch: int = 4,
    levels: int = 4,
    steps: int = 150,
    lr: float = 0.01,
    samples: int = 2048,
    batch: float = math.inf,
    dual_steps: int = 10,
    dual_step: float = 2e-4,
    generator: torch.Generator,
    callback: Callable[[int, Tensor], object] | None = None,
) -> tuple[Tensor, Tensor]:
    """Texture of the exemplar's patch distributions: Algorithm 1 of Houdard et al. 2020.

    With one scale it solves the saddle-point problem of eq. (4) of Houdard et al.

    exemplar: v (C, H, W) float32 or float64 in [0, 1], any device.
    start: u_0 (C, h, w) of any size, periodic; same dtype and device. The paper's is white noise.
    patch: side s of a patch, pixels. levels: L >= 1 scales; 1 is the single-scale method.
    steps, lr: N_u steps of Adam and their size in grey levels (paper: 150 suffice, 0.01).
    samples: target patches a scale, drawn once, at most. Theorem 4 of Houdard et al. asks that
        their number M divide the number N of patches of u_l: the target is resampled to N draws, so
        that each of its patches has the weight floor(N / M) / N or ceil(N / M) / N; where M > N, N
        of them are kept.
    batch: patches of u_l drawn afresh at each step, at most; inf takes all, as the paper does.
    dual_steps: N_phi supergradient steps on a scale's phi for each step on u, from the phi of the
        step before (the authors' code: 10); the last iterate goes on, as printed.
    dual_step: > 0, squared grey levels, by how much one of them lifts phi at a patch that no other
        chooses. It is the step of `semidual.ascend` over the number of patches, so that scales of
        few patches take steps of the same size; the authors' code lifts by 1 over that number, by
        which the last iterate overshoots at the coarse scales.
    generator: torch.Generator on the CPU. callback: called with (step, u) after each step.

    Returns (u, losses): u (C, h, w), not clipped, and (steps,) float64, the loss at the
    image before each step, an estimate where `batch` leaves patches out. It is a lower bound of the
    maximum over phi, by as much as the ascent wobbles, about L dual_step / 2: a loss below 0 asks
    for a smaller one.
    Raises ValueError on bad pixels, an exemplar of another scale or of one value, images that
    differ in channels, type or device, a scale at which one is smaller than a patch, numbers out
    of range.
    """
    _check.image("exemplar", exemplar)
    _check.varied("exemplar", exemplar)
    _like("start", start, exemplar)
    _numbers(patch, levels, samples, batch, dual_steps, dual_step, generator)
    _check.levels("exemplar", exemplar)
    _room("exemplar", exemplar, patch, levels, periodic=False)
    _room("start", start, patch, levels, periodic=True)
    pools = [patches.extract(scale, patch) for scale in patches.pyramid(exemplar, levels)]
    numbers = [scale[0].numel() for scale in patches.pyramid(start, levels, periodic=True)]
    targets = _targets(pools, numbers, samples, batch, generator)
    options: dict[str, Any] = dict(
        periodic=True, batch=batch, dual_steps=dual_steps, dual_step=dual_step
    )
    return _minimise(
        loss(targets, patch, generator=generator, **options), start, steps, lr, callback
    )


@plain
def inpaint(
    image: Tensor,
    hole: Tensor,
    *,
    patch: int = 4,
    levels: int = 3,
    steps: int = 150,
    lr: float = 0.01,
    samples: int = 2048,
    batch: float = math.inf,
    dual_steps: int = 10,
    dual_step: float = 2e-4,
    generator: torch.Generator,
    callback: Callable[[int, Tensor], object] | None = None,
) -> tuple[Tensor, Tensor]:
    """Fill a hole with the texture around it: sec. 3.5 and Fig. 3 of Houdard et al. 2020.

    image: (C, H, W) float32 or float64 in [0, 1], any device; finite in the hole too.
    hole: (H, W) bool, same device; True is missing. It is started from white noise.

    The rest: see `synthesise`. Target patches are those that see no pixel of the hole, at scale l
    through the pyramid; u's are those that see one: the others are targets already. Nothing wraps.

    Returns (u, losses): u (C, H, W), outside the hole the image itself, bit by bit.
    Raises ValueError as `synthesise`, on a hole that is empty, full or of another shape, and on a
    scale at which no patch is free of it.
    """
    _check.image("image", image)
    _numbers(patch, levels, samples, batch, dual_steps, dual_step, generator)
    _check.levels("image", image)
    if not torch.is_tensor(hole) or hole.dtype != torch.bool or hole.device != image.device:
        kind = f"{hole.dtype} on {hole.device}" if torch.is_tensor(hole) else type(hole).__name__
        raise ValueError(f"hole must be a bool tensor on {image.device}, got {kind}")
    if hole.shape != image.shape[1:]:
        raise ValueError(f"hole must have shape {tuple(image.shape[1:])}, got {tuple(hole.shape)}")
    if hole.all() or not hole.any():
        raise ValueError(f"hole must hold some but not all pixels, got {int(hole.sum())}")
    _room("image", image, patch, levels, periodic=False)

    seen = []  # scale by scale, the patches that see the hole
    for scale in patches.pyramid(hole[None].to(image), levels):
        seen.append(patches.extract(scale, patch).sum(1) > 0)
        if seen[-1].all():
            raise ValueError(
                f"levels must be at most {len(seen) - 1} for this hole, got {levels}: at scale "
                f"{len(seen)} no {patch} x {patch} patch is free of it"
            )
    pools = [
        patches.extract(scale, patch)[~rows]
        for scale, rows in zip(patches.pyramid(image, levels), seen, strict=True)
    ]
    rows = [mask.nonzero().squeeze(1) for mask in seen]
    targets = _targets(pools, [len(r) for r in rows], samples, batch, generator)
    options: dict[str, Any] = dict(
        rows=rows, batch=batch, dual_steps=dual_steps, dual_step=dual_step
    )
    value = loss(targets, patch, generator=generator, **options)
    noise = torch.rand(image.shape, generator=generator, dtype=image.dtype, device="cpu")
    start = torch.where(hole, noise.to(image.device), image)
    # outside the hole the gradient is 0, and a step of Adam too
    return _minimise(lambda u: value(torch.where(hole, u, image)), start, steps, lr, callback)


@plain
def loss(
    targets: Sequence[tuple[Tensor, Tensor]],
    patch: int,
    *,
    periodic: bool = False,
    rows: Sequence[Tensor] | None = None,
    batch: float = math.inf,
    dual_steps: int = 10,
    dual_step: float = 2e-4,
    generator: torch.Generator | None = None,
) -> Callable[[Tensor], Tensor]:
    """The loss of eq. (10), Houdard et al. 2020: a function of an image that remembers its phi_l.

    targets: one pair a scale, finest first: (M, C * patch^2) patches and their weights (M,), sum 1.
    patch: side of a patch, pixels.
    periodic: whether the image wraps, in the pyramid and in its patches.
    rows: one tensor a scale, the indices of the patches that count; all by default.
    batch: patches a scale and call, drawn by `generator` where there are more.
    dual_steps, dual_step: see `synthesise`; 0 steps leave phi = 0, the energy of nearest patches.

    Returns a function image (C, H, W) -> scalar with the gradient of eq. (11) of Houdard et al.
    Errors are those of `extract`, `pyramid` and `semidual.ascend`.
    """
    if batch != math.inf:
        _check.whole("batch", batch)
        _check.generator(generator, cpu=True)
    potentials = [torch.zeros_like(weights) for _, weights in targets]

    @plain
    def value(image):
        total = image.new_zeros(())
        for level, scale in enumerate(patches.pyramid(image, len(targets), periodic)):
            cloud = patches.extract(scale, patch, periodic=periodic)
            chosen = torch.arange(len(cloud), device="cpu") if rows is None else rows[level]
            if len(chosen) > batch:
                chosen = patches.draw(chosen, batch, generator)
            x = cloud if len(chosen) == len(cloud) else cloud[chosen]
            y, b = targets[level]
            step = dual_step * len(y)
            solution = semidual.ascend(
                x, y, b=b, init=potentials[level], step=step, max_iter=dual_steps, last=True
            )
            potentials[level] = solution.g
            total = total + solution.value / 2
        return total

    return value


@plain
def kwatra(
    exemplar: Tensor,
    start: Tensor,
    *,
    sizes: Sequence[int] = (32, 16, 8),
    levels: int = 3,
    rounds: int = 10,
    callback: Callable[[int, Tensor], object] | None = None,
) -> Any:
    """Texture optimisation by nearest neighbours (Kwatra et al. 2005), a rival of Houdard et al.

    exemplar: v (C, H, W) float32 or float64 in [0, 1], any device.
    start: u_0 (C, h, w) of any size, periodic; same dtype and device; see `shuffle`.
    sizes: sides of the patches in pixels, largest first; one that a scale cannot hold is left out
        there. Their grid has a step of a quarter of the side.
    levels: scales, coarse to fine. rounds: of search and averaging for each scale and size, at
        most: a round that finds the neighbours of the round before is the last.
    callback: called with (step, u) after each round, u at its scale.

    A round replaces u by the mean of the nearest patches of v, those at distance d weighted by
    d^(r - 2), which lowers the energy sum_i min_j |P_i u - y_j|^r, r = 0.8. With r = 2 it is the
    step of sec. 3.3 of Houdard et al. 2020 at phi = 0 and eta = 1.

    Returns (u, energies): u (C, h, w), and one float64 tensor for each scale and size that was
    used, in order, with the mean of d^r before each round.
    Raises ValueError on bad pixels, an exemplar of another scale, images that differ in channels,
    type or device, a scale that holds no patch, numbers out of range.
    """
    _check.image("exemplar", exemplar)
    _like("start", start, exemplar)
    _check.levels("exemplar", exemplar)
    _check.whole("levels", levels)
    _check.whole("rounds", rounds)
    if len(sizes) == 0:
        raise ValueError("sizes must hold at least one side, got none")
    for patch in sizes:
        _check.whole("sizes", patch)
    _room("exemplar", exemplar, min(sizes), levels, periodic=False)
    _room("start", start, min(sizes), levels, periodic=True)
    references = patches.pyramid(exemplar, levels)
    starts = patches.pyramid(start, levels, periodic=True)
    image, energies, step = starts[-1], [], 0
    for level in reversed(range(levels)):
        shape = starts[level].shape
        if image.shape != shape:
            image = F.interpolate(image[None], shape[1:], mode="bilinear", antialias=False)[0]
        for patch in sizes:
            if patch > min(*references[level].shape[1:], *shape[1:]):
                continue
            pool, stride = patches.extract(references[level], patch), max(1, patch // 4)
            zero, energy, before = pool.new_zeros(len(pool)), [], None
            for _ in range(rounds):
                cloud = patches.extract(image, patch, stride, periodic=True)
                squares, index = softmin.hardmin(cloud, pool, zero)
                distances = squares.clamp(min=1e-6).sqrt()  # a patch that is found weighs no inf
                energy.append(float(distances.double().pow(_ROBUST).mean()))
                if before is not None and torch.equal(index, before):
                    break
                before, weights = index, distances.pow(_ROBUST - 2)[:, None]
                total = patches.adjoint(weights * pool[index], shape, patch, stride, periodic=True)
                cover = patches.adjoint(
                    weights.expand_as(cloud), shape, patch, stride, periodic=True
                )
                image = total / cover
                if callback is not None:
                    callback(step, image)
                step += 1
            energies.append(torch.tensor(energy, dtype=torch.float64, device="cpu"))
    return image, energies


@plain
def shuffle(
    exemplar: Tensor, shape: Sequence[int], block: int, generator: torch.Generator
) -> Tensor:
    """An image of random square blocks of the exemplar: the first guess of Kwatra et al. 2005.

    exemplar: (C, H, W) float32 or float64, any device. shape: (h, w) wanted, pixels.
    block: side of a block, pixels, at most H and W. generator: torch.Generator on the CPU.

    Returns (C, h, w). Raises ValueError on bad pixels, a block larger than the exemplar.
    """
    _check.image("exemplar", exemplar)
    _check.whole("block", block)
    _check.generator(generator, cpu=True)
    for side in shape:
        _check.whole("shape", side)
    if block > min(exemplar.shape[1:]):
        height, width = exemplar.shape[1:]
        raise ValueError(f"block must be at most the exemplar's {height} x {width}, got {block}")
    pool = patches.extract(exemplar, block)
    rows, columns = (-(-side // block) for side in shape)
    chosen = torch.randint(len(pool), (rows * columns,), generator=generator, device="cpu")
    whole = (len(exemplar), rows * block, columns * block)
    return patches.adjoint(pool[chosen], whole, block, block)[:, : shape[0], : shape[1]]


@plain
def distances(
    image: Tensor,
    exemplar: Tensor,
    *,
    patch: int = 4,
    levels: int = 4,
    count: int = 1000,
    generator: torch.Generator,
) -> list[float]:
    """W2 between the patch distributions of two images, exact, at each scale.

    The distance of Definition 1, eq. (1), of Houdard et al. 2020 at p = 2.

    image, exemplar: (C, h, w) and (C, H, W) float32 or float64 in one scale, same device.
    patch, levels: as in `synthesise`. Patches lie inside both images: no seam is counted.
    count: patches drawn from each image and scale, at most. Two draws of one image are apart too,
        the more the fewer: compare with that floor.
    generator: torch.Generator on the CPU.

    Returns a list of floats, finest scale first, grey levels times sqrt(pixels of a patch).
    Raises ValueError on bad pixels, images that differ in channels, type or device, a scale at
    which one is smaller than a patch.
    """
    _check.image("exemplar", exemplar)
    _like("image", image, exemplar)
    _check.whole("count", count)
    _check.whole("patch", patch)
    _check.whole("levels", levels)
    _check.generator(generator, cpu=True)
    found = []
    for name, whole in (("image", image), ("exemplar", exemplar)):
        _room(name, whole, patch, levels, periodic=False)
    for scales in zip(*(patches.pyramid(i, levels) for i in (image, exemplar)), strict=True):
        x, y = (patches.draw(patches.extract(scale, patch), count, generator) for scale in scales)
        found.append(math.sqrt(max(0.0, float(semidual.solve(x, y, tol=1e-4).value))))
    return found


@plain
def sliced(
    image: Tensor,
    exemplar: Tensor,
    *,
    patch: int = 4,
    projections: int = 64,
    generator: torch.Generator,
) -> float:
    """Sliced W2 between all patches of two images, by POT.

    image, exemplar, generator: as in `distances`. patch: side of a patch, pixels.
    projections: random directions of the space of patches.

    Returns a float in grey levels: root mean square over directions of the W2 of the projections.
    Raises ValueError on bad pixels, images that differ in channels, type or device, or are smaller
    than a patch.
    """
    _check.image("exemplar", exemplar)
    _like("image", image, exemplar)
    _check.whole("projections", projections)
    _check.generator(generator, cpu=True)
    x, y = patches.extract(image, patch), patches.extract(exemplar, patch)
    options: dict[str, Any] = dict(generator=generator, dtype=torch.float64, device="cpu")
    directions = torch.randn(x.shape[1], projections, **options)
    directions = F.normalize(directions, dim=0).to(x)
    with torch.device("cpu"):
        return float(ot.sliced_wasserstein_distance(x, y, projections=directions))


@plain
def copied(image: Tensor, exemplar: Tensor, *, patch: int = 8) -> float:
    """Share of the patches that are part of a verbatim copy of the exemplar; 1 - it is innovation.

    image, exemplar: (C, h, w) and (C, H, W) float32 or float64 in one scale, same device.
    patch: side s of a patch, pixels.

    A patch counts where those s pixels to the right and s pixels below it have as nearest patches
    of the exemplar the ones s pixels to the right and below its own nearest: the three do not
    overlap, so that no threshold on distances is needed. 1 for a piece of an exemplar without
    repeats, about ((b - s) / b)^2 for blocks of side b side by side, next to 0 for other images.

    Returns a float in [0, 1]. Raises ValueError on bad pixels, images that differ in channels, type
    or device, or have less than 2 s pixels a side.
    """
    _check.image("exemplar", exemplar)
    _like("image", image, exemplar)
    _check.whole("patch", patch)
    for name, one in (("image", image), ("exemplar", exemplar)):
        if min(one.shape[1:]) < 2 * patch:
            height, width = one.shape[1:]
            raise ValueError(
                f"{name} must have at least {2 * patch} pixels a side, got {height} x {width}"
            )
    x, y = patches.extract(image, patch), patches.extract(exemplar, patch)
    height, width = (side - patch + 1 for side in image.shape[1:])
    columns = exemplar.shape[2] - patch + 1
    _, index = softmin.hardmin(x, y, y.new_zeros(len(y)))
    place = torch.stack([index // columns, index % columns], 1).reshape(height, width, 2)
    here, right, below = place[:-patch, :-patch], place[:-patch, patch:], place[patch:, :-patch]
    step = patch * torch.eye(2, dtype=torch.int64, device=place.device)
    inside = (below - here == step[0]).all(2) & (right - here == step[1]).all(2)
    return float(inside.double().mean())


def _minimise(value, start, steps, lr, callback):
    """Adam on a loss alone, with the losses it met."""
    losses = []

    def recorded(image):
        total = value(image)
        losses.append(float(total.detach()))
        return total

    image = restore(start, lambda u: u, [recorded], lam=0.0, steps=steps, lr=lr, callback=callback)
    return image, torch.tensor(losses, dtype=torch.float64, device="cpu")


def _targets(pools, numbers, samples, batch, generator):
    """The target patches of each scale and their weights, whole multiples of 1 / N."""
    targets = []
    for pool, number in zip(pools, numbers, strict=True):
        n = min(number, batch)
        cloud = patches.draw(pool, min(samples, n), generator)
        copies = torch.full((len(cloud),), n // len(cloud), device=pool.device)
        copies[: n % len(cloud)] += 1
        targets.append((cloud, copies.to(pool) / n))
    return targets


def _numbers(patch, levels, samples, batch, dual_steps, dual_step, generator):
    for name, value in dict(patch=patch, levels=levels, samples=samples).items():
        _check.whole(name, value)
    if batch != math.inf:
        _check.whole("batch", batch)
    _check.whole("dual_steps", dual_steps, least=0)
    _check.positive("dual_step", dual_step)
    _check.generator(generator, cpu=True)


def _like(name, image, exemplar):
    _check.image(name, image)
    if len(image) != len(exemplar):
        raise ValueError(
            f"{name} must have the exemplar's {len(exemplar)} channels, got {len(image)}"
        )
    if image.dtype != exemplar.dtype or image.device != exemplar.device:
        raise ValueError(
            f"{name} must be {exemplar.dtype} on {exemplar.device}, "
            f"got {image.dtype} on {image.device}"
        )


def _room(name, image, patch, levels, periodic):
    """Raise ValueError where a scale of an image is smaller than a patch, or than the blur."""
    sides = height, width = tuple(image.shape[1:])
    for level in range(levels):
        if level:
            if min(sides) < 4:
                sides = (0, 0)
            sides = tuple(-(-n // 2) if periodic else max(0, (n - 4) // 2 + 1) for n in sides)
        if min(sides) < patch:
            works = f"levels <= {level} works" if level else "no number of levels works"
            raise ValueError(
                f"{name} of {height} x {width} pixels is too small for {patch} x {patch} patches "
                f"at {levels} scales: {works}"
            )
