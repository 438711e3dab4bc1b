import itertools
import math
import warnings
from fractions import Fraction

import numpy as np
import ot
import pytest
import torch
from clouds import generator, needs, points, uniform, weights
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment
from torch.autograd import forward_ad

from otlib import semidual, sinkhorn
from otlib.sinkhorn import ConvergenceWarning

D = 36  # of every test with KeOps, which compiles once for each dimension
KINDS = ("square", "multiple", "rectangular", "random", "zeros", "heavy")
every_kind = pytest.mark.parametrize("kind", KINDS)
no_keops = needs("keops")
no_compiler = needs("compiled")
every_backend = pytest.mark.parametrize(
    "backend",
    ["torch", pytest.param("keops", marks=no_keops), pytest.param("compiled", marks=no_compiler)],
)


@pytest.fixture(autouse=True)
def no_silent_failure():
    """A solve that warns of its tolerance, or a library that warns, fails the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # torch's own, at the first use of its forward mode
        warnings.filterwarnings("ignore", "`torch.jit.script` is", DeprecationWarning)
        yield


def problem(kind, dtype=torch.float64, d=3):
    """(x, y, a, b), the weights None where they are uniform."""
    n, m = {"square": (60, 60), "multiple": (90, 30)}.get(kind, (70, 45))
    x, y = points(n, 1, d, dtype), points(m, 2, d, dtype) + 0.2
    if kind in ("square", "multiple", "rectangular"):
        return x, y, None, None
    zeros, total = 9 * (kind == "zeros"), 3.0 if kind == "heavy" else 1.0
    return x, y, weights(n, 3, zeros, total).to(dtype), weights(m, 4, zeros, total).to(dtype)


def costs(x, y):
    return (x.detach().double()[:, None] - y.double()).square().sum(-1)


def exact(x, y, a=None, b=None):
    """The transport cost by POT's dense network simplex, in the units that it is made for."""
    a, b, cost = uniform(a, len(x)), uniform(b, len(y)), costs(x, y)
    unit = float(cost.mean()) or 1.0
    value = ot.emd2((a / a.sum()).numpy(), (b / b.sum()).numpy(), (cost / unit).numpy())
    return float(value) * unit * float(a.sum())


def semi_dual(g, x, y, a=None, b=None):
    """F(g) from the N x M costs."""
    a, b = uniform(a, len(x)), uniform(b, len(y))
    return float(a @ (costs(x, y) - g.double()).amin(1) + b @ g.double())


def relative(value, reference):
    return abs(float(value) / reference - 1)


# evaluate: F, its bound, its supergradient, its gradient


@every_kind
@every_backend
def test_value_is_a_lower_bound_at_any_potential(kind, backend):
    x, y, a, b = problem(kind, d=D)
    most = exact(x, y, a, b)
    for seed in range(5):
        g = 0.1 * seed * torch.randn(len(y), generator=generator(seed), dtype=torch.float64)
        s = semidual.evaluate(x, y, g, a=a, b=b, backend=backend)
        torch.testing.assert_close(float(s.value), semi_dual(g, x, y, a, b), rtol=1e-12, atol=1e-13)
        assert torch.equal(s.g, g) and s.value < most
        assert s.gap is None and s.plan is None and s.iterations == 0


@every_kind
def test_supergradient_inequality(kind):
    """F(h) <= F(g) + <b - counts(g), h - g> for all g, h (Theorem 2)."""
    x, y, a, b = problem(kind)
    mass, target = uniform(a, len(x)), uniform(b, len(y))
    draw = generator(5)
    for size in (1e-3, 1e-2, 0.1, 1.0) * 10:
        g = 0.1 * torch.randn(len(y), generator=draw, dtype=torch.float64)
        h = g + size * torch.randn(len(y), generator=draw, dtype=torch.float64)
        s = semidual.evaluate(x, y, g, a=a, b=b)
        counts = torch.zeros_like(g).index_add(0, s.assignment, mass)
        bound = semi_dual(g, x, y, a, b) + (target - counts) @ (h - g)
        assert semi_dual(h, x, y, a, b) <= bound + 1e-12 * (1 + size)
        assert s.residual == pytest.approx(float((target - counts).abs().sum() / mass.sum()))


@every_kind
def test_gradient_against_finite_differences(kind):
    """Eq. (8) where the arg min is clear; a central difference of a quadratic is exact."""
    x, y, a, b = problem(kind)
    g = 0.05 * torch.randn(len(y), generator=generator(6), dtype=torch.float64)
    ahead = torch.randn(x.shape, generator=generator(7), dtype=torch.float64)
    near = (costs(x, y) - g).topk(2, largest=False).values.diff(dim=1).min()
    h = 1e-2 * float(near)  # the difference of two costs moves by less than `near`
    assert h * (4 * ahead.norm(dim=1) * (y[:, None] - y).norm(dim=-1).max()).max() < near
    x.requires_grad_()
    value = semidual.evaluate(x, y, g, a=a, b=b).value
    (gradient,) = torch.autograd.grad(3 * value, x)
    moved = [semi_dual(g, x.detach() + t * ahead, y, a, b) for t in (h, -h)]
    slope = 3 * (moved[0] - moved[1]) / (2 * h)
    assert float((gradient * ahead).sum()) == pytest.approx(slope, abs=1e-11 / h)


# ascend


@every_kind
def test_ascent_increases_towards_the_transport_cost(kind):
    x, y, a, b = problem(kind)
    most, values = exact(x, y, a, b), []
    for max_iter in (0, 10, 100, 1000):
        s = semidual.ascend(x, y, a=a, b=b, step=0.3, max_iter=max_iter)
        values.append(float(s.value))
        assert s.iterations == max_iter and not s.converged
        torch.testing.assert_close(s.f, (costs(x, y) - s.g).amin(1), rtol=0, atol=1e-14)
    assert values[0] < values[1] < values[2] <= values[3] <= most
    assert values[3] > 0.97 * most > values[0]


def test_a_step_is_the_supergradient():
    x, y, a, b = problem("random")
    start = semidual.evaluate(x, y, torch.zeros_like(b), a=a, b=b)
    counts = torch.zeros_like(b).index_add(0, start.assignment, a)
    s = semidual.ascend(x, y, a=a, b=b, step=1e-3, max_iter=1)
    torch.testing.assert_close(s.g, 1e-3 * (b - counts), rtol=1e-12, atol=0)


def test_ascent_obeys_the_bound_of_constant_steps():
    """max F - F(best of K) <= |g*|^2 / (2 K step) + step max |supergradient|^2 / 2, a theorem."""
    x, y, _, _ = problem("square")
    best = semidual.solve(x, y)
    distance = float((best.g - best.g.mean()).square().sum())
    for step in (0.03, 0.3):
        for count in (50, 1000):
            s = semidual.ascend(x, y, step=step, max_iter=count)
            # |b - counts|^2 <= max(counts) + max(b) with sums 1; here no y ever takes half of x
            assert best.value - s.value <= distance / (2 * count * step) + step * 0.5 / 2


def test_warm_start_continues_the_ascent():
    """In small steps the highest iterate is the last one: 20 steps are 10 and 10."""
    x, y, a, b = problem("random")
    half = semidual.ascend(x, y, a=a, b=b, step=0.01, max_iter=10)
    whole = semidual.ascend(x, y, a=a, b=b, step=0.01, max_iter=20)
    other = semidual.ascend(x, y, a=a, b=b, step=0.01, max_iter=10, init=half.g)
    torch.testing.assert_close(other.g, whole.g, rtol=0, atol=1e-14)
    assert half.value < other.value


def test_ascent_never_ends_below_its_start():
    x, y, a, b = problem("random")
    g = semidual.solve(x, y, a=a, b=b).g
    s = semidual.ascend(x, y, a=a, b=b, init=g, step=5.0, max_iter=30)
    assert s.value >= semi_dual(g, x, y, a, b) - 1e-13


def test_the_last_iterate_is_that_of_all_steps():
    """Algorithm 1 as printed: no iterate is dropped, however low it lies."""
    x, y, a, b = problem("random")
    start = semidual.solve(x, y, a=a, b=b)
    g = start.g
    for _ in range(7):
        s = semidual.evaluate(x, y, g, a=a, b=b)
        mass = torch.zeros_like(g).index_add_(0, s.assignment, uniform(a, len(x)))
        g = g + 5.0 * (uniform(b, len(y)) - mass)
    found = semidual.ascend(x, y, a=a, b=b, init=start.g, step=5.0, max_iter=7, last=True)
    torch.testing.assert_close(found.g, g, rtol=0, atol=1e-13)
    torch.testing.assert_close(found.value, semidual.evaluate(x, y, g, a=a, b=b).value)
    assert found.value < start.value


def test_ascent_stops_at_a_matching():
    """Well separated clusters, one point a target: a few small steps find the permutation."""
    y = 10 * points(20, 1)
    x = (y + 0.01 * points(20, 2))[torch.randperm(20, generator=generator(3))]
    x[:5] += 0.3
    s = semidual.ascend(x, y, step=0.1, tol=1e-9, max_iter=500)
    assert s.converged and s.residual <= 1e-9
    assert relative(s.value, exact(x, y)) <= 1e-12
    assert len(s.assignment.unique()) == 20


def test_ascent_that_misses_its_tolerance_says_so():
    x, y, a, b = problem("random")
    with pytest.warns(
        ConvergenceWarning, match=r"^semidual.ascend stopped at max_iter=5 .*tol=1e-0"
    ):
        s = semidual.ascend(x, y, a=a, b=b, tol=1e-9, max_iter=5)
    assert not s.converged and s.residual > 1e-9 and s.iterations == 5


# solve


def is_optimal(s, x, y, a, b, tol=1e-9):
    """The certificate, from the N x M costs: feasible both ways, and of equal value."""
    a, b = uniform(a, len(x)), uniform(b, len(y))
    b = b * (a.sum() / b.sum())
    plan, cost = s.plan.to_dense().double(), costs(x, y)
    rounding = 50 * torch.finfo(x.dtype).eps
    assert (plan >= 0).all()
    torch.testing.assert_close(plan.sum(1), a, rtol=0, atol=rounding * float(a.sum()))
    torch.testing.assert_close(plan.sum(0), b, rtol=0, atol=rounding * float(a.sum()))
    slack = cost - s.f.double()[:, None] - s.g.double()
    scale = float(cost.max() + s.g.abs().max())
    assert slack.min() >= -rounding * scale
    torch.testing.assert_close(s.f.double(), (cost - s.g).amin(1), rtol=0, atol=rounding * scale)
    floor = rounding * scale * float(a.sum())
    assert abs(float((plan * cost).sum()) - float(s.value)) <= floor
    dual = float(a @ s.f.double() + b @ s.g.double())
    # the gap counts what rounds besides, of the costs and of the marginals
    assert -floor <= s.gap - (float(s.value) - dual) <= 4 * floor
    assert s.converged and 0 <= s.gap <= tol * max(
        float(s.value), 1e-3 * float(cost.mean() * a.sum())
    )


@every_kind
@every_backend
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_exact_against_emd2(kind, backend, dtype):
    x, y, a, b = problem(kind, dtype, D)
    s = semidual.solve(x, y, a=a, b=b, backend=backend)
    assert relative(s.value, exact(x, y, a, b)) <= (1e-12 if dtype is torch.float64 else 2e-7)
    is_optimal(s, x, y, a, b)
    assert all(t.dtype == dtype for t in (s.g, s.f, s.value, s.plan))


def test_exact_on_patch_like_clouds():
    """d = 36, a few strong directions: the geometry of the pages."""
    basis = torch.randn(5, 36, generator=generator(9), dtype=torch.float64)
    for n, m in ((300, 300), (250, 110)):
        x, y = (
            0.1 * torch.randn(k, 5, generator=generator(k + i), dtype=torch.float64) @ basis
            + 0.01 * torch.randn(k, 36, generator=generator(k + i + 7), dtype=torch.float64)
            for i, k in enumerate((n, m))
        )
        s = semidual.solve(x, y)
        assert relative(s.value, exact(x, y)) <= 1e-12
        is_optimal(s, x, y, None, None)


@pytest.mark.parametrize("n, m", [(200, 200), (150, 60), (1, 7), (7, 1), (1, 1)])
def test_exact_against_sorting_in_dimension_1(n, m):
    """int |F^-1 - G^-1|^2 by quantiles at the common refinement of both clouds."""
    x, y = points(n, 1, 1), points(m, 2, 1) ** 2
    fine = math.lcm(n, m)
    stretched = (t.flatten().sort().values.repeat_interleave(fine // len(t)) for t in (x, y))
    expected = float((next(stretched) - next(stretched)).square().mean())
    s = semidual.solve(x, y)
    assert relative(s.value, expected) <= 1e-12
    is_optimal(s, x, y, None, None)


def test_square_uniform_assignment_is_a_permutation():
    x, y, _, _ = problem("square")
    s = semidual.solve(x, y)
    assert torch.equal(s.assignment.sort().values, torch.arange(60)) and s.residual <= 1e-13
    value = (x - y[s.assignment]).square().sum(1).mean()
    assert relative(value, float(s.value)) <= 1e-13


def test_multiple_uniform_assignment_balances():
    """M divides N: an optimal map exists (Houdard et al., after Theorem 4), and is found."""
    x, y, _, _ = problem("multiple")
    s = semidual.solve(x, y)
    assert torch.equal(torch.bincount(s.assignment), torch.full((30,), 3)) and s.residual <= 1e-12


@every_kind
def test_gradient_of_the_transport_cost(kind):
    """Against central differences of emd2: the plan is unique, and keeps its support nearby."""
    x, y, a, b = problem(kind)
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(semidual.solve(x, y, a=a, b=b).value, x)
    for seed in range(3):
        way = torch.randn(x.shape, generator=generator(seed), dtype=torch.float64)
        h = 1e-6
        ahead, behind = (exact(x.detach() + t * way, y, a, b) for t in (h, -h))
        slope = (ahead - behind) / (2 * h)
        assert float((gradient * way).sum()) == pytest.approx(slope, abs=1e-8)


@every_kind
def test_invariances(kind):
    """Translation of both, of one, permutations, scaling, constants in the start."""
    x, y, a, b = problem(kind)
    s = semidual.solve(x, y, a=a, b=b)
    shift, mass = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64), uniform(a, len(x)).sum()
    value, rows, columns = float(s.value), torch.randperm(len(x)), torch.randperm(len(y))
    both = semidual.solve(x + shift, y + shift, a=a, b=b)
    assert relative(both.value, value) <= 1e-12
    mean_x = uniform(a, len(x)) @ x / mass
    mean_y = uniform(b, len(y)) @ y / mass
    one = value + mass * (shift.square().sum() + 2 * shift @ (mean_x - mean_y))
    assert relative(semidual.solve(x + shift, y, a=a, b=b).value, float(one)) <= 1e-12
    a2, b2 = (w if w is None else w[p] for w, p in ((a, rows), (b, columns)))
    permuted = semidual.solve(x[rows], y[columns], a=a2, b=b2)
    assert relative(permuted.value, value) <= 1e-12
    assert relative(semidual.solve(3 * x, 3 * y, a=a, b=b).value, 9 * value) <= 1e-12
    swapped = semidual.solve(y, x, a=b, b=a)
    assert relative(swapped.value, value) <= 1e-12


def test_warm_start_ends_at_once():
    """From an optimal g the cuts found suffice: fewer rounds than from 0, the same value."""
    x, y, a, b = problem("random")
    cold = semidual.solve(x, y, a=a, b=b)
    warm = semidual.solve(x, y, a=a, b=b, init=cold.g + 5)
    assert warm.iterations < cold.iterations
    assert relative(warm.value, float(cold.value)) <= 1e-12


def test_solve_that_misses_its_tolerance_says_so_and_bounds_the_error():
    x, y, a, b = problem("random")
    most = exact(x, y, a, b)
    for rounds in (1, 2, 3):
        with pytest.warns(
            ConvergenceWarning, match=f"^semidual.solve stopped at max_iter={rounds} "
        ):
            s = semidual.solve(x, y, a=a, b=b, max_iter=rounds)
        assert not s.converged and s.iterations == rounds
        assert s.value - s.gap <= most <= s.value


def test_a_plan_with_other_marginals_is_no_certificate(monkeypatch):
    """A tenth of the mass lost: the plan is cheaper than the lower bound, and the gap says so."""
    x, y, a, b = problem("random")
    simplex = ot.emd

    def lossy(*arguments, **options):
        plan, log = simplex(*arguments, **options)
        return 0.9 * plan, log

    monkeypatch.setattr(ot, "emd", lossy)
    with pytest.warns(ConvergenceWarning, match=r"^semidual.solve stopped"):
        s = semidual.solve(x, y, a=a, b=b, max_iter=30)
    most = exact(x, y, a, b)
    assert not s.converged and abs(float(s.value) - most) <= s.gap
    assert relative(s.value, 0.9 * most) <= 1e-9


def far_problem(kind, far, dtype=torch.float64, n=40):
    """Equally many x and y, parts of them moved by far; given to the type first."""
    x, y = points(n, 1), points(n, 2)
    if kind == "one matched":
        x[3], y[5] = far, far
    elif kind == "two matched":
        x[3], y[5], x[4], y[7] = far, far, -far, -far + 0.25
    elif kind == "one unmatched":
        x[3] += far
    elif kind == "half":
        x[: n // 2] += far
        y[n // 2 :] += far
    elif kind == "one coordinate":
        x[::2, 0] += far
        y[1::2, 0] += far
    elif kind == "scales":
        x, y = (t * torch.tensor([far, 1.0, 1 / far], dtype=torch.float64) for t in (x, y))
    elif kind == "clusters":  # matched within 1e-3 in each of 8, and a pair at 1e3 far
        y[:, 1] += far * (torch.arange(n) % 8)
        x = y[torch.randperm(n, generator=generator(3))] + 1e-3 * x
        i, j = int((x[:, 1] < far / 2).nonzero()[0]), 0
        x[i], y[j] = 1e3 * far, 1e3 * far
    else:
        x, y = x + far, y + far
    return x.to(dtype), y.to(dtype)


FAR = (
    "one matched",
    "two matched",
    "one unmatched",
    "half",
    "one coordinate",
    "scales",
    "clusters",
    "all",
)


def assigned(x, y):
    """The cost of the best assignment, by scipy, of costs from differences.

    They are capped by what the best assignment does not reach: else their digits would not do.
    """
    cost = costs(x, y).numpy()
    for cap in 10.0 ** np.arange(-8, 40):
        pairs = linear_sum_assignment(np.minimum(cost, cap))
        if cost[pairs].max() < cap:
            return float(cost[pairs].mean())
    raise AssertionError("no cap is high enough")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("far", [1e2, 1e4, 1e6, 1e10, 1e13])
@pytest.mark.parametrize("kind", FAR)
def test_far_points_do_not_spoil_the_value(kind, far, dtype):
    """Right to the digits of the type, certified, and without a warning."""
    if kind == "all" and dtype is torch.float32:
        far = min(far, 1e6)  # from 1e8 on all of them are one point
    x, y = far_problem(kind, far, dtype)
    value, s = assigned(x, y), semidual.solve(x, y)
    assert s.converged and s.gap <= 1e-9 * value
    assert relative(s.value, value) <= (1e-9 if dtype is torch.float64 else 2e-7)
    assert len(s.assignment.unique()) == len(y)


@pytest.mark.parametrize("far", [1.0, 1e5, 1e10])
@pytest.mark.parametrize("kind", ["one matched", "one unmatched", "half"])
def test_the_certificate_in_exact_arithmetic(kind, far):
    """Fractions: the transport cost lies within the gap of the value, and above the dual.

    The dual is that of (f, g) less what they are infeasible by.
    """
    x, y = far_problem(kind, far, n=6)
    exactly = [[[Fraction(v) for v in row] for row in t.tolist()] for t in (x, y)]

    def square(p, q):
        return sum((u - v) ** 2 for u, v in zip(p, q, strict=True))

    cost = [[square(p, q) for q in exactly[1]] for p in exactly[0]]
    orders = itertools.permutations(range(6))
    best = min(sum(cost[i][j] for i, j in enumerate(order)) for order in orders) / 6
    s = semidual.solve(x, y)
    f, g = ([Fraction(v) for v in t.tolist()] for t in (s.f, s.g))
    excess = max(max(f[i] + g[j] - cost[i][j] for i in range(6) for j in range(6)), Fraction(0))
    assert abs(Fraction(float(s.value)) - best) <= Fraction(s.gap)
    dual = (sum(f) + sum(g)) / 6 - excess
    assert dual <= best <= dual + 2 * Fraction(s.gap)


def test_a_far_pair_of_any_weights():
    """Weights whose sums agree to a rounding, which far away would cost more than all else."""
    x, y = points(60, 1), points(60, 2)
    a, b = weights(60, 3), weights(60, 4)
    b[5] = a[3]
    others = torch.arange(60) != 5
    b[others] *= (1 - a[3]) / b[others].sum()
    rows = torch.arange(60) != 3
    value = exact(x[rows], y[others], a[rows], b[others])
    for far in (1e4, 1e8, 1e12):
        x[3], y[5] = far, far
        s = semidual.solve(x, y, a=a, b=b)
        assert s.converged and relative(s.value, value) <= 1e-9
        assert s.gap <= 1e-9 * value


@pytest.mark.parametrize("count", [3, 9, 40])
def test_a_cap_that_the_best_plan_would_profit_from_is_raised(count):
    """On a line all move by 1 rather than one by `count`, whatever a far pair cuts costs to."""
    x = torch.arange(count, dtype=torch.float64)[:, None]
    far = torch.full((1, 1), 1e11, dtype=torch.float64)
    s = semidual.solve(torch.cat([x, far]), torch.cat([x + 1, far]))
    assert s.converged and relative(s.value, count / (count + 1)) <= 1e-12


@pytest.mark.parametrize("noise", [1e-3, 1e-6, 1e-9])
def test_clouds_that_nearly_coincide(noise):
    """The tolerance is relative to the value, however small beside the mean cost."""
    y = points(80, 1)
    x = y[torch.randperm(80, generator=generator(2))] + noise * points(80, 3)
    value, s = assigned(x, y), semidual.solve(x, y)
    assert s.converged and s.gap <= 1e-9 * value and relative(s.value, value) <= 1e-9


@pytest.mark.parametrize("scale", [2.0**-450, 2.0**450])
def test_any_unit_that_the_type_holds(scale):
    x, y, a, b = problem("random")
    s, other = semidual.solve(x, y, a=a, b=b), semidual.solve(scale * x, scale * y, a=a, b=b)
    assert other.converged and relative(other.value / scale**2, float(s.value)) <= 1e-12


def test_high_dimension():
    """20 points in dimension 50,000, whose scatter would take 20 GB."""
    x, y = points(20, 1, 50_000), points(20, 2, 50_000)
    s = semidual.solve(x, y)
    assert relative(s.value, exact(x, y)) <= 1e-12
    assert s.converged


def test_the_first_pairs_are_those_of_the_main_direction_and_the_nearest(monkeypatch):
    """The transport of the projections on the first eigenvector of the scatter is feasible."""
    basis = torch.randn(5, 36, generator=generator(9), dtype=torch.float64)
    x, y = (
        torch.randn(n, 5, generator=generator(n), dtype=torch.float64) @ basis for n in (70, 43)
    )
    joined = torch.cat([x, y]) - y.mean(0)
    way = torch.linalg.eigh(joined.T @ joined).eigenvectors[:, -1]
    monotone = ot.emd_1d((x @ way).numpy(), (y @ way).numpy())
    expected = {(i, j) for i, j in np.argwhere(monotone > 1e-9).tolist()}
    assert len(expected) == 70 + 43 - 1  # a path: its steps in the one and the other never agree
    nearest, to = costs(x, y).min(1)
    expected |= set(enumerate(to.tolist()))
    back = (costs(x, y) - nearest[:, None]).argmin(0).tolist()
    expected |= {(i, j) for j, i in enumerate(back)}
    simplex, offered = ot.emd, []

    def watched(a, b, cost, **options):
        offered.append({(i, j) for i, j in cost.indices().T.tolist()})
        return simplex(a, b, cost, **options)

    monkeypatch.setattr(ot, "emd", watched)
    semidual.solve(x, y)
    assert offered[0] == expected


def test_clouds_that_coincide_cost_nothing():
    """The gap is then rounding, and no fraction of the value."""
    for seed in range(6):
        x, a = points(50, seed), weights(50, seed + 2)
        order = torch.randperm(50, generator=generator(seed))
        s = semidual.solve(x, x[order] + 1e-9, a=a, b=a[order])
        assert s.converged and 0 < s.value < 1e-17 and s.gap < 1e-14
        assert semidual.solve(x, x[order], a=a, b=a[order]).value == 0
    single = semidual.solve(x[:1].repeat(4, 1), x[:1].repeat(3, 1))
    assert single.converged and single.value == 0


def test_ties_are_an_arbitrary_but_valid_choice():
    """Points of a grid, every one twice: many optimal plans, one value, a valid certificate."""
    grid = torch.cartesian_prod(torch.arange(5.0), torch.arange(5.0)).double().repeat(2, 1)
    x, y = grid, grid[:30] + 1
    s = semidual.solve(x, y)
    assert relative(s.value, exact(x, y)) <= 1e-12
    is_optimal(s, x, y, None, None)


def test_entropic_transport_tends_to_it():
    """0 <= OT_eps - OT <= eps times the entropy of the product, log of the number of points."""
    x, y, _, _ = problem("square")
    value = float(semidual.solve(x, y).value)
    for eps in (0.1, 0.01):
        s = sinkhorn.solve(x, y, eps=eps, tol=1e-4, max_iter=5000)
        assert -1e-6 <= float(s.value) - value <= eps * math.log(60)


@settings(max_examples=80)
@given(
    n=st.integers(1, 12),
    m=st.integers(1, 12),
    d=st.integers(1, 4),
    seed=st.integers(0, 2**16),
    zeros=st.integers(0, 4),
    levels=st.sampled_from([0, 2, 5]),
    whole=st.booleans(),
    size=st.sampled_from([1e-4, 1.0, 1e3]),
    total=st.sampled_from([1e-9, 1.0, 1e9]),
)
def test_any_problem_is_exact(n, m, d, seed, zeros, levels, whole, size, total):
    """Also clouds on a coarse grid (ties, repeated points), commensurate weights, other units."""
    x, y = points(n, seed, d), points(m, seed + 1, d)
    if levels:
        x, y = (x * levels).round(), (y * levels).round()
    a, b = weights(n, seed + 2, min(zeros, n - 1)), weights(m, seed + 3, min(zeros, m - 1))
    if whole:
        a, b = ((w > 0).double() / (w > 0).sum() for w in (a, b))
    x, y, a, b = size * x, size * y, total * a, total * b
    s = semidual.solve(x, y, a=a, b=b)
    expected = exact(x, y, a, b)
    assert float(s.value) == pytest.approx(expected, rel=1e-11, abs=1e-12 * size**2 * total)
    is_optimal(s, x, y, a, b)


# ascend_averaged


def averaged_bound(start, step, count):
    """max F - F(mean of K iterates) of steps C / sqrt(k) with supergradients of norm G <= sqrt 2.

    |g_k - g*|^2 <= D^2 = |g_0 - g*|^2 + C^2 G^2 (1 + log K), and so the sum of the shortfalls is at
    most D^2 sqrt(K) / (2 C) + C G^2 sqrt(K): a theorem for exact steps, a mean for drawn ones.
    """
    far = start + 2 * step**2 * (1 + math.log(count))
    return (far / (2 * step) + 2 * step) / math.sqrt(count)


@every_backend
def test_backends_ascend_alike(backend):
    x, y, a, b = problem("random", d=D)
    first = semidual.ascend(x, y, a=a, b=b, max_iter=20)
    s = semidual.ascend(x, y, a=a, b=b, max_iter=20, backend=backend)
    torch.testing.assert_close(s.g, first.g, rtol=0, atol=1e-13)
    mean = semidual.ascend_averaged(lambda: x, y, b=b, max_iter=20)
    other = semidual.ascend_averaged(lambda: x, y, b=b, max_iter=20, backend=backend)
    torch.testing.assert_close(other, mean, rtol=0, atol=1e-13)


@pytest.mark.parametrize("kind", ["square", "random"])
@pytest.mark.parametrize("count", [30, 300, 3000])
def test_averaged_ascent_of_a_whole_cloud_obeys_its_bound(kind, count):
    x, y, _, b = problem(kind)
    best = semidual.solve(x, y, b=b)
    start, step = float((best.g - best.g.mean()).square().sum()), 0.3
    g = semidual.ascend_averaged(lambda: x, y, b=b, step=step, max_iter=count)
    assert (
        0 <= float(best.value) - semi_dual(g, x, y, None, b) <= averaged_bound(start, step, count)
    )


def test_averaged_ascent_of_draws_tends_to_the_discrete_optimum():
    """Draws of 10 of 60 points: the bound holds for the mean over draws, and is far from tight."""
    x, y, _, b = problem("square")
    best, step, draw = semidual.solve(x, y), 0.3, generator(8)
    start = float((best.g - best.g.mean()).square().sum())

    def source():
        return x[torch.randint(60, (10,), generator=draw)]

    shortfalls = []
    for count in (25, 4000):
        g = semidual.ascend_averaged(source, y, b=b, step=step, max_iter=count)
        shortfalls.append(float(best.value) - semi_dual(g, x, y))
        assert 0 <= shortfalls[-1] <= averaged_bound(start, step, count)
    assert shortfalls[1] < shortfalls[0] / 4  # 1 / sqrt(160) is 1 / 12.6
    assert shortfalls[1] < 0.02 * float(best.value)


def test_averaged_ascent_is_the_mean_of_its_iterates():
    """Three steps by hand, from a warm start; the draws are detached from what made them."""
    x, y, _, b = problem("random")
    x.requires_grad_()
    g = torch.linspace(0, 0.1, len(y), dtype=torch.float64)
    found = semidual.ascend_averaged(lambda: 1 * x, y, b=b, init=g, step=0.2, max_iter=3)
    iterates = []
    for k in (1, 2, 3):
        counts = torch.bincount((costs(x, y) - g).argmin(1), minlength=len(y)).double() / len(x)
        g = g + 0.2 / math.sqrt(k) * (b - counts)
        iterates.append(g)
    torch.testing.assert_close(found, torch.stack(iterates).mean(0), rtol=0, atol=1e-14)
    assert not found.requires_grad


# all


def functions(y, b, g):
    return {
        "solve": lambda x: semidual.solve(x, y, b=b),
        "ascend": lambda x: semidual.ascend(x, y, b=b, step=0.1, max_iter=20),
        "evaluate": lambda x: semidual.evaluate(x, y, g, b=b),
    }


@pytest.mark.parametrize("name", ["solve", "ascend", "evaluate"])
def test_second_derivatives_are_those_of_the_piece(name):
    """2 a_i on the diagonal, which differences of gradients confirm."""
    x, y = points(7, 1), points(5, 2)
    b, g = weights(5, 3), 0.05 * points(5, 4, 1)[:, 0]
    function = functions(y, b, g)[name]
    hessian = torch.autograd.functional.hessian(lambda x: function(x).value, x).reshape(21, 21)
    expected = 2 / 7 * torch.eye(21, dtype=torch.float64)
    torch.testing.assert_close(hessian, expected, rtol=0, atol=1e-14)

    def slope(x):
        x = x.clone().requires_grad_()
        return torch.autograd.grad(function(x).value, x)[0].flatten()

    step = 1e-6
    for k in range(21):
        way = torch.zeros(21, dtype=torch.float64)
        way[k] = step
        way = way.view_as(x)
        column = (slope(x + way) - slope(x - way)) / (2 * step)
        torch.testing.assert_close(column, expected[k], rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", ["solve", "ascend", "evaluate"])
def test_forward_mode_is_the_gradient(name):
    x, y = points(7, 1), points(5, 2)
    function = functions(y, None, 0.05 * points(5, 4, 1)[:, 0])[name]
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(function(leaf).value, leaf)
    with forward_ad.dual_level():
        value = function(forward_ad.make_dual(x, y[:1].expand(7, 3).clone())).value
        found = forward_ad.unpack_dual(value).tangent
    assert float(found) == pytest.approx(float((slope * y[0]).sum()), rel=1e-12)


TRANSFORMS = [
    *(getattr(torch.func, name) for name in ("grad", "hessian", "jacrev", "jacfwd")),
    lambda value: lambda x: torch.func.vmap(value)(x[None]),
]


@pytest.mark.parametrize("transform", TRANSFORMS)
@pytest.mark.parametrize("name", ["solve", "ascend", "evaluate"])
def test_transforms_of_torch_func_are_refused(name, transform):
    x, y = points(7, 1), points(5, 2)
    function = functions(y, None, y[:, 0].contiguous())[name]
    with pytest.raises(RuntimeError, match=rf"^semidual.{name} does not run under torch.func"):
        transform(lambda x: function(x).value)(x)


@pytest.mark.parametrize("far", [1e2, 1e4, 1e6])
@pytest.mark.parametrize("kind", FAR)
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_values_at_a_potential_bear_far_points(kind, far, dtype):
    """F(g) of the ascent and of `evaluate` against the N x M costs; a lower bound."""
    x, y = far_problem(kind, far, dtype)
    most, rounding = assigned(x, y), 1e-5 if dtype is torch.float32 else 1e-9
    for s in (
        semidual.ascend(x, y, step=0.1, max_iter=10),
        semidual.evaluate(x, y, 0.01 * points(40, 5, 1, dtype)[:, 0]),
    ):
        value = semi_dual(s.g, x, y)
        scale = float((x - y[s.assignment]).double().square().sum(1).mean())
        assert abs(float(s.value) - value) <= 0.02 * scale + rounding
        assert float(s.value) <= most + 0.02 * scale + rounding


def test_averaged_ascent_bears_far_points():
    """A cloud half of which lies far: the same iterates in float32 and in float64."""
    x, y = far_problem("half", 1e4, torch.float32)
    g = semidual.ascend_averaged(lambda: x, y, step=0.1, max_iter=30)
    double = semidual.ascend_averaged(lambda: x.double(), y.double(), step=0.1, max_iter=30)
    torch.testing.assert_close(g.double(), double, rtol=0, atol=0.01 * float(double.abs().max()))


def test_inputs_are_left_alone():
    x, y, a, b = problem("random")
    g = torch.linspace(0, 0.1, len(y), dtype=torch.float64)
    copies = [t.clone() for t in (x, y, a, b, g)]
    semidual.solve(x, y, a=a, b=b, init=g)
    semidual.ascend(x, y, a=a, b=b, init=g, max_iter=3)
    semidual.ascend_averaged(lambda: x, y, b=b, init=g, max_iter=3)
    assert all(torch.equal(t, copy) for t, copy in zip((x, y, a, b, g), copies, strict=True))


GOOD = {"x": torch.zeros(3, 2), "y": torch.ones(4, 2)}
THIRDS, QUARTERS = torch.full((3,), 1 / 3), torch.full((4,), 1 / 4)
BAD = [
    ("x", torch.zeros(3)),
    ("x", torch.zeros(0, 2)),
    ("x", torch.full((3, 2), math.nan)),
    ("x", np.zeros((3, 2))),
    ("y", torch.ones(4, 3)),
    ("y", torch.ones(4, 2).double()),
    ("y", torch.full((4, 2), math.inf)),
    ("y", torch.ones(4, 2, requires_grad=True)),
    ("a", -THIRDS),
    ("a", torch.zeros(3)),
    ("a", QUARTERS),
    ("a", 2 * THIRDS),
    ("a", THIRDS.double()),
    ("b", torch.tensor([0.5, 0.5, 0.5, -0.5])),
    ("b", THIRDS),
    ("b", [0.25] * 4),
    ("init", THIRDS),
    ("init", QUARTERS.double()),
    ("init", QUARTERS * math.nan),
    ("init", (THIRDS, QUARTERS)),
    *(("tol", v) for v in (-1e-3, math.nan, math.inf, None)),
    *(("max_iter", v) for v in (-1, 2.5, None, math.nan)),
    ("backend", "numpy"),
    # squares that float32 does not hold
    *(("x", torch.full((3, 2), v)) for v in (1e19, -3e38)),
    ("y", torch.tensor([[1e20, 0.0]] + [[0.0, 0.0]] * 3)),
    ("a", torch.full((3,), 2e38)),
]
STEPS = [("step", v) for v in (0.0, -1.0, math.nan, math.inf, "1", None, 1e-320, 1e38)]
DRAWS = [
    ("source", 3),
    ("source", torch.zeros(3, 2)),
    ("source()", lambda: 3),
    ("source()", lambda: torch.zeros(3)),
    ("source()", lambda: torch.zeros(3, 3)),
    ("source()", lambda: torch.zeros(3, 2).double()),
    ("source()", lambda: torch.full((3, 2), math.nan)),
    ("source()", lambda: torch.full((3, 2), 1e19)),
    *((n, v) for n, v in BAD if n in ("b", "init", "max_iter", "backend")),
    ("max_iter", 0),
    *STEPS,
]
CALLS = [
    *((semidual.solve, GOOD, n, v) for n, v in [*BAD, ("max_iter", 0)]),
    *((semidual.ascend, GOOD, n, v) for n, v in BAD + STEPS),
    *(
        (semidual.ascend_averaged, {"source": lambda: GOOD["x"], "y": GOOD["y"]}, n, v)
        for n, v in DRAWS
    ),
    *(
        (semidual.evaluate, {**GOOD, "g": QUARTERS}, "g", v)
        for v in (THIRDS, None, QUARTERS * math.nan)
    ),
    (semidual.evaluate, {**GOOD, "g": QUARTERS}, "y", None),
]


@pytest.mark.parametrize(
    "function, good, name, value",
    CALLS,
    ids=[f"{c[0].__name__}-{c[2]}-{i}" for i, c in enumerate(CALLS)],
)
def test_bad_input_is_one_line_that_names_the_argument(function, good, name, value):
    with pytest.raises(ValueError) as error:
        function(**{**good, name.rstrip("()"): value})
    message = str(error.value)
    assert message.startswith((f"{name} ", f"{name} and b ", "x and y ")), message
    assert "\n" not in message and len(message) < 200
