"""Sampling tolerances are five standard errors, from Isserlis' theorem; seeds are fixed."""

import math

import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otlib import gaussian, patches


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def covariance(d, rank, seed):
    root = torch.randn(d, rank, generator=seeded(seed), dtype=torch.float64)
    return root @ root.mT


def assert_covariance(samples, mean, cov):
    """The empirical covariance about the known mean lies within five standard errors."""
    centred = samples.double() - mean
    error = centred.mT @ centred / len(samples) - cov
    scale = cov.diagonal()[:, None] * cov.diagonal() + cov**2
    assert (error.abs() <= 5 * (scale / len(samples)).sqrt() + 1e-6 * cov.abs().max()).all()


# ---------------------------------------------------------------- textures


@pytest.mark.parametrize(("kernel_sd", "side"), [(2.0, 32), (3.0, 16)])
def test_texture_patch_law_is_the_periodised_gaussian(kernel_sd, side):
    """A Gaussian of variance s^2 blurred twice has variance 2 s^2; it wraps round the torus."""
    size, std = 5, 0.15
    mean, cov = gaussian.texture_patch_law(size, kernel_sd, std, 0.4, side)
    lag = torch.arange(-size + 1, size, dtype=torch.float64)
    turns = side * torch.arange(-20, 21, dtype=torch.float64)
    line = torch.exp(-((lag[:, None] + turns) ** 2) / (4 * kernel_sd**2)).sum(1)
    line = line / line[size - 1]
    row, column = torch.arange(size**2) // size, torch.arange(size**2) % size
    expected = line[row[:, None] - row + size - 1] * line[column[:, None] - column + size - 1]
    torch.testing.assert_close(cov, std**2 * expected, rtol=1e-12, atol=0)
    assert torch.equal(mean, torch.full((size**2,), 0.4, dtype=torch.float64))


def test_texture_without_blur_is_white():
    _, cov = gaussian.texture_patch_law(4, 0.0, 0.3, 0.0, 9)
    torch.testing.assert_close(cov, 0.09 * torch.eye(16, dtype=torch.float64), atol=1e-16, rtol=0)


def test_texture_has_its_patch_law():
    """Mean over pixels of x_p x_q: its variance is at most 2 sum_k R(k)^2 / pixels, R the
    autocovariance, by Isserlis' theorem and Cauchy-Schwarz."""
    side, size, kernel_sd, std, draws = 24, 4, 1.5, 0.2, 300
    generator = seeded()
    images = gaussian.texture((draws, side, side), kernel_sd, std, 0.5, generator)
    mean, cov = gaussian.texture_patch_law(size, kernel_sd, std, 0.5, side)
    cloud = torch.cat([patches.extract(i[None], size, periodic=True) for i in images]).double()
    centred = cloud - mean
    _, field = gaussian.texture_patch_law(side, kernel_sd, std, 0.5, side)
    squares, pixels = field[0].square().sum(), draws * side**2
    error = centred.mT @ centred / len(cloud) - cov
    assert error.abs().max() < 5 * (2 * squares / pixels).sqrt()
    assert 5 * (2 * squares / pixels).sqrt() < 0.1 * std**2  # the test can tell
    assert abs(centred.mean()) < 5 * (field[0].sum() / pixels).sqrt()


def test_texture_channels_are_independent_and_seeded():
    images = gaussian.texture((2, 64, 48), 0.0, 1.0, 0.0, seeded(3))
    assert images.shape == (2, 64, 48)
    assert abs((images[0] * images[1]).mean()) < 5 / (64 * 48) ** 0.5
    assert torch.equal(images, gaussian.texture((2, 64, 48), 0.0, 1.0, 0.0, seeded(3)))
    assert not torch.equal(images, gaussian.texture((2, 64, 48), 0.0, 1.0, 0.0, seeded(4)))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("sides", [(16, 16), (15, 16), (16, 15), (9, 11)])
def test_random_phase_keeps_modulus_mean_and_colour(sides, seed):
    exemplar = torch.rand(3, *sides, generator=seeded(), dtype=torch.float64)
    out = gaussian.random_phase(exemplar, seeded(seed + 1))
    assert out.dtype == torch.float64
    before, after = torch.fft.fft2(exemplar), torch.fft.fft2(out)
    torch.testing.assert_close(after.abs(), before.abs(), rtol=0, atol=1e-11)
    torch.testing.assert_close(out.mean((1, 2)), exemplar.mean((1, 2)), rtol=0, atol=1e-14)
    # phase differences of the channels: all cross-spectra stay
    torch.testing.assert_close(
        after[0] * after[1].conj(), before[0] * before[1].conj(), rtol=0, atol=1e-10
    )
    assert (out - exemplar).abs().max() > 0.1


def test_random_phase_is_uniform():
    """sum exp(i theta) over independent uniform phases has variance 1 each."""
    exemplar = torch.zeros(1, 16, 16, dtype=torch.float64)
    exemplar[0, 0, 0] = 1  # a Dirac: modulus 1, phase 0
    generator, draws = seeded(), 50
    phases = torch.stack(
        [torch.fft.fft2(gaussian.random_phase(exemplar, generator))[0] for _ in range(draws)]
    )[:, :, 1:8]  # a half plane, inside which the phases are independent
    for power in (1, 2, 3):
        assert (phases**power).sum().abs() < 5 * phases.numel() ** 0.5


# ---------------------------------------------------------------- edges


@pytest.mark.parametrize("size", [2, 3, 8])
def test_edge_patch_law_by_enumeration(size):
    edge, mean = 0.5, 0.25
    every = []
    for row in range(1, size):
        for sign in (-1, 1):
            patch = torch.full((size, size), mean - sign * edge / 2, dtype=torch.float64)
            patch[:row] = mean + sign * edge / 2
            every.append(patch.flatten())
    every = torch.stack(every)
    law_mean, law_cov = gaussian.edge_patch_law(size, edge, mean)
    assert torch.equal(law_mean, every.mean(0))
    assert torch.linalg.matrix_rank(law_cov) == size - 1
    torch.testing.assert_close(law_cov, torch.cov(every.mT, correction=0), rtol=1e-15, atol=1e-16)
    drawn = gaussian.edge_patches(200, size, edge, mean, seeded()).double()
    assert drawn.shape == (200, size**2)
    # every drawn patch is one of the enumeration, and every one of it is drawn
    same = (drawn[:, None] == every).all(2)
    assert same.sum(1).eq(1).all()
    assert same.any(0).all()


# ---------------------------------------------------------------- sampling


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_sample_of_a_singular_covariance(dtype):
    mean, cov = torch.arange(6, dtype=torch.float64), covariance(6, 2, 0)
    drawn = gaussian.sample(mean.to(dtype), cov.to(dtype), 20_000, seeded())
    assert drawn.dtype == dtype
    assert_covariance(drawn, mean, cov)
    assert torch.linalg.matrix_rank(drawn.double() - mean, rtol=1e-5) == 2


def test_sample_of_a_smooth_texture_where_cholesky_fails():
    mean, cov = gaussian.texture_patch_law(8, 3.0, 0.15, 0.5, 100)
    with pytest.raises(torch.linalg.LinAlgError):
        torch.linalg.cholesky(cov)
    assert_covariance(gaussian.sample(mean, cov, 4000, seeded()), mean, cov)


def test_sample_of_a_point_mass():
    mean = torch.tensor([1.0, 2.0])
    drawn = gaussian.sample(mean, torch.zeros(2, 2), 3, seeded())
    assert torch.equal(drawn, mean.expand(3, 2))


def test_mixture():
    weights, n = [0.5, 0.0, 0.3, 0.2], 10_000
    draws = [lambda m, k=k: torch.full((m, 2), float(k)) for k in range(4)]
    samples, labels = gaussian.mixture(draws, weights, n, seeded())
    assert samples.shape == (n, 2)
    assert torch.equal(samples, labels[:, None].expand(n, 2).float())
    counts = labels.bincount(minlength=4)
    assert counts[1] == 0
    for count, weight in zip(counts.tolist(), weights, strict=True):
        assert abs(count - n * weight) <= 5 * math.sqrt(n * weight * (1 - weight))
    again, _ = gaussian.mixture(draws, weights, n, seeded())
    assert torch.equal(samples, again)


# ---------------------------------------------------------------- posterior of a mixture


def mixture_2d():
    weights = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    means = torch.tensor([[0.0, 1.0], [3.0, -1.0], [-2.0, 0.5]], dtype=torch.float64)
    return weights, means, torch.stack([covariance(2, 4, k) for k in range(3)])


def test_posterior_is_the_one_integrated_on_a_grid():
    weights, means, covs = mixture_2d()
    noise = torch.tensor([[0.5, 0.2], [0.2, 0.8]], dtype=torch.float64)
    y = torch.tensor([[0.3, 0.1], [2.0, -2.0]], dtype=torch.float64)
    given, centre, spread = gaussian.posterior(y, weights, means, covs, noise)
    axis = torch.linspace(-12, 12, 601, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis)
    laws = torch.distributions.MultivariateNormal(means, covs)
    prior = (weights.log() + laws.log_prob(grid[:, None])).logsumexp(1)
    for k in range(2):
        noises = torch.distributions.MultivariateNormal(y[k], noise)
        law = (prior + noises.log_prob(grid)).softmax(0)
        mean = law @ grid
        second = grid.mT @ (law[:, None] * grid)
        torch.testing.assert_close(given[k] @ centre[k], mean, rtol=0, atol=1e-6)
        ours = torch.einsum("k,kd,ke->de", given[k], centre[k], centre[k])
        ours += torch.einsum("k,kde->de", given[k], spread)
        torch.testing.assert_close(ours, second, rtol=0, atol=1e-5)


def test_posterior_of_one_gaussian_is_wieners():
    _, means, covs = mixture_2d()
    eye = torch.eye(2, dtype=torch.float64)
    y = torch.randn(5, 2, generator=seeded(), dtype=torch.float64)
    given, centre, spread = gaussian.posterior(y, eye[0, :1], means[:1], covs[:1], 0.3 * eye)
    gain = covs[0] @ torch.linalg.inv(covs[0] + 0.3 * eye)
    assert torch.equal(given, torch.ones(5, 1, dtype=torch.float64))
    torch.testing.assert_close(centre[:, 0], means[0] + (y - means[0]) @ gain.mT)
    torch.testing.assert_close(spread[0], covs[0] - gain @ covs[0])


# ---------------------------------------------------------------- transport

ranks = st.integers(1, 6)


@settings(max_examples=60)
@given(st.integers(0, 99))
def test_w2_is_pots(seed):
    cov0, cov1 = covariance(6, 9, seed), covariance(6, 9, seed + 100)
    mean0, mean1 = cov0[0], cov1[1]
    theirs = ot.gaussian.bures_wasserstein_distance(
        *(t.numpy() for t in (mean0, mean1, cov0, cov1))
    )
    ours = gaussian.w2(mean0, cov0, mean1, cov1)
    assert ours.item() == pytest.approx(float(theirs) ** 2, rel=1e-9)
    assert gaussian.w2(mean1, cov1, mean0, cov0).item() == pytest.approx(ours.item(), rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_w2_of_rank_one_covariances(seed):
    """Z a and Z b or -Z b, whichever is nearer: |a|^2 + |b|^2 - 2 |a.b|."""
    a, b = torch.randn(2, 7, generator=seeded(seed), dtype=torch.float64)
    value = gaussian.w2(a, a.outer(a), a, b.outer(b))
    assert value.item() == pytest.approx((a @ a + b @ b - 2 * abs(a @ b)).item(), rel=1e-12)


def test_w2_in_one_dimension():
    """(m0 - m1)^2 + (s0 - s1)^2, to the last digits even for nearly equal laws."""
    for m0, s0, m1, s1 in [(0.0, 1.0, 0.0, 1.0), (1.0, 2.0, 3.5, 0.25), (0.0, 0.0, 1.0, 3.0)]:
        args = [
            torch.tensor([m0]),
            torch.tensor([[s0**2]]),
            torch.tensor([m1]),
            torch.tensor([[s1**2]]),
        ]
        value = gaussian.w2(*args)
        assert value.dtype == torch.float64
        assert value.item() == pytest.approx((m0 - m1) ** 2 + (s0 - s1) ** 2, rel=1e-14, abs=1e-30)
    mean, cov = torch.zeros(5, dtype=torch.float64), covariance(5, 5, 0)
    # dilation by 1 + t moves every point by t times itself
    near = gaussian.w2(mean, cov, mean, (1 + 1e-7) ** 2 * cov)
    assert near.item() == pytest.approx(1e-14 * cov.trace().item(), rel=1e-6)


@settings(max_examples=60)
@given(ranks, st.integers(0, 99))
def test_transport_map_pushes_forward(rank1, seed):
    cov0, cov1 = covariance(6, 9, seed), covariance(6, rank1, seed + 100)
    matrix = gaussian.transport_map(cov0, cov1)
    scale = cov1.abs().max()
    assert (matrix @ cov0 @ matrix.mT - cov1).abs().max() <= 1e-10 * scale
    # the gradient of a convex potential: symmetric and positive, hence optimal
    assert (matrix - matrix.mT).abs().max() <= 1e-9 * matrix.abs().max()
    assert torch.linalg.eigvalsh(matrix)[0] >= -1e-9 * matrix.abs().max()


def test_transport_map_of_ill_conditioned_textures_in_float32():
    _, cov0 = gaussian.texture_patch_law(3, 1.0, 0.15, 0.5, 32)
    _, cov1 = gaussian.texture_patch_law(3, 0.8, 0.2, 0.5, 32)
    matrix = gaussian.transport_map(cov0.float(), cov1.float())
    assert matrix.dtype == torch.float32
    assert (matrix.double() @ cov0 @ matrix.double().mT - cov1).abs().max() < 1e-5 * cov1.max()


@settings(max_examples=100)
@given(st.integers(0, 6), st.integers(0, 6), st.integers(0, 99))
def test_stochastic_map_is_an_optimal_coupling(rank0, rank1, seed):
    cov0, cov1 = covariance(6, rank0, seed), covariance(6, rank1, seed + 100)
    matrix, noise = gaussian.stochastic_map(cov0, cov1, rtol=1e-10)
    scale = max(cov1.abs().max(), 1)
    assert (matrix @ cov0 @ matrix.mT + noise - cov1).abs().max() <= 1e-11 * scale
    assert torch.linalg.eigvalsh(noise)[0] >= -1e-13 * scale
    cost = cov0.trace() + cov1.trace() - 2 * (matrix @ cov0).trace()
    zero = torch.zeros(6, dtype=torch.float64)
    best = gaussian.w2(zero, cov0, zero, cov1)
    assert cost.item() == pytest.approx(best.item(), rel=1e-9, abs=1e-11)


@pytest.mark.parametrize("rank0", [1, 3, 6])
def test_stochastic_map_is_the_closed_form(rank0):
    """The formula of the paper, where it holds: cov1 non-singular."""
    cov0, cov1 = covariance(6, rank0, 1), covariance(6, 12, 2)

    def root(matrix):
        values, vectors = torch.linalg.eigh(matrix)
        return vectors * values.clamp(min=0).sqrt() @ vectors.mT

    inverse0 = torch.linalg.pinv(cov0, rtol=1e-6, hermitian=True)
    half = root(cov1)
    expected = half @ root(half @ cov0 @ half) @ torch.linalg.inv(half) @ inverse0
    matrix, noise = gaussian.stochastic_map(cov0, cov1)
    torch.testing.assert_close(matrix, expected, rtol=0, atol=1e-6 * expected.abs().max().item())
    if rank0 == 6:
        assert noise.abs().max() < 1e-12 * cov1.max()
        torch.testing.assert_close(matrix, gaussian.transport_map(cov0, cov1))


def test_stochastic_map_of_smooth_textures_clamps():
    """Condition number 1e15: rtol bounds the gain by the ratio of standard deviations kept."""
    _, cov0 = gaussian.texture_patch_law(7, 3.0, 0.15, 0.5, 64)
    _, cov1 = gaussian.texture_patch_law(7, 0.5, 0.15, 0.5, 64)
    with pytest.raises(ValueError, match=r"^cov0 must be non-singular"):
        gaussian.transport_map(cov0, cov1)
    matrix, noise = gaussian.stochastic_map(cov0, cov1)
    assert (matrix @ cov0 @ matrix.mT + noise - cov1).abs().max() < 1e-12
    top0, top1 = (torch.linalg.eigvalsh(cov)[-1] for cov in (cov0, cov1))
    assert torch.linalg.matrix_norm(matrix, 2) <= (top1 / (1e-6 * top0)).sqrt()


# ---------------------------------------------------------------- bad input

EYE, ZERO, NAN = torch.eye(3), torch.zeros(3), torch.full((3, 3), torch.nan)
BAD = {
    "shape must be .C, H, W.": lambda: gaussian.texture((8, 8), 1.0, 0.1, 0.5, seeded()),
    "kernel_sd must be a number >= 0": lambda: gaussian.texture((1, 8, 8), -1, 0.1, 0.5, seeded()),
    "std must be a number > 0": lambda: gaussian.texture((1, 8, 8), 1, 0, 0.5, seeded()),
    "mean must be a finite number, got nan": lambda: gaussian.texture(
        (1, 8, 8), 1, 0.1, math.nan, seeded()
    ),
    "image_size must be a whole number >= 8, got 7": lambda: gaussian.texture_patch_law(
        8, 1.0, 0.1, 0.5, 7
    ),
    "exemplar must be finite": lambda: gaussian.random_phase(NAN[None], seeded()),
    "patch must be a whole number >= 2, got 1": lambda: gaussian.edge_patch_law(1, 0.3, 0.5),
    "edge must be a number >= 0": lambda: gaussian.edge_patches(4, 8, -0.3, 0.5, seeded()),
    "n must be a whole number >= 1, got 0": lambda: gaussian.sample(ZERO, EYE, 0, seeded()),
    "mean must have shape .d,. for cov .d, d.": lambda: gaussian.sample(EYE, EYE, 2, seeded()),
    "cov must be finite": lambda: gaussian.sample(ZERO, NAN, 2, seeded()),
    "cov must have eigenvalues >= 0, got -1": lambda: gaussian.sample(ZERO, -EYE, 2, seeded()),
    "cov0 must be symmetric": lambda: gaussian.transport_map(torch.ones(3, 3).triu(), EYE),
    "cov0 must be non-singular, got rank 1 of 3": lambda: gaussian.transport_map(
        torch.ones(3, 3), EYE
    ),
    "cov1 must be 3 x 3 on cpu like cov0, got 2 x 2": lambda: gaussian.transport_map(
        EYE, torch.eye(2)
    ),
    "cov1 must be a .d, d. matrix": lambda: gaussian.stochastic_map(EYE, ZERO),
    "rtol must be a number > 0": lambda: gaussian.stochastic_map(EYE, EYE, rtol=0.0),
    "mean1 must have shape": lambda: gaussian.w2(ZERO, EYE, ZERO[:2], EYE),
    "weights must be 2 numbers >= 0 of sum 1": lambda: gaussian.mixture(
        [torch.zeros, torch.ones], [0.8, 0.3], 5, seeded()
    ),
    "means, covs, noise_cov must have shapes": lambda: gaussian.posterior(EYE, ZERO, EYE, EYE, EYE),
    "weights must be 1 numbers >= 0 of sum 1": lambda: gaussian.mixture(
        [torch.zeros], [0.8, 0.2], 5, seeded()
    ),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_input_is_one_line(message):
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        BAD[message]()
    assert "\n" not in str(caught.value)
