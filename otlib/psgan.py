"""PSGAN, a rival of Houdard et al. 2020, Fig. 4: Bergmann, Jetchev and Vollgraf 2017.

A spatial generative adversarial network: a convolutional generator turns a field of noise into a
texture of any size, a convolutional critic judges each patch. The noise has a local part, one that
is the same everywhere, and waves whose lengths are learnt, for textures that repeat.

    training = begin(exemplar, generator=random)
    losses = advance(training, exemplar, steps=1000, generator=random)
    image = generate(training.net, noise(training.net, 256, 256, generator=random))
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from otlib import _check, _training
from otlib._ambient import plain

__all__ = ["Noise", "Spatial", "Training", "advance", "begin", "generate", "noise"]

_HIDDEN = 60  # of the layer that makes waves of the global noise
_PLACE: dict[str, Any] = dict(dtype=torch.float32, device="cpu")  # of new weights and draws


class Noise(NamedTuple):
    """The input of a `Spatial`: B images of L x M places each."""

    local: Tensor  # (B, d_l, L, M), one draw a place
    whole: Tensor  # (B, d_g), one a image
    phases: Tensor  # (B, d_p), of the waves, radians


class Spatial(nn.Module):
    """The generator G of Bergmann et al. 2017, sec. 2: Noise -> (B, C, 2^depth L, 2^depth M).

    channels: C. depth: transposed convolutions of side 5 and stride 2 (5 in the paper). width:
    channels below the last one, doubled at each layer below it (64 there). local, whole, periodic:
    d_l, d_g, d_p (each chosen by exemplar there). Values in [-1, 1]. Raises ValueError on numbers
    that are not whole and >= 1.
    """

    def __init__(self, channels=1, depth=4, width=32, local=20, whole=4, periodic=4):
        super().__init__()
        told = dict(channels=channels, depth=depth, width=width)
        told |= dict(local=local, whole=whole, periodic=periodic)
        self.settings = {name: _check.whole(name, value) for name, value in told.items()}
        inside = local + whole + periodic
        self.waves = nn.Sequential(
            nn.Linear(whole, _HIDDEN, **_PLACE),
            nn.ReLU(),
            nn.Linear(_HIDDEN, 2 * periodic, **_PLACE),
        )
        layers: list[nn.Module] = []
        for k in range(depth):
            outside = width << (depth - 2 - k) if k < depth - 1 else channels
            side: dict[str, Any] = dict(stride=2, padding=2, output_padding=1)
            last = k == depth - 1  # else the normalisation takes what a bias adds
            layers.append(nn.ConvTranspose2d(inside, outside, 5, bias=last, **side, **_PLACE))
            if not last:
                layers += [nn.BatchNorm2d(outside, **_PLACE), nn.ReLU()]
            inside = outside
        self.layers = nn.Sequential(*layers, nn.Tanh())

    def forward(self, z):
        rows, columns = z.local.shape[2:]
        number = self.settings["periodic"]
        down, right = self.waves(z.whole)[..., None, None].split(number, 1)
        places = [
            torch.arange(n, device=z.local.device, dtype=z.local.dtype) for n in (rows, columns)
        ]
        angle = down * places[0][:, None] + right * places[1] + z.phases[..., None, None]
        whole = z.whole[..., None, None].expand(-1, -1, rows, columns)
        return self.layers(torch.cat((z.local, whole, angle.sin()), 1))


class Training(NamedTuple):
    """A generator, its critic and where their optimisers are."""

    net: Spatial
    critic: nn.Sequential
    adams: tuple[torch.optim.Adam, torch.optim.Adam]  # of the critic, of the generator


@plain
def begin(
    exemplar: Tensor,
    *,
    depth: int = 4,
    width: int = 32,
    local: int = 20,
    whole: int = 4,
    periodic: int = 4,
    lr: float = 2e-4,
    generator: torch.Generator,
) -> Training:
    """An untrained generator and its critic, for `advance`.

    exemplar: (C, H, W) float32 in [0, 1], sides >= 2^depth. depth, width, local, whole, periodic:
        see `Spatial`. lr: step size of Adam > 0 (2e-4 in Bergmann et al., beta_1 = .5).
    generator: torch.Generator on the CPU.
    Returns a Training on the device of the exemplar. The first waves have lengths of 2 places and
    more, at random. Raises ValueError on bad pixels or numbers.
    """
    _check.positive("lr", lr)
    _check.generator(generator, cpu=True)
    _training.exemplar(exemplar, 1 << _check.whole("depth", depth))
    net = Spatial(len(exemplar), depth, width, local, whole, periodic)
    layers: list[nn.Module] = []
    inside = len(exemplar)
    for k in range(depth):
        outside = net.settings["width"] << k if k < depth - 1 else 1
        inner = 0 < k < depth - 1
        side: dict[str, Any] = dict(stride=2, padding=2, bias=not inner)
        layers.append(nn.Conv2d(inside, outside, 5, **side, **_PLACE))
        if inner:
            layers.append(nn.BatchNorm2d(outside, **_PLACE))
        if k < depth - 1:
            layers.append(nn.LeakyReLU(0.2))
        inside = outside
    critic = nn.Sequential(*layers)
    with torch.no_grad():
        for part in (net, critic):
            _training.drawn(part, generator).to(exemplar.device)
        lengths = torch.rand(2 * net.settings["periodic"], generator=generator, **_PLACE)
        net.get_parameter("waves.2.bias").copy_(math.pi * (2 * lengths - 1))
    adam = lambda part: torch.optim.Adam(part.parameters(), lr=lr, betas=(0.5, 0.999))
    return Training(net, critic, (adam(critic), adam(net)))


@plain(grad=True)
def advance(
    training: Training,
    exemplar: Tensor,
    *,
    steps: int,
    batch: int = 8,
    crop: int = 96,
    generator: torch.Generator,
    callback: Callable[[int], object] | None = None,
) -> Tensor:
    """Train on; Bergmann et al. 2017, eq. (4): each place of the critic votes.

    training: of `begin`; changed in place. exemplar: as there. steps: of Adam, for critic and
        generator each. batch: pieces of the exemplar and images a step (25 in the paper). crop:
        their side, pixels, a multiple of 2^depth, no more than the exemplar's (160).
    generator: torch.Generator on the CPU. callback: called with the number of each step.

    Returns (steps, 2) float64, the losses of critic and generator: mean logarithmic losses, ln 2
    where the critic guesses. Raises ValueError on bad numbers; RuntimeError where a loss is no
    longer finite.
    """
    net, critic, adams = training
    stride = 1 << net.settings["depth"]
    _check.whole("steps", steps)
    _check.whole("batch", batch, 2)
    _check.generator(generator, cpu=True)
    _training.exemplar(exemplar, stride)
    if len(exemplar) != net.settings["channels"]:
        raise ValueError(
            f"exemplar must have {net.settings['channels']} channels as at `begin`, "
            f"got {len(exemplar)}"
        )
    _side("crop", crop, stride)
    if crop > min(exemplar.shape[1:]):
        raise ValueError(f"crop must lie in the exemplar, {exemplar.shape[1:]}, got {crop}")
    net.train(), critic.train()
    real = 2 * exemplar - 1
    losses = []
    for step in range(steps):
        pieces = torch.stack([_piece(real, crop, generator) for _ in range(batch)])
        images = net(_draw(net, batch, crop, crop, generator))
        own = _loss(critic(pieces), 1.0) + _loss(critic(images.detach()), 0.0)
        _training.step(adams[0], own / 2)
        fooled = _loss(critic(images), 1.0)
        _training.step(adams[1], fooled)
        losses.append((float(own.detach()) / 2, float(fooled.detach())))
        if not all(map(math.isfinite, losses[-1])):
            raise RuntimeError(
                f"losses are {losses[-1]} at step {step}: the step size is too large"
            )
        if callback is not None:
            callback(step)
    net.eval()
    return torch.tensor(losses, dtype=torch.float64, device="cpu")


@plain
def noise(net: Spatial, height: int, width: int, *, generator: torch.Generator) -> Noise:
    """Draw the input for one image: uniform in [-1, 1], phases in [0, 2 pi).

    net: Spatial. height, width: of the image, pixels, multiples of 2^depth.
    generator: torch.Generator on the CPU.
    Returns a Noise on the device of the network. Raises ValueError on other sides.
    """
    stride = 1 << net.settings["depth"]
    _side("height", height, stride)
    _side("width", width, stride)
    _check.generator(generator, cpu=True)
    return _draw(net, 1, height, width, generator)


@plain
@torch.no_grad()
def generate(net: Spatial, z: Noise) -> Tensor:
    """The image that a network makes of a noise, with the statistics of its training.

    net: Spatial. z: of `noise`. Returns (C, H, W) in [0, 1].
    """
    training = net.training
    net.eval()
    try:
        return (net(z)[0] + 1) / 2
    finally:
        net.train(training)


def _draw(net, batch, height, width, generator):
    told = net.settings
    places = height >> told["depth"], width >> told["depth"]
    shapes = (told["local"], *places), (told["whole"],), (told["periodic"],)
    draws = [torch.rand(batch, *shape, generator=generator, **_PLACE) for shape in shapes]
    local, whole, phases = (draw.to(net.waves[0].weight.device) for draw in draws)
    return Noise(2 * local - 1, 2 * whole - 1, 2 * math.pi * phases)


def _piece(image, side, generator):
    """A square of an image at a random place."""
    ends = [n - side + 1 for n in image.shape[1:]]
    top, left = (int(torch.randint(end, (), generator=generator, device="cpu")) for end in ends)
    return image[:, top : top + side, left : left + side]


def _loss(scores, wanted):
    return F.binary_cross_entropy_with_logits(scores, torch.full_like(scores, wanted))


def _side(name, value, stride):
    if _check.whole(name, value) % stride:
        raise ValueError(f"{name} must be a multiple of {stride} pixels, got {value}")
