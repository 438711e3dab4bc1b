"""Denoising diffusion: a network that tells the noise in an image, and images drawn with it.

The forward process of Ho et al. 2020 in its own scale, x_t = sqrt(a_t) x + sqrt(1 - a_t) z, and in
that of `ddrm`, x + level z with level = sqrt((1 - a_t) / a_t): the same up to a factor.
"""

import copy
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from otlib import _check, _training
from otlib._ambient import defaults, plain

__all__ = ["Training", "advance", "begin", "descent", "draw", "kept", "predictor"]

_WARM = 200  # steps in which the step size rises
_AVERAGE = 0.999  # of the weights, by exponential decay (Ho et al.: .9999, for 100 times the steps)


class Training(NamedTuple):
    """A training under way, changed in place."""

    net: nn.Module
    average: nn.Module  # with the mean of its last weights: what is used afterwards
    adam: torch.optim.Optimizer


@plain
def kept(count: int = 1000) -> Tensor:
    """The share a_t of the signal's variance at each step; Ho et al. 2020, sec. 4.

    count: of the steps, >= 1. Returns (count,) float32, falling: the variances of the noise added
    rise linearly from 1e-4 to .02.
    """
    _check.whole("count", count)
    added = torch.linspace(1e-4, 0.02, count, dtype=torch.float64, device="cpu")
    return (1 - added).cumprod(0).float()


@plain
def begin(net: nn.Module, *, lr: float = 5e-4) -> Training:
    """Start to train a network.

    net: on the CPU, changed in place by `advance`: from (N, 3, H, W) float32 and steps (N,) to an
        object whose `sample` is the noise it sees, as diffusers' UNet2DModel. lr: largest step size
        of Adam (Ho et al. 2020: 2e-4).

    Returns a Training. Raises ValueError on a bad number.
    """
    _check.positive("lr", lr)
    average = copy.deepcopy(net).requires_grad_(False).eval()
    return Training(net.train(), average, torch.optim.Adam(net.parameters(), lr=lr))


@plain(grad=True)
def advance(
    training: Training,
    photographs: Sequence[Tensor],
    *,
    steps: range,
    total: int,
    sides: Sequence[int] = (32, 32, 32, 64),
    pixels: int = 12288,
    generator: torch.Generator,
    callback: Callable[[int], object] | None = None,
) -> Tensor:
    """Train on; Ho et al. 2020, eq. (14): the noise's squared error at a step drawn at random.

    training: of `begin`; changed in place. photographs: (3, H, W) float32 in [0, 1] each, on the
        CPU. steps: those to do, of `total`: the step size rises in the first 200 and falls to 0 as
        a cosine. sides: of the crops, pixels, multiples of 8, by turns; the photographs are no
        smaller. pixels: of all crops of a step, so that small crops, which cost less, are more.
    generator: torch.Generator on the CPU. callback: called with the number of each step.

    Returns (len(steps),) float64, the mean squared error of each step, 1 for a network that tells
    nothing. Raises ValueError on bad numbers and photographs; RuntimeError where a loss is no
    longer finite.
    """
    if not (0 <= steps.start <= steps.stop <= _check.whole("total", total)) or steps.step != 1:
        raise ValueError(f"steps must be a part of 0 to {total}, got {steps}")
    for side in sides:
        if _check.whole("sides", side) % 8 or side**2 > pixels:
            raise ValueError(f"sides must be multiples of 8 of <= {pixels} pixels, got {side}")
    _check.generator(generator, cpu=True)
    if not photographs:
        raise ValueError("photographs must be one or more, got none")
    for photograph in photographs:
        _check.image("photographs", photograph)
        _check.levels("photographs", photograph)
        if len(photograph) != 3 or min(photograph.shape[1:]) < max(sides):
            shape = tuple(photograph.shape)
            raise ValueError(f"photographs must be (3, >= {max(sides)}, same), got {shape}")
    net, average, adam = training
    share, losses = kept(), []
    highest = adam.defaults["lr"]
    for step in steps:
        side = sides[step % len(sides)]
        clean = torch.stack([_crop(photographs, side, generator) for _ in range(pixels // side**2)])
        t = torch.randint(len(share), (len(clean),), generator=generator, device="cpu")
        noise = torch.randn(clean.shape, generator=generator, dtype=torch.float32, device="cpu")
        a = share[t][:, None, None, None]
        seen = a.sqrt() * (2 * clean - 1) + (1 - a).sqrt() * noise
        slow = min(1.0, (step + 1) / _WARM) * (1 + math.cos(math.pi * step / total)) / 2
        for group in adam.param_groups:
            group["lr"] = highest * slow
        with defaults():
            loss = (net(seen, t).sample - noise).square().mean()
        _training.step(adam, loss)
        decay = min(_AVERAGE, (step + 1) / (step + 10))
        with torch.no_grad():
            for mean, new in zip(average.parameters(), net.parameters(), strict=True):
                mean.lerp_(new, 1 - decay)
        losses.append(float(loss.detach()))
        if not math.isfinite(losses[-1]):
            raise RuntimeError(f"loss is {losses[-1]} at step {step}: the step size is too large")
        if callback is not None:
            callback(step)
    return torch.tensor(losses, dtype=torch.float64, device="cpu")


def _crop(photographs, side, generator):
    """A square of a photograph at a random place, mirrored or not."""
    draw = lambda end: int(torch.randint(end, (), generator=generator, device="cpu"))
    photograph = photographs[draw(len(photographs))]
    top, left = (draw(n - side + 1) for n in photograph.shape[1:])
    piece = photograph[:, top : top + side, left : left + side]
    return piece.flip(2) if draw(2) else piece


@plain
def descent(share: Tensor, count: int = 20) -> tuple[list[int], list[float]]:
    """Steps of a diffusion to descend by, and their noise levels; Kawar et al. 2022, sec. 4.

    share: of the signal's variance at each step, as `kept` gives it. count: of the levels, spread
    evenly over the steps, >= 2.
    Returns (steps, levels), both falling. Raises ValueError on another count.
    """
    _check.whole("count", count, 2)
    steps = (
        torch.linspace(len(share) - 1, 0, count, dtype=torch.float64, device="cpu").round().long()
    )
    share = share.cpu()
    levels = ((1 - share[steps].double()) / share[steps].double()).sqrt()
    return steps.tolist(), levels.tolist()


@plain
def predictor(
    net: nn.Module, steps: Sequence[int], levels: Sequence[float]
) -> Callable[[Tensor, int], Tensor]:
    """What `ddrm.sample` asks a network for: the clean image it sees; Ho et al. 2020, eq. (15).

    net: of images of unit variance (N, C, H, W) and a step to their noise, as diffusers has it.
    steps, levels: of `descent`.

    Returns a function of x (C, H, W) or (N, C, H, W), an image in [-1, 1] with noise of level
    levels[k], and of k, to the estimate of the image.
    """

    @plain
    @defaults()
    @torch.no_grad()
    def predict(x, k):
        scaled = (x if x.ndim == 4 else x[None]) / (1 + levels[k] ** 2) ** 0.5
        noise = net(scaled, steps[k]).sample[:, : x.shape[-3]]  # some predict a variance too
        return x - levels[k] * noise.view_as(x)

    return predict


@plain
@torch.no_grad()
def draw(
    predict: Callable[[Tensor, int], Tensor],
    levels: Sequence[float],
    shape: tuple[int, ...],
    generator: torch.Generator,
    eta: float = 1.0,
) -> Tensor:
    """Draw images from the prior alone; Song et al. 2021, eq. (12).

    predict, levels: as for `ddrm.sample`. shape: of the images, as `predict` takes them.
    generator: torch.Generator. eta: share of fresh noise in [0, 1]: 0 is a flow, 1 the descent of
        Ho et al. 2020.

    Returns float32 of that shape. Raises ValueError on bad numbers.
    """
    _check.generator(generator)
    if not 0 <= eta <= 1:
        raise ValueError(f"eta must lie in [0, 1], got {eta}")
    where = generator.device
    white = lambda: torch.randn(shape, generator=generator, dtype=torch.float32, device=where)
    x = levels[0] * white()
    for k, (level, after) in enumerate(zip(levels, [*levels[1:], 0.0], strict=True)):
        guess = predict(x, k)
        fresh = eta * after * (1 - (after / level) ** 2) ** 0.5
        x = guess + (after**2 - fresh**2) ** 0.5 * (x - guess) / level + fresh * white()
    return x
