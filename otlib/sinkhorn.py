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

from otlib._ambient import plain
from otlib._check import cloud, positive, vector, weights, whole
from otlib.softmin import Active, kernel

__all__ = ["ConvergenceWarning", "Solution", "mean_cost", "plan", "solve"]

_MEMORY = 5  # differences kept by the Anderson acceleration
# share of b below which a marginal is not read off the plan: all its pairs, or the listed ones
_LEAST, _LEAST_LISTED = math.exp(-50), math.exp(-20)
_WORTH = 2**20  # pairs from which listing those that count pays
_GROWTH = 2.0  # an accelerated step that multiplies the residual by more is taken back


class ConvergenceWarning(UserWarning):
    """A solve stopped at max_iter above its tolerance."""


@dataclass(frozen=True)
class Solution:
    """What `solve` reached.

    f, g: potentials (N,), (M,), units of the cost. value: scalar, the dual at (f, g), Proposition 1
    and eq. (5) of Mignon et al. 2023. marginals: the plan's own (pi_1, pi_2). residual:
    |pi_2 - b exp(-g / rho_2)|_1 / |pi_2|_1, the optimality condition in g; the one in f holds
    exactly. iterations: (f, g) updates done, annealing included.
    """

    f: torch.Tensor
    g: torch.Tensor
    value: torch.Tensor
    marginals: tuple[torch.Tensor, torch.Tensor]
    residual: float
    iterations: int
    converged: bool


@plain
def solve(
    x,
    y,
    *,
    eps,
    rho=(math.inf, math.inf),
    a=None,
    b=None,
    init=None,
    start=None,
    tol=1e-3,
    max_iter=1000,
    scaling=None,
    active=True,
    backend="auto",
):
    """Sinkhorn's algorithm in the log domain (Theorem 1, Mignon et al. 2023, factor corrected).

    x: (N, d) float32 or float64, any device; may require a gradient.
    y: (M, d) same dtype and device.
    eps: temperature > 0, in units of the cost |x - y|^2.
    rho: (rho_1, rho_2), each > 0 or inf: the price of leaving the marginal a, resp. b.
    a, b: (N,), (M,) weights >= 0, uniform by default; equal sums where both rho are inf.
    init: potentials (f, g) to start from, 0 by default.
    start: temperature > 0 at which to start, from where it falls to eps by the factor `scaling` in
        (0, 1), one update a level. By default the mean cost; eps where init is given. Clouds that
        have moved since their init was found may need more, a few tens of eps.
    scaling: nearer 1 is slower and starts nearer the solution. By default 0.93, or 0.4 where a rho
        is below the mean cost: such a relaxation forgets its start, balanced transport does not.
    tol: residual at which to stop, a fraction of the mass. max_iter: updates of (f, g) at
        temperature eps, at most.
    active: let updates sum over the pairs that count, wherever that is quicker (large clouds, the
        torch backend on a CPU). What is returned is from a sum over all pairs, in any case.
    backend: see `softmin`.

    Returns a Solution, its value by eq. (6) of Mignon et al. 2023. `solution.value.backward()`
    gives the gradient in x, their eq. (7), right to the accuracy of the solve. Raises ValueError on
    bad input; warns (ConvergenceWarning) where `residual` is above tol after max_iter.

    >>> x, y = torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]])
    >>> solve(x, y, eps=0.1).value  # between Diracs the only plan costs |x - y|^2
    tensor(25.)
    """
    a, b = _check(x, y, eps, rho, a, b, init, start, tol, max_iter, scaling, active)
    prepare = kernel(backend)
    points, y = x.detach(), y.detach()
    over_y = prepare(points, y)
    log_a, log_b = a.log(), b.log()
    rho_1, rho_2 = rho
    listed = None
    if active and backend in ("auto", "torch") and not x.is_cuda and len(x) * len(y) >= _WORTH:
        listed = Active(over_y, len(x), len(y))

    def update(g, t, dense=False):
        """One update of (f, g) at temperature t, from all pairs where `dense`.

        Returns f, the next g, the plan's second marginal, whether all pairs were summed, and, where
        `dense` is asked for and x needs a gradient, the barycentres.
        """

        def leaving(s, rows):  # pi_1 = a exp(-f / rho_1); far from converged it must stay finite
            return a[rows] * (-s / (rho_1 + t)).clamp(max=80).exp()

        h, least, found = g + t * log_b, _LEAST_LISTED, None
        if listed is not None and not dense:
            found = listed.soft(h, t, leaving)
        if found is None:
            least = _LEAST
            if listed is None or dense:
                found = over_y(h, t, dense and x.requires_grad, leaving)
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

    g = torch.zeros_like(b) if init is None else init[1].detach()
    typical = mean_cost(points, y)
    if start is None:
        start = typical if init is None else eps
    if scaling is None:
        scaling = 0.4 if min(rho) < typical else 0.93
    t, iterations = max(eps, start), 0
    while t > eps:
        f, g, *_ = update(g, t)
        g -= _translation(f, g, log_a, log_b, rho)
        t = max(eps, t * scaling)
        iterations += 1

    history, last, dense = _Anderson(), iterations + max_iter, False
    while True:
        f, after, pi_2, all_pairs, mean = update(g, eps, dense)
        iterations += not dense
        # clouds too far apart to match leave a plan of mass 0, which is the solution
        mass = pi_2.sum().clamp(min=1e-30 * b.sum().double())
        residual = float((pi_2 - b * _exp(-g / rho_2)).abs().sum() / mass)
        if residual <= tol or iterations == last:
            if all_pairs:
                break
            dense = True  # the same update again, to be sure
            continue
        if dense:
            dense, listed.pairs = False, None
        g = history.step(g, after, pi_2, residual)

    converged = residual <= tol
    if not converged:
        warnings.warn(
            f"sinkhorn.solve stopped at max_iter={max_iter} above tol={tol}: see solution.residual",
            ConvergenceWarning,
            stacklevel=3,  # past `plain`
        )
    pi_1 = a * _exp(-f / rho_1)
    # After an exact f-update the plan's mass is that of pi_1: F needs no N x M sum, eq. (6).
    value = _dual(f, a, rho_1) + _dual(g, b, rho_2) - eps * (pi_1.sum() - a.sum() * b.sum())
    value = value.to(x.dtype)
    if x.requires_grad:
        mean = mean[0] if mean else over_y(g + eps * log_b, eps, True)[1]
        gradient = 2 * pi_1.to(x.dtype)[:, None] * (points - mean)
        value = _Envelope.apply(x, value, gradient)
    return Solution(
        f, g, value, (pi_1.to(x.dtype), pi_2.to(x.dtype)), residual, iterations, converged
    )


@plain
def plan(x, y, solution, *, eps, a=None, b=None):
    """The plan pi_ij = a_i b_j exp((f_i + g_j - |x_i - y_j|^2) / eps), an (N, M) tensor.

    For pictures and tests: x (N, d), y (M, d), a, b and eps as they were given to `solve`, and the
    solution that it gave.
    """
    a = x.new_full((len(x),), 1 / len(x)) if a is None else a
    b = x.new_full((len(y),), 1 / len(y)) if b is None else b
    cost = (x.detach()[:, None] - y[None]).square().sum(-1)
    return a[:, None] * b * ((solution.f[:, None] + solution.g - cost) / eps).exp()


class _Anderson:
    """Anderson acceleration of the fixed point g = T(g), weighted by the mass at each point.

    Safeguarded: where an accelerated step makes the residual grow, the plain step is taken.
    """

    def __init__(self):
        self.steps, self.images = [], []
        self.previous, self.plain, self.residual = None, None, math.inf

    def step(self, g, image, mass, residual):
        """The next g from g, T(g), the plan's second marginal and the residual at g."""
        if self.plain is not None and residual > _GROWTH * self.residual:
            plain = self.plain
            self.__init__()
            return plain
        move, image = (image - g).double(), image.double()
        if self.previous is not None:
            self.steps = [*self.steps, move - self.previous[0]][-_MEMORY:]
            self.images = [*self.images, image - self.previous[1]][-_MEMORY:]
        self.previous, self.plain, self.residual = (move, image), image.to(g.dtype), residual
        if not self.steps:
            return self.plain
        weight = mass.sqrt()
        moves = torch.stack(self.steps, 1) * weight[:, None]
        gram = moves.T @ moves
        # relative ridge; the smallest normal number keeps an exact fixed point (gram = 0) solvable
        gram.diagonal().add_(1e-10 * gram.trace() + torch.finfo(gram.dtype).tiny)
        mixing = torch.linalg.solve(gram, moves.T @ (move * weight))
        return (image - torch.stack(self.images, 1) @ mixing).to(g.dtype)


class _Envelope(torch.autograd.Function):
    """The value, with its gradient in x given: eq. (7) of Mignon et al. 2023."""

    @staticmethod
    def forward(ctx, x, value, gradient):
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, upstream):
        return upstream * ctx.saved_tensors[0], None, None


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
def mean_cost(x, y):
    """Mean of |x_i - y_j|^2 over all pairs: above it plans are close to the product a x b."""
    spread = x.var(0, correction=0).sum() + y.var(0, correction=0).sum()
    return float((x.mean(0) - y.mean(0)).square().sum() + spread)


def _check(x, y, eps, rho, a, b, init, start, tol, max_iter, scaling, active):
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
    if start is not None:
        positive("start", start)
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
        vector("init[0]", init[0], x)
        vector("init[1]", init[1], y)
    return a, b
