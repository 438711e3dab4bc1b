import os
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data

from otlib import operators
from otlib.assets import images, networks, perceptual, registry

# ex_ref, ex_p0 and ex_p1 of the package `lpips`, whose licence is BSD
TRIO = Path(os.environ.get("OTLIB_LPIPS_EXAMPLE", "none"))


def uniform(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator, dtype=torch.float64)


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
    with open(registry.find({"alex": "alexnet", "vgg": "vgg16"}[net]), "rb") as file:
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
    value = perceptual.lpips(y, x, net)
    assert isinstance(value, float)
    assert value > 0.05
    assert value == pytest.approx(lpips_by_definition(y, x, net), abs=1e-5)


@NETS
def test_lpips_is_zero_for_identical_images_and_symmetric(net):
    x = photograph()
    y = operators.gaussian_noise(x, 0.1, torch.Generator().manual_seed(1))
    assert perceptual.lpips(x, x, net) == 0
    assert perceptual.lpips(x, y, net) == pytest.approx(perceptual.lpips(y, x, net), abs=1e-6)
    assert perceptual.lpips(x.double(), y.double(), net) == perceptual.lpips(x, y, net)


@NETS
def test_lpips_grows_with_noise_and_with_blur(net):
    x = photograph()
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    noisy = [perceptual.lpips(x + sd * noise, x, net) for sd in (0.0, 0.02, 0.05, 0.1, 0.2)]
    blurred = [
        perceptual.lpips(
            operators.blur(x, operators.gaussian_kernel(13, sd), periodic=True), x, net
        )
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
        assert perceptual.lpips(changed, x, net) > 0.01


@NETS
def test_lpips_repeats_grey_and_leaves_the_border_out(net):
    x = photograph(1)
    y = operators.gaussian_noise(x, 0.1, torch.Generator().manual_seed(1))
    value = perceptual.lpips(y, x, net)
    assert value == perceptual.lpips(y.expand(3, -1, -1), x.expand(3, -1, -1), net)
    inner = (slice(None), slice(6, -6), slice(6, -6))
    assert (
        perceptual.lpips(y, x, net, border=6) == perceptual.lpips(y[inner], x[inner], net) != value
    )


@settings(max_examples=10)
@given(st.sampled_from([1, 3]), st.integers(31, 50), st.integers(31, 50), st.integers(0, 99))
def test_lpips_takes_any_image_that_is_large_enough(channels, height, width, seed):
    x, y = uniform(channels, height, width, seed=seed), uniform(channels, height, width, seed=100)
    assert 0 < perceptual.lpips(x, y) < 2


def test_features_see_what_the_photograph_shows():
    """Classes of ImageNet: 281 to 285 are cats, 967 is espresso: the input is normalised."""
    carried = [data.chelsea(), data.coffee()]
    images = [torch.from_numpy(image.astype(np.float32) / 255).movedim(-1, 0) for image in carried]
    found, p = perceptual.embeddings(images)
    assert found.shape == (2, 1280) and p.shape == (2, 1000) and found.dtype == torch.float64
    torch.testing.assert_close(p.sum(1), torch.ones(2, dtype=torch.float64))
    assert p[0, 281:286].sum() > 0.8
    assert p[1].argmax() == 967
    head = networks.efficientnet(torch.device("cpu")).classes
    again = (found.float() @ head.weight.mT + head.bias).softmax(1)  # of those very features
    torch.testing.assert_close(again.double(), p, rtol=1e-3, atol=1e-6)


def test_images_may_require_gradients():
    x = uniform(1, 16, 16).requires_grad_()
    assert perceptual.lpips(x, x.detach(), "vgg") == 0


IMAGE = torch.zeros(1, 12, 13)
PAIR = torch.zeros(2, 32, 33)
NAN = torch.full((1, 12, 13), torch.nan)
BAD = {
    "x must be finite, got 156": lambda: perceptual.lpips(NAN, IMAGE),
    "net must be 'alex' or 'vgg', got 'squeeze'": lambda: perceptual.lpips(IMAGE, IMAGE, "squeeze"),
    "x must have 1 or 3 channels, got 2": lambda: perceptual.lpips(PAIR, PAIR),
    "border must leave at least 31 x 31 of 32 x 33 pixels, got 1": lambda: perceptual.lpips(
        PAIR, PAIR, border=1
    ),
    "border must leave at least 16 x 16 of 12 x 13 pixels, got 0": lambda: perceptual.lpips(
        IMAGE, IMAGE, "vgg"
    ),
    "the number of images must be a whole number >= 1": lambda: perceptual.embeddings([]),
    "images must have 3 channels": lambda: perceptual.embeddings([torch.ones(1, 9, 9)]),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_one_line(message):
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        BAD[message]()
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(not TRIO.is_dir(), reason="OTLIB_LPIPS_EXAMPLE names no folder")
@pytest.mark.parametrize(
    ("net", "expected"), [("alex", (0.7219, 0.1376)), ("vgg", (0.5686, 0.4217))]
)
def test_lpips_of_the_published_example(net, expected):
    reference, *others = (images.read(TRIO / f"ex_{name}.png") for name in ("ref", "p0", "p1"))
    found = [perceptual.lpips(other, reference, net) for other in others]
    assert found == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("net", ["alex", "vgg"])
def test_lpips_of_many_is_that_of_each(net):
    """And no image sees another; the reference is of the first."""
    reference, *others = (uniform(3, 40, 36, seed=k) for k in range(4))
    found = perceptual.lpips_each(others, reference, net, border=2)
    assert found == [perceptual.lpips(x, reference, net, border=2) for x in others]
    with pytest.raises(ValueError, match="the number of images must be a whole number >= 1, got 0"):
        perceptual.lpips_each([], reference, net)
