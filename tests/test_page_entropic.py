"""The definitions of entropic transport against closed forms and the solver."""

import math

import pytest
import torch

from companion.page import entropic
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
    gap = lambda f, g: abs(
        float(entropic.semi_dual(x, y, f, g, 0.1, 0.3)) - entropic.simple(f, g, 0.3)
    )
    assert gap(f, g) > 1e-3 and gap(*entropic.updated(x, y, f, 0.1, 0.3)) < 1e-14


def test_a_parabola_is_maximised_and_its_start_left_alone():
    start = torch.zeros(3, dtype=torch.float64)
    top = torch.tensor([1.0, -2.0, 3.0], dtype=torch.float64)
    assert entropic.maximise(lambda a: 5 - (a - top).square().sum(), start) == pytest.approx(5)
    assert not start.any() and not start.requires_grad
