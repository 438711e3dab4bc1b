"""What the eye blames in a drawn texture and no method here minimises.

Houdard et al. 2020, sec. 4.3, name checkerboards and false colours; larger structures show in the
correlations of far pixels, a collapsed training in samples that are all alike.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from otlib import _check, softmin
from otlib._ambient import plain

__all__ = ["checkerboard", "diversity", "false_colours", "structure"]


@plain
@torch.no_grad()
def checkerboard(image: Tensor, *, period: int = 16) -> float:
    """How far a pattern stands out that is locked to the grid of pixels.

    image: (C, H, W) float32 or float64, sides >= 4 periods. period: pixels; upsampling by 2 leaves
        patterns of 2, 4, ... pixels, which all repeat after the last of them.

    The spectrum at the harmonics of the period, over its mean around them, averaged over the
    harmonics: 1 for noise of any smooth spectrum, more for a grid; a texture that itself repeats so
    has more too, see the exemplar's own. Returns a float > 0. Raises ValueError on bad or flat
    pixels, a small image, a period that is not whole and >= 2.
    """
    _check.image("image", image)
    _check.varied("image", image)
    _check.whole("period", period, 2)
    height, width = (side // period * period for side in image.shape[1:])
    if min(height, width) < 4 * period:
        raise ValueError(
            f"image must have sides >= {4 * period} pixels, got {tuple(image.shape[1:])}"
        )
    cut = image[:, :height, :width].double()
    windows = [torch.hann_window(n, dtype=cut.dtype, device=cut.device) for n in (height, width)]
    cut = (cut - cut.mean((1, 2), keepdim=True)) * windows[0][:, None] * windows[1]
    power = torch.fft.fft2(cut).abs().square().sum(0)
    # the window widens a line to 3 x 3 places, so that its surroundings begin beyond them
    around = (25 * _mean(power, 2) - 9 * _mean(power, 1)) / 16
    ratio = (power / around)[:: height // period, :: width // period].flatten()
    return float(ratio[1:].mean())  # without the mean


@plain
@torch.no_grad()
def structure(image: Tensor, exemplar: Tensor, *, least: int = 8, most: int = 48) -> float:
    """How far the correlations of distant pixels are from those of an exemplar.

    image, exemplar: (C, h, w) and (C, H, W) float32 or float64, same device. least, most: lags that
        count, pixels, those whose larger component lies between; sides > most.

    Returns the root mean square of the difference of the two autocorrelations (1 at lag 0, averaged
    over channels), a float >= 0. Raises ValueError on bad or flat pixels, different channels, small
    images, lags that are none.
    """
    _check.whole("least", least)
    _check.whole("most", most, least)
    found = []
    for name, one in (("image", image), ("exemplar", exemplar)):
        _check.image(name, one)
        _check.varied(name, one)
        if min(one.shape[1:]) <= most:
            raise ValueError(f"{name} must have sides > {most} pixels, got {tuple(one.shape[1:])}")
        found.append(_correlations(one.double(), most))
    _channels(image, exemplar)
    lags = torch.arange(-most, most + 1, device=image.device).abs()
    far = torch.maximum(lags[:, None], lags[None]) >= least
    return float((found[0] - found[1])[far].square().mean().sqrt())


@plain
@torch.no_grad()
def false_colours(image: Tensor, exemplar: Tensor, *, tolerance: float = 1 / 16) -> float:
    """Share of the pixels whose colour no pixel of the exemplar has.

    image, exemplar: (C, h, w) and (C, H, W) float32 or float64 in one scale, same device.
    tolerance: distance of colours, grey levels times sqrt(C), up to which two are the same; 1/16 is
        16 steps of 8 bits. Colours are rounded to such steps: an image has few of them.

    Returns a float in [0, 1]. Raises ValueError on bad pixels, different channels, types, devices.
    """
    _check.image("image", image)
    _check.image("exemplar", exemplar)
    _channels(image, exemplar)
    _check.positive("tolerance", tolerance)
    rounded = ((255 * one.flatten(1).mT).round() / 255 for one in (image, exemplar))
    (colours, often), (known, _) = (one.unique(dim=0, return_counts=True) for one in rounded)
    nearest, _ = softmin.hardmin(colours, known, known.new_zeros(len(known)))
    return float(often[nearest > tolerance**2 * len(image)].sum() / often.sum())


@plain
@torch.no_grad()
def diversity(images: Sequence[Tensor]) -> float:
    """How much samples differ from each other: 1 for independent ones, 0 for copies of one.

    images: two or more (C, H, W) of one shape, float32 or float64.

    Returns the standard deviation over samples, root mean square over pixels, by that over the
    pixels of a sample. Raises ValueError on bad or flat pixels, fewer than two, other shapes.
    """
    if len(images) < 2:
        raise ValueError(f"images must be two or more, got {len(images)}")
    for image in images:
        _check.image("images", image)
        _check.varied("images", image)
        if image.shape != images[0].shape:
            raise ValueError(
                f"images must have one shape, got {tuple(images[0].shape)} and {tuple(image.shape)}"
            )
    stack = torch.stack([image.double() for image in images])
    return float((stack.var(0).mean() / stack.flatten(2).var(2).mean()).sqrt())


def _mean(power, reach):
    """The mean of a periodic field over squares of 2 reach + 1 places a side."""
    padded = F.pad(power[None], [reach] * 4, mode="circular")
    return F.avg_pool2d(padded, 2 * reach + 1, 1)[0]


def _channels(image, exemplar):
    if len(image) != len(exemplar):
        raise ValueError(
            f"image must have the exemplar's {len(exemplar)} channels, got {len(image)}"
        )


def _correlations(image, most):
    """(2 most + 1, 2 most + 1): the autocorrelation at lags up to `most`, lag 0 in the middle."""
    height, width = image.shape[1:]
    size = height + most, width + most
    centred = image - image.mean((1, 2), keepdim=True)
    products, pairs = (
        torch.fft.irfft2(torch.fft.rfft2(x, size).abs().square(), size)
        for x in (centred, torch.ones_like(image[0]))
    )
    means = (products / pairs.clamp(min=0.5)).roll((most, most), (1, 2))
    window = means[:, : 2 * most + 1, : 2 * most + 1]
    return (window / window[:, most : most + 1, most : most + 1]).mean(0)
