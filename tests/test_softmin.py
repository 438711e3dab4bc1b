import contextlib
import math
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from clouds import generator, needs
from hypothesis import given, settings
from hypothesis import strategies as st

from otlib import softmin as module
from otlib.softmin import hardmin, kernel, softmin, unavailable

ROOT = Path(__file__).parents[1]
EPS = 2e-4  # of the paper, squared grey levels
D = 36  # of every test with KeOps, which compiles once for each dimension

no_keops = needs("keops")
no_compiler = needs("compiled")


@pytest.fixture(
    params=[
        ("torch", torch.float32),
        ("torch", torch.float64),
        pytest.param(("compiled", torch.float32), marks=no_compiler),
        pytest.param(("compiled", torch.float64), marks=no_compiler),
        pytest.param(("keops", torch.float32), marks=no_keops),
        pytest.param(("keops", torch.float64), marks=no_keops),
        ("attention", torch.float32),
        ("attention", torch.float64),
    ],
    ids=lambda p: f"{p[0]}-{str(p[1])[-7:]}",
)
def case(request):
    """(backend, dtype, bound on the error of s in units of eps at EPS)."""
    backend, dtype = request.param
    return backend, dtype, 0.05 if dtype is torch.float32 else 1e-9


def patch_cloud(n, seed, dtype=torch.float64, d=D):
    """Patch-like points: mean grey, a few strong directions of their own, a little noise."""
    g = generator(seed)
    basis = torch.randn(5, d, generator=generator(99), dtype=torch.float64) / math.sqrt(5)
    low_rank = 0.15 * torch.randn(n, 5, generator=g, dtype=torch.float64) @ basis
    noise = 0.01 * torch.randn(n, d, generator=g, dtype=torch.float64)
    return (0.5 + low_rank + noise).clamp(0, 1).to(dtype)


def biases(n, seed, dtype=torch.float64):
    return (0.1 * torch.randn(n, generator=generator(seed), dtype=torch.float64)).to(dtype)


def problem(dtype, n=150, m=130, seed=1):
    return patch_cloud(n, seed, dtype), patch_cloud(m, seed + 1, dtype), biases(m, seed + 2, dtype)


def reference(x, y, h, eps):
    """s and the barycentre in float64 by torch.logsumexp, from differences of coordinates."""
    x, y, h = x.double(), y.double(), h.double()
    score = (h - (x[:, None] - y).square().sum(-1)) / eps
    return -eps * score.logsumexp(1), score.softmax(1) @ y


def agrees(x, y, h, eps, backend, bound):
    """Check s to bound * eps, and the barycentre to what such an error of the weights does."""
    soft, mean = softmin(x, y, h, eps, with_mean=True, backend=backend)
    assert soft.dtype == mean.dtype == x.dtype
    assert soft.shape == (len(x),) and mean.shape == x.shape
    step = max(1, len(x) * len(y) // 100_000)  # the rows that are checked: some of many
    expected, barycentre = reference(x[::step], y, h, eps)
    assert (soft[::step].double() - expected).abs().max() <= bound * eps
    spread = (y.double() - y.double().mean(0)).norm(dim=1).max()
    slack = 4 * torch.finfo(x.dtype).eps * y.abs().max()
    assert (mean[::step].double() - barycentre).norm(dim=1).max() <= 2 * bound * spread + slack


@pytest.mark.parametrize("eps", [EPS, 1e-2, 1.0])
def test_against_logsumexp_in_float64(case, eps):
    backend, dtype, bound = case
    # an error that is absolute in s weighs less at a larger eps, down to the rounding of s / eps
    relative = max(bound * EPS / eps, 40 * torch.finfo(dtype).eps)
    agrees(*problem(dtype), eps, backend, relative)


def test_more_points_than_a_tile(case):
    """Clouds of two tiles and a bit: the default tiles, both ways round."""
    backend, dtype, bound = case
    x, y, _ = problem(dtype, 1100, 2100)
    agrees(x, y, biases(2100, 3, dtype), EPS, backend, bound)
    agrees(y, x, biases(1100, 4, dtype), EPS, backend, bound)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("backend", ["torch", "attention", pytest.param("keops", marks=no_keops)])
def test_on_a_gpu(backend):
    """More points than a tile of the CPU, both ways round, in float32."""
    x, y, _ = (t.cuda() for t in problem(torch.float32, 1100, 2100))
    agrees(x, y, biases(2100, 3, torch.float32).cuda(), EPS, backend, 0.05)
    agrees(y, x, biases(1100, 4, torch.float32).cuda(), EPS, backend, 0.05)


@pytest.mark.parametrize("with_mean", [False, True])
def test_arriving_masses(case, with_mean):
    """sum_i l_i w_ij against the dense weights, with removed points and rows that leave nothing."""
    backend, dtype, _ = case
    x, y, h = problem(dtype)
    h[:9] = -math.inf
    masses = torch.rand(len(x), generator=generator(4), dtype=torch.float64)
    masses[:7] = 0
    eps = 0.05
    leaving = lambda s, rows: masses[rows].to(dtype)
    *found, arriving = kernel(backend)(x, y)(h, eps, with_mean, leaving)
    soft, barycentre = reference(x, y, h, eps)
    score = (h.double() - (x.double()[:, None] - y.double()).square().sum(-1)) / eps
    rounding = 400 * torch.finfo(dtype).eps
    expected = masses @ score.softmax(1)
    # where next to nothing arrives, the clamp before exp leaves exp(-60) of the mass
    torch.testing.assert_close(arriving.double(), expected, rtol=rounding, atol=1e-23)
    torch.testing.assert_close(found[0].double(), soft, rtol=0, atol=rounding)
    if with_mean:
        torch.testing.assert_close(found[1].double(), barycentre, rtol=0, atol=rounding)


@contextlib.contextmanager
def tiles(rows, columns):
    """Tiles so small that a small problem has several."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_tile", lambda _: (rows, columns))
        yield


@pytest.mark.parametrize("tile", [(1, 1), (7, 1), (64, 50), (150, 13)])
def test_tiles_do_not_change_the_result(tile):
    x, y, h = problem(torch.float64)
    whole, mean = softmin(x, y, h, EPS, with_mean=True)
    with tiles(*tile):
        tiled, tiled_mean = softmin(x, y, h, EPS, with_mean=True)
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-10 * EPS)
    torch.testing.assert_close(tiled_mean, mean, rtol=0, atol=1e-10)


def test_minus_infinity_removes_points(case):
    backend, dtype, bound = case
    x, y, h = problem(dtype)
    removed = torch.rand(len(y), generator=generator(5)) < 0.4
    expected = softmin(x, y[~removed], h[~removed], EPS, with_mean=True, backend=backend)
    h[removed] = -math.inf
    soft, mean = softmin(x, y, h, EPS, with_mean=True, backend=backend)
    torch.testing.assert_close(soft, expected[0], rtol=0, atol=2 * bound * EPS)
    torch.testing.assert_close(mean, expected[1], rtol=0, atol=4 * bound)


@pytest.mark.parametrize("tile", [(1024, 1024), (64, 20), (1, 1)])
@pytest.mark.parametrize("dead", [slice(0, 40), slice(90, None), slice(20, 129), slice(1, None)])
def test_whole_tiles_of_minus_infinity(tile, dead):
    x, y, h = problem(torch.float64)
    h[dead] = -math.inf
    live = h > -math.inf
    expected, barycentre = reference(x, y[live], h[live], EPS)
    with tiles(*tile):
        soft, mean = softmin(x, y, h, EPS, with_mean=True)
    torch.testing.assert_close(soft, expected, rtol=0, atol=1e-9 * EPS)
    torch.testing.assert_close(mean, barycentre, rtol=0, atol=1e-9)


def test_whole_blocks_of_minus_infinity(case):
    """Removed points that fill the first and last blocks of any backend."""
    backend, dtype, bound = case
    x, y, h = problem(dtype, 50, 2100)
    h[:1024], h[1100:] = -math.inf, -math.inf
    agrees(x, y, h, EPS, backend, bound)


def test_far_outliers_neither_overflow_nor_leak(case):
    """Scores thousands of eps apart: x sees its own neighbours, a far x the point nearest to it."""
    backend, dtype, _ = case
    x, y, h = problem(dtype)
    x[3], y[5], h[7] = x[3] + 10, y[5] - 3, h[7] - 50
    rounding = torch.finfo(dtype).eps
    soft, mean = softmin(x, y, h, EPS, with_mean=True, backend=backend)
    expected, barycentre = reference(x, y, h, EPS)
    scale = 1 + (x.double() - y.double().mean(0)).square().sum(1)
    assert ((soft.double() - expected).abs() / scale).max() <= 30 * rounding
    near = torch.arange(len(x)) != 3
    assert (mean.double() - barycentre)[near].abs().max() <= 30 * rounding / EPS
    kept = torch.arange(len(y)) != 5
    without = softmin(x[near], y[kept], h[kept], EPS, backend=backend)
    torch.testing.assert_close(soft[near], without, rtol=0, atol=30 * rounding)


def test_translation_invariance(case):
    """Both clouds moved by the same vector: s stays, the barycentre moves with them."""
    backend, dtype, bound = case
    x, y, h = problem(dtype)
    shift = torch.full((D,), 0.25, dtype=dtype)
    soft, mean = softmin(x, y, h, EPS, with_mean=True, backend=backend)
    moved, moved_mean = softmin(x + shift, y + shift, h, EPS, with_mean=True, backend=backend)
    torch.testing.assert_close(moved, soft, rtol=0, atol=2 * bound * EPS)
    torch.testing.assert_close(moved_mean, mean + shift, rtol=0, atol=4 * bound)


def test_permutations(case):
    backend, dtype, bound = case
    x, y, h = problem(dtype)
    rows = torch.randperm(len(x), generator=generator(6))
    columns = torch.randperm(len(y), generator=generator(7))
    soft = softmin(x, y, h, EPS, backend=backend)
    permuted = softmin(x[rows], y[columns], h[columns], EPS, backend=backend)
    torch.testing.assert_close(permuted, soft[rows], rtol=0, atol=2 * bound * EPS)


def test_a_constant_in_h_comes_out_of_s(case):
    backend, dtype, bound = case
    x, y, h = problem(dtype)
    soft, mean = softmin(x, y, h, EPS, with_mean=True, backend=backend)
    lower, same = softmin(x, y, h + 0.375, EPS, with_mean=True, backend=backend)
    torch.testing.assert_close(lower, soft - 0.375, rtol=0, atol=2 * bound * EPS)
    torch.testing.assert_close(same, mean, rtol=0, atol=4 * bound)


def test_limits_in_eps(case):
    """eps -> 0: the minimum and its point. eps -> inf: the mean, minus eps log M."""
    backend, dtype, _ = case
    x, y, h = problem(dtype)
    cost = (x.double()[:, None] - y.double()).square().sum(-1) - h.double()
    rounding = torch.finfo(dtype).eps
    hard, nearest = softmin(x, y, h, 1e-8, with_mean=True, backend=backend)
    lowest, index = cost.min(1)
    assert (hard.double() - lowest).abs().max() <= 30 * rounding + 1e-8 * math.log(len(y))
    clear = cost.topk(2, largest=False).values.diff(dim=1)[:, 0] > 1e-5
    assert clear.sum() > 100
    torch.testing.assert_close(nearest[clear], y[index[clear]], rtol=0, atol=4 * rounding)

    eps = 100.0  # the cumulants of the cost: mean, variance, and a bound on the third
    soft, mean = softmin(x, y, h, eps, with_mean=True, backend=backend)
    spread = cost.amax() - cost.amin()
    flat = cost.mean(1) - eps * math.log(len(y)) - cost.var(1, correction=0) / (2 * eps)
    atol = 4 * rounding * eps * math.log(len(y)) + spread**3 / (6 * eps**2)
    torch.testing.assert_close(soft.double(), flat, rtol=0, atol=atol)
    torch.testing.assert_close(mean, y.mean(0).expand_as(x), rtol=0, atol=0.01)


def test_mean_is_the_derivative_of_s(case):
    """ds/dx = 2 (x - mean), central differences in float64."""
    backend, dtype, bound = case
    x, y, h = problem(dtype)
    _, mean = softmin(x, y, h, 0.05, with_mean=True, backend=backend)
    way = torch.randn(D, generator=generator(8), dtype=torch.float64)
    ahead, _ = reference(x.double() + 1e-5 * way, y, h, 0.05)
    behind, _ = reference(x.double() - 1e-5 * way, y, h, 0.05)
    slope = 2 * (x - mean).double() @ way
    torch.testing.assert_close(slope, (ahead - behind) / 2e-5, rtol=0, atol=max(1e-7, bound / 500))


@settings(max_examples=80)
@given(
    n=st.integers(1, 9),
    m=st.integers(1, 9),
    d=st.integers(1, 5),
    eps=st.floats(1e-4, 1e2),
    seed=st.integers(0, 2**16),
    tile=st.tuples(st.integers(1, 10), st.integers(1, 10)),
    dead=st.integers(0, 8),
)
def test_any_shape(n, m, d, eps, seed, tile, dead):
    x = torch.rand(n, d, generator=generator(seed), dtype=torch.float64)
    y = torch.rand(m, d, generator=generator(seed + 1), dtype=torch.float64)
    h = biases(m, seed + 2)
    h[: min(dead, m - 1)] = -math.inf
    with tiles(*tile):
        soft, mean = softmin(x, y, h, eps, with_mean=True)
    expected, barycentre = reference(x, y, h, eps)
    torch.testing.assert_close(soft, expected, rtol=1e-13, atol=1e-13)
    torch.testing.assert_close(mean, barycentre, rtol=0, atol=1e-9)


def lowest(x, y, h):
    """The minimum in float64 from differences of coordinates, and the N x M costs."""
    cost = (x.double()[:, None] - y.double()).square().sum(-1) - h.double()
    return cost.amin(1), cost


def is_lowest(x, y, h, s, index):
    """Check index to the rounding of squared norms, s to that of the differences at index."""
    expected, cost = lowest(x, y, h)
    rounding = torch.finfo(x.dtype).eps
    assert s.dtype == x.dtype and index.dtype is torch.int64
    assert s.shape == index.shape == (len(x),)
    found = cost[torch.arange(len(x)), index]
    scale = 1 + cost[:, h > -math.inf].abs().amax()
    assert (found - expected).max() <= 4 * rounding * scale
    assert (s.double() - found).abs().max() <= 4 * rounding * scale


def test_hardmin_against_brute_force(case):
    backend, dtype, _ = case
    x, y, h = problem(dtype)
    is_lowest(x, y, h, *hardmin(x, y, h, backend=backend))


def test_hardmin_of_more_points_than_a_tile(case):
    """Two tiles and a bit, both ways round, with the nearest point in every tile."""
    backend, dtype, _ = case
    x, y, h = *problem(dtype, 1100, 2100)[:2], biases(2100, 3, dtype)
    s, index = hardmin(x, y, h, backend=backend)
    is_lowest(x, y, h, s, index)
    assert len((index // 1024).unique()) == 3
    h = biases(1100, 4, dtype)
    is_lowest(y, x, h, *hardmin(y, x, h, backend=backend))


@pytest.mark.parametrize("tile", [(1, 1), (7, 1), (64, 50), (150, 13)])
def test_tiles_do_not_change_the_hardmin(tile):
    x, y, h = problem(torch.float64)
    expected, cost = lowest(x, y, h)
    with tiles(*tile):
        s, index = hardmin(x, y, h)
    assert torch.equal(index, cost.argmin(1))  # no near tie in this cloud
    torch.testing.assert_close(s, expected, rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("dead", [slice(0, 1100), slice(1000, None), slice(1, 2099)])
def test_minus_infinity_removes_points_from_the_hardmin(case, dead):
    """Whole tiles and blocks of them, first and last."""
    backend, dtype, _ = case
    x, y, _ = problem(dtype, 50, 2100)
    h = biases(2100, 3, dtype)
    h[dead] = -math.inf
    s, index = hardmin(x, y, h, backend=backend)
    assert (h[index] > -math.inf).all()
    is_lowest(x, y, h, s, index)


def test_hardmin_of_ties(case):
    """Every y twice and every other bias equal: one of the two, with the one value."""
    backend, dtype, _ = case
    x, y, h = problem(dtype)
    single, index = hardmin(x, y, h, backend=backend)
    double, either = hardmin(x, torch.cat([y, y]), torch.cat([h, h]), backend=backend)
    assert torch.equal(double, single) and torch.equal(either % len(y), index)


def test_hardmin_keeps_its_digits_far_from_the_origin(case):
    """Points on their own targets at distance 1e-3, in a cloud 10 wide: no cancellation in s."""
    backend, dtype, _ = case
    y = 10 * patch_cloud(40, 1, dtype)
    x = y + 1e-3 / math.sqrt(D)
    s, index = hardmin(x, y, torch.zeros(40, dtype=dtype), backend=backend)
    assert torch.equal(index, torch.arange(40))
    assert torch.equal(s, (x - y).square().sum(1))


def test_softmin_tends_to_the_hardmin(case):
    """s_hard - eps log M <= s_soft <= s_hard, for every eps."""
    backend, dtype, _ = case
    x, y, h = problem(dtype)
    hard, _ = hardmin(x, y, h, backend=backend)
    slack = 40 * torch.finfo(dtype).eps
    for eps in (1.0, 1e-2, 1e-4, 1e-7):
        gap = hard - softmin(x, y, h, eps, backend=backend)
        assert gap.min() >= -slack * max(1, eps)
        assert gap.max() <= eps * math.log(len(y)) + slack * max(1, eps)


@settings(max_examples=80)
@given(
    n=st.integers(1, 9),
    m=st.integers(1, 9),
    d=st.integers(1, 5),
    seed=st.integers(0, 2**16),
    tile=st.tuples(st.integers(1, 10), st.integers(1, 10)),
    dead=st.integers(0, 8),
)
def test_hardmin_of_any_shape(n, m, d, seed, tile, dead):
    x = torch.rand(n, d, generator=generator(seed), dtype=torch.float64)
    y = torch.rand(m, d, generator=generator(seed + 1), dtype=torch.float64)
    h = biases(m, seed + 2)
    h[: min(dead, m - 1)] = -math.inf
    with tiles(*tile):
        is_lowest(x, y, h, *hardmin(x, y, h))


def test_hardmin_leaves_its_inputs_alone(case):
    backend, dtype, _ = case
    x, y, h = problem(dtype)
    copies = [t.clone() for t in (x, y, h)]
    s, index = hardmin(x.requires_grad_(), y, h.requires_grad_(), backend=backend)
    assert all(torch.equal(t, copy) for t, copy in zip((x, y, h), copies, strict=True))
    assert not s.requires_grad and not index.requires_grad


def halves(dtype, far):
    """Half of each cloud moved by far in every coordinate; the value is given to the type first."""
    x, y, h = problem(dtype)
    x[70:], y[60:] = x[70:] + far, y[60:] + far
    return x, y, h


@pytest.mark.parametrize("far", [10.0, 1e3, 1e5])
def test_clouds_far_apart_in_parts(case, far):
    """Squared norms of 36 far^2 round by far more than eps; the soft-min does not."""
    backend, dtype, _ = case
    x, y, h = halves(dtype, far)
    if backend == "attention" and far > 1e4:
        with pytest.raises(ValueError, match=r"^backend 'attention' takes products .* 'auto'$"):
            softmin(x, y, h, EPS, backend=backend)
        return
    soft, mean = softmin(x, y, h, EPS, with_mean=True, backend=backend)
    expected, barycentre = reference(x, y, h, EPS)
    torch.testing.assert_close(
        soft.double(), expected, rtol=torch.finfo(dtype).eps, atol=1e-3 * EPS
    )
    rounding = 4 * torch.finfo(dtype).eps * (1 + far)  # of the coordinates of the result
    torch.testing.assert_close(mean.double(), barycentre, rtol=0, atol=rounding + 2e-3)


@pytest.mark.parametrize("far", [0.0, 10.0, 1e3, 1e5, 1e7])
@pytest.mark.parametrize("flat", [True, False])
def test_hardmin_of_clouds_far_apart_in_parts(case, far, flat):
    """The value is within a twentieth of |x_i - y_j|^2 of the minimum."""
    backend, dtype, _ = case
    x, y, h = halves(dtype, far)
    h = 0 * h if flat else h
    s, index = hardmin(x, y, h, backend=backend)
    least, cost = lowest(x, y, h)
    squares = (x.double() - y[index].double()).square().sum(1)
    found = cost[torch.arange(len(x)), index]
    assert ((found - least) <= 0.05 * squares).all()
    torch.testing.assert_close(s.double(), found, rtol=1e-5, atol=1e-5)


def test_hardmin_of_patches_searches_no_row_twice(monkeypatch):
    """Nor of patches that lie in the cloud, with the rounding of their pixels."""
    x, y, h = problem(torch.float32, 300, 500)
    x[:200] = y[100:300] * (1 + 1e-7)
    expected = [lowest(x, y, bias)[1].argmin(1) for bias in (h, 0 * h)]
    block = module.costs

    def few(x, y):
        assert len(x) <= 16, "all but the sample that tells how far neighbours are"
        return block(x, y)

    monkeypatch.setattr(module, "costs", few)
    for bias, index in zip((h, 0 * h), expected, strict=True):
        found = hardmin(x, y, bias)[1]
        assert (found == index).float().mean() > 0.98  # but for near ties


def test_softmin_says_where_its_weights_err():
    """Both clouds 1e9 wide: |x_i - y_j|^2 rounds by 100, and eps is 1."""
    x, y, h = problem(torch.float64)
    with pytest.warns(RuntimeWarning, match=r"^softmin's weights err: .* by \de\+\d\d eps$"):
        s = softmin(1e9 * x, 1e9 * y, h, 1.0)
    torch.testing.assert_close(s, reference(1e9 * x, 1e9 * y, h, 1.0)[0], rtol=1e-14, atol=0)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        softmin(x, y, h, 1e-12)


@pytest.mark.parametrize("shift", [1e3, 1e5])
def test_a_common_translation_in_float32(shift):
    """What the coordinates lost is lost; the rest is right to a tenth of eps."""
    x, y, h = problem(torch.float32)
    agrees(x + shift, y + shift, h, EPS, "torch", 0.1)


TRANSFORMS = [torch.func.grad, torch.func.hessian, torch.func.jacfwd, torch.func.jacrev]


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("function", [softmin, hardmin])
def test_transforms_of_torch_func_are_refused(transform, function):
    good = {k: v for k, v in GOOD.items() if k != "eps" or function is softmin}

    def value(x):
        s = function(**{**good, "x": x})
        return s.sum() if function is softmin else s[0].sum()

    with pytest.raises(RuntimeError, match=rf"^{function.__name__} does not run under torch.func"):
        transform(value)(GOOD["x"])


def test_inputs_are_left_alone(case):
    """No argument is written to, and nothing of the result asks for a gradient."""
    backend, dtype, _ = case
    x, y, h = problem(dtype)
    copies = [t.clone() for t in (x, y, h)]
    soft, mean = softmin(x.requires_grad_(), y, h, EPS, with_mean=True, backend=backend)
    assert all(torch.equal(t, copy) for t, copy in zip((x, y, h), copies, strict=True))
    assert not soft.requires_grad and not mean.requires_grad


def test_strided_inputs(case):
    """Views: transposed, sliced, reversed in memory order."""
    backend, dtype, bound = case
    x, y, h = problem(dtype)
    views = x.T.contiguous().T, torch.cat([y, y], 1)[:, :D], torch.stack([h, h], 1)[:, 0]
    assert not any(view.is_contiguous() for view in views)
    agrees(*views, EPS, backend, bound)


GOOD = {"x": torch.zeros(3, 2), "y": torch.ones(4, 2), "h": torch.zeros(4), "eps": 1.0}
BAD = [
    ("x", torch.zeros(3)),
    ("x", torch.zeros(0, 2)),
    ("x", torch.full((3, 2), math.nan)),
    ("x", torch.zeros(3, 2, dtype=torch.int64)),
    ("x", torch.zeros(3, 2, dtype=torch.float16)),
    ("x", [[0.0, 0.0]]),
    ("y", torch.ones(4, 3)),
    ("y", torch.ones(4, 2, dtype=torch.float64)),
    ("y", torch.full((4, 2), math.inf)),
    ("y", torch.ones(0, 2)),
    ("h", torch.zeros(3)),
    ("h", torch.zeros(4, 1)),
    ("h", torch.zeros(4, dtype=torch.float64)),
    ("h", torch.tensor([0.0, math.nan, 0.0, 0.0])),
    ("h", torch.tensor([0.0, math.inf, 0.0, 0.0])),
    ("h", torch.full((4,), -math.inf)),
    ("h", [0.0, 0.0, 0.0, 0.0]),
    ("eps", 0.0),
    ("eps", -1.0),
    ("eps", math.nan),
    ("eps", math.inf),
    ("eps", "1"),
    *(("eps", v) for v in (1e-320, 1e-50, 1e-40, 1e37, 1e300)),
    ("x", torch.full((3, 2), 1e19)),
    ("y", torch.full((4, 2), -3e38)),
    ("backend", "numpy"),
    ("backend", None),
]


@pytest.mark.parametrize("name, value", BAD, ids=[f"{n}-{i}" for i, (n, _) in enumerate(BAD)])
def test_bad_input_is_one_line_that_names_the_argument(name, value):
    with pytest.raises(ValueError, match=rf"^({name}\b|x and y )") as error:
        softmin(**{**GOOD, name: value})
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


@pytest.mark.parametrize("name, value", [(n, v) for n, v in BAD if n != "eps"])
def test_hardmin_refuses_what_softmin_refuses(name, value):
    good = {k: v for k, v in GOOD.items() if k != "eps"}
    with pytest.raises(ValueError, match=rf"^({name}\b|x and y )") as error:
        hardmin(**{**good, name: value})
    assert "\n" not in str(error.value) and len(str(error.value)) < 200


@no_keops
def test_the_words_of_a_compiler_command(monkeypatch):
    """Empty is the default; a wrapper and its options stand before or behind the compiler."""
    monkeypatch.setattr(shutil, "which", lambda name: name in ("ccache", "g++") or None)
    for command in ("", " ", "g++", "ccache g++", "ccache g++ -O2"):
        monkeypatch.setenv("CXX", command)
        assert unavailable("keops") == ""
    monkeypatch.delenv("CXX")
    assert unavailable("keops") == ""
    for command in ("clang++", "ccache clang++", "clang++ -O2"):
        monkeypatch.setenv("CXX", command)
        assert unavailable("keops") == "no C++ compiler (clang++) on the PATH"


QUIET = """
import os, torch
from otlib.softmin import hardmin

before = dict(os.environ)
hardmin(torch.zeros(3, 36), torch.ones(2, 36), torch.zeros(2), backend="keops")
assert dict(os.environ) == before
"""


@no_keops
def test_keops_is_quiet_unless_asked():
    """That there is no CUDA is no news on a CPU, and has no place on a page."""
    for asked in ({}, {"KEOPS_VERBOSE": "1"}):
        kept = {k: v for k, v in os.environ.items() if "KEOPS" not in k}
        done = subprocess.run(
            [sys.executable, "-c", QUIET],
            env={**kept, "CUDA_VISIBLE_DEVICES": "", **asked},
            capture_output=True,
            text=True,
            check=True,
        )
        assert bool(done.stdout) == bool(asked), done.stdout


def test_a_missing_compiler_is_reported(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert "no-such-compiler" in unavailable("keops")
    with pytest.raises(ValueError, match=r"^backend 'keops' is unavailable: .*no-such-compiler"):
        softmin(**GOOD, backend="keops")
    assert unavailable("torch") == ""


MEMORY = """
import torch
from benchmarks.measure import measure
from otlib.softmin import kernel, softmin

torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
x, y = (torch.rand(n, 36, generator=generator) for n in (63_001, 10_000))
h = torch.zeros(len(y))
softmin(x[:1000], y[:1000], h[:1000], 1e-2, with_mean=True)  # what only a first call allocates
leaving = lambda s, rows: torch.ones_like(s)
for run in (
    lambda: softmin(x, y, h, 1e-2, with_mean=True),
    lambda: kernel()(x, y)(h, 1e-2, leaving=leaving),
):
    print(measure(run, memory=True)[1])
"""


def test_memory_stays_small():
    """At most 256 MB above the clouds, where N x M floats are 2.5 GB, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], cwd=ROOT, capture_output=True, text=True, check=True
    )
    peaks = [float(line) for line in done.stdout.split()]
    assert len(peaks) == 2
    # at least what is returned, s and the barycentres: the measurement is alive
    assert 9 < peaks[0] <= 244 and peaks[1] <= 244  # MiB
