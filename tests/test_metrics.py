import math

import numpy as np
import pytest
import scipy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otlib import gaussian, metrics, operators, patches


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
        return operators.blur(image, kernel)

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


# sets


def clouds(n, m, d, seed=0, shift=0.0):
    rng = np.random.default_rng(seed)
    return torch.from_numpy(rng.normal(size=(n, d))), torch.from_numpy(
        rng.normal(size=(m, d)) + shift
    )


def kid_by_loops(x, y, paired=False, weights=None):
    """The double sums, each copy that a weight stands for left out against itself."""
    u = [1.0] * len(x) if weights is None else weights.tolist()
    v = u if paired else [1.0] * len(y)

    def mean(a, b, wa, wb, apart):
        total = mass = 0.0
        for i, p in enumerate(a):
            for j, q in enumerate(b):
                if not (apart and i == j):
                    total += wa[i] * wb[j] * float(p @ q / x.shape[1] + 1) ** 3
                    mass += wa[i] * wb[j]
        return total / mass

    return mean(x, x, u, u, True) + mean(y, y, v, v, True) - 2 * mean(x, y, u, v, paired)


def test_kid_is_its_double_sums():
    x, y = clouds(7, 5, 4, shift=0.3)
    assert metrics.kid(x, y) == pytest.approx(kid_by_loops(x, y), rel=1e-12)
    y = clouds(7, 7, 4, seed=2)[1]
    assert metrics.kid(x, y, paired=True) == pytest.approx(kid_by_loops(x, y, True), rel=1e-12)
    weights = torch.tensor([2.0, 0, 1, 1, 3, 0, 0])
    found = metrics.kid(x, y, paired=True, weights=weights)
    assert found == pytest.approx(kid_by_loops(x, y, True, weights), rel=1e-12)


def test_kid_is_0_in_expectation_on_halves_of_one_set():
    rng = np.random.default_rng(0)
    values = []
    for _ in range(400):
        x = torch.from_numpy(rng.normal(size=(12, 6)))
        values.append(metrics.kid(x[:6], x[6:]))
    error = np.std(values) / math.sqrt(len(values))
    assert abs(np.mean(values)) < 3 * error
    assert min(values) < 0 < max(values)


def test_paired_kid_is_0_in_expectation_where_partners_are_alike():
    """The plain one is not: it lets an image meet its own restoration."""
    rng = np.random.default_rng(1)
    paired, plain = [], []
    for _ in range(400):
        common = rng.normal(size=(8, 6))
        x, y = (torch.from_numpy(common + 0.3 * rng.normal(size=(8, 6))) for _ in range(2))
        paired.append(metrics.kid(x, y, paired=True))
        plain.append(metrics.kid(x, y))
    assert abs(np.mean(paired)) < 3 * np.std(paired) / 20
    assert np.mean(plain) < -3 * np.std(plain) / 20
    assert metrics.kid(x, x, paired=True) == pytest.approx(0, abs=1e-12)


def test_kid_tells_sets_apart():
    values = [metrics.kid(*clouds(200, 200, 5, shift=shift)) for shift in (0.0, 0.5, 1.0)]
    assert values[0] < values[1] < values[2]


def fid_by_sqrtm(x, y):
    x, y = x.numpy(), y.numpy()
    a, b = np.cov(x.T), np.cov(y.T)
    cross = scipy.linalg.sqrtm(a @ b).real
    return ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(a + b - 2 * cross)


@pytest.mark.parametrize("n, m", [(40, 30), (60, 60)])
def test_fid_is_the_textbooks_formula(n, m):
    x, y = clouds(n, m, 6, shift=0.4)
    assert metrics.fid(x, 1.5 * y) == pytest.approx(fid_by_sqrtm(x, 1.5 * y), rel=1e-8)


def test_fid_of_fewer_images_than_features_is_that_of_their_span():
    x, y = clouds(5, 6, 4, shift=0.4)
    turn = torch.linalg.qr(clouds(30, 30, 30)[0]).Q[:4]  # into 30 dimensions, isometrically
    assert metrics.fid(x @ turn, y @ turn) == pytest.approx(metrics.fid(x, y), rel=1e-9)
    assert metrics.fid(x, x) == pytest.approx(0, abs=1e-12)


def test_weights_are_copies():
    x, y = clouds(6, 6, 9, shift=0.2)
    weights = torch.tensor([2.0, 0, 1, 3, 0, 1])
    copies = weights.long().tolist()
    index = [i for i, copy in enumerate(copies) for _ in range(copy)]
    assert metrics.fid(x, y, weights) == pytest.approx(metrics.fid(x[index], y[index]), rel=1e-9)
    p = x.softmax(1)
    assert metrics.inception_score(p, weights) == pytest.approx(metrics.inception_score(p[index]))
    images, others = ([uniform(1, 8, 9, seed=s + k) for k in range(6)] for s in (0, 10))
    laws = metrics.moments(images, 2), metrics.moments(others, 2)
    copied = [metrics.moments([part[i] for i in index], 2) for part in (images, others)]
    assert metrics.gelbrich(*laws, weights) == pytest.approx(metrics.gelbrich(*copied), rel=1e-9)
    assert metrics.pooled_psnr(images, others, weights) == pytest.approx(
        metrics.pooled_psnr([images[i] for i in index], [others[i] for i in index])
    )


@settings(max_examples=25)
@given(
    n=st.integers(2, 6), classes=st.integers(2, 8), heat=st.floats(0, 30), seed=st.integers(0, 99)
)
def test_inception_score_lies_within_its_bounds(n, classes, heat, seed):
    p = (heat * clouds(n, 2, classes, seed)[0]).softmax(1)
    assert 1 - 1e-12 <= metrics.inception_score(p) <= min(n, classes) + 1e-9


def test_inception_score_reaches_its_bounds():
    assert metrics.inception_score(torch.eye(5)) == pytest.approx(5)
    assert metrics.inception_score(torch.full((4, 3), 1 / 3)) == pytest.approx(1)


def test_patch_w2_of_values_on_a_line_is_by_sorting():
    x, y = ([uniform(1, 6, 7, seed=s)] for s in (0, 1))
    gaps = x[0].flatten().sort().values - y[0].flatten().sort().values
    expected = gaps.square().mean().sqrt().item()
    assert metrics.patch_w2(x, y, patch=1) == pytest.approx(expected, rel=1e-9)


def test_patch_w2_is_the_best_assignment():
    x, y = ([uniform(2, 5, 5, seed=s)] for s in (0, 1))
    clouds = [patches.extract(part[0], 2) for part in (x, y)]
    cost = torch.cdist(*clouds).square().numpy()
    rows, columns = scipy.optimize.linear_sum_assignment(cost)
    expected = math.sqrt(cost[rows, columns].mean())
    assert metrics.patch_w2(x, y, patch=2) == pytest.approx(expected, rel=1e-9)
    assert metrics.patch_w2(x, x, patch=2) == 0
    far = [[1e5 + part[0]] for part in (x, y)]  # |x|^2 - 2 xy + |y|^2 keeps 5 digits of it
    assert metrics.patch_w2(*far, patch=2) == pytest.approx(expected, rel=1e-9)


@settings(max_examples=15)
@given(seed=st.integers(0, 999), patch=st.integers(1, 3), scale=st.floats(0.1, 3))
def test_the_gelbrich_distance_bounds_w2_below(seed, patch, scale):
    x, y = [uniform(1, 7, 8, seed=seed)], [scale * uniform(1, 8, 7, seed=seed + 1) ** 3]
    lower = metrics.gelbrich(metrics.moments(x, patch), metrics.moments(y, patch))
    assert lower <= metrics.patch_w2(x, y, patch) * (1 + 1e-9)


def test_the_gelbrich_distance_of_a_shift_is_its_length():
    """And it pools the images: a constant added to all of them is a translation of the patches."""
    x = [uniform(3, 9, 8, seed=s) for s in range(3)]
    y = [image + 0.25 for image in x]
    found = metrics.gelbrich(metrics.moments(x, 2), metrics.moments(y, 2))
    assert found == pytest.approx(0.25 * math.sqrt(12), rel=1e-6)


def test_moments_pool_to_those_of_all_patches():
    x = [uniform(1, 9, 8), 2 + uniform(1, 5, 12, seed=1)]
    y = [uniform(1, 7, 7, seed=2)]
    clouds = [torch.cat([patches.extract(image, 2) for image in part]) for part in (x, y)]
    laws = [law for cloud in clouds for law in (cloud.mean(0), cloud.mT.cov(correction=0))]
    found = metrics.gelbrich(metrics.moments(x, 2), metrics.moments(y, 2))
    assert found == pytest.approx(gaussian.w2(*laws).sqrt().item(), rel=1e-9)


def test_the_order_of_the_images_does_not_matter():
    x, y = clouds(8, 8, 5, shift=0.3)
    turn = torch.randperm(8, generator=torch.Generator().manual_seed(0))
    for metric in (metrics.kid, metrics.fid, lambda a, b: metrics.kid(a, b, paired=True)):
        assert metric(x[turn], y[turn]) == pytest.approx(metric(x, y), rel=1e-9)
    p = x.softmax(1)
    assert metrics.inception_score(p[turn]) == pytest.approx(metrics.inception_score(p))


def test_pooled_psnr_is_not_the_mean_of_the_psnrs():
    """20.0 and 40.0 dB: the mean is 30, the mean error that of 22.97 dB."""
    reference = [torch.zeros(1, 8, 8)] * 2
    images = [torch.full((1, 8, 8), 0.1), torch.full((1, 8, 8), 0.01)]
    expected = -10 * math.log10((0.01 + 0.0001) / 2)
    assert metrics.pooled_psnr(images, reference) == pytest.approx(expected, rel=1e-6)


def test_the_interval_of_a_mean_is_that_of_the_normal_law():
    values = torch.from_numpy(np.random.default_rng(0).normal(size=400))
    draws = metrics.bootstrap(lambda w: float(w @ values / w.sum()), 400, draws=1000)
    low, high = metrics.interval(draws)
    half = 1.645 * values.std(correction=0).item() / 20
    assert low == pytest.approx(values.mean().item() - half, abs=0.2 * half)
    assert high == pytest.approx(values.mean().item() + half, abs=0.2 * half)
    again = metrics.bootstrap(lambda w: float(w @ values / w.sum()), 400, draws=1000)
    assert torch.equal(draws, again)
    twice = metrics.bootstrap(lambda w: 2 * float(w @ values / w.sum()), 400, draws=1000)
    torch.testing.assert_close(twice, 2 * draws)  # of the same resamples


# of the two laws of the test below: kernel (x'y/4 + 1)^3 between independent draws, by moments
def expected_kernel(mean_x, mean_y, var_x, var_y, d=4):
    """E (s + 1)^3 for s = x'y/d, x and y independent with independent Gaussian coordinates."""
    # each coordinate's product p has these moments
    m1 = mean_x * mean_y
    m2 = (mean_x**2 + var_x) * (mean_y**2 + var_y)
    m3 = (mean_x**3 + 3 * mean_x * var_x) * (mean_y**3 + 3 * mean_y * var_y)
    s1 = m1
    s2 = (d * m2 + d * (d - 1) * m1**2) / d**2
    s3 = (d * m3 + 3 * d * (d - 1) * m2 * m1 + d * (d - 1) * (d - 2) * m1**3) / d**3
    return s3 + 3 * s2 + 3 * s1 + 1


TRUTH = (
    expected_kernel(0, 0, 1, 1)
    + expected_kernel(0.5, 0.5, 1.04, 1.04)
    - 2 * expected_kernel(0, 0.5, 1, 1.04)
)


def test_the_interval_of_kid_holds_the_truth_as_often_as_it_says():
    """Ninety in a hundred, within what 100 trials and 30 images leave open."""
    rng, inside = np.random.default_rng(0), 0
    for trial in range(100):
        x = torch.from_numpy(rng.normal(size=(30, 4)))
        y = x + torch.from_numpy(0.5 + 0.2 * rng.normal(size=(30, 4)))

        def distance(weights, x=x, y=y):
            return metrics.kid(x, y, paired=True, weights=weights)

        low, high = metrics.interval(metrics.bootstrap(distance, 30, draws=60, seed=trial))
        inside += low <= TRUTH <= high
    assert 75 <= inside <= 100


@pytest.mark.parametrize(
    "call, line",
    [
        (lambda: metrics.kid(torch.ones(1, 3), torch.ones(4, 3)), "at least 2 rows, got 1 and 4"),
        (lambda: metrics.kid(torch.ones(3, 3), torch.ones(4, 2)), "y must have 3 columns, got 2"),
        (
            lambda: metrics.kid(*clouds(3, 4, 2), paired=True),
            "the 3 rows of x, its partners, got 4",
        ),
        (
            lambda: metrics.kid(*clouds(3, 3, 2), weights=torch.ones(3)),
            "weights must be None where the sets are not paired",
        ),
        (
            lambda: metrics.kid(*clouds(3, 3, 2), paired=True, weights=torch.zeros(3)),
            "weights must be (3,) numbers >= 0, 2 or more of them > 0, got [0.0, 0.0, 0.0]",
        ),
        (lambda: metrics.fid(torch.full((3, 2), math.nan), torch.ones(3, 2)), "x must be finite"),
        (lambda: metrics.inception_score(torch.ones(2, 3)), "rows of sum 1"),
        (lambda: metrics.moments([torch.ones(1, 2, 9)], 3), "3"),
        (
            lambda: metrics.moments([torch.ones(1, 9, 9), torch.ones(3, 9, 9)]),
            "images must have 1 channels each, got 3",
        ),
        (lambda: metrics.patch_w2([], []), "the number of images in x"),
        (
            lambda: metrics.patch_w2([torch.ones(1, 9, 9)], [torch.ones(3, 9, 9)]),
            "y must have 9 columns, got 27",
        ),
        (
            lambda: metrics.patch_w2(*[[torch.ones(1, 9, 9)]] * 2, count=0),
            "count must be a whole number >= 1, got 0",
        ),
        (lambda: metrics.pooled_psnr([], []), "got 0 for 0"),
        (lambda: metrics.bootstrap(float, 1), "count must be a whole number >= 2, got 1"),
        (lambda: metrics.interval(torch.ones(5), level=1.0), "level must be a number < 1, got 1.0"),
    ],
)
def test_bad_sets_get_one_line(call, line):
    with pytest.raises(ValueError) as error:
        call()
    assert line in str(error.value) and "\n" not in str(error.value)


def test_moments_of_other_patches_are_refused():
    image = [uniform(1, 8, 8)]
    with pytest.raises(ValueError, match="y must have moments of 4 dimensions, got 9"):
        metrics.gelbrich(metrics.moments(image, 2), metrics.moments(image, 3))
