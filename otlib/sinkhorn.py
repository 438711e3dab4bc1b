"""Entropic optimal transport between two clouds, either marginal exact or relaxed.

    min_pi <C, pi> + eps KL(pi | a x b) + rho_1 KL(pi_1 | a) + rho_2 KL(pi_2 | b),   C = |x - y|^2

rho = (inf, inf) is balanced transport (Definition 2, eq. (2), of Mignon et al. 2023), (inf, r) the
semi-unbalanced form (Definition 3, eq. (4)), (r, r) the unbalanced one. KL(p|q) is
sum p log(p/q) - p + q.
"""

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from otlib._active import Active
from otlib._ambient import plain
from otlib._check import cloud, positive, reverse, squares, vector, weights, whole
from otlib._rounding import coarseness, costs, height, working
from otlib.softmin import Backend, kernel

__all__ = ["ConvergenceWarning", "Solution", "mean_cost", "plan", "solve"]

_MEMORY = 5  # differences kept by the Anderson acceleration
# share of b below which a marginal is not read off the plan: all its pairs, or the listed ones
_LEAST, _LEAST_LISTED = math.exp(-50), math.exp(-20)
_WORTH = 2**20  # pairs from which listing those that count pays
_GROWTH = 2.0  # an accelerated step that multiplies the residual by more is taken back
_LEVELS = 10**5  # of the annealing, at most


class ConvergenceWarning(UserWarning):
    """A solve stopped at max_iter above its tolerance, or rounding is above what it asks for."""


@dataclass(frozen=True)
class Solution:
    """What `solve` reached.

    f, g: potentials (N,), (M,), units of the cost; in the type that the solve took, which is
    float64 where float32 would round them, or the cost, by more than an eighth of eps.
    value: scalar, the dual at (f, g), Proposition 1 and eq. (5) of Mignon et al. 2023.
    marginals: the plan's own (pi_1, pi_2). residual:
    |pi_2 - b exp(-g / rho_2)|_1 / |pi_2|_1, the optimality condition in g; the one in f holds
    exactly. rounding: of the potentials where there is mass, units of the cost: beside eps, what
    the plan's logarithm may err by. iterations: (f, g) updates done, annealing included.
    converged: residual within tol, rounding within eps / 4. eps, a, b: those of the solve.
    """

    f: torch.Tensor
    g: torch.Tensor
    value: torch.Tensor
    marginals: tuple[torch.Tensor, torch.Tensor]
    residual: float
    rounding: float
    iterations: int
    converged: bool
    eps: float
    a: torch.Tensor
    b: torch.Tensor


@plain
def solve(
    x: Tensor,
    y: Tensor,
    *,
    eps: float,
    rho: tuple[float, float] = (math.inf, math.inf),
    a: Tensor | None = None,
    b: Tensor | None = None,
    init: tuple[Tensor, Tensor] | None = None,
    start_eps: float | None = None,
    tol: float = 1e-3,
    max_iter: int = 1000,
    scaling: float | None = None,
    active: bool = True,
    backend: Backend = "auto",
) -> Solution:
    """Sinkhorn's algorithm in the log domain (Theorem 1, Mignon et al. 2023, factor corrected).

    x: (N, d) float32 or float64, any device; may require a gradient.
    y: (M, d) same dtype and device.
    eps: temperature > 0, in units of the cost |x - y|^2.
    rho: (rho_1, rho_2), each > 0 or inf: the price of leaving the marginal a, resp. b.
    a, b: (N,), (M,) weights >= 0, uniform by default; equal sums where both rho are inf.
    init: potentials (f, g) to start from, in the type of x or both in float64; 0 by default.
    start_eps: temperature > 0 to start at, from where it falls to eps by the factor `scaling` in
        (0, 1), one update a level. By default the mean cost; eps where init is given. Clouds that
        have moved since their init was found may need more, a few tens of eps.
    scaling: nearer 1 is slower and starts nearer the solution. By default 0.93, or 0.4 where a rho
        is below the mean cost: such a relaxation forgets its start, balanced transport does not.
    tol: residual at which to stop, a fraction of the mass. max_iter: updates of (f, g) at
        temperature eps, at most.
    active: let updates sum over the pairs that count, wherever that is quicker (large clouds on
        a CPU, torch or compiled). What is returned is from a sum over all pairs, in any case.
    backend: see `softmin`.

    Returns a Solution, its value by eq. (6) of Mignon et al. 2023. `solution.value.backward()`
    gives the gradient in x, their eq. (7), by the envelope theorem: right to the accuracy of the
    solve. There is no second derivative: to ask for one is a RuntimeError, as are torch.func's
    transforms. Raises ValueError on bad input, and where squared distances, eps, rho or start_eps
    are beyond the type's range; warns (ConvergenceWarning) where `residual` is above tol after
    max_iter, or `rounding` above eps / 4.

    >>> x, y = torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]])
    >>> solve(x, y, eps=0.1).value  # between Diracs the only plan costs |x - y|^2
    tensor(25.)
    """
    a, b = _check(x, y, eps, rho, a, b, init, start_eps, tol, max_iter, scaling, active)
    points, targets = x.detach(), y.detach()
    kind, apart = working(points, targets, eps, 0 if init is None else height(init[1], math.inf))
    points, targets, masses = points.to(kind), targets.to(kind), (a.to(kind), b.to(kind))
    prepare = kernel(backend, apart=apart)
    over_y = prepare(points, targets)
    listed = None
    if (
        active
        and backend in ("auto", "torch", "compiled")
        and not x.is_cuda
        and len(x) * len(y) >= _WORTH
    ):
        listed = Active(over_y, len(x), len(y))
    update = _updating(points, targets, masses, rho, prepare, over_y, listed, x.requires_grad)

    g = torch.zeros_like(masses[1]) if init is None else init[1].detach().to(kind)
    typical = _typical_cost(points, targets, eps)
    if start_eps is None:
        start_eps = typical if init is None else eps
    if scaling is None:
        scaling = 0.4 if min(rho) < typical else 0.93
    g, annealed = _anneal(update, g, masses, rho, eps, start_eps, scaling)
    f, g, pi_2, mean, residual, iterations = _iterate(
        update, g, masses[1], rho[1], eps, tol, max_iter, listed
    )

    pi_1 = masses[0] * _exp(-f / rho[0])
    parts = (torch.where(p > 0, v, 0) for p, v in ((pi_1, f), (pi_2, g)))
    rounding = coarseness(*parts, kind=kind)
    converged = residual <= tol and rounding <= eps / 4
    if rounding > eps / 4:
        _warn(f"is rough: {kind} rounds its potentials by {rounding / eps:.1g} eps")
    elif not converged:
        _warn(f"stopped at max_iter={max_iter} above tol={tol}: see solution.residual")
    # After an exact f-update the plan's mass is that of pi_1: F needs no N x M sum, eq. (6).
    value = _dual(f, masses[0], rho[0]) + _dual(g, masses[1], rho[1])
    value = (value - eps * (pi_1.sum() - masses[0].sum() * masses[1].sum())).to(x.dtype)
    if x.requires_grad:
        mean = mean[0] if mean else over_y(g + eps * masses[1].log(), eps, True)[1]
        gradient = 2 * pi_1.to(kind)[:, None] * (points - mean)
        value = _Envelope.apply(x, value, gradient.to(x.dtype))
    marginals = (pi_1.to(x.dtype), pi_2.to(x.dtype))
    return Solution(
        f, g, value, marginals, residual, rounding, annealed + iterations, converged, eps, a, b
    )


@plain
def plan(x: Tensor, y: Tensor, solution: Solution) -> Tensor:
    """The plan pi_ij = a_i b_j exp((f_i + g_j - |x_i - y_j|^2) / eps), for pictures and tests.

    x, y: (N, d), (M, d) as they were given to `solve`, in any type. solution: what it gave.

    Returns (N, M) in the type of x, computed in float64 from differences of coordinates. Raises
    ValueError on clouds of other sizes.
    """
    cloud("x", x)
    cloud("y", y, like=x)
    vector("solution.f", solution.f.to(x), x)
    vector("solution.g", solution.g.to(x), y)
    pi = costs(x.detach().double(), y.detach().double()).neg_()
    pi.add_(solution.f[:, None]).add_(solution.g).div_(solution.eps).exp_()
    return pi.mul_(solution.a[:, None]).mul_(solution.b).to(x.dtype)


def _updating(points, y, masses, rho, prepare, over_y, listed, barycentres):
    """The update of (f, g) that a solve repeats, a function (g, t, dense).

    listed: an `Active`, or None. The function makes one update at temperature t, from all pairs
    where `dense`. It returns f, the next g, the plan's second marginal, whether all pairs were
    summed, and, where `dense` and `barycentres` ask for them, the barycentres.
    """
    (a, b), (rho_1, rho_2) = masses, rho
    log_a, log_b = a.log(), b.log()

    def update(g, t, dense=False):
        def leaving(s, rows):  # pi_1 = a exp(-f / rho_1); far from converged it must stay finite
            return a[rows] * (-s / (rho_1 + t)).clamp(max=80).exp()

        h, least, found = g + t * log_b, _LEAST_LISTED, None
        if listed is not None and not dense:
            found = listed.soft(h, t, leaving)
        if found is None:
            least = _LEAST
            if listed is None or dense:
                found = over_y(h, t, dense and barycentres, leaving)
            else:
                found = listed.list(h, t, leaving)
        s, *mean, pi_2 = found
        f, pi_2 = s / (1 + t / rho_1), pi_2 * (b > 0)
        # pi_2 = b exp((g - soft) / t), so that one pass gives both sides...
        soft = g - t * (pi_2.log() - log_b)
        # ...but where next to nothing arrives, and its logarithm is lost to the clamp before exp
        lost = ~(pi_2 > b * least)
        if lost.any():
            soft[lost] = prepare(y[lost], points)(f + t * log_a, t)
        return f, soft / (1 + t / rho_2), pi_2.double(), least == _LEAST, mean

    return update


def _anneal(update, g, masses, rho, eps, start_eps, scaling):
    """One update a temperature, from `start_eps` down to eps by the factor `scaling`.

    Returns g, and how many updates there were.
    """
    t, iterations = max(eps, start_eps), 0
    if math.log(t) - math.log(eps) > -_LEVELS * math.log(scaling):
        raise ValueError(
            f"scaling must bring the temperature from {start_eps:.3g} to eps={eps:.3g} in "
            f"{_LEVELS} levels or fewer, got {scaling!r}"
        )
    log_a, log_b = (mass.log() for mass in masses)
    while t > eps:
        f, g, *_ = update(g, t)
        g -= _translation(f, g, log_a, log_b, rho)
        t = max(eps, t * scaling)
        iterations += 1
    return g, iterations


def _iterate(update, g, b, rho_2, eps, tol, max_iter, listed):
    """Accelerated updates at eps, until the residual over all pairs is within tol.

    Returns f, g, the second marginal, the barycentres where there are any, the residual and how
    many updates there were.
    """
    history, iterations, repeated = _Anderson(eps), 0, False
    dense = max_iter == 1  # the only one is the last
    while True:
        f, after, pi_2, all_pairs, mean = update(g, eps, dense)
        iterations += not repeated
        # clouds too far apart to match leave a plan of mass 0, which is the solution
        mass = pi_2.sum().clamp(min=1e-30 * b.sum().double())
        residual = float((pi_2 - b * _exp(-g / rho_2)).abs().sum() / mass)
        if residual <= tol or iterations == max_iter:
            if all_pairs:
                return f, g, pi_2, mean, residual, iterations
            dense = repeated = True  # the same update again, to be sure
            continue
        if repeated:
            dense, repeated, listed.pairs = False, False, None
        g = history.step(g, after, pi_2, residual)


class _Anderson:
    """Anderson acceleration of the fixed point g = T(g), weighted by the mass at each point.

    Safeguarded: where an accelerated step makes the residual grow, the plain step is taken.
    eps: the temperature, which gives the unit in which squares stay in range.
    """

    def __init__(self, eps):
        self.unit = 2.0 ** math.frexp(eps)[1]
        self._forget()

    def _forget(self):
        self.steps, self.images = [], []
        self.previous, self.plain, self.residual = None, None, math.inf

    def step(self, g, image, mass, residual):
        """The next g from g, T(g), the plan's second marginal and the residual at g."""
        if self.plain is not None and residual > _GROWTH * self.residual:
            plain = self.plain
            self._forget()
            return plain
        move, image = (image - g).double(), image.double()
        if self.previous is not None:
            self.steps = [*self.steps, move - self.previous[0]][-_MEMORY:]
            self.images = [*self.images, image - self.previous[1]][-_MEMORY:]
        self.previous, self.plain, self.residual = (move, image), image.to(g.dtype), residual
        if not self.steps:
            return self.plain
        weight = mass.sqrt()
        moves = torch.stack(self.steps, 1) / self.unit * weight[:, None]
        gram = moves.T @ moves
        # relative ridge; the smallest normal number keeps an exact fixed point (gram = 0) solvable
        gram.diagonal().add_(1e-10 * gram.trace() + torch.finfo(gram.dtype).tiny)
        mixing = torch.linalg.solve(gram, moves.T @ (move / self.unit * weight))
        return (image - torch.stack(self.images, 1) @ mixing).to(g.dtype)


class _Envelope(torch.autograd.Function):
    """The value, with its gradient in x: eq. (7) of Mignon et al. 2023. x is kept for `_Last`."""

    @staticmethod
    def forward(ctx, x, value, gradient):
        ctx.save_for_backward(x, gradient)
        return value.clone()

    @staticmethod
    def backward(ctx, upstream):
        x, gradient = ctx.saved_tensors
        slope = upstream * gradient
        # with create_graph: else the gradient would be a constant, and its derivative 0
        return slope + _Last.apply(x) if torch.is_grad_enabled() else slope, None, None


class _Last(torch.autograd.Function):
    """0, which depends on x in a way that is not known."""

    @staticmethod
    def forward(ctx, x):
        return torch.zeros_like(x)

    @staticmethod
    def backward(ctx, upstream):
        raise RuntimeError(
            "sinkhorn.solve's value has first derivatives only: its gradient is that of the "
            "envelope theorem and has no graph (take differences of gradients)"
        )


def _exp(exponent):
    """exp in float64; the bound keeps a far from converged iterate finite."""
    return exponent.double().clamp(max=600).exp()


def _dual(potential, weight, rho):
    """<weight, -phi*(-potential)> with phi*(q) = rho (exp(q / rho) - 1), q where rho is inf."""
    potential = potential.double()
    return weight.double() @ (potential if math.isinf(rho) else rho * (1 - _exp(-potential / rho)))


def _translation(f, g, log_a, log_b, rho):
    """The c for which the dual at (f + c, g - c) is highest; the plan stays.

    The derivative is <a, exp(-(f + c) / rho_1)> - <b, exp(-(g - c) / rho_2)>.
    """
    steepness = 1 / rho[0] + 1 / rho[1]
    if steepness == 0:
        return 0.0
    log_out, log_in = log_a - f.double() / rho[0], log_b - g.double() / rho[1]
    return float(log_out.logsumexp(0) - log_in.logsumexp(0)) / steepness


@plain
def mean_cost(x: Tensor, y: Tensor) -> float:
    """Mean of |x_i - y_j|^2 over all pairs: above it plans are close to the product a x b."""
    spread = x.var(0, correction=0).sum() + y.var(0, correction=0).sum()
    return float((x.mean(0) - y.mean(0)).square().sum() + spread)


def _typical_cost(x, y, eps):
    """The mean cost, or where rounding from there would reach eps, that of near points.

    Far parts of a cloud take potentials of the order of the first temperature, and keep them.
    """
    mean = mean_cost(x, y)
    if coarseness(mean) <= 1e-4 * eps:
        return mean
    rows = x[:: -(-len(x) // 64)]
    return float(costs(rows, y).kthvalue(1 + len(y) // 20, 1).values.median())


def _warn(what):
    warnings.warn(f"sinkhorn.solve {what}", ConvergenceWarning, stacklevel=4)  # past `plain`


def _check(x, y, eps, rho, a, b, init, start_eps, tol, max_iter, scaling, active):
    reverse("sinkhorn.solve", x, y)
    cloud("x", x)
    cloud("y", y, like=x)
    if y.requires_grad:
        raise ValueError("y must not require a gradient: only x gets one, exchange the two clouds")
    positive("eps", eps)
    if not isinstance(rho, tuple | list) or len(rho) != 2:
        raise ValueError(f"rho must be a pair (rho_1, rho_2), got {rho!r}")
    for name, value in zip(("rho[0]", "rho[1]"), rho, strict=True):
        positive(name, value, infinite=True)
    positive("tol", tol, zero=True)
    whole("max_iter", max_iter)
    if start_eps is not None:
        positive("start_eps", start_eps)
    scales = {"eps": eps, "rho[0]": rho[0], "rho[1]": rho[1], "start_eps": start_eps}
    squares(x, y, **scales)
    if not isinstance(active, bool):
        raise ValueError(f"active must be True or False, got {active!r}")
    if scaling is not None:
        positive("scaling", scaling)
        if scaling >= 1:
            raise ValueError(f"scaling must lie in (0, 1), got {scaling!r}")
    a, b = weights("a", a, x), weights("b", b, y)
    if all(map(math.isinf, rho)) and abs(a.sum() - b.sum()) > 1e-4 * a.sum():
        raise ValueError(
            f"a and b must have equal sums where rho = (inf, inf), got {a.sum():g} and {b.sum():g}"
        )
    if init is not None:
        if not isinstance(init, tuple | list) or len(init) != 2:
            raise ValueError(f"init must be a pair (f, g), got a {type(init).__name__}")
        double = torch.is_tensor(init[0]) and init[0].dtype == torch.float64
        for name, values, points in (("init[0]", init[0], x), ("init[1]", init[1], y)):
            vector(name, values, points.double() if double else points)
    return a, b
