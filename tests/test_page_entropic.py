"""The definitions of entropic transport against closed forms and the solver."""

import math

import pytest
import torch

from companion.page import entropic, slopes
from otlib.sinkhorn import plan, solve


def clouds(n=7, m=5):
    random = torch.Generator().manual_seed(0)
    return (torch.rand(k, 2, generator=random, dtype=torch.float64) for k in (n, m))


def test_kl_is_zero_at_home_and_has_its_mass_terms():
    q = torch.tensor([0.2, 0.5, 1.0], dtype=torch.float64)
    assert entropic.kl(q, q) == 0
    assert float(entropic.kl(2 * q, q)) == pytest.approx(1.7 * (2 * math.log(2) - 1))
    assert float(entropic.kl(0 * q, q)) == pytest.approx(1.7)


@pytest.mark.parametrize("rho", [(math.inf, math.inf), (0.2, 0.2), (math.inf, 0.1)])
def test_the_primal_of_the_solved_plan_is_least_and_the_dual_value(rho):
    x, y = clouds()
    solution = solve(x, y, eps=0.05, rho=rho, tol=1e-10, max_iter=5000)
    pi = plan(x, y, solution)
    value = entropic.primal(x, y, pi, 0.05, rho)
    assert value == pytest.approx(float(solution.value), rel=1e-6)
    random = torch.Generator().manual_seed(1)
    for _ in range(5):  # moves that keep both marginals
        i, j = (torch.randperm(n, generator=random)[:2] for n in pi.shape)
        moved, step = pi.clone(), 0.5 * float(pi[i[0], j[1]].min(pi[i[1], j[0]]))
        moved[i[0], j[0]] += step
        moved[i[1], j[1]] += step
        moved[i[0], j[1]] -= step
        moved[i[1], j[0]] -= step
        assert entropic.primal(x, y, moved, 0.05, rho) > value


def test_the_largest_semi_dual_is_the_value_of_the_solver():
    x, y = clouds()
    dual = lambda f, g: entropic.semi_dual(x, y, f, g, 0.1, 0.3)
    best = entropic.maximise(dual, torch.zeros_like(x[:, 0]), torch.zeros_like(y[:, 0]))
    solution = solve(x, y, eps=0.1, rho=(math.inf, 0.3), tol=1e-10, max_iter=5000)
    assert best == pytest.approx(float(solution.value), rel=1e-8)
    assert entropic.largest_semi_dual(x, y, 0.1, 0.3) == pytest.approx(best, rel=1e-12)
    assert float(dual(solution.f, solution.g)) == pytest.approx(best, rel=1e-8)


@pytest.mark.parametrize("symmetric", [False, True])
def test_both_schemes_reach_the_largest_dual_and_never_pass_it(symmetric):
    x, y = clouds()
    best = float(solve(x, y, eps=0.1, rho=(math.inf, 0.3), tol=1e-12, max_iter=5000).value)
    dual = lambda f, g: float(entropic.semi_dual(x, y, f, g, 0.1, 0.3))
    reached = [dual(f, g) for f, g in entropic.iterates(x, y, 0.1, 0.3, 200, symmetric)]
    assert len(reached) == 200 and max(reached) <= best + 1e-12
    assert reached[-1] == pytest.approx(best, rel=1e-10) and reached[0] < best - 1e-3


def test_equation_6_holds_after_an_update_and_not_before():
    x, y = clouds()
    f, g = next(entropic.iterates(x, y, 0.1, 0.3, 1, symmetric=True))
    gap = lambda f, g: entropic.off_eq6(x, y, f, g, 0.1, 0.3)
    assert gap(f, g) > 1e-3 and gap(*entropic.updated(x, y, f, 0.1, 0.3)) < 1e-14


def test_the_residual_is_that_of_the_solver_and_0_at_its_end():
    x, y = clouds()
    solution = solve(x, y, eps=0.1, rho=(math.inf, 0.3), tol=1e-10, max_iter=5000)
    off = lambda f, g: entropic.residual(x, y, f, g, 0.1, 0.3)
    assert off(solution.f, solution.g) < 1e-9
    f = entropic.fitted(x, y, torch.zeros_like(y[:, 0]), 0.1)
    assert off(f, torch.zeros_like(y[:, 0])) > 1e-2


def test_a_fitted_potential_makes_the_first_marginal_exact():
    x, y = clouds()
    g = 0.1 * torch.arange(len(y), dtype=torch.float64)
    f = entropic.fitted(x, y, g, 0.1)
    pi = ((f[:, None] + g - torch.cdist(x, y).square()) / 0.1).exp() / (len(x) * len(y))
    torch.testing.assert_close(pi.sum(1), torch.full_like(f, 1 / len(x)))


def test_the_cost_of_the_identity_is_0_and_of_a_shift_its_square():
    x, _ = clouds()
    pi = torch.eye(len(x), dtype=x.dtype) / len(x)
    shift = torch.tensor([0.3, -0.4], dtype=x.dtype)
    assert float(entropic.cost(x, x, pi)) == 0
    assert float(entropic.cost(x, x + shift, pi)) == pytest.approx(0.25)


@pytest.mark.parametrize("rho", [(math.inf, math.inf), (0.2, 0.2), (math.inf, 0.1)])
def test_the_envelope_theorem_gives_the_slopes(rho):
    x, y = clouds()
    weights = {
        name: torch.full((len(cloud),), 1 / len(cloud), dtype=x.dtype)
        for name, cloud in (("a", x), ("b", y))
    }
    at, random = {"x": x, "y": y} | weights, torch.Generator().manual_seed(1)
    options = dict(eps=0.1, rho=rho, tol=1e-11, max_iter=5000)
    value = lambda **moved: solve(**moved, **options).value
    for name, gradient in slopes.envelope(x, y, **options).items():
        way = slopes.way(at[name], random, keep_sum=name in "ab")
        slope = slopes.central(value, at, name, way)
        assert slope == pytest.approx(float((gradient * way).sum()), rel=1e-5, abs=1e-9)


def test_a_slope_is_that_of_one_argument_along_the_way():
    at = {"p": torch.tensor([1.0, 2.0], dtype=torch.float64), "q": torch.ones(2)}
    function = lambda p, q: (p**3 * q).sum()
    way = torch.tensor([1.0, -1.0], dtype=torch.float64)
    assert slopes.central(function, at, "p", way) == pytest.approx(3 - 12)
    assert slopes.central(function, at, "q", way, step=1e-2) == pytest.approx(1 - 8, rel=1e-5)


def test_a_way_of_weights_keeps_their_sum():
    like = torch.full((50,), 1 / 50, dtype=torch.float64)
    free, kept = (slopes.way(like, torch.Generator().manual_seed(0), keep) for keep in (0, 1))
    assert abs(float(kept.sum())) < 1e-15 < 0.1 < abs(float(free.sum()))
    torch.testing.assert_close(kept, (free - free.mean()) / 50)
    assert free.dtype == like.dtype and free.shape == like.shape


def test_a_parabola_is_maximised_and_its_start_left_alone():
    start = torch.zeros(3, dtype=torch.float64)
    top = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    assert entropic.maximise(lambda a: 5 - (a - top).square().sum(), start) == pytest.approx(5)
    assert not start.any() and not start.requires_grad
