"""SinGAN, a rival of Houdard et al. 2020, Fig. 4: Shaham, Dekel and Michaeli 2019.

A pyramid of small generators, trained from coarse to fine on one image. Each adds detail to what
comes from below, x + f(z + x), against a critic of patches with the loss of WGAN-GP, and is
anchored: one fixed noise gives the exemplar itself.

    pyramid = begin(exemplar, generator=random)
    for _ in pyramid.sides:
        losses = grow(pyramid, exemplar, steps=2000, generator=random)
    image = sample(pyramid, 512, 512, generator=random)
"""

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from otlib import _check, _training
from otlib._ambient import plain

__all__ = ["LEAST", "Pyramid", "begin", "grow", "reconstruct", "sample", "sides"]

#: Shorter side of the coarsest scale, pixels: what a patch of 11 sees most of.
LEAST = 25
_LAYERS = 5  # convolutions of a generator and of a critic
_AMPLITUDE = 0.1  # of the noise of a scale, in root mean squares of what is missing there
_PLACE: dict[str, Any] = dict(dtype=torch.float32, device="cpu")  # of new weights


class Pyramid(nn.Module):
    """The generators of the scales that are trained, coarsest first.

    channels: C of the images. width: channels inside the networks. sides: height and width of the
    exemplar at all scales. amplitudes: of the noise of each scale that is trained. critic: whether
    to make room for the critic that the next scale starts from. Its buffer `anchor`, z*,
    (1, 1, h, w), is the noise of the coarsest scale that gives the exemplar.
    """

    def __init__(self, channels, width, sides, amplitudes=(), critic=False):
        super().__init__()
        self.channels, self.width = _check.whole("channels", channels), _check.whole("width", width)
        self.sides = [tuple(side) for side in sides]
        self.amplitudes = [float(value) for value in amplitudes]
        make = lambda *end: _network(self.channels, self.width, *end)
        self.nets = nn.ModuleList(make(self.channels, nn.Tanh()) for _ in self.amplitudes)
        self.register_buffer("anchor", torch.zeros(1, 1, *self.sides[0], **_PLACE))
        # the last, no part of the model: a scale starts there
        self.critics: list[nn.Sequential] = [make(1, nn.Identity())] if critic else []

    @property
    def settings(self):
        return dict(
            channels=self.channels,
            width=self.width,
            sides=self.sides,
            amplitudes=self.amplitudes,
        )


@plain
def sides(height: int, width: int, factor: float = 0.75) -> list[tuple[int, int]]:
    """Sides of the images of the pyramid, coarsest first; Shaham et al. 2019, sec. 3.

    height, width: of the exemplar, pixels, >= LEAST. factor: about that between two scales, the
    least not below it with which the shorter side ends at LEAST; between 0 and 1.
    Returns a list of (h, w). Raises ValueError on other numbers.
    """
    _check.whole("height", height, LEAST)
    _check.whole("width", width, LEAST)
    if not 0 < _check.number("factor", factor) < 1:
        raise ValueError(f"factor must lie between 0 and 1, got {factor}")
    ratio = LEAST / min(height, width)
    steps = max(0, math.ceil(math.log(ratio) / math.log(factor) - 1e-9))
    powers = [ratio ** (k / steps) for k in range(steps, 0, -1)]
    return [*((round(height * p), round(width * p)) for p in powers), (height, width)]


@plain
def begin(
    exemplar: Tensor, *, factor: float = 0.75, width: int = 32, generator: torch.Generator
) -> Pyramid:
    """A pyramid of which no scale is trained.

    exemplar: (C, H, W) float32 in [0, 1], sides >= LEAST. factor: as in `sides`. width: channels of
        the networks (32 in Shaham et al., twice as many at every fourth scale).
    generator: torch.Generator on the CPU.
    Returns a Pyramid on the device of the exemplar. Raises ValueError on bad pixels or numbers.
    """
    _training.exemplar(exemplar, LEAST)
    _check.generator(generator, cpu=True)
    height, breadth = exemplar.shape[1:]
    found = sides(height, breadth, factor)
    pyramid = Pyramid(len(exemplar), width, found)
    pyramid.get_buffer("anchor").normal_(generator=generator)
    return pyramid.to(exemplar.device)


@plain(grad=True)
def grow(
    pyramid: Pyramid,
    exemplar: Tensor,
    *,
    steps: int = 2000,
    inner: int = 3,
    lr: float = 5e-4,
    penalty: float = 0.1,
    anchoring: float = 10.0,
    generator: torch.Generator,
    callback: Callable[[int], object] | None = None,
) -> Tensor:
    """Train the next scale of a pyramid; Shaham et al. 2019, eq. (4) to (6).

    pyramid: of `begin`, with a scale left; the new one is added in place. exemplar: as in `begin`.
    steps: each of `inner` steps of Adam on the critic and as many on the generator (2000 of 3).
    lr: their size, a tenth of it after four fifths of the steps (5e-4). penalty, anchoring: weights
        of the gradient penalty and of the squared error of the anchor (.1 and 10 in their code).
    generator: torch.Generator on the CPU. callback: called with the number of each step.

    As in their code the penalty is on the norm over channels, at each pixel, of the gradient of the
    sum of scores, networks start from those of the scale below, and borders are padded with zeros.
    Returns (steps, 2) float64: the critic's mean score of the exemplar less that of a sample, and
    the root mean square error of the anchor, in grey levels. Raises ValueError on bad numbers, no
    scale left, an exemplar of other sides; RuntimeError where a loss is no longer finite, which
    leaves the pyramid as it was.
    """
    for name, value in dict(steps=steps, inner=inner).items():
        _check.whole(name, value)
    for name, weight in dict(lr=lr, penalty=penalty, anchoring=anchoring).items():
        _check.positive(name, weight)
    _check.generator(generator, cpu=True)
    _training.exemplar(exemplar, LEAST)
    scale = len(pyramid.nets)
    _fits(pyramid, exemplar)
    size = pyramid.sides[scale]
    real = _resized(2 * exemplar[None] - 1, size)
    with torch.no_grad():
        anchored = _upto(pyramid, pyramid.sides, _anchor(pyramid), scale)
    missing = float((real - anchored).square().mean().sqrt())
    amplitude = _AMPLITUDE * missing if scale else 1.0
    still = torch.zeros_like(real) if scale else pyramid.anchor
    net = _new(pyramid, pyramid.channels, nn.Tanh(), pyramid.nets[-1:], generator)
    critic = _new(pyramid, 1, nn.Identity(), pyramid.critics, generator)
    adams = [torch.optim.Adam(m.parameters(), lr=lr, betas=(0.5, 0.999)) for m in (critic, net)]
    losses = []

    def fake():
        with torch.no_grad():
            below = _upto(pyramid, pyramid.sides, _noises(pyramid, pyramid.sides, generator), scale)
            z = _noise(pyramid, size, scale, generator, amplitude)
        return _add(net, z, below)

    for step in range(steps):
        for adam in adams:
            adam.param_groups[0]["lr"] = lr * (0.1 if step >= 0.8 * steps else 1.0)
        for _ in range(inner):
            with torch.no_grad():
                image = fake()
            gap = critic(real).mean() - critic(image).mean()
            share = float(torch.rand((), generator=generator, **_PLACE))
            between = (share * real + (1 - share) * image).requires_grad_()
            (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
            price = (slope.norm(dim=1) - 1).square().mean()
            _training.step(adams[0], penalty * price - gap)
        for _ in range(inner):
            error = (_add(net, still, anchored) - real).square().mean()
            _training.step(adams[1], anchoring * error - critic(fake()).mean())
        losses.append((float(gap.detach()), float(error.detach().sqrt()) / 2))
        if not all(map(math.isfinite, losses[-1])):
            raise RuntimeError(f"losses are {losses[-1]} at step {step}, lr={lr} too large")
        if callback is not None:
            callback(step)
    pyramid.nets.append(net.eval().requires_grad_(False))
    pyramid.amplitudes.append(amplitude)
    pyramid.critics = [critic]
    return torch.tensor(losses, dtype=torch.float64, device="cpu")


@plain
@torch.no_grad()
def sample(pyramid: Pyramid, height: int, width: int, *, generator: torch.Generator) -> Tensor:
    """Draw an image, of any size, from the scales that are trained.

    pyramid: with one at least. height, width: of the image at the finest scale of the exemplar,
        pixels, >= LEAST; scales in between have sides in proportion.
    generator: torch.Generator on the CPU.
    Returns (C, h, w) in [0, 1]; the sides are those asked for where all scales are trained. Raises
    ValueError on bad numbers or an untrained pyramid.
    """
    _trained(pyramid)
    _check.whole("height", height, LEAST)
    _check.whole("width", width, LEAST)
    _check.generator(generator, cpu=True)
    whole = pyramid.sides[-1]
    sizes = [(round(h * height / whole[0]), round(w * width / whole[1])) for h, w in pyramid.sides]
    noises = _noises(pyramid, sizes, generator)
    image = _upto(pyramid, sizes[: len(pyramid.nets)], noises, len(pyramid.nets))
    return (image[0] + 1).div(2).clamp(0, 1)


@plain
@torch.no_grad()
def reconstruct(pyramid: Pyramid) -> Tensor:
    """The image of the fixed noise: the exemplar, as far as the anchor holds.

    pyramid: with one trained scale at least. Returns (C, h, w) in [0, 1], of the finest scale that
    is trained. Raises ValueError on an untrained pyramid.
    """
    _trained(pyramid)
    number = len(pyramid.nets)
    image = _upto(pyramid, pyramid.sides[:number], _anchor(pyramid), number)
    return (image[0] + 1).div(2).clamp(0, 1)


def _upto(pyramid, sizes, noises, scale):
    """What the scales below one give it, enlarged to its size; zeros at the coarsest."""
    channels = pyramid.channels
    image = pyramid.anchor.new_zeros(1, channels, *sizes[0])
    for k in range(scale):
        image = _add(pyramid.nets[k], noises(k), image)
        if k + 1 < len(sizes):
            image = _resized(image, sizes[k + 1])
    return image


def _noises(pyramid, sizes, generator):
    """A function: scale -> a draw of its noise."""
    return lambda k: _noise(pyramid, sizes[k], k, generator, pyramid.amplitudes[k])


def _anchor(pyramid):
    """A function: scale -> the noise that gives the exemplar, 0 above the coarsest scale."""
    return lambda k: pyramid.anchor if k == 0 else 0.0


def _noise(pyramid, size, scale, generator, amplitude):
    channels = pyramid.channels if scale else 1
    z = torch.randn(1, channels, *size, generator=generator, **_PLACE)
    return amplitude * z.to(pyramid.anchor.device)


def _add(net, noise, image):
    """x + f(z + x), where f sees zeros around the image."""
    return image + net(F.pad(image + noise, [_LAYERS] * 4))


def _resized(image, size):
    if image.shape[2:] == torch.Size(size):
        return image
    return F.interpolate(image, size, mode="bicubic", align_corners=False, antialias=True)


def _new(pyramid, outside, last, below, generator):
    """A network of a new scale: with the weights of the one below, where there is one."""
    net = _network(pyramid.channels, pyramid.width, outside, last)
    _training.drawn(net, generator)
    for start in below:
        net.load_state_dict(start.state_dict())
    return net.to(pyramid.anchor.device)


def _network(inside, width, outside, last):
    """Convolutions of side 3 without padding, normalised and rectified but the last."""
    layers: list[nn.Module] = []
    for k in range(_LAYERS - 1):
        layers.append(nn.Conv2d(width if k else inside, width, 3, bias=False, **_PLACE))
        layers += [nn.BatchNorm2d(width, **_PLACE), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers, nn.Conv2d(width, outside, 3, **_PLACE), last)


def _fits(pyramid, exemplar):
    expected = (pyramid.channels, *pyramid.sides[-1])
    if tuple(exemplar.shape) != expected:
        raise ValueError(f"exemplar must be {expected} as at `begin`, got {tuple(exemplar.shape)}")
    if len(pyramid.nets) == len(pyramid.sides):
        raise ValueError(f"pyramid must have a scale left, got all {len(pyramid.sides)} trained")


def _trained(pyramid):
    if not pyramid.nets:
        raise ValueError("pyramid must have a trained scale, got none: see `grow`")
