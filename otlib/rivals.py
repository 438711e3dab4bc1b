"""The rivals of Houdard et al. 2020, Figs 2 and 4, that this book runs itself.

Gatys et al. 2015 and Texture Networks (Ulyanov et al. 2016) match the Gram matrices of VGG
features, the one in the pixels, the other in the weights of a generator:

    generator.train(net, rivals.gram_loss(exemplar, vgg), height, width, lr=0.1, ...)

The papers take VGG-19, the book `assets.networks.vgg16`. Texto is `texto`, those with a critic are
`psgan` and `singan`.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from otlib import _check, layers
from otlib._ambient import plain, sloped

__all__ = ["TAPS", "gatys", "gram_distance", "gram_loss", "grams"]

#: The layers of VGG whose statistics Gatys et al. match.
TAPS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")


@plain
def grams(image: Tensor, vgg: nn.Sequential, taps: Sequence[str] = TAPS) -> list[Tensor]:
    """Gram matrices of the features of an image: the statistics of Gatys et al. 2015, eq. (1).

    image: (C, H, W) float32, C = 1 or 3, values in [0, 1], on the device of the network.
    vgg: network of `assets.networks.vgg16`, pooling "average" in Gatys et al.
    taps: names of its layers.

    Returns a list of (n, n) tensors, F F' / (h w) for n feature maps of h x w pixels, the mean over
    pixels. Differentiable in the image, once. Raises ValueError on bad pixels, 2 or more than 3
    channels.
    """
    _check.image("image", image)
    if len(image) not in (1, 3):
        raise ValueError(f"image must have 1 or 3 channels, got {len(image)}")

    def products(image):
        maps = layers.taps(vgg, image.expand(3, -1, -1)[None], taps)
        return tuple((flat := layer[0].flatten(1)) @ flat.mT / flat.shape[1] for layer in maps)

    return list(sloped(products, image))


@plain
def gram_loss(
    exemplar: Tensor, vgg: nn.Sequential, taps: Sequence[str] = TAPS
) -> Callable[[Tensor], Tensor]:
    """The loss of Gatys et al. 2015 and of Texture Networks, with the weights 1000 / n^2.

    exemplar, vgg, taps: as in `grams`.

    Returns a function image (C, H, W) -> scalar, differentiable: the mean over a Gram matrix of the
    squared difference to the exemplar's, times 1000 / n^2, summed over the layers (the weights of
    the code that Houdard et al. compare with). Errors are those of `grams`.
    """
    with torch.no_grad():
        wanted = grams(exemplar, vgg, taps)

    @plain
    def loss(image):
        found = grams(image, vgg, taps)
        pairs = zip(found, wanted, strict=True)
        return sum(1e3 / len(g) ** 2 * (g - w).square().mean() for g, w in pairs)

    return loss


@plain
@torch.no_grad()
def gram_distance(
    image: Tensor, exemplar: Tensor, vgg: nn.Sequential, taps: Sequence[str] = TAPS
) -> float:
    """How far the VGG statistics of an image are from the exemplar's: mean of |G - G*| / |G*|.

    image, exemplar: as in `grams`, of any two sizes. vgg, taps: as in `grams`.

    Returns a float >= 0, without unit: relative distances of the Gram matrices in the Frobenius
    norm, averaged over the layers, so that each counts. Raises ValueError as `grams` does.
    """
    pairs = zip(grams(image, vgg, taps), grams(exemplar, vgg, taps), strict=True)
    return float(torch.stack([(g - w).norm() / w.norm() for g, w in pairs]).mean())


@plain(grad=True)
def gatys(
    exemplar: Tensor,
    vgg: nn.Sequential,
    start: Tensor,
    *,
    taps: Sequence[str] = TAPS,
    steps: int = 500,
    callback: Callable[[int, Tensor], object] | None = None,
) -> tuple[Tensor, Tensor]:
    """Texture synthesis of Gatys et al. 2015: minimise `gram_loss` in the pixels by L-BFGS.

    exemplar: (C, H, W) float32, C = 1 or 3, values in [0, 1].
    vgg, taps: as in `grams`.
    start: (C, h, w) first image, of any size >= 16, same type and device; noise in the paper.
    steps: of L-BFGS, at most. callback: called with (step, u) after each step.

    Returns (u, losses): u (C, h, w), not clipped, and (steps,) float64, the loss at the start of
    each step. Raises ValueError as `grams` does, and on a bad number of steps.
    """
    _check.image("start", start)
    _check.whole("steps", steps)
    loss = gram_loss(exemplar, vgg, taps)
    image = start.detach().clone().requires_grad_()
    # one step a call, else torch tells neither how far it is nor the losses between
    # max_eval bounds the line search too: by default it could try one length, and stalls
    solver = torch.optim.LBFGS([image], max_iter=1, max_eval=25, line_search_fn="strong_wolfe")
    losses = []

    def closure():
        solver.zero_grad()
        value = loss(image)
        value.backward()
        return value

    for step in range(steps):
        losses.append(float(solver.step(closure).detach()))  # at the start of the step
        if callback is not None:
            callback(step, image.detach())
    return image.detach(), torch.tensor(losses, dtype=torch.float64, device="cpu")
