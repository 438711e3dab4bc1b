import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otlib import patches


@st.composite
def grids(draw):
    """(shape, size, stride, periodic) of a small image that holds a patch."""
    size = draw(st.integers(1, 5))
    height, width = draw(st.integers(size, 11)), draw(st.integers(size, 11))
    shape = (draw(st.integers(1, 3)), height, width)
    return shape, size, draw(st.integers(1, 6)), draw(st.booleans())


def normal(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


@settings(max_examples=150)
@given(grids())
def test_extract_is_plain_slicing(grid):
    shape, size, stride, periodic = grid
    image = normal(*shape)
    _, height, width = shape
    wrapped = image.repeat(1, 2, 2)
    last = (height - 1, width - 1) if periodic else (height - size, width - size)
    expected = [
        wrapped[:, i : i + size, j : j + size].flatten()
        for i in range(0, last[0] + 1, stride)
        for j in range(0, last[1] + 1, stride)
    ]
    assert torch.equal(patches.extract(image, size, stride, periodic), torch.stack(expected))


@settings(max_examples=150)
@given(grids())
def test_adjoint_is_the_transpose_of_extract(grid):
    shape, size, stride, periodic = grid
    image = normal(*shape)
    cloud = patches.extract(image, size, stride, periodic)
    other = normal(*cloud.shape, seed=1)
    back = patches.adjoint(other, shape, size, stride, periodic)
    assert back.shape == shape
    left, right = (cloud * other).sum(), (image * back).sum()
    assert abs(left - right) <= 1e-12 * cloud.norm() * other.norm()


@settings(max_examples=150)
@given(grids())
def test_average_gives_the_image_back_where_it_is_covered(grid):
    shape, size, stride, periodic = grid
    image = normal(*shape)
    cloud = patches.extract(image, size, stride, periodic)
    covered = patches.adjoint(torch.ones_like(cloud), shape, size, stride, periodic) > 0
    back = patches.average(cloud, shape, size, stride, periodic)
    torch.testing.assert_close(back, image * covered, rtol=1e-14, atol=1e-14)


@settings(max_examples=100)
@given(grids())
def test_number_of_patches(grid):
    shape, size, stride, periodic = grid
    counts = [-(-side // stride) if periodic else (side - size) // stride + 1 for side in shape[1:]]
    cloud = patches.extract(normal(*shape), size, stride, periodic)
    assert cloud.shape == (counts[0] * counts[1], shape[0] * size**2)


@pytest.mark.parametrize("shift", [(1, 0), (0, 3), (2, 5)])
def test_a_periodic_shift_permutes_the_patches(shift):
    image = torch.arange(2 * 6 * 7, dtype=torch.float64).reshape(2, 6, 7)
    cloud = patches.extract(image, 3, periodic=True)
    moved = patches.extract(image.roll(shift, (1, 2)), 3, periodic=True)
    assert not torch.equal(cloud, moved)
    # the corner pixels differ from patch to patch: they sort both clouds the same way
    assert torch.equal(cloud[cloud[:, 0].argsort()], moved[moved[:, 0].argsort()])


@pytest.mark.parametrize("periodic", [False, True])
def test_gradients(periodic):
    image = normal(2, 5, 6).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: patches.extract(x, 3, 2, periodic), image)
    cloud = patches.extract(image, 3, 2, periodic).detach().requires_grad_()
    for way in (patches.adjoint, patches.average):
        assert torch.autograd.gradcheck(lambda p, way=way: way(p, (2, 5, 6), 3, 2, periodic), cloud)
    assert torch.autograd.gradcheck(
        lambda x: patches.pyramid(x, 2, periodic)[1], normal(1, 6, 7).requires_grad_()
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    ("periodic", "sides"),
    [(False, [(64, 51), (31, 24), (14, 11)]), (True, [(64, 51), (32, 26), (16, 13)])],
)
def test_pyramid_of_a_constant(periodic, sides, dtype):
    levels = patches.pyramid(torch.full((3, 64, 51), 0.7, dtype=dtype), 3, periodic)
    assert [tuple(level.shape) for level in levels] == [(3, *side) for side in sides]
    for level in levels:
        assert level.dtype == dtype
        torch.testing.assert_close(level, torch.full_like(level, 0.7))


def test_pyramid_keeps_a_ramp_straight():
    """A symmetric kernel keeps a ramp: level 1 is its value at the middles of 2 x 2 blocks."""
    ramp = torch.arange(20, dtype=torch.float64).expand(1, 20, 20)
    level = patches.pyramid(ramp, 2)[1]
    torch.testing.assert_close(level, (2 * torch.arange(9.0).double() + 1.5).expand(1, 9, 9))
    inner = patches.pyramid(ramp, 2, periodic=True)[1][:, :, 1:-1]
    expected = 2 * torch.arange(10.0).double() + 0.5
    torch.testing.assert_close(inner, expected[1:-1].expand(1, 10, 8))


IMAGE = torch.zeros(1, 8, 9)
BAD = {
    "image must be finite": lambda: patches.extract(torch.full((1, 8, 8), torch.nan), 3),
    "image must be a non-empty .C, H, W. tensor": lambda: patches.extract(IMAGE[0], 3),
    "image must be a floating point": lambda: patches.extract(IMAGE.long(), 3),
    "patch must be at most the image's 8 x 9 pixels, got 9": lambda: patches.extract(IMAGE, 9),
    "patch must be a whole number >= 1, got 0": lambda: patches.extract(IMAGE, 0),
    "patch must be a whole number >= 1, got 2.5": lambda: patches.extract(IMAGE, 2.5),
    "stride must be a whole number >= 1, got 0": lambda: patches.extract(IMAGE, 3, 0),
    "patches must have shape .42, 9., got .42, 8.": lambda: patches.adjoint(
        torch.zeros(42, 8), (1, 8, 9), 3
    ),
    "patches must be finite": lambda: patches.average(torch.full((42, 9), torch.inf), (1, 8, 9), 3),
    "shape must be .C, H, W.": lambda: patches.adjoint(torch.zeros(42, 9), (8, 9), 3),
    "levels must be a whole number >= 1, got 0": lambda: patches.pyramid(IMAGE, 0),
    "most must be a whole number >= 1, got 0": lambda: patches.draw(IMAGE, 0, None),
    "levels must be at most 2 for 8 x 9, got 3": lambda: patches.pyramid(IMAGE, 3),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_one_line(message):
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        BAD[message]()
    assert "\n" not in str(caught.value)


@given(st.integers(1, 12), st.one_of(st.integers(1, 12), st.just(math.inf)), st.integers(0, 5))
def test_a_draw_is_at_most_so_many_rows_each_once(n, most, seed):
    cloud = torch.arange(n)[:, None]
    found = patches.draw(cloud, most, torch.Generator().manual_seed(seed))
    assert len(found) == min(n, most) == len(found.unique())
    if n <= most:
        assert torch.equal(found, cloud)


def test_moments_are_those_of_the_cloud():
    image = torch.rand(2, 7, 8, dtype=torch.float64)
    cloud, found = patches.extract(image, 3), patches.moments(image, 3)
    assert found.number == len(cloud)
    torch.testing.assert_close(found.mean, cloud.mean(0))
    torch.testing.assert_close(found.covariance, cloud.mT.cov())
