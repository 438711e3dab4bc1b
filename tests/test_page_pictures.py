"""Parts and enlargements of images, and the fine detail in them."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from companion.page import pictures
from otlib import operators


def plane(height, width, dtype=torch.float64):
    rows = torch.arange(height, dtype=dtype)[:, None]
    return (2 + 0.5 * rows + 0.25 * torch.arange(width, dtype=dtype))[None]


@given(*[st.integers(1, 9) for _ in range(4)])
def test_the_middle_has_equal_margins_up_to_one_pixel(height, width, rows, columns):
    image = torch.arange(height * width).reshape(1, height, width)
    found = pictures.middle(image, rows, columns)
    assert found.shape == (1, min(rows, height), min(columns, width))
    top, left = divmod(int(found[0, 0, 0]), width)
    assert 0 <= height - found.shape[1] - 2 * top <= 1
    assert 0 <= width - found.shape[2] - 2 * left <= 1


def test_an_enlarged_image_lies_where_the_operator_looked():
    """A blur of 16 pixels and a stride of 4 keep a plane; away from the border it comes back."""
    image = plane(64, 64)
    kernel = operators.gaussian_kernel(16, 2.0).double()
    low = operators.blur(image, kernel, stride=4)
    inside = lambda picture: (picture - image)[:, 16:-16, 16:-16]
    # pixel k of `low` is centred at 4 k + 15 / 2; torch's cubic waves about a plane
    back = inside(pictures.enlarge(low, 4, 64, before=6))
    assert abs(back.mean()) < 1e-9 and back.abs().max() < 0.13
    for before, shift in ((5, 0.75), (7, -0.75)):  # the slopes of the plane add up to 0.75
        moved = inside(pictures.enlarge(low, 4, 64, before=before))
        assert float(moved.mean()) == pytest.approx(shift, abs=1e-9)


def test_what_is_beyond_the_interpolation_repeats_its_border():
    found = pictures.enlarge(torch.full((2, 3, 3), 0.25), 2, 9, before=1)
    assert found.shape == (2, 9, 9)
    torch.testing.assert_close(found, torch.full((2, 9, 9), 0.25))


def test_a_plane_has_no_details_and_a_constant_adds_none():
    assert pictures.details(plane(12, 15), border=2).abs().max() < 1e-6
    noise = torch.rand(3, 12, 15, dtype=torch.float64)
    found = pictures.details(noise, side=7, border=3)
    assert found.shape == (3, 6, 9)
    torch.testing.assert_close(pictures.details(2 * noise + 1, side=7, border=3), 2 * found)
    smooth = operators.blur(noise, operators.gaussian_kernel(7, 1.0))
    torch.testing.assert_close(found, noise[:, 3:-3, 3:-3] - smooth)


def test_the_square_of_the_largest_difference_is_found():
    one = torch.zeros(1, 20, 30)
    other = one.clone()
    other[:, 3:7, 11:15] = -0.5
    other[:, 15, 2] = 1  # larger, but alone
    assert pictures.most_different(one, other, 4) == (3, 11, 4)


def test_an_image_lies_unchanged_inside_its_noise():
    image = torch.rand(2, 5, 7, dtype=torch.float64)
    wide, inner = pictures.in_noise(image, 3, torch.Generator().manual_seed(0))
    assert wide.shape == (2, 11, 13) and wide.dtype == image.dtype
    assert torch.equal(wide[inner], image)
    noise = torch.rand(2, 11, 13, generator=torch.Generator().manual_seed(0)).double()
    noise[inner] = image
    assert torch.equal(wide, noise)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_small_image_stands_beside_a_large_one(channels):
    large, small = torch.full((channels, 32, 32), 1.5), torch.full((channels, 16, 16), 0.25)
    found = pictures.beside(large, small)
    assert found.shape == (channels, 32, 32 + 16 + 2)
    assert torch.equal(found[:, :16, -16:], small)
    assert (found == 0.25).sum() == small.numel() and found.max() == 1
