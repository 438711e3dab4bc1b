"""What networks see: LPIPS of two images, the embeddings of a set that KID, FID, IS compare."""

import functools
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from otlib import _check, layers
from otlib._ambient import plain
from otlib.assets import networks
from otlib.assets.images import resize

__all__ = ["embeddings", "lpips", "lpips_each"]

# Of LPIPS: the trunk in the registry, the layers compared, the least side of an image.
_NETS = {
    "alex": ("alexnet", ("relu1", "relu2", "relu3", "relu4", "relu5"), 31),
    "vgg": ("vgg16", ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"), 16),
}


@plain
def lpips(
    x: Tensor, reference: Tensor, net: Literal["alex", "vgg"] = "alex", border: int = 0
) -> float:
    """Learned perceptual distance LPIPS v0.1 (Zhang et al. 2018, eq. (1)); 0 for identical images.

    x, reference: (C, H, W) float32 or float64 with values in [0, 1], nothing clipped (other scales
        are refused as by `metrics.ssim`), same shape; C is 3 for RGB or 1, which is repeated to
        RGB. Computed in float32 where x is.
    net: "alex" (H and W >= 31 without the border) or "vgg" (>= 16).
    border: pixels left out on each side, >= 0 (6 in Mignon et al. 2023, Table I).

    Returns a float >= 0. Raises ValueError on bad pixels, different shapes, another number of
    channels, an unknown net, an image too small for it, another scale; and as `registry.find` does
    where the weights are missing.
    """
    return lpips_each([x], reference, net, border)[0]


@plain
def lpips_each(
    images: Sequence[Tensor],
    reference: Tensor,
    net: Literal["alex", "vgg"] = "alex",
    border: int = 0,
) -> list[float]:
    """LPIPS of several images with one reference, which the network sees once.

    images: list of x as in `lpips`. reference, net, border: as there.

    Returns a float an image. Raises as `lpips` does, and ValueError on an empty list.
    """
    if net not in _NETS:
        raise ValueError(f"net must be 'alex' or 'vgg', got {net!r}")
    trunk, taps, least = _NETS[net]
    _check.whole("the number of images", len(images))
    shown = []
    for x in images:
        pair = _check.pair(x, reference, border, least)
        _check.levels("x", pair[0], share=_check.NOISE)
        if x.shape[0] not in (1, 3):
            raise ValueError(f"x must have 1 or 3 channels, got {x.shape[0]}")
        shown.append(pair)
    network, heads = _lpips_weights(trunk, images[0].device)

    def units(image):
        """What the network sees of it: at each place of a layer a vector of length 1."""
        image = image.to(images[0].device, torch.float32).expand(1, 3, -1, -1)
        for tap in layers.taps(network, image, taps):
            yield tap[0] / (tap[0].square().sum(0).sqrt() + 1e-10)

    with torch.no_grad():
        theirs, found = list(units(shown[0][1])), []
        for x, _ in shown:
            apart = zip(units(x), theirs, heads, strict=True)
            parts = [((u - v).square() * head[:, None, None]).sum(0) for u, v, head in apart]
            found.append(sum(part.mean().item() for part in parts))
    return found


@functools.cache
def _lpips_weights(trunk, device):
    load = {"alexnet": networks.alexnet, "vgg16": networks.vgg16}[trunk]
    return load(device), networks.lpips_heads(trunk, device)


@plain
def embeddings(
    images: Sequence[Tensor], device: str | torch.device = "cpu"
) -> tuple[Tensor, Tensor]:
    """Features and class probabilities of EfficientNet-lite0, what `kid`, `fid` and IS compare.

    The papers' are Inception's: numbers of different networks never share a row.

    images: list of (3, H, W) float32 or float64 RGB in [0, 1], nothing clipped; the central square
        is resized to 224 x 224. Other scales are refused as by `metrics.ssim`. device: of torch,
        where the network runs.

    Returns features (n, 1280) and probabilities (n, 1000), float64 on the CPU. Raises ValueError on
    bad pixels, another number of channels or scale, an empty list, and as `registry.find` does.
    """
    _check.whole("the number of images", len(images))
    for image in images:
        _check.image("images", image)
        if len(image) != 3:
            raise ValueError(f"images must have 3 channels, got {len(image)}")
        _check.levels("images", image, share=_check.NOISE)
    network, found = _efficientnet(torch.device(device)), []
    with torch.no_grad():
        for image in images:
            batch = resize(image.float(), 224)[None].to(device)
            found.append(layers.taps(network, batch, ("pool", "classes")))
    pooled, logits = (torch.cat(part).double().cpu() for part in zip(*found, strict=True))
    return pooled, logits.softmax(1)


@functools.cache
def _efficientnet(device):
    return networks.efficientnet(device)
