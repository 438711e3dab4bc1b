import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from skimage import data

from otlib import patches, semidual, texture

INF = math.inf


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.rand(shape, generator=generator(seed), dtype=dtype)


def natural(side=48, dtype=torch.float32):
    """A piece of scikit-image's gravel at half its resolution."""
    image = torch.from_numpy(data.gravel()).to(dtype)[None] / 255
    return patches.pyramid(image, 2)[1][:, :side, :side]


def uniform(*clouds):
    return [(y, torch.full((len(y),), 1 / len(y), dtype=y.dtype)) for y in clouds]


def targets(levels=2, patch=2, channels=1):
    clouds = [noise(7 - level, channels * patch * patch, seed=level) for level in range(levels)]
    return uniform(*clouds)


@pytest.mark.parametrize(
    "periodic, channels, levels", [(True, 1, 2), (True, 3, 1), (False, 1, 2), (False, 3, 2)]
)
def test_gradient_of_the_loss_is_that_of_finite_differences(periodic, channels, levels):
    law, image = targets(levels, 2, channels), noise(channels, 9, 8, seed=5)

    def value(u):
        # a new function each time: phi starts from 0
        return texture.loss(law, 2, periodic=periodic, dual_steps=4, dual_step=0.03)(u)

    u = image.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(value(u), u)
    direction = noise(*image.shape, seed=6) - 0.5
    step = 1e-6
    slope = (value(image + step * direction) - value(image - step * direction)) / (2 * step)
    torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-6, atol=1e-10)


def test_second_derivatives_of_the_loss_are_those_of_its_piece():
    """At a given phi each pixel's is the number of its patches over N, with no mixed ones."""
    law, u = targets(1), noise(1, 5, 4, seed=5)
    value = lambda u: texture.loss(law, 2, periodic=True, dual_steps=3, dual_step=0.03)(u)
    hessian = torch.autograd.functional.hessian(value, u).reshape(20, 20)
    torch.testing.assert_close(hessian, 4 / 20 * torch.eye(20, dtype=u.dtype))
    step = torch.zeros_like(u)
    step[0, 2, 1] = 1e-6
    slopes = (
        torch.autograd.grad(value(moved.requires_grad_()), moved)[0]
        for moved in (u + step, u - step)
    )
    column = ((next(slopes) - next(slopes)) / 2e-6).flatten()
    torch.testing.assert_close(column, hessian[9], rtol=0, atol=1e-8)


def test_the_gradient_is_the_patch_average_of_eq_8():
    u, cloud = noise(1, 6, 7, seed=1).requires_grad_(), noise(5, 9, seed=2)
    (gradient,) = torch.autograd.grad(
        texture.loss(uniform(cloud), 3, periodic=True, dual_steps=0)(u), u
    )
    x = patches.extract(u.detach(), 3, periodic=True)
    nearest = cloud[torch.cdist(x, cloud).argmin(1)]
    n, p = 42, 9
    expected = (p * u - patches.adjoint(nearest, u.shape, 3, periodic=True)) / n
    torch.testing.assert_close(gradient, expected.detach())


def test_one_scale_is_one_semidual_evaluation():
    u, law = noise(1, 8, 8, seed=3), targets(1)
    # as printed: the last iterate, which such steps take below the highest
    value = texture.loss(law, 2, periodic=True, dual_steps=6, dual_step=0.5 / 7)
    x = patches.extract(u, 2, periodic=True)
    once = semidual.ascend(x, law[0][0], step=0.5, max_iter=6, last=True)
    torch.testing.assert_close(value(u), once.value / 2)
    # the second call starts from the phi of the first
    twice = semidual.ascend(x, law[0][0], init=once.g, step=0.5, max_iter=6, last=True)
    torch.testing.assert_close(value(u), twice.value / 2)


def test_scales_add_up():
    u, law = noise(1, 16, 12, seed=3), targets(3)
    scales = patches.pyramid(u, 3, periodic=True)
    parts = [
        texture.loss([pair], 2, periodic=True)(scale)
        for pair, scale in zip(law, scales, strict=True)
    ]
    torch.testing.assert_close(texture.loss(law, 2, periodic=True)(u), sum(parts))


def test_phi_0_is_the_energy_of_nearest_neighbours():
    u, (cloud, weights) = noise(1, 9, 9, seed=4), targets(1)[0]
    nearest = torch.cdist(patches.extract(u, 2), cloud).square().amin(1).mean()
    value = texture.loss([(cloud, weights)], 2, dual_steps=0)
    torch.testing.assert_close(value(u), nearest / 2)


def test_the_loss_rises_to_half_the_squared_distance():
    u, law = noise(1, 5, 5, seed=4), uniform(noise(25, 4, seed=1))
    cost = torch.cdist(patches.extract(u, 2, periodic=True), law[0][0]).square().numpy()
    exact = cost[linear_sum_assignment(cost)].mean() / 2
    value = texture.loss(law, 2, periodic=True, dual_steps=3000, dual_step=8e-4)
    assert exact * 0.98 < value(u) <= exact + 1e-12


def test_targets_in_another_order_change_nothing():
    u, law = noise(1, 10, 10, seed=4), targets(2)
    order = [torch.randperm(len(y), generator=generator(level)) for level, (y, _) in enumerate(law)]
    other = [(y[o], b[o]) for (y, b), o in zip(law, order, strict=True)]
    first, second = (texture.loss(pairs, 2, dual_steps=5, dual_step=0.04) for pairs in (law, other))
    torch.testing.assert_close(first(u), second(u))
    torch.testing.assert_close(first(u), second(u))  # with the potentials of the first call


@given(
    pool=st.integers(1, 40),
    number=st.integers(1, 60),
    samples=st.integers(1, 50),
    batch=st.one_of(st.just(INF), st.integers(1, 60)),
)
@settings(max_examples=60)
def test_weights_of_the_targets_are_whole_multiples_of_a_patch(pool, number, samples, batch):
    """Mass conservation of Theorem 4: a map from N patches of mass 1 / N can reach the weights."""
    exemplar, start = noise(4, 1, pool, seed=pool), noise(4, 1, number)
    options = {"samples": samples, "batch": batch, "generator": generator()}

    def loss(targets, *_, **__):
        drawn.extend(targets)
        return torch.sum

    drawn = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(texture, "loss", loss)
        texture.synthesise(exemplar, start, patch=1, levels=1, steps=1, **options)
    ((y, b),) = drawn
    n = min(number, batch)
    copies = b * n
    torch.testing.assert_close(copies, copies.round())
    torch.testing.assert_close(b.sum(), b.new_tensor(1.0))
    assert len(y) == min(pool, samples, n)
    assert copies.round().min() >= 1 and copies.max() - copies.min() < 1.5
    assert len({tuple(row) for row in y.tolist()}) == len(y)  # no patch twice


def test_a_constant_exemplar_gives_a_constant():
    exemplar = torch.tensor([0.2, 0.7, 0.4], dtype=torch.float64)[:, None, None].expand(3, 16, 16)
    start = noise(3, 12, 20)
    u, losses = texture.synthesise(
        exemplar, start, patch=3, levels=2, steps=80, lr=0.03, dual_steps=1, generator=generator()
    )
    torch.testing.assert_close(u, exemplar[:, :1, :1].expand_as(u), atol=0.03, rtol=0)
    assert losses[-1] < 1e-3 * losses[0]


def test_patches_of_one_pixel_get_the_grey_levels():
    """Transport in dimension 1, of an image's histogram."""
    levels, start = noise(100, seed=2).square(), noise(1, 10, 10)
    u, _ = texture.synthesise(
        levels.reshape(1, 10, 10),
        start,
        patch=1,
        levels=1,
        steps=40,
        lr=0.02,
        dual_steps=100,
        dual_step=2e-3,
        generator=generator(),
    )
    error, before = (
        (image.flatten().sort().values - levels.sort().values).abs().mean() for image in (u, start)
    )
    assert error < 0.04 and before > 0.12


@pytest.mark.parametrize("channels, height, width", [(1, 17, 40), (3, 32, 32), (1, 9, 11)])
@pytest.mark.parametrize("batch", [INF, 50])
def test_sizes_of_the_output_are_free(channels, height, width, batch):
    exemplar, start = noise(channels, 20, 24), noise(channels, height, width, seed=1)
    seen = []
    u, losses = texture.synthesise(
        exemplar,
        start,
        patch=3,
        levels=2,
        steps=3,
        batch=batch,
        generator=generator(),
        callback=lambda step, image: seen.append((step, image.shape)),
    )
    assert u.shape == start.shape and u.dtype == start.dtype
    assert seen == [(step, start.shape) for step in range(3)]
    assert losses.shape == (3,) and losses.isfinite().all()


def test_a_texture_gets_the_patches_of_its_exemplar():
    exemplar = natural()
    u, losses = texture.synthesise(
        exemplar,
        noise(1, 48, 48, dtype=torch.float32),
        levels=3,
        steps=60,
        lr=0.02,
        samples=512,
        batch=512,
        generator=generator(),
    )
    assert losses[-1] < 0.3 * losses[0]
    # at scale 3 white noise is nearly constant
    ours, wanted = (float(patches.pyramid(image, 3)[2].std()) for image in (u, exemplar))
    assert ours == pytest.approx(wanted, rel=0.2)


def test_a_seed_gives_one_image():
    exemplar, start = noise(1, 16, 16), noise(1, 16, 16, seed=1)
    first, second, other = (
        texture.synthesise(
            exemplar, start, levels=2, steps=3, batch=64, samples=64, generator=generator(seed)
        )[0]
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, second) and not torch.equal(first, other)


def square(side, first, last):
    hole = torch.zeros(side, side, dtype=torch.bool)
    hole[first:last, first:last] = True
    return hole


def test_inpainting_moves_the_hole_alone():
    image, hole = natural(40), square(40, 16, 24)
    u, losses = texture.inpaint(
        image, hole, levels=2, steps=40, lr=0.02, samples=256, generator=generator()
    )
    assert torch.equal(u[:, ~hole], image[:, ~hole])
    assert (u - image)[:, hole].abs().min() > 0
    assert losses[-1] < 0.5 * losses[0]


def test_inpainting_reads_nothing_in_the_hole():
    image, hole = natural(32), square(32, 10, 18)
    other = torch.where(hole, 1 - image, image)
    first, second = (
        texture.inpaint(i, hole, levels=2, steps=3, generator=generator())[0]
        for i in (image, other)
    )
    assert torch.equal(first, second)


def test_a_hole_in_stripes_is_filled_with_stripes():
    stripes = ((torch.arange(32) // 2) % 2).double().expand(1, 32, 32).contiguous()
    hole = square(32, 13, 18)
    u, _ = texture.inpaint(
        stripes, hole, patch=4, levels=1, steps=200, lr=0.03, generator=generator()
    )
    assert (u - stripes)[:, hole].abs().max() < 0.1


def test_kwatra_lowers_its_energy():
    exemplar = natural(40)
    start = texture.shuffle(exemplar, (32, 36), 8, generator())
    steps = []
    u, energies = texture.kwatra(
        exemplar,
        start,
        sizes=(12, 8),
        levels=2,
        rounds=6,
        callback=lambda step, image: steps.append((step, image.shape)),
    )
    assert u.shape == start.shape
    assert len(energies) == 4 and steps[0][1] == (1, 16, 18) and steps[-1][1] == u.shape
    assert [step for step, _ in steps] == list(range(len(steps)))
    for energy in energies:
        assert (energy[1:] <= energy[:-1] * (1 + 1e-5)).all()


def test_kwatra_leaves_the_tiling_of_an_exemplar_alone():
    rows, columns = torch.meshgrid(torch.arange(32), torch.arange(32), indexing="ij")
    periodic = (0.5 + 0.3 * torch.sin(math.pi / 4 * rows) * torch.cos(math.pi / 4 * columns))[None]
    u, energies = texture.kwatra(periodic, periodic[:, :24, :16], sizes=(8,), levels=1, rounds=5)
    torch.testing.assert_close(u, periodic[:, :24, :16], atol=2e-3, rtol=0)
    assert energies[0][0] < 0.02


def test_shuffled_blocks_are_blocks_of_the_exemplar():
    exemplar = noise(3, 12, 14)
    image = texture.shuffle(exemplar, (10, 9), 4, generator())
    assert image.shape == (3, 10, 9)
    pool = patches.extract(exemplar, 4)
    whole = image[:, :8, :8].contiguous()
    assert torch.cdist(patches.extract(whole, 4, 4), pool).amin(1).max() < 1e-7


def test_distances_are_those_of_the_assignment_problem():
    first, second = noise(1, 14, 14), noise(1, 14, 14, seed=1)
    found = texture.distances(first, second, patch=2, levels=2, generator=generator())
    scales = zip(patches.pyramid(first, 2), patches.pyramid(second, 2), strict=True)
    for distance, (a, b) in zip(found, scales, strict=True):
        cost = torch.cdist(patches.extract(a, 2), patches.extract(b, 2)).square().numpy()
        exact = math.sqrt(cost[linear_sum_assignment(cost)].mean())
        assert distance == pytest.approx(exact, rel=1e-3)


def test_a_shift_of_grey_levels_is_seen_by_both_distances():
    exemplar = noise(1, 16, 16)
    whole = dict(patch=2, generator=generator())
    (distance,) = texture.distances(exemplar + 0.3, exemplar, levels=1, **whole)
    assert distance == pytest.approx(0.3 * 2, rel=1e-3)  # the root of 4 pixels
    # a shift c of dimension d projects to c <1, theta>, of mean square c^2
    assert texture.sliced(exemplar + 0.3, exemplar, projections=4000, **whole) == pytest.approx(
        0.3, rel=0.05
    )


def test_copies_are_told():
    exemplar = noise(1, 48, 48)
    assert texture.copied(exemplar[:, 3:30, 5:35], exemplar) == 1
    assert texture.copied(noise(1, 30, 30, seed=1), exemplar) < 0.01
    blocks = texture.shuffle(exemplar, (96, 96), 32, generator())
    assert texture.copied(blocks, exemplar) == pytest.approx((24 / 32) ** 2, abs=0.1)


GREY = noise(1, 32, 32)
HOLE = square(32, 12, 20)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda g: texture.synthesise(GREY * np.nan, GREY, generator=g), "exemplar must be finite"),
        (lambda g: texture.synthesise(GREY, noise(3, 32, 32), generator=g), "1 channels, got 3"),
        (
            lambda g: texture.synthesise(GREY, GREY.float(), generator=g),
            "start must be torch.float64",
        ),
        (lambda g: texture.synthesise(GREY, GREY, levels=0, generator=g), "levels must be a whole"),
        (lambda g: texture.synthesise(GREY, GREY, batch=0.5, generator=g), "batch must be a whole"),
        (
            lambda g: texture.synthesise(GREY, GREY, levels=1, lr=0.0, generator=g),
            "lr must be a number > 0",
        ),
        (
            lambda g: texture.synthesise(GREY, GREY, levels=4, generator=g),
            "exemplar of 32 x 32 pixels is too small .* levels <= 3 works",
        ),
        (
            lambda g: texture.synthesise(GREY, GREY[:, :4, :4], levels=2, generator=g),
            "start of 4 x 4 pixels is too small .* levels <= 1 works",
        ),
        (lambda g: texture.synthesise(GREY, GREY, patch=40, generator=g), "no number of levels"),
        (lambda g: texture.inpaint(GREY, HOLE.float(), generator=g), "hole must be a bool"),
        (
            lambda g: texture.inpaint(GREY, HOLE[1:], generator=g),
            r"hole must have shape \(32, 32\)",
        ),
        (
            lambda g: texture.inpaint(GREY, HOLE & False, generator=g),
            "some but not all pixels, got 0",
        ),
        (
            lambda g: texture.inpaint(GREY, HOLE | True, generator=g),
            "some but not all pixels, got 1024",
        ),
        (
            lambda g: texture.inpaint(GREY, HOLE, levels=3, generator=g),
            "levels must be at most 2 for this hole, got 3: at scale 3 no 4 x 4 patch",
        ),
        (lambda g: texture.kwatra(GREY, GREY, sizes=(), levels=1), "sizes must hold"),
        (lambda g: texture.kwatra(GREY, GREY, sizes=(16,), levels=3), "levels <= 1 works"),
        (lambda g: texture.kwatra(GREY, GREY, rounds=0), "rounds must be a whole"),
        (lambda g: texture.shuffle(GREY, (8, 8), 40, g), "block must be at most"),
        (lambda g: texture.distances(GREY, GREY, levels=5, generator=g), "image of 32 x 32"),
        (lambda g: texture.sliced(GREY, noise(3, 32, 32), generator=g), "3 channels, got 1"),
        (lambda g: texture.copied(GREY[:, :8], GREY), "image must have at least 16 pixels"),
    ],
)
def test_bad_input_is_one_line(call, message):
    with pytest.raises(ValueError, match=message) as caught:
        call(generator())
    assert "\n" not in str(caught.value)
