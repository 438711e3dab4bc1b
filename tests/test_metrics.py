import math
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data

from otlib import metrics, models, operators


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


def photograph(channels=3):
    image = torch.tensor(data.astronaut()[96:160, 200:264], dtype=torch.float32) / 255
    return image.permute(2, 0, 1)[:channels]


NETS = pytest.mark.parametrize("net", ["alex", "vgg"])


def windows(x, side, stride):
    """The side x side windows of x (C, H, W), as (C, h, w, side, side)."""
    found = np.lib.stride_tricks.sliding_window_view(x, (side, side), (1, 2))
    return found[:, ::stride, ::stride]


def convolve(x, kernel, bias, stride, pad):
    """x (C, H, W) by kernel (h, w, C, out): the convolutions of both networks, in float64."""
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    maps = np.tensordot(kernel, windows(x, len(kernel), stride), ((0, 1, 2), (3, 4, 0)))
    return maps + bias[:, None, None]


def lpips_by_definition(x, y, net):
    """Zhang et al. 2018, eq. (1), in float64 numpy, from the numbers of the file."""
    with open(models.find({"alex": "alexnet", "vgg": "vgg16"}[net]), "rb") as file:
        weights = pickle.load(file)  # its hash was checked
    trunk = weights["AlexNet_0" if net == "alex" else "VGG16_0"]
    shift = np.array([-0.030, -0.088, -0.188])[:, None, None]
    scale = np.array([0.458, 0.448, 0.450])[:, None, None]

    def taps(image):
        z, found = (2 * image.double().numpy() - 1 - shift) / scale, []
        for i in range(len(trunk)):
            stride, pad = {0: (4, 2), 1: (1, 2)}.get(i, (1, 1)) if net == "alex" else (1, 1)
            if i in ((1, 2) if net == "alex" else (2, 4, 7, 10)):
                z = windows(z, 3 if net == "alex" else 2, 2).max((3, 4))
            layer = {key: value.astype(np.float64) for key, value in trunk[f"Conv_{i}"].items()}
            z = np.maximum(convolve(z, layer["kernel"], layer["bias"], stride, pad), 0)
            if net == "alex" or i in (1, 3, 6, 9, 12):
                found.append(z / (np.sqrt((z**2).sum(0)) + 1e-10))
        return found

    heads = [weights[f"NetLinLayer_{i}"]["Conv_0"]["kernel"].ravel() for i in range(5)]
    parts = zip(taps(x), taps(y), heads, strict=True)
    return sum(np.tensordot(w, (a - b) ** 2, 1).mean() for a, b, w in parts)


@pytest.mark.parametrize(("net", "height", "width"), [("alex", 31, 40), ("vgg", 16, 19)])
def test_lpips_is_the_definition(net, height, width):
    x = photograph()[:, :height, :width]
    y = operators.gaussian_noise(x, 0.1, torch.Generator().manual_seed(1))
    value = metrics.lpips(y, x, net)
    assert isinstance(value, float)
    assert value > 0.05
    assert value == pytest.approx(lpips_by_definition(y, x, net), abs=1e-5)


@NETS
def test_lpips_is_zero_for_identical_images_and_symmetric(net):
    x = photograph()
    y = operators.gaussian_noise(x, 0.1, torch.Generator().manual_seed(1))
    assert metrics.lpips(x, x, net) == 0
    assert metrics.lpips(x, y, net) == pytest.approx(metrics.lpips(y, x, net), abs=1e-6)
    assert metrics.lpips(x.double(), y.double(), net) == metrics.lpips(x, y, net)


@NETS
def test_lpips_grows_with_noise_and_with_blur(net):
    x = photograph()
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    noisy = [metrics.lpips(x + sd * noise, x, net) for sd in (0.0, 0.02, 0.05, 0.1, 0.2)]
    blurred = [
        metrics.lpips(operators.blur(x, operators.gaussian_kernel(13, sd)), x, net)
        for sd in (0.5, 1.0, 2.0, 3.0)
    ]
    assert noisy == sorted(set(noisy))
    assert blurred == sorted(set(blurred))
    assert blurred[0] > 0


@NETS
def test_lpips_sees_colour_place_and_order_of_channels(net):
    """It is no function of the grey image, of the histogram or of the spectrum alone."""
    x = photograph()
    for changed in (x.flip(0), x.roll(8, 2), x.flip(2), x * 0.8):
        assert metrics.lpips(changed, x, net) > 0.01


@NETS
def test_lpips_repeats_grey_and_leaves_the_border_out(net):
    x = photograph(1)
    y = operators.gaussian_noise(x, 0.1, torch.Generator().manual_seed(1))
    value = metrics.lpips(y, x, net)
    assert value == metrics.lpips(y.expand(3, -1, -1), x.expand(3, -1, -1), net)
    inner = (slice(None), slice(6, -6), slice(6, -6))
    assert metrics.lpips(y, x, net, border=6) == metrics.lpips(y[inner], x[inner], net) != value


@settings(max_examples=10, deadline=None)
@given(st.sampled_from([1, 3]), st.integers(31, 50), st.integers(31, 50), st.integers(0, 99))
def test_lpips_takes_any_image_that_is_large_enough(channels, height, width, seed):
    x, y = uniform(channels, height, width, seed=seed), uniform(channels, height, width, seed=100)
    assert 0 < metrics.lpips(x, y) < 2


def test_metrics_take_images_that_require_gradients():
    x = uniform(1, 16, 16).requires_grad_()
    assert metrics.lpips(x, x.detach(), "vgg") == 0
    assert metrics.psnr(x, x.detach()) == math.inf
    assert metrics.ssim(x, x.detach()) == pytest.approx(1, abs=1e-12)


IMAGE = torch.zeros(1, 12, 13)
PAIR = torch.zeros(2, 32, 33)
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
    "x must be finite, got 156": lambda: metrics.lpips(NAN, IMAGE),
    "net must be 'alex' or 'vgg', got 'squeeze'": lambda: metrics.lpips(IMAGE, IMAGE, "squeeze"),
    "x must have 1 or 3 channels, got 2": lambda: metrics.lpips(PAIR, PAIR),
    "border must leave at least 31 x 31 of 32 x 33 pixels, got 1": lambda: metrics.lpips(
        PAIR, PAIR, border=1
    ),
    "border must leave at least 16 x 16 of 12 x 13 pixels, got 0": lambda: metrics.lpips(
        IMAGE, IMAGE, "vgg"
    ),
    "peak must be a number > 0": lambda: metrics.psnr(IMAGE, IMAGE, peak=0.0),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_one_line(message):
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        BAD[message]()
    assert "\n" not in str(caught.value)
