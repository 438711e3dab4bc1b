"""Entropic transport by its definitions, entry by entry: what the solver is checked against."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from otlib.softmin import softmin


def kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p | q) = sum p log(p / q) - p + q of positive measures, as tensors of one shape."""
    return torch.xlogy(p, p / q).sum() - p.sum() + q.sum()


def cost(x: Tensor, y: Tensor, pi: Tensor) -> Tensor:
    """The transport cost <C, pi> of a plan. x: (N, d), y: (M, d) points. pi: (N, M)."""
    return (pi * torch.cdist(x, y).square()).sum()


def primal(x: Tensor, y: Tensor, pi: Tensor, eps: float, rho: tuple[float, float]) -> float:
    """The primal objective of Mignon et al. 2023, Definitions 1 to 3, at a plan.

    x: (N, d), y: (M, d) points of equal weights, the cost their squared distance. pi: (N, M) plan.
    eps: temperature. rho: prices of the two marginals; infinite where a marginal is exact.
    Returns a float.
    """
    a, b = (pi.new_full((len(points),), 1 / len(points)) for points in (x, y))
    value = cost(x, y, pi) + eps * kl(pi, a[:, None] * b)
    for price, marginal, weight in zip(rho, (pi.sum(1), pi.sum(0)), (a, b), strict=True):
        if price < math.inf:
            value = value + price * kl(marginal, weight)
    return float(value)


def semi_dual(x: Tensor, y: Tensor, f: Tensor, g: Tensor, eps: float, rho: float) -> Tensor:
    """The dual objective, eq. (5) there, of the semi-unbalanced form: the first marginal is exact.

    x, y, eps: as in `primal`. f: (N,), g: (M,) potentials. rho: price of the second marginal.
    Returns a tensor.
    """
    mass = ((f[:, None] + g - torch.cdist(x, y).square()) / eps).exp().mean()
    return f.mean() + rho * (1 - (-g / rho).exp()).mean() - eps * (mass - 1)


def simple(f: Tensor, g: Tensor, rho: float) -> float:
    """The right side of eq. (6) there, <a, f> - <b, phi*(-g)>. f, g, rho: as in `semi_dual`."""
    return float(f.mean() + rho * (1 - (-g / rho).exp()).mean())


def off_eq6(x: Tensor, y: Tensor, f: Tensor, g: Tensor, eps: float, rho: float) -> float:
    """How far the two sides of eq. (6) there are apart. x, y, f, g, eps, rho: as in `semi_dual`."""
    return abs(float(semi_dual(x, y, f, g, eps, rho)) - simple(f, g, rho))


def residual(x: Tensor, y: Tensor, f: Tensor, g: Tensor, eps: float, rho: float) -> float:
    """Violation of the optimality condition in g, share of the mass. Arguments: of `semi_dual`."""
    s = fitted(y, x, f, eps)
    return float((((g - s) / eps).exp() - (-g / rho).exp()).abs().mean())


def fitted(x: Tensor, y: Tensor, g: Tensor, eps: float) -> Tensor:
    """The potential f for which the marginal in x is exact. x, y, g, eps: as in `semi_dual`."""
    potential: Any = softmin(x, y, g - eps * math.log(len(y)), eps)
    return potential


def updated(x: Tensor, y: Tensor, f: Tensor, eps: float, rho: float) -> tuple[Tensor, Tensor]:
    """An update of Theorem 1 there, factor corrected: g from f, then f from that g.

    x, y, f, eps, rho: as in `semi_dual`. Returns (f, g), for which eq. (6) holds.
    """
    g = _g(x, y, f, eps, rho)
    return fitted(x, y, g, eps), g


def iterates(
    x: Tensor, y: Tensor, eps: float, rho: float, updates: int, symmetric: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """The potentials after 1, 2, ... updates from f = g = 0, as in Theorem 1 there or after it.

    x, y, eps, rho: as in `semi_dual`. symmetric: whether both potentials are updated from the old
        ones and averaged with them. Yields (f, g), so many as updates.
    """
    f, g = torch.zeros_like(x[:, 0]), torch.zeros_like(y[:, 0])
    for _ in range(updates):
        if symmetric:
            f, g = (f + fitted(x, y, g, eps)) / 2, (g + _g(x, y, f, eps, rho)) / 2
        else:
            f, g = updated(x, y, f, eps, rho)
        yield f, g


def _g(x, y, f, eps, rho):
    return fitted(y, x, f, eps) / (1 + eps / rho)


def largest_semi_dual(x: Tensor, y: Tensor, eps: float, rho: float) -> float:
    """The maximum of `semi_dual` over f and g, by L-BFGS from 0. x, y, eps, rho: as there."""
    dual = lambda f, g: semi_dual(x, y, f, g, eps, rho)
    return maximise(dual, torch.zeros_like(x[:, 0]), torch.zeros_like(y[:, 0]))


def maximise(function: Callable[..., Tensor], *start: Tensor) -> float:
    """Maximise a concave function by L-BFGS.

    function: of tensors to a scalar tensor. start: the tensors it starts at.
    Returns the largest value, a float.
    """
    at = [part.clone().requires_grad_() for part in start]
    stop: dict[str, Any] = dict(max_iter=2000, tolerance_grad=1e-12, tolerance_change=0)
    optimiser = torch.optim.LBFGS(at, history_size=50, line_search_fn="strong_wolfe", **stop)

    def energy():
        optimiser.zero_grad()
        loss = -function(*at)
        loss.backward()
        return loss

    optimiser.step(energy)
    return float(function(*(part.detach() for part in at)))
