"""What the eye blames in a drawn texture and no method here minimises.

Houdard et al. 2020, sec. 4.3, name checkerboards and false colours; larger structures show in the
correlations of far pixels, a collapsed training in samples that are all alike.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from otlib import _check, softmin, texture
from otlib._ambient import plain

__all__ = ["checkerboard", "diversity", "false_colours", "responses", "spectrum", "structure"]

_ORIENTATIONS = 4  # so that a turn by 90 degrees takes each to another
_ROUNDING = 1 / 12 / 255**2  # the variance of rounding to 8 bits, below which nothing is seen


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
    _check.whole("period", period, 2)
    height, width = (side // period * period for side in image.shape[1:])
    if min(height, width) < 4 * period:
        raise ValueError(
            f"image must have sides >= {4 * period} pixels, got {tuple(image.shape[1:])}"
        )
    _check.varied("image", image[:, :height, :width])  # as far as whole periods go
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
    pair = _pair(image, exemplar, most + 1)
    for name, one in zip(("image", "exemplar"), pair, strict=True):
        for channel in one:
            _check.varied(f"each channel of {name}", channel)
    found = [_correlations(one, most) for one in pair]
    lags = torch.arange(-most, most + 1, device=image.device).abs()
    far = torch.maximum(lags[:, None], lags[None]) >= least
    return float((found[0] - found[1])[far].square().mean().sqrt())


@plain
@torch.no_grad()
def spectrum(image: Tensor, exemplar: Tensor, *, octaves: int = 4) -> float:
    """How far the power spectrum is from that of an exemplar.

    image, exemplar: (C, h, w) and (C, H, W) float32 or float64 in [0, 1], same device, sides >=
        4 * 2^octaves. octaves: bands of frequencies, the last one ends at the Nyquist frequency.

    Under a Hann window, which leaves no seam at the borders (Harris 1978), the power of all
    channels is averaged in each octave and each of four orientations, in place of single
    frequencies, so that sides may differ. The power of rounding to 8 bits, below which nothing is
    seen, is added.

    Returns the absolute difference of the logarithms, averaged over these bands, a float >= 0:
    log 4 where the contrast is doubled. Raises ValueError on bad or flat pixels, different
    channels, small images.
    """
    _check.whole("octaves", octaves)
    pair = _pair(image, exemplar, 4 << octaves)
    powers = [(_bands(one, octaves) + len(one) * _ROUNDING).log() for one in pair]
    return float((powers[0] - powers[1]).abs().mean())


@plain
@torch.no_grad()
def responses(
    image: Tensor,
    exemplar: Tensor,
    *,
    scales: int = 3,
    projections: int = 64,
    generator: torch.Generator,
) -> float:
    """How far the joint responses of oriented filters are from those of an exemplar.

    image, exemplar: (C, h, w) and (C, H, W) float32 or float64 in [0, 1], same device, sides >=
        8 * 2^scales. scales: of the filters, whose waves are 4, 8, ... pixels long. projections:
        random directions of the space of responses. generator: torch.Generator on the CPU.

    The filters are log-Gabor (Field 1987) at four orientations, an even and an odd one each.
    Portilla and Simoncelli 2000 match moments of such responses, Tartavel et al. 2016 the law of
    each wavelet coefficient in W2. Here it is the sliced W2 (`texture.sliced`) of their joint law
    at a pixel, all scales, orientations and channels together, each divided by its standard
    deviation in the exemplar. Pixels nearer to a border than the longest wave are left out.

    Returns a float >= 0: 1 is as far as the exemplar spreads. Raises ValueError on bad or flat
    pixels, different channels, small images, bad numbers.
    """
    _check.whole("scales", scales)
    pair = _pair(image, exemplar, 8 << scales)
    (ours, _), (theirs, floor) = (_filtered(one, scales) for one in pair)
    spread = (theirs.var((1, 2), correction=0) + floor.repeat(len(exemplar))).sqrt()[:, None, None]
    scaled = (ours / spread, theirs / spread)
    return texture.sliced(*scaled, patch=1, projections=projections, generator=generator)


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


def _polar(height, width, device):
    """Frequencies of an image's transform: cycles a pixel and angle, both (height, width)."""
    down, right = (
        torch.fft.fftfreq(n, dtype=torch.float64, device=device) for n in (height, width)
    )
    return torch.hypot(down[:, None], right), torch.atan2(down[:, None], right.expand(height, -1))


def _bands(image, octaves):
    """(octaves * orientations,): the mean power in each band; for white noise its variance."""
    height, width = image.shape[1:]
    # symmetric, so that a turned image has a turned spectrum
    windows = [
        torch.hann_window(n + 2, periodic=False, dtype=image.dtype, device=image.device)[1:-1]
        for n in (height, width)
    ]
    window = windows[0][:, None] * windows[1]
    mean = (window * image).sum((1, 2), keepdim=True) / window.sum()
    power = torch.fft.fft2(window * (image - mean)).abs().square().sum(0) / window.square().sum()
    radius, angle = _polar(height, width, image.device)
    octave = (octaves + 1 + radius.log2()).floor()  # below 0 left of the first, `octaves` beyond
    sector = (angle * _ORIENTATIONS / math.pi).round() % _ORIENTATIONS
    inside = (octave >= 0) & (octave < octaves)
    band = (octave * _ORIENTATIONS + sector)[inside].long()
    sums = power.new_zeros(2, octaves * _ORIENTATIONS)
    sums.index_add_(1, band, torch.stack([power, torch.ones_like(power)])[:, inside])
    return sums[0] / sums[1]


def _filtered(image, scales):
    """Responses to an image, (C * filters, h, w), and to rounding the variance, (filters,)."""
    height, width = image.shape[1:]
    radius, angle = _polar(height, width, image.device)
    bank = []
    for scale in range(scales):
        along = torch.exp(-((radius * (4 << scale)).log() / math.log(0.65)).square() / 2)
        for number in range(_ORIENTATIONS):
            # half a plane of frequencies: real and imaginary part are in quadrature
            across = (angle - math.pi * number / _ORIENTATIONS).cos().clamp(min=0) ** 3
            bank.append(along * across * (radius < 0.5))  # beyond there are corners alone
    filters = torch.stack(bank)
    transformed = torch.fft.fft2(image - image.mean((1, 2), keepdim=True))[:, None] * filters
    made = torch.view_as_real(torch.fft.ifft2(transformed)).movedim(-1, 2).flatten(0, 2)
    cut = 2 << scales
    floor = _ROUNDING / 2 * filters.square().mean((1, 2))  # half of it in each part
    return made[:, cut:-cut, cut:-cut], floor.repeat_interleave(2)


def _pair(image, exemplar, least):
    """Both in float64, after the checks that the measures share."""
    for name, one in (("image", image), ("exemplar", exemplar)):
        _check.image(name, one)
        _check.varied(name, one)
        _sides(name, one, least)
    _channels(image, exemplar)
    return image.double(), exemplar.double()


def _sides(name, image, least):
    if min(image.shape[1:]) < least:
        raise ValueError(f"{name} must have sides >= {least} pixels, got {tuple(image.shape[1:])}")


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
