import math

import pytest
import torch

from otlib import metrics, operators


def uniform(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_psnr_of_a_constant_error(dtype):
    reference = torch.full((3, 9, 8), 0.25, dtype=dtype)
    value = metrics.psnr(reference + 0.125, reference)
    assert isinstance(value, float)
    assert value == pytest.approx(20 * math.log10(8), abs=1e-12)
    assert metrics.psnr(reference + 0.125, reference, peak=255.0) == pytest.approx(
        value + 20 * math.log10(255), abs=1e-12
    )
    assert metrics.psnr(reference, reference) == math.inf


def test_psnr_pools_the_channels():
    """An error in one channel of three is a third of the mean square."""
    reference = torch.zeros(3, 8, 8)
    x = reference.clone()
    x[1] = 0.5
    assert metrics.psnr(x, reference) == pytest.approx(10 * math.log10(3 / 0.25))


def test_border_leaves_the_border_out():
    reference, x = uniform(1, 24, 30), uniform(1, 24, 30, seed=1)
    inner = (slice(None), slice(6, -6), slice(6, -6))
    assert metrics.psnr(x, reference, border=6) == metrics.psnr(x[inner], reference[inner])
    assert metrics.ssim(x, reference, border=6) == metrics.ssim(x[inner], reference[inner])
    assert metrics.psnr(x, reference, border=6) != metrics.psnr(x, reference)


def ssim_by_definition(x, y):
    """Wang et al. 2004, eq. (13), over the pixels whose window lies inside."""
    kernel = operators.gaussian_kernel(11, 1.5)

    def mean(image):
        return operators.blur(image, kernel, "valid")

    mx, my = mean(x), mean(y)
    vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
    c1, c2 = 0.01**2, 0.03**2
    ratio = (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))
    return ratio.mean().item()


@pytest.mark.parametrize("shape", [(1, 32, 40), (3, 20, 17)])
def test_ssim_is_the_definition(shape):
    x = uniform(*shape)
    y = operators.gaussian_noise(x, 0.2, torch.Generator().manual_seed(1))
    assert metrics.ssim(y, x) == pytest.approx(ssim_by_definition(y, x), abs=1e-12)
    assert metrics.ssim(y.float(), x.float()) == pytest.approx(metrics.ssim(y, x), abs=1e-6)
    assert isinstance(metrics.ssim(y, x), float)
    assert metrics.ssim(x, x) == pytest.approx(1, abs=1e-12)


def test_metrics_take_images_that_require_gradients():
    x = uniform(1, 16, 16).requires_grad_()
    assert metrics.psnr(x, x.detach()) == math.inf
    assert metrics.ssim(x, x.detach()) == pytest.approx(1, abs=1e-12)


IMAGE = torch.zeros(1, 12, 13)
NAN = torch.full((1, 12, 13), torch.nan)
BAD = {
    "x must be finite": lambda: metrics.psnr(NAN, IMAGE),
    "reference must be finite": lambda: metrics.ssim(IMAGE, NAN),
    "x must have the shape of reference .1, 12, 13., got .1, 12, 12.": lambda: metrics.psnr(
        IMAGE[:, :, 1:], IMAGE
    ),
    "border must leave at least 1 x 1 of 12 x 13 pixels, got 6": lambda: metrics.psnr(
        IMAGE, IMAGE, border=6
    ),
    "border must leave at least 11 x 11 of 12 x 13 pixels, got 1": lambda: metrics.ssim(
        IMAGE, IMAGE, border=1
    ),
    "border must be a whole number >= 0, got -1": lambda: metrics.psnr(IMAGE, IMAGE, border=-1),
    "peak must be a number > 0": lambda: metrics.psnr(IMAGE, IMAGE, peak=0.0),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_one_line(message):
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        BAD[message]()
    assert "\n" not in str(caught.value)
