"""A feed-forward texture network and its training, Algorithm 2 of Houdard et al. 2020.

The network is that of Ulyanov et al. 2016 (Texture Networks, their Fig. 2): noise at several
scales, each through a block of convolutions, joined from coarse to fine. It is trained once for one
exemplar and then draws images of any size. The potentials are those of `semidual`, |x - y|^2 being
the cost there; losses are halved, for the 1/2 |x - y|^2 of Houdard et al.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from otlib import _check, _training, patches, semidual
from otlib._ambient import plain

__all__ = ["NOISE_CHANNELS", "Network", "generate", "network", "noise", "train", "transport_loss"]

#: Noise channels a scale, in Ulyanov et al. and in the code of Houdard et al., grey or colour.
NOISE_CHANNELS = 3
_PLACE: dict[str, Any] = dict(dtype=torch.float32, device="cpu")  # of a new network


class Network(nn.Module):
    """The generator g_theta of Houdard et al. 2020, sec. 4: (B, 3, h, w) noises -> (B, C, H, W).

    channels: C of the images. scales: number of noises, >= 1; the sides of an image are multiples
    of 2^(scales - 1). width: channels that each scale adds, >= 1 (8 in Ulyanov et al.; 2 in the
    code of Houdard et al., with 6 scales: 7,968 parameters in colour).

    `forward` takes the list that `noise` draws, finest first. Borders are periodic. In the mode
    `train()` each normalisation takes the statistics of the very image, in `eval()` the fixed ones
    of the training: only then is an image made of the same pixels whole or in tiles.
    Raises ValueError on numbers that are not whole and >= 1.
    """

    def __init__(self, channels=1, scales=6, width=2):
        super().__init__()
        numbers = {"channels": channels, "scales": scales, "width": width}
        self.settings = {name: _check.whole(name, value) for name, value in numbers.items()}
        channels, scales, width = self.settings.values()
        self.enter = nn.ModuleList(_block(NOISE_CHANNELS, width) for _ in range(scales))
        joined = [width * (scales - k) for k in range(scales)]
        self.join = nn.ModuleList(_block(n, n) for n in joined[:-1])
        self.level = nn.ModuleList(nn.BatchNorm2d(n, **_PLACE) for n in joined[1:])
        self.leave = nn.Conv2d(joined[0], channels, 1, bias=False, **_PLACE)

    def forward(self, noises):
        features = self.enter[-1](noises[-1])
        for k in range(len(noises) - 2, -1, -1):
            coarse = self.level[k](F.interpolate(features, scale_factor=2, mode="nearest"))
            features = self.join[k](torch.cat((coarse, self.enter[k](noises[k])), 1))
        return self.leave(features)


def _block(inside, outside):
    """Convolutions 3 x 3, 3 x 3 and 1 x 1, each normalised and rectified."""
    layers = []
    for side, n in ((3, inside), (3, outside), (1, outside)):
        pad: dict[str, Any] = dict(padding=side // 2, padding_mode="circular")
        convolution = nn.Conv2d(n, outside, side, **pad, **_PLACE)
        layers += [convolution, nn.BatchNorm2d(outside, **_PLACE), nn.LeakyReLU()]
    return nn.Sequential(*layers)


@plain
def network(
    channels: int = 1, scales: int = 6, width: int = 2, *, generator: torch.Generator
) -> Network:
    """A `Network` with random weights that depend on the generator only.

    channels, scales, width: see `Network`. generator: torch.Generator on the CPU.
    Returns a float32 Network on the CPU, in training mode. Raises ValueError as `Network` does.
    """
    _check.generator(generator, cpu=True)
    net = Network(channels, scales, width)
    for layer in net.modules():  # as torch does by default, which draws from its global generator
        if isinstance(layer, nn.Conv2d):
            bound = layer.weight[0].numel() ** -0.5
            for weights in (layer.weight, layer.bias):
                if weights is not None:
                    nn.init.uniform_(weights, -bound, bound, generator=generator)
    return net


@plain
def noise(net: Network, height: int, width: int, *, generator: torch.Generator) -> list[Tensor]:
    """Draw the network's input for an image of a given size: uniform in [0, 1].

    net: Network. height, width: pixels, multiples of 2^(scales - 1).
    generator: torch.Generator on the CPU.

    Returns the list of (1, 3, height / 2^k, width / 2^k), k = 0, ..., scales - 1, in the type and
    on the device of the network. Raises ValueError on a side that the strides do not divide.
    """
    _side("height", height, net)
    _side("width", width, net)
    _check.generator(generator, cpu=True)
    like = net.leave.weight
    shapes = [(height >> k, width >> k) for k in range(net.settings["scales"])]
    options: dict[str, Any] = dict(generator=generator, dtype=torch.float32, device="cpu")
    draws = [torch.rand(1, NOISE_CHANNELS, *shape, **options) for shape in shapes]
    return [draw.to(like) for draw in draws]


@plain
@torch.no_grad()
def generate(net: Network, noises: Sequence[Tensor], *, tile: int | None = None) -> Tensor:
    """The image that a trained network makes of a noise, in one pass or in tiles.

    net: Network; used as in `eval()`: with the statistics of its training.
    noises: a list as `noise` draws.
    tile: side in pixels, a multiple of 2^(scales - 1): compute tile by tile, each with what lies
        around it as far as the network sees, 2^(scales + 1) pixels. Memory is then that of one tile
        of side tile + 2^(scales + 2), and the image that of one pass up to rounding. One pass by
        default.

    Returns (C, H, W), about [0, 1], not clipped; periodic. Raises ValueError on noises that do not
    fit the network, or a tile that the strides do not divide.
    """
    height, width = _fitting(net, noises)
    if tile is not None:
        _side("tile", tile, net)
    training = net.training
    net.eval()
    try:
        if tile is None:
            return net(noises)[0]
        # each of the joins sees 2 pixels of its scale, the coarsest noise is seen 2 further
        margin = 2 << net.settings["scales"]
        image = noises[0].new_empty(net.settings["channels"], height, width)
        for top in range(0, height, tile):
            for left in range(0, width, tile):
                high, wide = min(tile, height - top), min(tile, width - left)
                window = (top - margin, left - margin, high + 2 * margin, wide + 2 * margin)
                around = [_window(z, *(side >> k for side in window)) for k, z in enumerate(noises)]
                inside = net(around)[0, :, margin : margin + high, margin : margin + wide]
                image[:, top : top + high, left : left + wide] = inside
        return image
    finally:
        net.train(training)


def _window(noise, top, left, height, width):
    """A window of a periodic noise."""
    rows = torch.arange(top, top + height, device=noise.device) % noise.shape[2]
    columns = torch.arange(left, left + width, device=noise.device) % noise.shape[3]
    return noise[:, :, rows][:, :, :, columns]


@plain
def transport_loss(
    exemplar: Tensor,
    *,
    patch: int = 4,
    levels: int = 5,
    samples: int = 2048,
    batch: float = 1024,
    dual_steps: int = 10,
    dual_step: float = 5e-4,
    generator: torch.Generator,
) -> Callable[[Tensor], Tensor]:
    """The loss of eq. (13), Houdard et al. 2020: 1/2 W_2^2 between patches, summed over a pyramid.

    exemplar: v (C, H, W) float32 or float64 in [0, 1], any device.
    patch: side of a patch, pixels. levels: L, images of the pyramid.
    samples: target patches a scale, drawn once, at most; those inside the exemplar, so that its
        seam is not learnt. batch: patches of the image drawn afresh for each step, at most.
    dual_steps: steps of the averaged stochastic ascent in phi_l at each call (100 in the paper, 10
        in the authors' code).
    dual_step: > 0, squared grey levels, by how much the first of them lifts phi at a patch that no
        other chooses; 1 / 2000 in the authors' code. It is the C of `semidual.ascend_averaged`
        over the number of patches, so that scales of few patches take steps of the same size.
    generator: torch.Generator on the CPU.

    Returns a function u (C, h, w) -> scalar, differentiable, that takes u as periodic and keeps
    phi_l from call to call, in a list that is its attribute `potentials`. As in the authors' code
    one image serves all steps of a call, here each with other patches of it. Raises ValueError on
    bad pixels or numbers, an exemplar of another scale, a scale at which an image is smaller than a
    patch.
    """
    _check.image("exemplar", exemplar)
    for name, value in dict(samples=samples, batch=batch, dual_steps=dual_steps).items():
        _check.whole(name, value)
    _check.positive("dual_step", dual_step)
    _check.generator(generator, cpu=True)
    _check.levels("exemplar", exemplar)
    pools = [patches.extract(scale, patch) for scale in patches.pyramid(exemplar, levels)]
    targets = [patches.draw(pool, samples, generator) for pool in pools]
    potentials = [target.new_zeros(len(target)) for target in targets]

    @plain
    def loss(image):
        total = image.new_zeros(())
        for level, scale in enumerate(patches.pyramid(image, levels, periodic=True)):
            cloud, target = patches.extract(scale, patch, periodic=True), targets[level]
            potentials[level] = semidual.ascend_averaged(
                functools.partial(patches.draw, cloud.detach(), batch, generator),
                target,
                init=potentials[level],
                step=dual_step * len(target),
                max_iter=dual_steps,
            )
            points = patches.draw(cloud, batch, generator)
            total = total + semidual.evaluate(points, target, potentials[level]).value / 2
        return total

    vars(loss)["potentials"] = potentials  # for who keeps a training
    return loss


@plain(grad=True)
def train(
    net: Network,
    loss: Callable[[Tensor], Tensor],
    height: int,
    width: int,
    *,
    steps: int,
    lr: float = 0.01,
    generator: torch.Generator,
    callback: Callable[[int, Tensor], object] | None = None,
    first: int = 0,
    adam: torch.optim.Adam | None = None,
) -> Tensor:
    """Minimise the expected loss of a network's images by Adam: Algorithm 2, Houdard et al. 2020.

    net: Network, changed in place; left in `eval()`, its statistics those of 32 more images.
    loss: function image (C, height, width) -> scalar: `transport_loss`, or a rival's.
    height, width: pixels of the images drawn, multiples of 2^(scales - 1).
    steps: steps, one image each. lr: their size > 0 (.01 in the paper); it falls to 0 over the
        last quarter, which the paper does not say.
    generator: torch.Generator on the CPU. callback: called with (step, u) after each step, u the
        image that was drawn.
    first, adam: where an interrupted training goes on, the number of its next step and its
        optimiser; `assets.trainings.train_network` keeps both.

    Returns the losses, (steps - first,) float64. Raises ValueError on bad numbers or sizes,
    RuntimeError where the loss is no longer finite.
    """
    _check.whole("steps", steps)
    _check.whole("first", first, least=0)
    _check.positive("lr", lr)
    _check.generator(generator, cpu=True)
    _side("height", height, net)
    _side("width", width, net)
    adam = adam or torch.optim.Adam(net.parameters(), lr=lr)
    losses = []
    net.train()
    for step in range(first, steps):
        adam.param_groups[0]["lr"] = lr * min(1, 4 * (steps - step) / steps)
        image = net(noise(net, height, width, generator=generator))[0]
        value = loss(image)
        losses.append(float(value.detach()))
        if not math.isfinite(losses[-1]):
            raise RuntimeError(f"loss is {losses[-1]} at step {step}, lr={lr} too large")
        _training.step(adam, value)
        if callback is not None:
            callback(step, image.detach())
    _settle(net, [noise(net, height, width, generator=generator) for _ in range(32)])
    return torch.tensor(losses, dtype=torch.float64, device="cpu")


@torch.no_grad()
def _settle(net, draws):
    """Fix the statistics of normalisation: their means over the draws, at the final weights."""
    layers = [layer for layer in net.modules() if isinstance(layer, nn.BatchNorm2d)]
    momentum = layers[0].momentum
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # torch's word for a cumulative mean
    for noises in draws:
        net(noises)
    for layer in layers:
        layer.momentum = momentum
    net.eval()


def _side(name, value, net):
    stride = 1 << (net.settings["scales"] - 1)
    _check.whole(name, value)
    if value % stride:
        raise ValueError(f"{name} must be a multiple of {stride} pixels, got {value}")


def _fitting(net, noises):
    """Height and width of the image that the noises make."""
    height, width = noises[0].shape[2:]
    scales = net.settings["scales"]
    _side("height", height, net)
    _side("width", width, net)
    expected = [(1, NOISE_CHANNELS, height >> k, width >> k) for k in range(scales)]
    if [tuple(z.shape) for z in noises] != expected:
        raise ValueError(f"noises must have the shapes {expected}, see `noise`")
    return height, width
