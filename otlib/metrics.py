"""How near an image is to its reference: PSNR, SSIM and LPIPS."""

import functools
import math

import torch
from skimage.metrics import structural_similarity

from otlib import _check, models

_WINDOW = 11  # side of the Gaussian window of Wang et al. 2004
# Of LPIPS: the trunk in the registry, the layers compared, the least side of an image.
_NETS = {
    "alex": ("alexnet", ("relu1", "relu2", "relu3", "relu4", "relu5"), 31),
    "vgg": ("vgg16", ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3"), 16),
}


def psnr(x, reference, border=0, peak=1.0):
    """Peak signal-to-noise ratio in dB: 10 log10(peak^2 / mean squared error), nothing clipped.

    x, reference: (C, H, W) float32 or float64, same shape; the mean is over pixels and channels.
    border: pixels left out on each side, >= 0 (6 in Mignon et al. 2023, Table I).
    peak: value of white > 0: 1 for values in [0, 1].

    Returns a float, inf for identical images. Raises ValueError on bad pixels, different shapes,
    a border that leaves nothing, peak <= 0.
    """
    x, reference = _pair(x, reference, border, 1)
    _check.positive("peak", peak)
    error = (x - reference).square().mean().item()
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)


def ssim(x, reference, border=0):
    """Structural similarity of Wang et al. 2004: 11 x 11 Gaussian window of sd 1.5, mean over all.

    x, reference: (C, H, W) float32 or float64 with values in [0, 1], same shape.
    border: pixels left out on each side, >= 0.

    Returns a float, 1 for identical images. Raises ValueError on bad pixels, different shapes, a
    border that leaves less than the window.
    """
    x, reference = _pair(x, reference, border, _WINDOW)
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


def lpips(x, reference, net="alex", border=0):
    """Learned perceptual distance LPIPS v0.1 (Zhang et al. 2018, eq. (1)); 0 for identical images.

    x, reference: (C, H, W) float32 or float64 with values in [0, 1], nothing clipped, same
        shape; C is 3 for RGB or 1, which is repeated to RGB. Computed in float32 where x is.
    net: "alex" (H and W >= 31 without the border) or "vgg" (>= 16).
    border: pixels left out on each side, >= 0 (6 in Mignon et al. 2023, Table I).

    Returns a float >= 0. Raises ValueError on bad pixels, different shapes, another number of
    channels, an unknown net, an image too small for it; and as `models.find` does where the
    weights are missing.
    """
    if net not in _NETS:
        raise ValueError(f"net must be 'alex' or 'vgg', got {net!r}")
    trunk, taps, least = _NETS[net]
    pair = _pair(x, reference, border, least)
    if x.shape[0] not in (1, 3):
        raise ValueError(f"x must have 1 or 3 channels, got {x.shape[0]}")
    network, heads = _lpips_weights(trunk, x.device)
    images = torch.stack(pair).to(x.device, torch.float32).expand(2, 3, -1, -1)
    with torch.no_grad():
        total = 0.0
        for tap, head in zip(models.features(network, images, taps), heads, strict=True):
            unit = tap / (tap.square().sum(1, keepdim=True).sqrt() + 1e-10)
            total += ((unit[0] - unit[1]).square() * head[:, None, None]).sum(0).mean().item()
    return total


@functools.cache
def _lpips_weights(trunk, device):
    load = {"alexnet": models.alexnet, "vgg16": models.vgg16}[trunk]
    return load(device), models.lpips_heads(trunk, device)


def _pair(x, reference, border, least):
    """Both images without their border, in float64 on the CPU."""
    _check.image("x", x)
    _check.image("reference", reference)
    _check.whole("border", border, least=0)
    if x.shape != reference.shape:
        raise ValueError(
            f"x must have the shape of reference {tuple(reference.shape)}, got {tuple(x.shape)}"
        )
    height, width = (side - 2 * border for side in x.shape[1:])
    if min(height, width) < least:
        raise ValueError(
            f"border must leave at least {least} x {least} of "
            f"{x.shape[1]} x {x.shape[2]} pixels, got {border}"
        )
    inside = (slice(None), slice(border, border + height), slice(border, border + width))
    return tuple(image.detach()[inside].double().cpu() for image in (x, reference))
