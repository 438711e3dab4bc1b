"""Variational restoration with patch-transport priors: eqs. (3) and (9) of Mignon et al. 2023."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from otlib import _check, patches, semidual, sinkhorn
from otlib._ambient import plain

__all__ = ["majorise", "patch_ot", "patch_semidual", "restore"]

# at which a linear system is solved: its residual, a share of the right side, or so many steps
_TIGHT, _MOST = 1e-4, 500


@plain
def patch_ot(
    reference: Tensor,
    patch: int,
    stride: int = 1,
    *,
    init: Tensor | None = None,
    start_eps: float | None = None,
    thin: int = 1,
    observe: Callable[[sinkhorn.Solution, Tensor], object] | None = None,
    **solver: Any,
) -> Callable[..., Tensor]:
    """The prior OT(alpha_u, beta): transport from an image's patches to reference patches.

    reference: (M, C * patch^2) patches, or a function of no argument that draws them afresh at each
        call, as the expectation in eq. (3) of Mignon et al. 2023 asks.
    patch, stride: side of the patches and step of their grid, pixels.
    init: (M,) potential g of a fixed cloud to start from, such as a `solution.g` that `observe` saw
        on a coarser grid; by default the first solve starts cold.
    start_eps: temperature from which later solves fall to eps; by default they start at eps.
    thin: 1, or more to solve for the potential g on every thin-th patch, where no fewer than M are
        left, and then sum once over all of them: nearly thin times quicker, and a value that much
        below the prior which g lacks of the optimal one.
    observe: function (solution, reference) called after each solve, to record what it did.
    solver: arguments of `sinkhorn.solve`: eps, rho, tol, ...

    Returns a function image (C, H, W) -> scalar with the gradient of eq. (7) of Mignon et al., the
    cost summed over a patch's pixels and averaged over patches. Its second argument, the stride if
    not given, is the step of the grid in this call: coarse for the first steps of a minimiser, say,
    whose potential serves the finer ones. For a fixed cloud each solve starts at the potential of
    the one before: a step of Adam moves it little, one of `majorise` so far that a start_eps of
    some 32 eps is quicker. Second derivatives are those at a fixed plan, 2 pi_1 on the patches: the
    curvature of a parabola that lies above the prior and touches it. Errors are those of `extract`
    and `solve`.
    """
    _check.whole("patch", patch)
    _check.whole("stride", stride)
    _check.whole("thin", thin)
    if start_eps is not None:
        _check.positive("start_eps", start_eps)
    if not callable(reference):
        _check.cloud("reference", reference)
    elif init is not None or start_eps is not None:
        raise ValueError("reference must be a tensor where init or start_eps is given")
    if init is not None:
        _check.finite("init", init)
        if init.shape != reference.shape[:1]:
            raise ValueError(f"init must have shape {(len(reference),)}, got {tuple(init.shape)}")
    g = init

    @plain
    def prior(image, stride=stride):
        nonlocal g
        target = reference() if callable(reference) else reference
        cloud = patches.extract(image, patch, stride)
        points = cloud.detach().requires_grad_(cloud.requires_grad)
        target, options = target.to(points), dict(solver)
        thinned = thin > 1 and len(points) // thin >= len(target)
        part = points.detach()[::thin] if thinned else points
        if g is not None:
            options |= {"init": _potentials(part, g), "start_eps": start_eps}
        if thinned:
            found = sinkhorn.solve(part, target, **options)
            options |= {"init": _potentials(points, found.g), "start_eps": None, "max_iter": 1}
        solution = sinkhorn.solve(points, target, **options)
        if thinned:
            solution = replace(solution, iterations=found.iterations + solution.iterations)
        if not callable(reference):
            g = solution.g
        if observe is not None:
            observe(solution, target)
        value = solution.value.detach()
        if not cloud.requires_grad:
            return value
        (slope,) = torch.autograd.grad(solution.value, points)
        move = cloud - points.detach()  # 0, but not its derivatives
        return value + (slope * move).sum() + solution.marginals[0] @ move.square().sum(1)

    return prior


def _potentials(points, g):
    """(f, g) to start a solve from, which looks at g only."""
    return points.new_zeros(len(points), dtype=torch.float64), g.double()


@plain
def patch_semidual(
    reference: Tensor,
    patch: int,
    stride: int = 1,
    *,
    dual_steps: int,
    dual_step: float = 1.0,
    thin: int = 1,
) -> Callable[..., Tensor]:
    """The prior OT_0(alpha_u, beta) by its semi-dual: eq. (9), Mignon et al. 2023.

    reference, patch, stride: as in `patch_ot`, the reference a fixed cloud.
    dual_steps: supergradient steps >= 0 an evaluation, from the potential of the one before (10 in
        the Wasserstein patch prior of Hertrich et al. 2022). 0 leaves the potential at 0: each
        patch is compared with its nearest reference patch, which is the limit of `patch_ot` at
        rho = (inf, 0).
    dual_step: size > 0 of a supergradient step, see `semidual.ascend`.
    thin: as in `patch_ot`: the steps see every thin-th patch, the value all.

    Returns a function image (C, H, W) -> scalar, differentiable, scaled as that of `patch_ot`, and
    with its second argument. Errors are those of `extract` and `ascend`.
    """
    _check.whole("patch", patch)
    _check.whole("stride", stride)
    _check.whole("dual_steps", dual_steps, least=0)
    _check.positive("dual_step", dual_step)
    _check.whole("thin", thin)
    _check.cloud("reference", reference)
    g = None

    @plain
    def prior(image, stride=stride):
        nonlocal g
        cloud, steps = patches.extract(image, patch, stride), dual_steps
        target = reference.to(cloud)
        if steps and thin > 1 and len(cloud) // thin >= len(target):
            part = cloud.detach()[::thin]
            g = semidual.ascend(part, target, init=g, step=dual_step, max_iter=steps).g
            steps = 0
        solution = semidual.ascend(cloud, target, init=g, step=dual_step, max_iter=steps)
        g = solution.g
        return solution.value

    return prior


@plain(grad=True)
def restore(
    observed: Tensor,
    operator: Callable[[Tensor], Tensor],
    priors: Sequence[Callable[[Tensor], Tensor]],
    *,
    lam: float,
    steps: int,
    lr: float,
    start: Tensor | None = None,
    callback: Callable[[int, Tensor], object] | None = None,
) -> Tensor:
    """Minimise lam / 2 |A u - y|^2 + sum_k R_k(u) over images u by Adam: eq. (3), Mignon et al.

    observed: y, any shape A maps to, float32 or float64; any device.
    operator: A, a differentiable function of an image, such as those of `operators`.
    priors: the R_k, differentiable functions image -> scalar, such as `patch_ot`.
    lam: weight >= 0 of the data term, a sum over the entries of y and not a mean.
    steps: Adam steps >= 1. lr: their size > 0, in grey levels.
    start: first u (C, H, W); y itself by default. callback: called with (step, u) after each step.

    Returns u (C, H, W), not clipped. Inpainting, for one, is this call with the mask as operator:

        hole = torch.rand(image.shape[1:], generator=generator) < 0.5
        observed = operators.mask(image, hole)
        prior = patch_ot(patches.extract(reference, 6), 6, stride=2, eps=1e-3, rho=(math.inf, 0.1))
        image = restore(
            observed, lambda u: operators.mask(u, hole), [prior], lam=10.0, steps=100, lr=0.02
        )

    Raises ValueError on NaN or inf, a start that A does not map to the shape of y, a bad number, no
    list of priors; RuntimeError where the image does not stay finite.
    """
    _check.positive("lr", lr)
    start = _start(observed, operator, priors, lam, steps, start)
    image = start.detach().clone().requires_grad_()
    adam = torch.optim.Adam([image], lr=lr)
    for step in range(steps):
        adam.zero_grad()
        _energy(image, observed, operator, priors, lam).backward()
        with torch.device("cpu"):  # where Adam counts its steps
            adam.step()
        if callback is not None:
            callback(step, image.detach())
    if not image.isfinite().all():
        raise RuntimeError(f"the image is no longer finite, lam={lam} or lr={lr} too large")
    return image.detach()


@plain(grad=True)
def majorise(
    observed: Tensor,
    operator: Callable[[Tensor], Tensor],
    priors: Sequence[Callable[[Tensor], Tensor]],
    *,
    lam: float,
    steps: int,
    relaxation: float = 1.9,
    start: Tensor | None = None,
    callback: Callable[[int, Tensor], object] | None = None,
) -> Tensor:
    """Minimise the energy of `restore` by majorisation and minimisation, without a step size.

    At a fixed plan the transport cost is a quadratic Q of the image, above the prior and equal to
    it at the u for which the plan is optimal: the plan's divergences from a and b see its weights,
    not where the points lie. A step solves for the minimum of lam / 2 |A u - y|^2 + sum_k Q_k(u) by
    conjugate gradients and goes `relaxation` times as far, which in (0, 2) is still below the start
    of that parabola: the energy never rises, but by what the transport is solved to. A step
    evaluates each prior once. Pixels that no patch covers, such as last rows that the stride does
    not reach, go where the data term alone is least: far off where A hardly sees them.

    observed, lam, start, callback: as in `restore`.
    operator: A, a linear or affine function of an image that autograd differentiates twice.
    priors: the R_k, functions image -> scalar whose second derivatives are those of Q_k, such as
        `patch_ot` and `patch_semidual`, and sums and linear changes of variable of these.
    steps: evaluations of the priors >= 1. The last step goes to the minimum, not beyond.
    relaxation: in (0, 2). 1 is the plain method; near 2 is quicker, and wavers where data lead.

    Returns u (C, H, W), not clipped. Raises ValueError as `restore` does and where A is not affine;
    RuntimeError where the energy is not finite, or not convex at fixed plans.
    """
    if not 0 < _check.positive("relaxation", relaxation) < 2:
        raise ValueError(f"relaxation must lie in (0, 2), got {relaxation!r}")
    start = _start(observed, operator, priors, lam, steps, start)
    _affine(operator, start)
    image = start.detach().clone()
    for step in range(steps):
        at = image.detach().requires_grad_()
        energy = _energy(at, observed, operator, priors, lam)
        (slope,) = torch.autograd.grad(energy, at, create_graph=True)
        move = _minimum(slope, at)
        with torch.no_grad():
            image = image + (relaxation if step + 1 < steps else 1) * move
        if callback is not None:
            callback(step, image)
    return image


def _start(observed, operator, priors, lam, steps, start):
    """The first image, after the checks that both minimisers share."""
    _check.finite("observed", observed)
    start = observed if start is None else start
    _check.image("start", start)
    _check.positive("lam", lam, zero=True)
    _check.whole("steps", steps)
    if not isinstance(priors, list | tuple) or not all(map(callable, priors)):
        raise ValueError(f"priors must be a list of functions, got {priors!r}")
    with torch.no_grad():
        reached = tuple(operator(start).shape)
    if reached != tuple(observed.shape):
        raise ValueError(
            f"operator(start) must have observed's shape {tuple(observed.shape)}, got {reached}"
        )
    return start


def _energy(image, observed, operator, priors, lam):
    energy = lam / 2 * (operator(image) - observed).square().sum()
    return energy + sum(prior(image) for prior in priors)


def _affine(operator, like):
    """Raise ValueError where A(2 u) - 2 A(u) + A(0) is not 0 for some u."""
    random = torch.Generator().manual_seed(0)
    u = torch.rand(like.shape, generator=random, dtype=like.dtype, device="cpu").to(like.device)
    with torch.no_grad():
        none, once, twice = (operator(factor * u) for factor in (0, 1, 2))
    bend, largest = (twice - 2 * once + none).abs().max(), max(twice.abs().max(), once.abs().max())
    if not bend <= 1e-3 * largest:
        raise ValueError(
            f"operator must be linear or affine, got one whose A(2 u) - 2 A(u) + A(0) is {bend:.2g}"
        )


def _minimum(slope, image):
    """From the image to the minimum of the quadratic with this slope there, a function of it.

    Conjugate gradients; autograd's product with the second derivatives.
    """
    move, residual = torch.zeros_like(image), -slope.detach()
    way, square = residual, residual.square().sum()
    if not square < torch.inf:
        raise RuntimeError("the energy's gradient is no longer finite: priors or lam too large")
    enough = _TIGHT**2 * square
    for _ in range(_MOST):
        if square <= enough:
            break
        (bent,) = torch.autograd.grad(slope, image, way, retain_graph=True)
        curvature = (way * bent).sum()
        if not curvature > 0:
            raise RuntimeError(
                "the energy must be convex at fixed plans, a prior has not the second derivatives "
                f"that majorise asks for: got a curvature of {curvature:.2g}"
            )
        share = square / curvature
        move, residual = move + share * way, residual - share * bent
        before, square = square, residual.square().sum()
        way = residual + square / before * way
    return move.detach()
