"""Exact optimal transport between two clouds by its semi-dual (Houdard et al. 2020, eqs (2), (3)).

    max_g F(g) = sum_i a_i f_i + sum_j b_j g_j,   f_i = min_j |x_i - y_j|^2 - g_j

The cost is |x - y|^2: for the 1/2 |x - y|^2 of Houdard et al. halve the value, its gradient and the
potentials. F is concave; every F(g) is a lower bound of the transport cost.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass

import ot
import torch
from torch import Tensor

from otlib._ambient import plain
from otlib._check import cloud, positive, reverse, squares, vector, weights, whole
from otlib.sinkhorn import ConvergenceWarning, mean_cost
from otlib.softmin import Backend, kernel

__all__ = ["Solution", "ascend", "ascend_averaged", "evaluate", "solve"]

_ULP = torch.finfo(torch.float64).eps


@dataclass(frozen=True)
class Solution:
    """What `evaluate`, `ascend` or `solve` reached.

    g, f: potential (M,) and its c-transform (N,), units of the cost. value: scalar, differentiable
    in x. assignment: (N,) int64, the j at which f_i is reached. residual: |counts - b|_1, counts_j
    the mass assigned to j; b - counts is the supergradient, eq. (5) of Houdard et al. 2020.
    iterations: steps or rounds done.
    gap: units of the cost times mass, the distance of value from the transport cost is at most
    this, rounding included; None where unknown.
    plan: sparse (N, M), the transport that costs `value`; None where unknown.
    """

    g: torch.Tensor
    f: torch.Tensor
    value: torch.Tensor
    assignment: torch.Tensor
    residual: float
    iterations: int
    converged: bool
    gap: float | None = None
    plan: torch.Tensor | None = None


@plain
def evaluate(
    x: Tensor,
    y: Tensor,
    g: Tensor,
    *,
    a: Tensor | None = None,
    b: Tensor | None = None,
    backend: Backend = "auto",
) -> Solution:
    """The semi-dual F at a given g, differentiable in x (eq. (3), Houdard et al. 2020).

    x, y, a, b, backend: see `ascend`. g: (M,) potential, in the type of x.

    Returns a Solution with `value` F(g), computed on the assigned points: eq. (7) of Houdard et al.
    Its gradient in x_i is 2 a_i (x_i - y_j), j the assigned point, where that is unique: their
    Theorem 3, eq. (6), which is eq. (8) for patches. F is piecewise quadratic in x, and its second
    derivatives, 2 a_i on the diagonal, are those of the piece. Raises ValueError on bad input.

    >>> x, y = torch.tensor([[0.0], [3.0]]), torch.tensor([[4.0], [2.0]])
    >>> evaluate(x, y, torch.zeros(2)).value  # at 0 each x takes its nearest y: (4 + 1) / 2
    tensor(2.5000)
    """
    _check("evaluate", x, y, a, b, None)
    vector("g", g, y)
    return ascend(x, y, a=a, b=b, init=g, max_iter=0, backend=backend)


@plain
def ascend(
    x: Tensor,
    y: Tensor,
    *,
    a: Tensor | None = None,
    b: Tensor | None = None,
    init: Tensor | None = None,
    step: float = 1.0,
    tol: float = 0.0,
    max_iter: int = 100,
    last: bool = False,
    backend: Backend = "auto",
) -> Solution:
    """Supergradient ascent g += step (b - counts) (Theorem 2, eq. (5), Houdard et al. 2020).

    x: (N, d) float32 or float64, any device; may require a gradient.
    y: (M, d) same dtype and device.
    a, b: (N,), (M,) weights >= 0 of equal sums, uniform by default.
    init: (M,) potential g to start from, 0 by default.
    step: > 0, cost per unit of mass: a point that no x chooses rises by step b_j. The authors' code
        takes 1, for patches of images in [0, 1] and M = 2000.
    tol: residual, a fraction of the mass, at which to stop; 0 takes all the steps, as Algorithm 1
        of Houdard et al. does, and promises nothing.
    max_iter: steps, at most.
    last: return the last iterate, as Algorithm 1 of Houdard et al. does, and not the highest.
    backend: see `softmin`.

    Returns a Solution at that iterate, or at the first within tol > 0; `value` is F(g) and a
    lower bound of the transport cost, to the rounding of the type of x. At a constant step the
    ascent ends in a wobble of some step |b - counts|^2 / 2 below the maximum: `solve` is exact. The
    counts, and so g, are piecewise constant in x: first and second derivatives are those of
    `evaluate` at g. Raises ValueError on bad input, RuntimeError under torch.func's transforms;
    warns (ConvergenceWarning) where tol > 0 is not reached.
    """
    a, b = _check("ascend", x, y, a, b, init)
    positive("step", step)
    squares(x, y, step=step)
    positive("tol", tol, zero=True)
    whole("max_iter", max_iter, least=0)
    hard = kernel(backend, hard=True)(x.detach(), y)
    g = torch.zeros_like(b) if init is None else init.detach()
    highest, iterations = -math.inf, 0
    while True:
        f, to, _ = hard(g)
        slope = b - _counts(to, a, b)
        height, residual = float(_dot(a, f) + _dot(b, g)), float(slope.abs().sum() / b.sum())
        converged = residual <= tol
        if last or converged or height > highest:
            highest, best = height, (g, f, to, residual)
        if converged or iterations == max_iter:
            break
        g = g + step * slope
        iterations += 1
    g, f, to, residual = best
    if tol > 0 and not converged:
        _warn("ascend", max_iter, f"tol={tol}: see solution.residual")
    value = _dot(a, (x - y[to]).square().sum(1) - g[to]) + _dot(b, g)
    return Solution(g, f, value.to(x.dtype), to, residual, iterations, converged)


@plain
def ascend_averaged(
    source: Callable[[], Tensor],
    y: Tensor,
    *,
    b: Tensor | None = None,
    init: Tensor | None = None,
    step: float = 1.0,
    max_iter: int = 100,
    backend: Backend = "auto",
) -> Tensor:
    """Averaged stochastic ascent, ASGA, for a sampled source: Houdard et al. 2020, Algorithm 2.

    It climbs the expected semi-dual, eq. (12) of Houdard et al.

    source: function () -> (n, d) fresh points, equally weighted, in the type and device of y.
    y: (M, d) float32 or float64, any device. b: (M,) weights >= 0, uniform by default.
    init: (M,) potential to start from, 0 by default.
    step: C > 0 of the steps C / sqrt(k), cost per unit of mass. max_iter: draws, a step each.
    backend: see `softmin`.

    Returns g (M,), the mean of the iterates: the expected F falls short of its maximum by
    O(log(k) / sqrt(k)) after k draws. Nothing is certified; `evaluate` gives the value and the
    gradient on points of one's own. Raises ValueError on bad input.
    """
    if not callable(source):
        raise ValueError(f"source must be a function, got a {type(source).__name__}")
    b = _check("ascend_averaged", y, y, None, b, init, equal=False)[1]
    positive("step", step)
    squares(y, y, step=step)
    whole("max_iter", max_iter)
    prepare = kernel(backend, hard=True)
    g = torch.zeros_like(b) if init is None else init.detach()
    mean, largest = torch.zeros_like(g), -1.0
    for k in range(1, max_iter + 1):
        x = source()
        cloud("source()", x, like=y)
        if (top := float(x.detach().abs().max())) > largest:  # of the draws so far
            squares(x, y)
            largest = top
        a = (b.sum() / len(x)).expand(len(x))
        g = g + step / math.sqrt(k) * (b - _counts(prepare(x.detach(), y)(g)[1], a, b))
        mean = mean + (g - mean) / k
    return mean


@plain
def solve(
    x: Tensor,
    y: Tensor,
    *,
    a: Tensor | None = None,
    b: Tensor | None = None,
    init: Tensor | None = None,
    tol: float = 1e-9,
    max_iter: int = 200,
    backend: Backend = "auto",
) -> Solution:
    """Exact transport: the maximum of the semi-dual, by cutting planes, with its certificate.

    That is the transport cost of Definition 1, eq. (1), of Mignon et al. 2023 and of Houdard et al.
    2020, by the latter's Theorem 1, eq. (2); where the plan is a map, its gradient is that of
    Theorem 4 there.

    x, y, a, b, init, backend: see `ascend`.
    tol: gap at which to stop, a fraction of the value. max_iter: rounds, at most.

    A round takes the hard-min of g over y and that of f over x: (f, g) is then feasible and its
    value a lower bound. The pairs found are cuts of F; their model of F, the transport problem on
    the pairs found so far, is solved by POT's sparse network simplex: its plan has marginals a and
    b, so that its cost is an upper bound, and its dual is the next g. No N x M array is held. All
    is computed in float64 and then rounded to the type of x.

    Far points that are matched cost little and round much: potentials would be of the order of the
    farthest cost. Where that is too coarse for the gap, the potentials are those of min(cost, cap),
    with a cap above all that the plan pays, so that its optimum and the bound are the same.

    Returns a Solution: `value` is the cost of `plan`, with the gradient 2 (a_i x_i - sum_j plan_ij
    y_j), that of the transport cost where the plan is unique; its second derivatives, 2 a_i on the
    diagonal, too. The certificate is `gap`, measured on (f, g) and the plan: it counts what (f, g)
    may be infeasible by, and the mass that the marginals lack beyond a rounding of the whole. At an
    optimal g the arg min has ties, `assignment` is the one that carries most mass.
    Raises ValueError on bad input, RuntimeError where POT's solver fails and under torch.func's
    transforms; warns (ConvergenceWarning) where the gap stays above tol.

    >>> x, y = torch.tensor([[0.0], [3.0]]), torch.tensor([[4.0], [1.0]])
    >>> solve(x, y).value  # on a line sorted points are matched: (|0 - 1|^2 + |3 - 4|^2) / 2
    tensor(1.)
    """
    a, b = _check("solve", x, y, a, b, init)
    positive("tol", tol, zero=True)
    whole("max_iter", max_iter)
    prepare = kernel(backend, hard=True)
    points, targets = x.detach().double(), y.detach().double()
    rows, columns = a.nonzero().squeeze(1), b.nonzero().squeeze(1)
    p, q, mass_p, mass_q = points[rows], targets[columns], a[rows].double(), b[columns].double()
    total = float(mass_p.sum())
    mass_p, mass_q = mass_p / total, mass_q / mass_q.sum()  # equal sums to the last digit
    over_p, over_q = prepare(q, p), prepare(p, q)
    g = torch.zeros_like(mass_q) if init is None else init.detach().double()[columns]
    i, j = torch.arange(len(p), device=x.device), torch.arange(len(q), device=x.device)
    pairs, lower, iterations = _staircase(p, q, mass_p, mass_q), -math.inf, 0
    unit = mean_cost(p, q) or 1.0  # all points in one place cost 0
    farthest = float((p - q[0]).norm(dim=1).max() + (q - q[0]).norm(dim=1).max()) ** 2
    cap, used, upper = math.inf, 0.0, 1e-3 * unit
    while True:
        f, to, _ = _capped(over_q(g, tol * upper / 8), g, cap)
        g, back, rounding = _capped(over_p(f, tol * upper / 8), f, cap)
        # f, and g less its rounding, are feasible; the sums round too
        height = float(mass_p @ f + mass_q @ (g - rounding))
        height -= _ULP * (len(p) + len(q)) * float(mass_p @ f.abs() + mass_q @ g.abs())
        if height > lower:
            lower, best = height, f
        pairs = torch.cat([pairs, i * len(q) + to, back * len(q) + j]).unique()
        plan, g = _transport(p, q, mass_p, mass_q, pairs, unit, cap)
        here, there = plan.indices().to(x.device)
        flow = plan.values().to(x.device)
        costs = (p[here] - q[there]).square().sum(1)
        # of what the simplex rounds, only what is far is dear
        kept = (costs <= cap) | (flow > 8 * _ULP * torch.minimum(mass_p[here], mass_q[there]))
        here, there, flow, costs = here[kept], there[kept], flow[kept], costs[kept]
        upper, dearest = float(flow @ costs), float(costs[flow > 0].max())
        # what the marginals lack could be mended at no more than the farthest cost; a rounding of
        # the whole mass, to which nobody knows the weights, where it is
        lost, beyond = (_lacking(here, flow, mass_p) + _lacking(there, flow, mass_q)).tolist()
        missing = lost * 4 * dearest + beyond * farthest
        gap = max(upper + missing - max(lower, 0.0), 0.0)
        converged = gap <= tol * upper
        iterations += 1
        if converged or iterations == max_iter:
            break
        if dearest > cap:
            cap = used = 8 * cap
        elif 64 * _ULP * min(cap, farthest) > tol * upper:
            cap = min(cap, max(4 * dearest, used))
    if not converged:
        _warn("solve", max_iter, f"tol={tol}: see solution.gap")

    # points of mass 0 get the potentials that keep (f, g) feasible
    g, *_ = prepare(targets, p)(best, tol * upper / 8)
    f, to, _ = prepare(points, targets)(g, tol * upper / 8)
    here, there = rows[here], columns[there]
    flow, gap = flow * total, gap * total
    order = flow.argsort()
    to = to.cpu()
    # in numpy the last of repeated writes stays: the heaviest pair
    to.numpy()[here[order].cpu()] = there[order].cpu()
    to = to.to(x.device)
    value = flow @ (x[here].double() - targets[there]).square().sum(1)
    residual = float((b - _counts(to, a, b)).abs().sum() / b.sum())
    plan = torch.sparse_coo_tensor(
        torch.stack([here, there]),
        flow.to(x.dtype),
        (len(x), len(y)),
        device=x.device,
        check_invariants=True,
    )
    g, f, value = (t.to(x.dtype) for t in (g, f, value))
    return Solution(g, f, value, to, residual, iterations, converged, gap, plan)


def _staircase(p, q, a, b):
    """A feasible set of pairs i * M + j: both clouds in their order along the main direction.

    Filling from one corner to the other is feasible in any order, and optimal in dimension 1.
    """
    joined = torch.cat([p, q]) - q.mean(0)
    lengths = joined.norm(dim=1)
    joined = joined / lengths.max().clamp(min=torch.finfo(p.dtype).tiny)
    way = joined[lengths.argmax()]
    for _ in range(300):  # the power method: that of the d x d scatter, which is not made
        before, way = way, joined.T @ (joined @ way)
        way = way / way.norm().clamp(min=torch.finfo(p.dtype).tiny)
        if (way - before).abs().max() < 1e-14:
            break
    i, j = (p @ way).argsort(), (q @ way).argsort()
    filled_a, filled_b = a[i].cumsum(0), b[j].cumsum(0)
    levels = torch.cat([a.new_zeros(1), filled_a[:-1], filled_b[:-1]])
    here = torch.searchsorted(filled_a, levels, right=True).clamp(max=len(p) - 1)
    there = torch.searchsorted(filled_b, levels, right=True).clamp(max=len(q) - 1)
    return i[here] * len(q) + j[there]


@torch.sparse.check_sparse_tensor_invariants()  # else torch warns that it does not check them
def _transport(p, q, a, b, pairs, unit, cap):
    """The optimal plan on the given pairs, sparse and on the CPU, and its potential on q.

    POT's tolerances are absolute, for costs and masses of order 1: `unit` is the order of the cost.
    """
    here, there, unit = pairs // len(q), pairs % len(q), min(unit, cap)
    costs = (p[here] - q[there]).square().sum(1).clamp(max=cap) / unit
    with torch.device("cpu"):
        pairs = torch.stack([here, there]).cpu()
        cost = torch.sparse_coo_tensor(pairs, costs.cpu(), (len(p), len(q)))
        plan, log = ot.emd(a.cpu(), b.cpu(), cost.coalesce(), numItermax=10**9, log=True)
    if log["warning"]:
        raise RuntimeError(f"POT's network simplex failed: {log['warning']}")
    return plan.coalesce(), unit * log["v"].to(q)


def _dot(weights, values):
    return weights.double() @ values.double()


def _counts(assignment, a, b):
    """The mass assigned to each point of weight b."""
    # bincount has no deterministic way on CUDA
    mass = b.new_zeros(len(b), dtype=torch.float64)
    return mass.index_add_(0, assignment, a.double()).to(b)


def _capped(found, h, cap):
    """A hard-min (s, index, rounding) of |x - y|^2 - h as that of min(|x - y|^2, cap) - h."""
    s, index, rounding = found
    top, at = h.max(0)
    return s.clamp(max=cap - top), torch.where(s > cap - top, at, index), rounding


def _lacking(index, flow, mass):
    """What a plan lacks of a marginal, or has too much, in all and beyond a rounding of sum 1."""
    error = (mass - _counts(index, flow, mass)).abs()
    borne = (mass / 2).clamp(max=16 * _ULP)
    return torch.stack([error.sum(), (error - borne).clamp(min=0).sum()])


def _warn(name, max_iter, what):
    message = f"semidual.{name} stopped at max_iter={max_iter} above {what}"
    warnings.warn(message, ConvergenceWarning, stacklevel=4)  # past `plain`


def _check(function, x, y, a, b, init, *, equal=True):
    reverse(f"semidual.{function}", x, y, dual=True)
    cloud("x", x)
    cloud("y", y, like=x)
    squares(x, y)
    if y.requires_grad:
        raise ValueError("y must not require a gradient: only x gets one, exchange the two clouds")
    a, b = weights("a", a, x), weights("b", b, y)
    if equal and abs(a.sum() - b.sum()) > 1e-4 * a.sum():
        raise ValueError(f"a and b must have equal sums, got {a.sum():g} and {b.sum():g}")
    if init is not None:
        vector("init", init, y)
    return a, b
