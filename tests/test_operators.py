import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from otlib import operators


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@settings(max_examples=60)
@given(st.integers(1, 21), st.floats(1e-3, 50))
def test_gaussian_kernel(size, sd):
    kernel = operators.gaussian_kernel(size, sd)
    assert kernel.shape == (size, size)
    assert abs(kernel.sum() - 1) < 1e-13
    assert torch.equal(kernel, kernel.mT)
    assert torch.allclose(kernel, kernel.flip(0, 1), atol=1e-15)
    # log-ratio of neighbours in the last row, where neither underflows
    if size > 1 and sd > 1:
        a, b = size - 1 - (size - 1) / 2, size - 2 - (size - 1) / 2
        ratio = math.log(kernel[-1, -1] / kernel[-1, -2])
        assert ratio == pytest.approx(-(a**2 - b**2) / (2 * sd**2), rel=1e-9, abs=1e-12)


@settings(max_examples=40)
@given(st.integers(1, 5), st.integers(1, 6), st.integers(6, 9), st.integers(6, 9))
def test_periodic_blur_is_a_product_of_spectra(h, w, height, width):
    image, kernel = normal(2, height, width), normal(h, w, seed=1)
    spread = torch.zeros(height, width, dtype=torch.float64)
    spread[:h, :w] = kernel
    spread = spread.roll((-(h // 2), -(w // 2)), (0, 1))
    expected = torch.fft.ifft2(torch.fft.fft2(image) * torch.fft.fft2(spread)).real
    torch.testing.assert_close(
        operators.blur(image, kernel, periodic=True), expected, rtol=0, atol=1e-13
    )


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("separable", [True, False])
def test_a_strided_blur_is_blur_then_subsampling(periodic, stride, separable):
    image = normal(2, 13, 10)
    kernel = normal(4, 3, seed=1)
    if separable:
        kernel = torch.outer(kernel[:, 0], kernel[0])
    rows = patches_of(image, kernel.shape, periodic)
    expected = operators.subsample(rows @ kernel.flip(0, 1).flatten(), stride)
    torch.testing.assert_close(operators.blur(image, kernel, stride, periodic), expected)


def patches_of(image, shape, periodic):
    """Every window of the kernel's shape, flattened: a convolution without convolving."""
    (h, w), pad = shape, torch.nn.functional.pad
    if periodic:
        image = pad(image[None], ((w - 1) // 2, w // 2, (h - 1) // 2, h // 2), mode="circular")[0]
    return image.unfold(1, h, 1).unfold(2, w, 1).flatten(3)


def test_valid_blur_is_the_inside_of_the_periodic_one():
    image, kernel = normal(3, 9, 11), normal(4, 3, seed=1)
    inside = operators.blur(image, kernel, periodic=True)[:, 1:-2, 1:-1]
    torch.testing.assert_close(operators.blur(image, kernel), inside)


def test_super_resolution_sizes():
    """The x4 operator of Mignon et al. 2023, sec. III: 256 pixels give 61."""
    image = torch.full((1, 256, 256), 0.25, dtype=torch.float32)
    low = operators.subsample(operators.blur(image, operators.gaussian_kernel(16, 2.0)), 4)
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, torch.full_like(low, 0.25))


KERNEL = normal(3, 2, seed=2)
HOLE = normal(5, 6, seed=3) > 0
LINEAR = {
    "periodic": lambda x: operators.blur(x, KERNEL, periodic=True),
    "valid": lambda x: operators.blur(x, KERNEL),
    "subsample": lambda x: operators.subsample(x, 2),
    "mask": lambda x: operators.mask(x, HOLE),
    "composed": lambda x: operators.blur(x, KERNEL, stride=2),
}


@pytest.mark.parametrize("name", LINEAR)
def test_linear_with_the_adjoint_from_autograd(name):
    apply, shape = LINEAR[name], (2, 5, 6)
    unit = torch.eye(math.prod(shape), dtype=torch.float64)
    matrix = torch.stack([apply(column.reshape(shape)).flatten() for column in unit], 1)
    image = normal(*shape).requires_grad_()
    out = apply(image)
    torch.testing.assert_close(out.flatten(), matrix @ image.detach().flatten())
    other = normal(*out.shape, seed=1)
    (back,) = torch.autograd.grad(out, image, other)
    torch.testing.assert_close(back.flatten(), matrix.mT @ other.flatten())


def test_mask_shapes():
    image = normal(2, 5, 6)
    for hole in (HOLE, HOLE[None], HOLE.expand(2, 5, 6)):
        out = operators.mask(image, hole)
        assert torch.equal(out[:, ~HOLE], image[:, ~HOLE])
        assert not out[:, HOLE].any()


def test_noise_has_the_standard_deviation_asked_for():
    image, n = torch.full((3, 200, 200), 0.5, dtype=torch.float64), 3 * 200**2
    noisy = operators.gaussian_noise(image, 0.1, torch.Generator().manual_seed(0))
    noise = (noisy - image).flatten() / 0.1
    assert abs(noise.mean()) < 5 / n**0.5
    assert abs(noise.square().mean() - 1) < 5 * (2 / n) ** 0.5
    assert abs((noise[1:] * noise[:-1]).mean()) < 5 / n**0.5
    again = operators.gaussian_noise(image, 0.1, torch.Generator().manual_seed(0))
    assert torch.equal(noisy, again)
    assert torch.equal(operators.gaussian_noise(image, 0.0, torch.Generator()), image)


IMAGE = torch.zeros(1, 8, 9)
NAN = torch.full((1, 8, 9), torch.nan)
BAD = {
    "size must be a whole number >= 1, got 0": lambda: operators.gaussian_kernel(0, 1.0),
    "sd must be a number > 0": lambda: operators.gaussian_kernel(4, 0.0),
    "image must be finite": lambda: operators.blur(NAN, KERNEL),
    "kernel must be finite": lambda: operators.blur(IMAGE, NAN[0]),
    "kernel must be a non-empty .h, w. tensor": lambda: operators.blur(IMAGE, KERNEL[0]),
    "image must be at least the 9 x 9 kernel, got 8 x 9": lambda: operators.blur(
        IMAGE, operators.gaussian_kernel(9, 1.0)
    ),
    "stride must be a whole number >= 1, got -2": lambda: operators.subsample(IMAGE, -2),
    "hole must leave at least one pixel, got all 72": lambda: operators.mask(
        IMAGE, torch.ones(8, 9, dtype=torch.bool)
    ),
    "hole must have shape .8, 9. or .1, 8, 9.": lambda: operators.mask(IMAGE, HOLE),
    "hole must be a bool tensor on cpu, got torch.float32": lambda: operators.mask(IMAGE, IMAGE),
    "hole must be a bool tensor on cpu, got list": lambda: operators.mask(IMAGE, [True]),
    "sd must be a number >= 0": lambda: operators.gaussian_noise(IMAGE, -0.1, torch.Generator()),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_one_line(message):
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        BAD[message]()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("factor", [2, 3, 4])
def test_downscale_is_pillows_bicubic(factor):
    """A peer with the same kernel, widened by the factor, in 32 bits."""
    generator = torch.Generator().manual_seed(1)
    image = torch.rand((1, 6 * factor, 7 * factor), generator=generator, dtype=torch.float32)
    pixels = Image.fromarray(image[0].numpy(), mode="F")
    expected = np.array(pixels.resize((7, 6), Image.Resampling.BICUBIC))
    torch.testing.assert_close(
        operators.downscale(image, factor)[0], torch.from_numpy(expected), atol=2e-6, rtol=0
    )


def test_downscale_keeps_a_plane_and_its_range_is_not_clipped():
    rows = torch.arange(32, dtype=torch.float64)[None, :, None].expand(3, 32, 16)
    small = operators.downscale(rows, 4)
    # inside, pixel k of the small image lies at the middle of pixels 4 k to 4 k + 3
    middle = torch.arange(8, dtype=torch.float64)[None, :, None].expand(3, 8, 4) * 4 + 1.5
    torch.testing.assert_close(small[:, 2:-2], middle[:, 2:-2])
    step = (rows > 15).double()
    assert operators.downscale(step, 4).max() > 1
    torch.testing.assert_close(operators.downscale(rows, 1), rows)


def test_jpeg_is_nearer_at_a_higher_quality_and_keeps_shape_and_type():
    image = torch.rand((3, 17, 23), generator=torch.Generator().manual_seed(0)).double()
    errors = [float((operators.jpeg(image, q) - image).norm()) for q in (1, 10, 50, 90)]
    assert errors == sorted(errors, reverse=True) and len(set(errors)) == 4
    for sample in (image, image[:1], image.float()):
        read = operators.jpeg(sample, 30)
        assert read.shape == sample.shape and read.dtype == sample.dtype
        assert read.min() >= 0 and read.max() <= 1
    flat = torch.full((1, 16, 16), 100 / 255)
    torch.testing.assert_close(operators.jpeg(flat, 95), flat, atol=1e-6, rtol=0)
    torch.testing.assert_close(operators.jpeg(image * 3 - 1, 20).max(), torch.ones(()).double())


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (
            lambda x: operators.downscale(x, 4),
            "^image must have sides that are multiples of 4 from 8 on, got 6 x 8$",
        ),
        (lambda x: operators.downscale(x[:, :4], 4), "^image must have sides .* got 4 x 8$"),
        (lambda x: operators.downscale(x, 0), "^factor must be a whole number >= 1, got 0$"),
        (lambda x: operators.jpeg(x, 0), "^quality must be a whole number >= 1, got 0$"),
        (lambda x: operators.jpeg(x, 101), "^quality must be at most 100, got 101$"),
        (lambda x: operators.jpeg(x[:2], 10), "^image must have 1 or 3 channels, got 2$"),
        (lambda x: operators.jpeg(x * torch.nan, 10), "^image must be finite, got 144 NaN"),
    ],
)
def test_bad_downscale_and_jpeg_are_one_line(call, match):
    with pytest.raises(ValueError, match=match):
        call(torch.zeros(3, 6, 8))
