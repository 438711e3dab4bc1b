"""How near an image is to its reference: PSNR and SSIM."""

import math

from skimage.metrics import structural_similarity

from otlib import _check

_WINDOW = 11  # side of the Gaussian window of Wang et al. 2004


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
