import functools
import math
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import ot
import pytest
import torch
from clouds import generator, needs, points, uniform, weights
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import forward_ad

from otlib import sinkhorn
from otlib._active import Active

ROOT = Path(__file__).parents[1]
INF = math.inf
FORMS = [(INF, INF), (INF, 0.1), (0.1, INF), (0.1, 0.1), (0.05, 0.3), (INF, 1.0)]
EPS = 0.05
TIGHT = {"tol": 1e-9, "max_iter": 5000}

no_keops = needs("keops")
no_compiler = needs("compiled")
every_form = pytest.mark.parametrize("rho", FORMS, ids=str)


@pytest.fixture(autouse=True)
def no_silent_failure():
    """A solve that warns of its tolerance fails the test that did not ask for it."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", sinkhorn.ConvergenceWarning)
        yield


def problem(kind, n=25, m=20):
    """(x, y, a, b) of a kind; "heavy" has unequal sums, for the forms that allow them."""
    totals = (2.0, 0.7) if kind == "heavy" else (1.0, 1.0)
    zeros = 4 if kind == "zeros" else 0
    x, y = points(n, 1), points(m, 2) + 0.2
    if kind == "uniform":
        return x, y, None, None
    return x, y, weights(n, 3, zeros, totals[0]), weights(m, 4, zeros, totals[1])


def cases():
    kinds = ("uniform", "random", "zeros", "heavy")
    balanced = (INF, INF)
    return [
        pytest.param(rho, kind, id=f"{rho}-{kind}")
        for rho in FORMS
        for kind in kinds
        if not (rho == balanced and kind == "heavy")
    ]


every_case = pytest.mark.parametrize("rho, kind", cases())


def squared_distances(x, y):
    return (x[:, None] - y).square().sum(-1)


def kl(p, q):
    """KL with mass terms; 0 log 0 = 0."""
    return (torch.xlogy(p, p) - torch.xlogy(p, q) - p + q).sum()


def primal(plan, x, y, a, b, eps, rho):
    """Objective of the module's docstring; an infinite rho is a constraint, checked elsewhere."""
    value = (plan * squared_distances(x, y)).sum() + eps * kl(plan, a[:, None] * b)
    for marginal, weight, price in ((plan.sum(1), a, rho[0]), (plan.sum(0), b, rho[1])):
        if price < INF:
            value = value + price * kl(marginal, weight)
    return value


def dual(f, g, x, y, a, b, eps, rho):
    """Eq. (5), for every pair rho, from the N x M sum."""

    def gain(potential, weight, price):
        if price < INF:
            potential = -price * (torch.exp(-potential / price) - 1)
        return (weight * potential).sum()

    score = (f[:, None] + g - squared_distances(x, y)) / eps
    entropy = (a[:, None] * b * (torch.exp(score) - 1)).sum()
    return gain(f, a, rho[0]) + gain(g, b, rho[1]) - eps * entropy


@functools.cache
def solved(rho, kind):
    x, y, a, b = problem(kind)
    solution = sinkhorn.solve(x, y, eps=EPS, rho=rho, a=a, b=b, **TIGHT)
    return x, y, uniform(a, len(x)), uniform(b, len(y)), solution


@every_case
def test_fixed_point_of_theorem_1(rho, kind):
    """f and g solve the two equations, with the factor 1 / (1 + eps / rho) of the erratum."""
    x, y, a, b, s = solved(rho, kind)
    cost = squared_distances(x, y)
    f = -EPS * torch.logsumexp((s.g - cost) / EPS + b.log(), 1) / (1 + EPS / rho[0])
    g = -EPS * torch.logsumexp((s.f[:, None] - cost) / EPS + a.log()[:, None], 0)
    g = g / (1 + EPS / rho[1])
    torch.testing.assert_close(s.f, f, rtol=0, atol=1e-12)
    # |pi_2 - b exp(-g / rho)|_1 <= tol |pi_2|_1 bounds the other error, each point by its mass
    second = s.marginals[1]
    assert (second * (s.g - g).abs()).sum() <= 2 * EPS * TIGHT["tol"] * second.sum()


@every_case
def test_solution_is_consistent_with_its_plan(rho, kind):
    """Marginals, the hard constraints, the residual: all as the dense plan says."""
    x, y, a, b, s = solved(rho, kind)
    plan = sinkhorn.plan(x, y, s)
    torch.testing.assert_close(s.marginals[0], plan.sum(1), rtol=1e-10, atol=0)
    torch.testing.assert_close(s.marginals[1], plan.sum(0), rtol=1e-10, atol=0)
    relaxed = b * torch.exp(-s.g / rho[1])
    residual = (plan.sum(0) - relaxed).abs().sum() / plan.sum()
    assert abs(residual - s.residual) <= 1e-13
    assert s.converged and s.residual <= TIGHT["tol"]
    if rho[0] == INF:
        torch.testing.assert_close(plan.sum(1), a, rtol=1e-12, atol=0)
    if rho[1] == INF:
        assert (plan.sum(0) - b).abs().sum() <= 1.01 * TIGHT["tol"]


@every_case
def test_no_duality_gap(rho, kind):
    """The value is the dense dual at (f, g), and equals the primal of the dense plan."""
    x, y, a, b, s = solved(rho, kind)
    plan = sinkhorn.plan(x, y, s)
    torch.testing.assert_close(s.value, dual(s.f, s.g, x, y, a, b, EPS, rho), rtol=0, atol=1e-13)
    torch.testing.assert_close(s.value, primal(plan, x, y, a, b, EPS, rho), rtol=0, atol=1e-8)


@every_case
def test_dual_is_stationary_and_maximal(rho, kind):
    """The dual is concave: gradient 0, and no perturbation is higher."""
    x, y, a, b, s = solved(rho, kind)
    f, g = s.f.clone().requires_grad_(), s.g.clone().requires_grad_()
    slopes = torch.autograd.grad(dual(f, g, x, y, a, b, EPS, rho), (f, g))
    assert slopes[0].abs().sum() <= 1e-12
    assert slopes[1].abs().sum() <= 1.01 * TIGHT["tol"] * s.marginals[1].sum()
    draw = generator(5)
    for size in (1e-3, 1e-2, 0.1):
        for _ in range(20):
            df = size * torch.randn(len(x), generator=draw, dtype=torch.float64)
            dg = size * torch.randn(len(y), generator=draw, dtype=torch.float64)
            assert dual(s.f + df, s.g + dg, x, y, a, b, EPS, rho) < s.value


@pytest.mark.parametrize("rho", [(INF, 0.1), (0.1, INF), (0.1, 0.1), (0.05, 0.3)], ids=str)
def test_primal_is_minimal(rho):
    """Admissible plans around the dense plan cost more, and the cost grows with the square."""
    x, y, a, b, s = solved(rho, "random")
    plan = sinkhorn.plan(x, y, s)
    for seed in range(20):
        noise = 0.1 * torch.randn(plan.shape, generator=generator(seed), dtype=torch.float64)
        other = plan * noise.exp()
        if rho[0] == INF:
            other = other * (a / other.sum(1))[:, None]
        if rho[1] == INF:
            other = other * (b / other.sum(0))
        assert primal(other, x, y, a, b, EPS, rho) > s.value + 1e-5


@every_form
@pytest.mark.parametrize("kind", ["uniform", "random"])
def test_against_pot(rho, kind):
    """The plan of POT, whose sinkhorn is right in the linear domain at this eps."""
    x, y, a, b, s = solved(rho, kind)
    cost = squared_distances(x, y).numpy()
    stop = {"stopThr": 1e-13, "numItermax": 20_000}
    if rho == (INF, INF):
        plan = ot.sinkhorn(a.numpy(), b.numpy(), cost, EPS, method="sinkhorn_log", **stop)
    else:
        plan = ot.unbalanced.sinkhorn_unbalanced(
            a.numpy(), b.numpy(), cost, EPS, rho, method="sinkhorn", reg_type="kl", **stop
        )
    ours = sinkhorn.plan(x, y, s).numpy()
    np.testing.assert_allclose(ours, plan, rtol=0, atol=3e-9 * plan.sum())


@pytest.mark.parametrize("rho", [(0.1, 0.1), (0.05, 0.3)], ids=str)
def test_against_another_algorithm_of_pot(rho):
    """Majorisation-minimisation on the primal (KL of the docstring): not a Sinkhorn iteration."""
    x, y, a, b, s = solved(rho, "random")
    cost, product = squared_distances(x, y).numpy(), (a[:, None] * b).numpy()
    plan = ot.unbalanced.mm_unbalanced(
        a.numpy(), b.numpy(), cost, rho, c=product, reg=EPS, div="kl", numItermax=20_000
    )
    ours = sinkhorn.plan(x, y, s).numpy()
    np.testing.assert_allclose(ours, plan, rtol=0, atol=1e-8)


def test_small_eps_tends_to_exact_transport():
    """OT <= OT_eps <= OT + eps log min(N, M), and the limit is reached."""
    x, y, a, b = problem("random")
    exact = ot.emd2(a.numpy(), b.numpy(), squared_distances(x, y).numpy())
    previous = INF
    for eps in (0.1, 1e-2, 1e-3):
        s = sinkhorn.solve(x, y, eps=eps, a=a, b=b, tol=1e-7, max_iter=5000)
        entropy = -float(torch.xlogy(b, b).sum())
        assert exact - 1e-7 <= s.value <= exact + eps * entropy + 1e-7
        assert s.value < previous
        previous = float(s.value)
    assert previous - exact < 0.02 * exact


def test_sorted_points_on_a_line():
    """In one dimension optimal transport is the monotone map."""
    x, y = points(30, 1, d=1), points(30, 2, d=1) ** 2 + 1
    s = sinkhorn.solve(x, y, eps=1e-4, tol=1e-6, max_iter=5000)
    monotone = (x.sort(0).values - y.sort(0).values).square().mean()
    assert 0 < s.value - monotone <= 1e-4 * math.log(30)
    plan = sinkhorn.plan(x, y, s)
    order = (30 * plan @ y)[x.argsort(0)[:, 0], 0]
    assert (order.diff() > 0).all()
    torch.testing.assert_close(order, y.sort(0).values[:, 0], rtol=0, atol=0.02)


@settings(max_examples=100)
@given(
    distance=st.floats(0, 1.5),
    eps=st.floats(1e-3, 2),
    rho=st.tuples(*[st.one_of(st.just(INF), st.floats(0.05, 5))] * 2),
    masses=st.tuples(st.floats(0.1, 3), st.floats(0.1, 3)),
)
def test_two_diracs(distance, eps, rho, masses):
    """One number to choose, the mass p: log p is the mean of what the prices ask for."""
    alpha, beta = masses if min(rho) < INF else (masses[0], masses[0])
    cost = distance**2
    if rho[0] == INF:
        p = alpha
    elif rho[1] == INF:
        p = beta
    else:
        asked = eps * math.log(alpha * beta) + rho[0] * math.log(alpha) + rho[1] * math.log(beta)
        p = math.exp((asked - cost) / (eps + sum(rho)))

    def kl_mass(q):
        return p * math.log(p / q) - p + q

    value = p * cost + eps * kl_mass(alpha * beta)
    value += sum(r * kl_mass(q) for r, q in zip(rho, (alpha, beta), strict=True) if r < INF)
    x, y = (torch.tensor([[v]], dtype=torch.float64) for v in (0.0, distance))
    a, b = (torch.tensor([m], dtype=torch.float64) for m in (alpha, beta))
    s = sinkhorn.solve(x, y, eps=eps, rho=rho, a=a, b=b, tol=1e-10)
    assert float(s.value) == pytest.approx(value, rel=1e-8, abs=1e-8)
    assert [float(m) for m in s.marginals] == pytest.approx([p, p], rel=1e-8)


@pytest.mark.parametrize("eps", [0.02, 0.2, 1.0])
def test_gaussians_on_a_line(eps):
    """Closed form of Janati et al. 2020 (with 2 sigma^2 = eps), on a grid finer than its tails."""
    (m1, s1), (m2, s2) = (0.0, 0.3), (0.5, 0.5)
    grid = torch.linspace(-4, 4, 401, dtype=torch.float64)

    def density(mean, sd):
        return torch.softmax(-((grid - mean) ** 2) / (2 * sd**2), 0)

    # densities below 1e-30 are left out, which the value does not see
    a, b = density(m1, s1), density(m2, s2)
    keep_a, keep_b = a > 1e-30, b > 1e-30
    a, b = a[keep_a] / a[keep_a].sum(), b[keep_b] / b[keep_b].sum()
    x, y = grid[keep_a][:, None], grid[keep_b][:, None]
    s = sinkhorn.solve(x, y, eps=eps, a=a, b=b, tol=1e-9, max_iter=5000)
    half = eps / 2
    d = math.sqrt(4 * s1**2 * s2**2 + half**2)
    value = (m1 - m2) ** 2 + s1**2 + s2**2 - d + half * (1 - math.log(eps) + math.log(d + half))
    assert float(s.value) == pytest.approx(value, abs=1e-7)
    # the plan is Gaussian too: its barycentric map is linear
    plan = sinkhorn.plan(x, y, s)
    core = a > 1e-4
    slope = (d - half) / (2 * s1**2)
    image = (plan @ y / plan.sum(1, keepdim=True))[core]
    torch.testing.assert_close(image, m2 + slope * (x[core] - m1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("relaxed", [(False, True), (True, False), (True, True)], ids=str)
def test_large_rho_tends_to_balanced(relaxed):
    """From below, as 1 / rho."""
    x, y, a, b, balanced = solved((INF, INF), "random")
    gaps = []
    for price in (1.0, 10.0, 100.0, 1000.0):
        rho = tuple(price if r else INF for r in relaxed)
        s = sinkhorn.solve(x, y, eps=EPS, rho=rho, a=a, b=b, **TIGHT)
        gaps.append(float(balanced.value - s.value))
    assert gaps[0] > gaps[1] > gaps[2] > gaps[3] > 0
    assert gaps[2] / gaps[3] == pytest.approx(10, rel=0.05)


def test_value_grows_with_rho_and_small_rho_is_free():
    """A dearer marginal costs more; at rho -> 0 only the softly nearest points are paid for."""
    x, y, a, b, _ = solved((INF, 0.1), "random")
    values = [
        float(sinkhorn.solve(x, y, eps=EPS, rho=(INF, r), a=a, b=b, **TIGHT).value)
        for r in (1e-6, 0.01, 0.1, 1.0, 10.0)
    ]
    assert values == sorted(values)
    cost = squared_distances(x, y)
    free = -EPS * a @ torch.logsumexp(b.log() - cost / EPS, 1)
    assert values[0] == pytest.approx(float(free), abs=1e-5)


@pytest.mark.parametrize("price", [0.3, 1.0, 3.0])
def test_erratum_of_theorem_1(price):
    """The printed factor, eps / (1 + eps): a lower dual unless rho = 1, where it is right."""
    x, y, a, b = problem("random")
    eps, rho = 0.1, (INF, price)
    cost = squared_distances(x, y)
    f = torch.zeros(len(x), dtype=torch.float64)
    for _ in range(500):
        g = torch.logsumexp((f[:, None] - cost) / eps + a.log()[:, None], 0) * -eps / (1 + eps)
        f = torch.logsumexp((g - cost) / eps + b.log(), 1) * -eps
    value = sinkhorn.solve(x, y, eps=eps, rho=rho, a=a, b=b, **TIGHT).value
    gap = value - dual(f, g, x, y, a, b, eps, rho)
    if price == 1:
        assert abs(gap) < 1e-12
    else:
        assert gap > 1e-4


@every_form
@pytest.mark.parametrize("kind", ["uniform", "zeros"])
def test_gradient_is_that_of_the_value(rho, kind):
    """Eq. (7) against central differences, each coordinate of x."""
    x, y, a, b = problem(kind, 8, 7)

    def value(x):
        return sinkhorn.solve(x, y, eps=EPS, rho=rho, a=a, b=b, tol=1e-11, max_iter=20_000).value

    x.requires_grad_()
    (gradient,) = torch.autograd.grad(value(x), x)
    step = 1e-4
    for i in range(len(x)):
        for k in range(x.shape[1]):
            way = torch.zeros_like(x)
            way[i, k] = step
            slope = (value(x.detach() + way) - value(x.detach() - way)) / (2 * step)
            assert float(gradient[i, k]) == pytest.approx(float(slope), abs=2e-7)


def test_gradient_flows_through_a_larger_function():
    """Chain rule on both sides: x made from parameters, the value scaled, squared, accumulated."""
    x, y, a, b = problem("random")
    args = {"eps": EPS, "rho": (INF, 0.1), "a": a, "b": b, **TIGHT}
    leaf = x.clone().requires_grad_()
    value = sinkhorn.solve(leaf, y, **args).value
    (plain,) = torch.autograd.grad(value, leaf)
    scale = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    s = sinkhorn.solve(scale * x, y, **args)
    (3 * s.value**2).backward()
    expected = 6 * value.detach() * (plain * x).sum()
    torch.testing.assert_close(scale.grad, expected, rtol=1e-10, atol=0)
    assert not (s.f.requires_grad or s.g.requires_grad or s.marginals[0].requires_grad)
    assert not sinkhorn.solve(x, y, **args).value.requires_grad


def small(seed=1):
    return points(6, seed, 2), points(7, seed + 1, 2)


def test_second_derivatives_are_refused():
    """The gradient of the envelope theorem has no graph: not 0, and no constant, but a line."""
    x, y = small()
    refused = pytest.raises(RuntimeError, match=r"^sinkhorn.solve's value has first derivatives ")

    def value(x):
        return sinkhorn.solve(x, y, eps=EPS).value

    with refused as error:
        torch.autograd.functional.hessian(value, x)
    assert "\n" not in str(error.value) and len(str(error.value)) < 200
    x.requires_grad_()
    (plain,) = torch.autograd.grad(value(x), x)
    (slope,) = torch.autograd.grad(value(x).square(), x, create_graph=True)
    torch.testing.assert_close(slope, 2 * value(x) * plain, rtol=1e-12, atol=0)
    with refused:  # a penalty on the gradient
        slope.square().sum().backward()
    with refused:
        torch.autograd.grad((slope * y[:6]).sum() + x.sum(), x)
    # linear in what comes from above, which has its derivative: torch's jvp asks for that one
    way = points(6, 5, 2)
    found = torch.autograd.functional.jvp(value, x.detach(), way)[1]
    assert float(found) == pytest.approx(float((plain * way).sum()), rel=1e-12)


TRANSFORMS = [
    *(getattr(torch.func, name) for name in ("grad", "hessian", "jacrev", "jacfwd")),
    lambda value: lambda x: torch.func.vmap(value)(x[None]),
    lambda value: lambda x: torch.func.jvp(value, (x,), (x,)),
]


@pytest.mark.parametrize("transform", TRANSFORMS)
def test_transforms_of_torch_func_are_refused(transform):
    x, y = small()
    with pytest.raises(RuntimeError, match=r"^sinkhorn.solve does not run under torch.func"):
        transform(lambda x: sinkhorn.solve(x, y, eps=EPS).value)(x)


def test_forward_mode_is_refused():
    x, y = small()
    with forward_ad.dual_level(), pytest.raises(RuntimeError, match=r"^sinkhorn.solve .* forward"):
        sinkhorn.solve(forward_ad.make_dual(x, x), y, eps=EPS)


def halves(far, dtype, where=slice(None)):
    """Two near problems of equal size, the second moved by `far`, and the value of the two.

    Nothing crosses: OT_eps is the mean of the halves' own, and eps log 2 for what they leave out.
    """
    x, y = points(30, 1, dtype=dtype), points(30, 2, dtype=dtype)
    shift = torch.zeros(3, dtype=torch.float64)
    shift[where] = far
    (x[15:], y[15:]), order = ((t[15:] + shift).to(dtype) for t in (x, y)), torch.arange(30).flip(0)
    eps, value = 1e-2, 0.01 * math.log(2)
    for rows, home in ((slice(0, 15), 0 * shift), (slice(15, 30), shift)):
        near = (t[rows].double() - home for t in (x, y))
        value += float(sinkhorn.solve(*near, eps=eps, **TIGHT).value) / 2
    return x, y[order], eps, value


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("far", [200.0, 1e3, 1e4, 1e6])
@pytest.mark.parametrize("where", [slice(None), slice(0, 1)], ids=["all", "one coordinate"])
def test_clouds_far_apart_in_parts(dtype, far, where):
    """|x|^2 - 2xy + |y|^2 would round by up to 1e5 eps: value, gradient and plan are right."""
    x, y, eps, value = halves(far, dtype, where)
    x.requires_grad_()
    s = sinkhorn.solve(x, y, eps=eps, tol=1e-6, max_iter=5000)
    assert s.converged and s.rounding < 1e-3 * eps
    assert float(s.value.detach()) == pytest.approx(value, abs=0.002 * eps, rel=1e-7)
    assert s.value.dtype == s.marginals[0].dtype == dtype
    points = (x.detach().double(), y.double())
    plan = sinkhorn.plan(*points, s)
    torch.testing.assert_close(plan.sum(1), torch.full_like(plan[0], 1 / 30), rtol=1e-3, atol=0)
    s.value.backward()
    slope = 2 / 30 * (points[0] - (plan @ points[1]) / plan.sum(1, keepdim=True))
    torch.testing.assert_close(x.grad.double(), slope, rtol=1e-4, atol=1e-6)
    again = sinkhorn.solve(x, y, eps=eps, init=(s.f, s.g), tol=1e-5)
    assert again.iterations <= 2


@pytest.mark.parametrize("far", [1e5, 1e8, 1e11])
def test_a_far_matched_pair_does_not_matter(far):
    """Nothing leaves it: the value is that of the others, times their mass, and the entropies."""
    x, y, eps = points(20, 1), points(20, 2), 1e-2
    others = float(sinkhorn.solve(x[1:], y[1:], eps=eps, **TIGHT).value)
    x[0] = y[0] = far
    s = sinkhorn.solve(x, y, eps=eps, tol=1e-8, max_iter=5000)
    # KL of the block plan: -(p log p + (1 - p) log(1 - p)) with p = 1 / 20
    entropy = math.log(20) / 20 - 0.95 * math.log(0.95)
    assert s.converged
    assert float(s.value) == pytest.approx(0.95 * others + eps * entropy, abs=1e-6 * eps)


def test_where_accuracy_cannot_be_had_the_solution_says_so():
    """One point is 1e9 away from all: potentials of 1e18 round by 100, the value to its digits."""
    x, y = points(20, 1), points(20, 2)
    x[0] += 1e9
    with pytest.warns(sinkhorn.ConvergenceWarning, match=r"rough: torch.float64 rounds .* eps$"):
        s = sinkhorn.solve(x, y, eps=1e-2)
    assert not s.converged and s.residual <= 1e-3 and 100 < s.rounding < 1e4
    far = float((x[0] - y).square().sum(1).mean()) / 20
    assert float(s.value) == pytest.approx(far, rel=1e-9)


@pytest.mark.parametrize("shift", [100.0, 1e6])
def test_a_common_translation_does_not_matter(shift):
    x, y, a, b, s = solved((INF, 0.1), "random")
    options = {"eps": EPS, "rho": (INF, 0.1), "a": a, "b": b, **TIGHT}
    moved = sinkhorn.solve(x + shift, y + shift, **options)
    torch.testing.assert_close(moved.value, s.value, rtol=0, atol=1e-15 * shift + 1e-11)


@pytest.mark.parametrize("rho", [(INF, INF), (INF, 0.1), (0.1, 0.1)], ids=str)
@pytest.mark.parametrize("scale", [2.0**-400, 2.0**400])
def test_any_unit_that_the_type_holds(rho, scale):
    """A power of two changes no digit, 1e240 is no infinity and 1e-240 is not 0."""
    x, y = points(25, 1), points(20, 2)
    s = sinkhorn.solve(x, y, eps=2.0**-6, rho=rho)
    prices = tuple(scale**2 * r for r in rho)
    other = sinkhorn.solve(scale * x, scale * y, eps=2.0**-6 * scale**2, rho=prices)
    assert other.converged and other.iterations == s.iterations
    torch.testing.assert_close(other.value / scale**2, s.value, rtol=1e-12, atol=0)


def test_huge_clouds_in_float32():
    x, y = points(25, 1, dtype=torch.float32), points(20, 2, dtype=torch.float32)
    s = sinkhorn.solve(x, y, eps=0.05)
    huge = sinkhorn.solve(x * 2.0**58, y * 2.0**58, eps=0.05 * 2.0**116)
    assert float(huge.value) == pytest.approx(float(s.value) * 2.0**116, rel=1e-5)


def test_the_plan_knows_its_solve():
    x, y, a, b, s = solved((INF, 0.1), "random")
    cost = (x[:, None] - y).square().sum(2)
    told = a[:, None] * b * ((s.f[:, None] + s.g - cost) / EPS).exp()
    torch.testing.assert_close(sinkhorn.plan(x, y, s), told)
    with pytest.raises(ValueError, match=r"^solution.f must have shape \(24,\), got \(25,\)$"):
        sinkhorn.plan(x[1:], y, s)


MEMORY = """
import torch
from benchmarks.measure import measure
from otlib import sinkhorn

torch.set_num_threads(1)
x, y = torch.rand(800, 400), torch.rand(700, 400)
solution = sinkhorn.solve(x, y, eps=100.0)
sinkhorn.plan(x, y, solution)  # what only a first call allocates
print(measure(lambda: sinkhorn.plan(x, y, solution), memory=True)[1])
"""


def test_the_plan_takes_no_n_m_d_memory():
    """A few N x M arrays, 4 MiB each in float64, where N x M x d floats are 850 MiB."""
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert 2 < float(done.stdout) < 60


def test_permutation_and_translation_invariance():
    x, y, a, b, s = solved((INF, 0.1), "random")
    rows, columns = torch.randperm(len(x), generator=generator(6)), torch.arange(len(y)).flip(0)
    shift = torch.tensor([5.0, -3.0, 0.5], dtype=torch.float64)
    args = {"eps": EPS, "rho": (INF, 0.1), "a": a[rows], "b": b[columns], **TIGHT}
    moved = sinkhorn.solve(x[rows] + shift, y[columns] + shift, **args)
    torch.testing.assert_close(moved.value, s.value, rtol=0, atol=1e-10)
    torch.testing.assert_close(moved.f, s.f[rows], rtol=0, atol=1e-8)
    torch.testing.assert_close(moved.marginals[1], s.marginals[1][columns], rtol=0, atol=1e-9)


@every_form
def test_exchange_of_the_clouds(rho):
    """x and y, a and b, rho_1 and rho_2 exchanged: the same value and the transposed plan."""
    x, y, a, b, s = solved(rho, "random")
    other = sinkhorn.solve(y, x, eps=EPS, rho=rho[::-1], a=b, b=a, **TIGHT)
    torch.testing.assert_close(other.value, s.value, rtol=0, atol=1e-8)
    plan = sinkhorn.plan(x, y, s)
    transposed = sinkhorn.plan(y, x, other)
    torch.testing.assert_close(transposed.T, plan, rtol=0, atol=1e-8)


@every_form
def test_units_of_the_cost(rho):
    """Lengths times t, eps and rho times t^2: the value and the potentials times t^2."""
    x, y, a, b, s = solved(rho, "random")
    scaled = tuple(9 * r for r in rho)
    other = sinkhorn.solve(3 * x, 3 * y, eps=9 * EPS, rho=scaled, a=a, b=b, **TIGHT)
    torch.testing.assert_close(other.value, 9 * s.value, rtol=1e-8, atol=0)


def test_points_of_weight_zero_do_not_matter():
    """As if they were not there, and no gradient for them."""
    for rho in FORMS:
        x, y, a, b, s = solved(rho, "zeros")
        assert (a == 0).any() and (b == 0).any()
        args = {"eps": EPS, "rho": rho, "a": a[a > 0], "b": b[b > 0], **TIGHT}
        without = sinkhorn.solve(x[a > 0], y[b > 0], **args)
        torch.testing.assert_close(s.value, without.value, rtol=0, atol=1e-9)
        leaf = x.clone().requires_grad_()
        sinkhorn.solve(leaf, y, eps=EPS, rho=rho, a=a, b=b, **TIGHT).value.backward()
        assert (leaf.grad[a == 0] == 0).all() and (leaf.grad[a > 0] != 0).all()


@pytest.mark.parametrize("eps", [2e-4, 1e-2, 1.0])
@pytest.mark.parametrize(
    "rho", [(INF, INF), (INF, 0.01), (INF, 1.0), (0.1, 0.1), (0.01, INF)], ids=str
)
def test_float32_agrees_with_float64(eps, rho):
    """The default tolerance in float32 against a tight solve in float64: value and gradient."""
    x, y = points(40, 1), points(30, 2)
    exact = x.clone().requires_grad_()
    reference = sinkhorn.solve(exact, y, eps=eps, rho=rho, tol=1e-7, max_iter=5000)
    reference.value.backward()
    single = x.float().requires_grad_()
    s = sinkhorn.solve(single, y.float(), eps=eps, rho=rho, max_iter=3000)
    s.value.backward()
    assert s.value.dtype == s.f.dtype == s.g.dtype == single.grad.dtype == torch.float32
    assert [m.dtype for m in s.marginals] == [torch.float32] * 2
    assert float(s.value.detach()) == pytest.approx(float(reference.value.detach()), rel=1e-4)
    error = (single.grad.double() - exact.grad).norm() / exact.grad.norm()
    assert error < 0.01


def test_a_warm_start_is_shorter():
    """From the solution: one update. From a neighbour's: fewer than from the cold, same end."""
    x, y = points(60, 1), points(50, 2)
    args = {"eps": 1e-3, "rho": (INF, 0.1), "tol": 1e-6}
    cold = sinkhorn.solve(x, y, **args)
    again = sinkhorn.solve(x, y, init=(cold.f, cold.g), **args)
    assert again.iterations == 1 and again.converged
    torch.testing.assert_close(again.value, cold.value, rtol=0, atol=1e-14)
    near = x + 1e-4 * torch.randn(x.shape, generator=generator(1), dtype=torch.float64)
    cold_near = sinkhorn.solve(near, y, **args)
    warm_near = sinkhorn.solve(near, y, init=(cold.f, cold.g), **args)
    assert warm_near.iterations < cold_near.iterations
    torch.testing.assert_close(warm_near.value, cold_near.value, rtol=0, atol=1e-9)


@every_form
def test_a_bad_start_still_converges(rho):
    x, y, a, b, s = solved(rho, "random")
    start = tuple(torch.randn(len(w), generator=generator(7), dtype=torch.float64) for w in (a, b))
    other = sinkhorn.solve(x, y, eps=EPS, rho=rho, a=a, b=b, init=start, **TIGHT)
    torch.testing.assert_close(other.value, s.value, rtol=0, atol=1e-8)


def test_start_is_the_first_temperature():
    """By default the mean cost, or eps from an init: the updates are those of the levels."""
    x, y = points(60, 1), points(50, 2)
    args = {"eps": 1e-2, "rho": (INF, 0.1), "tol": 1e-8, "scaling": 0.5}
    cold = sinkhorn.solve(x, y, **args)
    same = sinkhorn.solve(x, y, start_eps=sinkhorn.mean_cost(x, y), **args)
    assert same.iterations == cold.iterations and torch.equal(same.g, cold.g)
    again = sinkhorn.solve(x, y, init=(cold.f, cold.g), start_eps=8 * 1e-2, **args)
    levels = 3  # at 8, 4 and 2 eps
    assert levels < again.iterations < cold.iterations
    torch.testing.assert_close(again.value, cold.value, rtol=0, atol=1e-10)
    below = sinkhorn.solve(x, y, init=(cold.f, cold.g), start_eps=1e-3, **args)
    assert below.iterations == 1  # never below eps


def updated_once(rho, kind, seed):
    """f and g after an update at a temperature above eps, and the g that a solve then has."""
    x, y, a, b = problem(kind)
    start = torch.randn(len(y), generator=generator(seed), dtype=torch.float64) * 0.2
    args = {"eps": EPS, "rho": rho, "a": a, "b": b, "init": (torch.zeros_like(x[:, 0]), start)}
    with pytest.warns(sinkhorn.ConvergenceWarning, match="max_iter=1"):
        s = sinkhorn.solve(x, y, start_eps=2 * EPS, scaling=0.5, tol=0, max_iter=1, **args)
    a, b, cost, t = uniform(a, len(x)), uniform(b, len(y)), squared_distances(x, y), 2 * EPS
    f = -t * torch.logsumexp((start - cost) / t + b.log(), 1) / (1 + t / rho[0])
    g = -t * torch.logsumexp((f[:, None] - cost) / t + a.log()[:, None], 0) / (1 + t / rho[1])
    return x, y, a, b, f, g, s.g


@pytest.mark.parametrize("rho", FORMS[1:], ids=str)
@pytest.mark.parametrize("kind", ["uniform", "zeros", "heavy"])
def test_translation_is_the_best_one(rho, kind):
    """The dual rises by it, from any potentials, and is lower a step to either side."""
    for seed in range(10):
        x, y, a, b, f, g, moved = updated_once(rho, kind, seed)
        c = (g - moved).mean()
        torch.testing.assert_close(moved, g - c, rtol=0, atol=1e-12)
        heights = [dual(f + s, g - s, x, y, a, b, EPS, rho) for s in (0, c - 1e-3, c, c + 1e-3)]
        assert heights[2] > max(heights[0], heights[1], heights[3])
        masses = [w @ (-h / r).exp() for w, h, r in ((a, f + c, rho[0]), (b, g - c, rho[1]))]
        torch.testing.assert_close(masses[0], masses[1], rtol=1e-11, atol=0)  # the slope is 0
        if rho[0] == INF:  # the form that the semi-unbalanced dual gives
            expected = rho[1] * ((b * (-g / rho[1]).exp()).sum() / a.sum()).log()
            assert -c == pytest.approx(float(expected), abs=1e-12)


def test_balanced_transport_has_no_best_translation():
    *_, g, moved = updated_once((INF, INF), "zeros", 1)
    torch.testing.assert_close(moved, g, rtol=0, atol=1e-12)


class Counted(Active):
    """Active, with the number of passes of each kind, and every listed pass beside a dense one."""

    listed, all_pairs, error = 0, 0, 0.0

    def soft(self, h, eps, leaving):
        found = super().soft(h, eps, leaving)
        if found is not None:
            Counted.listed += 1
            s, arriving = self.dense(h, eps, leaving=leaving)
            near = arriving > arriving.sum() * sinkhorn._LEAST_LISTED
            wrong = (found[1] / arriving - 1)[near].abs().max()
            Counted.error = max(
                Counted.error, float((found[0] - s).abs().max()) / eps, float(wrong)
            )
        return found

    def list(self, h, eps, leaving):
        Counted.all_pairs += 1
        return super().list(h, eps, leaving)


@pytest.fixture
def counted(monkeypatch):
    monkeypatch.setattr(sinkhorn, "Active", Counted)
    monkeypatch.setattr(sinkhorn, "_WORTH", 0)
    Counted.listed, Counted.all_pairs, Counted.error = 0, 0, 0.0
    return Counted


@pytest.mark.parametrize(
    "rho", [(INF, INF), (INF, 0.01), (INF, 0.1), (0.1, 0.1), (0.1, INF)], ids=str
)
@pytest.mark.parametrize("kind", ["uniform", "zeros"])
def test_active_pairs_change_the_way_and_not_the_end(counted, rho, kind):
    """Each listed pass agrees with a dense one, and the solve with one that lists nothing."""
    x, y, a, b = problem(kind, 150, 120)
    x.requires_grad_()
    args = {"eps": 5e-4, "rho": rho, "a": a, "b": b, "tol": 1e-4, "max_iter": 5000}
    solutions = [sinkhorn.solve(x, y, active=active, **args) for active in (True, False)]
    assert counted.listed > 10 and counted.all_pairs < solutions[0].iterations
    assert counted.error < 1e-4
    near, full = solutions
    assert near.converged and near.residual <= 1e-4
    gradients = [torch.autograd.grad(s.value, x)[0] for s in solutions]
    assert float((gradients[0] - gradients[1]).norm() / gradients[1].norm()) < 2e-3
    assert float(near.value.detach()) == pytest.approx(float(full.value.detach()), rel=1e-5)
    # the residual reported is that of the dense plan
    x = x.detach()
    b = uniform(b, len(y))
    arriving = sinkhorn.plan(x, y, near).sum(0)
    target = b * torch.exp(-near.g / rho[1])
    residual = (arriving - target).abs().sum() / arriving.sum()
    assert near.residual == pytest.approx(float(residual), rel=1e-6)


def test_a_wrong_list_is_found_out(counted, monkeypatch):
    """Listed passes that lie: the dense pass disagrees, and the solve goes on."""
    x, y = points(150, 1), points(120, 2)
    args = {"eps": 5e-4, "rho": (INF, 0.1), "tol": 1e-4, "max_iter": 3000}
    expected = sinkhorn.solve(x, y, active=False, **args)
    honest, lies = Counted.soft, 0

    def liar(self, h, eps, leaving):
        nonlocal lies
        found = honest(self, h, eps, leaving)
        if found is None or lies == 5 or eps > 5e-4:
            return found
        lies += 1
        g = h - eps * math.log(1 / 120)
        return found[0], torch.exp(-g / 0.1) / 120  # just what would end the solve

    monkeypatch.setattr(Counted, "soft", liar)
    s = sinkhorn.solve(x, y, **args)
    assert lies == 5 and s.converged and s.residual <= 1e-4
    assert float(s.value) == pytest.approx(float(expected.value), rel=1e-6)


def test_active_pairs_that_do_not_pay_are_not_listed(counted):
    """At a temperature near the cost every pair counts."""
    x, y = points(150, 1), points(120, 2)
    s = sinkhorn.solve(x, y, eps=0.5, rho=(INF, 0.1), tol=1e-8)
    assert counted.listed == 0 and counted.all_pairs == s.iterations


def test_scaling_changes_the_way_and_not_the_end():
    x, y = points(60, 1), points(50, 2)
    values, iterations = [], []
    for scaling in (0.1, 0.5, 0.9):
        s = sinkhorn.solve(x, y, eps=1e-2, rho=(INF, 0.1), tol=1e-8, scaling=scaling)
        values.append(float(s.value))
        iterations.append(s.iterations)
    assert values == pytest.approx([values[0]] * 3, abs=1e-10)
    assert iterations[2] > iterations[0]  # more levels


def test_balanced_patches_at_small_eps_come_near_exact_transport():
    """OT_0 <= OT_eps <= OT_0 + eps log min(n, m) on patch-like clouds, the hard case."""
    random, eps = generator(3), 2e-4
    y = 0.08 * torch.randn(200, 6, generator=random) @ torch.randn(6, 36, generator=random)
    y = y + 0.03 * torch.randn(y.shape, generator=random)
    x = y[torch.randint(200, (150,), generator=random)]
    x = x + 0.05 * torch.randn(x.shape, generator=random)
    exact = ot.emd2([], [], torch.cdist(x.double(), y.double()).square().numpy())
    # a residual of .02 leaves the value within a per cent
    s = sinkhorn.solve(x, y, eps=eps, tol=0.02)
    assert s.converged
    assert exact * 0.99 < float(s.value) < exact * 1.01 + eps * math.log(150)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("rho", [*FORMS, (0.01, 0.01)], ids=str)
@pytest.mark.parametrize("warm", [False, True])
def test_an_unfinished_solve_says_so(dtype, rho, warm):
    """One update at small eps: flagged, warned of, finite, and the residual is the true one."""
    x, y = points(60, 1, dtype=dtype).requires_grad_(), points(50, 2, dtype=dtype) + 0.5
    eps = 2e-4
    init = (torch.ones(60, dtype=dtype), torch.zeros(50, dtype=dtype)) if warm else None
    with pytest.warns(sinkhorn.ConvergenceWarning, match="max_iter=1 ") as caught:
        s = sinkhorn.solve(x, y, eps=eps, rho=rho, init=init, max_iter=1)
    assert len(caught) == 1 and caught[0].filename == __file__
    assert not s.converged and s.residual > 1e-3 and math.isfinite(s.residual)
    s.value.backward()
    assert all(t.isfinite().all() for t in (s.f, s.g, s.value, x.grad))
    if warm and dtype is torch.float64:
        assert s.iterations == 1
        plan = sinkhorn.plan(x, y, s)
        # the plan's largest entry may overflow where rho_1 is finite: compare where it does not
        if plan.isfinite().all():
            target = torch.exp(-s.g / rho[1]) / 50
            residual = (plan.sum(0) - target).abs().sum() / plan.sum()
            assert s.residual == pytest.approx(float(residual), rel=1e-9)


@pytest.mark.parametrize("height", [-10.0, 10.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_wild_start_stays_finite(height, dtype):
    """exp(|g| / rho) = exp(1000) is no number: the first iterate is bounded, the last is right."""
    x, y = points(25, 1, dtype=dtype), points(20, 2, dtype=dtype)
    args = {"eps": 1e-3, "rho": (0.01, 0.01)}
    init = (torch.zeros(25, dtype=dtype), torch.full((20,), height, dtype=dtype))
    with pytest.warns(sinkhorn.ConvergenceWarning):
        first = sinkhorn.solve(x.requires_grad_(), y, init=init, max_iter=1, **args)
    assert math.isfinite(first.residual) and not first.converged
    if dtype is torch.float64:  # float32 ends at 3e38
        first.value.backward()
        assert first.value.isfinite() and x.grad.isfinite().all()
    last = sinkhorn.solve(x, y, init=init, **args)
    cold = sinkhorn.solve(x, y, **args)
    assert float(last.value.detach()) == pytest.approx(float(cold.value.detach()), rel=1e-4)


def test_tolerance_is_kept():
    """Tighter is longer and nearer; the number of updates is the one counted."""
    x, y = points(60, 1), points(50, 2)
    runs = [sinkhorn.solve(x, y, eps=1e-2, tol=tol) for tol in (1e-1, 1e-3, 1e-6, 1e-9)]
    assert all(s.residual <= tol for s, tol in zip(runs, (1e-1, 1e-3, 1e-6, 1e-9), strict=True))
    lengths = [s.iterations for s in runs]
    assert lengths == sorted(lengths) and len(set(lengths)) == 4
    errors = [abs(float(s.value - runs[-1].value)) for s in runs]
    assert errors == sorted(errors, reverse=True)
    with pytest.warns(sinkhorn.ConvergenceWarning):
        short = sinkhorn.solve(x, y, eps=1e-2, tol=1e-9, max_iter=lengths[-1] // 2)
    assert short.iterations < lengths[-1] and short.value < runs[-1].value


@pytest.mark.parametrize("rho", [(0.1, 0.1), (0.02, 0.3)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_clouds_too_far_apart_to_match(rho, dtype):
    """All mass is given up, at rho_1 + rho_2 + eps for weights of sum 1, and that has converged."""
    x, y = points(25, 1, dtype=dtype).requires_grad_(), points(20, 2, dtype=dtype) + 20
    s = sinkhorn.solve(x, y, eps=0.01, rho=rho)
    assert s.converged
    assert float(s.value.detach()) == pytest.approx(sum(rho) + 0.01, rel=1e-6)
    s.value.backward()
    assert (x.grad.abs() < 1e-30).all()


def test_identical_points():
    """No spread at all: the mean cost is 0, so there is nothing to anneal."""
    x = torch.ones(5, 2, dtype=torch.float64)
    s = sinkhorn.solve(x, x[:3], eps=0.1, tol=1e-12)
    assert s.iterations == 1 and float(s.value) == pytest.approx(0, abs=1e-14)


def test_determinism():
    x, y = points(60, 1, dtype=torch.float32), points(50, 2, dtype=torch.float32)
    runs = [sinkhorn.solve(x, y, eps=1e-3, rho=(INF, 0.1)) for _ in range(2)]
    assert torch.equal(runs[0].f, runs[1].f) and torch.equal(runs[0].value, runs[1].value)


@pytest.mark.parametrize(
    "backend",
    [
        pytest.param("keops", marks=no_keops),
        pytest.param("compiled", marks=no_compiler),
        "attention",
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["uniform", "zeros"])
def test_backends_agree(dtype, kind, backend):
    """d = 36, the dimension that the tests of the soft-min have compiled."""
    a, b = (None, None) if kind == "uniform" else (weights(40, 3, 5), weights(30, 4, 5))
    a, b = (w if w is None else w.to(dtype) for w in (a, b))
    runs, gradients = [], []
    for name in ("torch", backend):
        x, y = points(40, 1, 36, dtype).requires_grad_(), points(30, 2, 36, dtype)
        s = sinkhorn.solve(x, y, eps=0.1, rho=(INF, 0.1), a=a, b=b, tol=1e-6, backend=name)
        s.value.backward()
        runs.append(s)
        gradients.append(x.grad)
    rounding = 200 * torch.finfo(dtype).eps
    torch.testing.assert_close(runs[0].value, runs[1].value, rtol=rounding, atol=0)
    # potentials and gradients share the solver's tolerance, the value its square
    torch.testing.assert_close(runs[0].f, runs[1].f, rtol=0, atol=1e-5)
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-5)


@settings(max_examples=60)
@given(
    n=st.integers(1, 8),
    m=st.integers(1, 8),
    d=st.integers(1, 5),
    eps=st.floats(1e-2, 10),
    rho=st.tuples(*[st.one_of(st.just(INF), st.floats(0.05, 10))] * 2),
    seed=st.integers(0, 2**16),
    zeros=st.integers(0, 3),
)
def test_any_problem_has_no_gap(n, m, d, eps, rho, seed, zeros):
    x, y = points(n, seed, d), points(m, seed + 1, d)
    a, b = weights(n, seed + 2, min(zeros, n - 1)), weights(m, seed + 3, min(zeros, m - 1))
    s = sinkhorn.solve(x, y, eps=eps, rho=rho, a=a, b=b, tol=1e-9, max_iter=20_000)
    plan = sinkhorn.plan(x, y, s)
    assert s.f.shape == s.marginals[0].shape == (n,) and s.g.shape == s.marginals[1].shape == (m,)
    assert s.value.shape == ()
    gap = primal(plan, x, y, a, b, eps, rho) - s.value
    assert abs(gap) <= 1e-7 * (1 + eps)


GOOD = {"x": torch.zeros(3, 2), "y": torch.ones(4, 2), "eps": 1.0}
THIRDS, QUARTERS = torch.full((3,), 1 / 3), torch.full((4,), 1 / 4)
BAD = [
    ("x", torch.zeros(3)),
    ("x", torch.zeros(0, 2)),
    ("x", torch.zeros(3, 0)),
    ("x", torch.full((3, 2), math.nan)),
    ("x", torch.zeros(3, 2, dtype=torch.int64)),
    ("x", torch.zeros(3, 2, dtype=torch.float16)),
    ("x", np.zeros((3, 2))),
    ("y", torch.ones(4, 3)),
    ("y", torch.ones(4, 2, dtype=torch.float64)),
    ("y", torch.full((4, 2), math.nan)),
    ("y", torch.full((4, 2), INF)),
    ("y", torch.ones(0, 2)),
    ("y", torch.ones(4, 2, requires_grad=True)),
    *(("eps", v) for v in (0.0, -1.0, math.nan, INF, "1", None, True)),
    *(("rho", v) for v in (1.0, INF, None, (INF,), (INF, INF, INF), "ab")),
    *(("rho[0]", (v, INF)) for v in (0.0, -0.1, math.nan, "1", None)),
    *(("rho[1]", (INF, v)) for v in (0, -INF, math.nan)),
    ("a", -THIRDS),
    ("a", torch.zeros(3)),
    ("a", QUARTERS),
    ("a", THIRDS[:, None]),
    ("a", THIRDS.double()),
    ("a", THIRDS * math.nan),
    ("a", 2 * THIRDS),
    ("a", [1 / 3, 1 / 3, 1 / 3]),
    ("b", torch.tensor([0.5, 0.5, 0.5, -0.5])),
    ("b", torch.zeros(4)),
    ("b", THIRDS),
    ("b", torch.tensor([1.0, INF, 0.0, 0.0])),
    *(("init", v) for v in (3, THIRDS, (THIRDS,), (THIRDS, QUARTERS, THIRDS), torch.zeros(1000))),
    ("init[0]", (None, None)),
    ("init[0]", (QUARTERS, QUARTERS)),
    ("init[1]", (THIRDS, THIRDS)),
    ("init[0]", (THIRDS * math.nan, QUARTERS)),
    ("init[1]", (THIRDS, QUARTERS * INF)),
    ("init[1]", (THIRDS, QUARTERS.double())),
    ("init[1]", (THIRDS, QUARTERS.long())),
    *(("tol", v) for v in (-1e-3, math.nan, INF, None)),
    *(("max_iter", v) for v in (0, -1, 2.5, None, math.nan)),
    *(("scaling", v) for v in (0, 1, -0.5, math.nan, "0.5", 1 - 1e-9)),
    *(("start_eps", v) for v in (0.0, -1.0, math.nan, INF, "1", 1e-40, 1e38)),
    # squares, their quotients by eps or sums that float32 does not hold
    *(("x", torch.full((3, 2), v)) for v in (1e19, -3e38)),
    ("y", torch.tensor([[0.0, 3e38]] * 4)),
    ("y", torch.tensor([[1e20, 0.0]] + [[0.0, 0.0]] * 3)),
    *(("eps", v) for v in (1e-320, 1e-50, 1e-40, 1e37, 1e300)),
    ("rho[0]", (1e-300, INF)),
    ("rho[1]", (INF, 1e-40)),
    ("rho[1]", (INF, 1e38)),
    ("a", torch.full((3,), 2e38)),
    *(("active", v) for v in (None, "auto", 1)),
    ("backend", "numpy"),
]


@pytest.mark.parametrize("name, value", BAD, ids=[f"{n}-{i}" for i, (n, _) in enumerate(BAD)])
def test_bad_input_is_one_line_that_names_the_argument(name, value):
    with pytest.raises(ValueError) as error:
        sinkhorn.solve(**{**GOOD, name.split("[")[0]: value})
    message = str(error.value)
    assert message.startswith((f"{name} ", f"{name} and b ", "x and y ")), message
    assert "\n" not in message and len(message) < 200


def test_unequal_sums_are_for_relaxed_forms():
    """2 : 1 is refused where both marginals are exact and carried where one is not."""
    with pytest.raises(ValueError, match=r"^a and b must have equal sums .*got 2 and 1$"):
        sinkhorn.solve(**GOOD, a=2 * THIRDS, b=QUARTERS)
    s = sinkhorn.solve(**GOOD, rho=(INF, 1.0), a=2 * THIRDS, b=QUARTERS)
    assert float(s.marginals[1].sum()) == pytest.approx(2, rel=1e-5)
