"""Variational restoration with patch-transport priors: eqs. (3) and (9) of Mignon et al. 2023."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from otlib import _check, patches, semidual, sinkhorn
from otlib._ambient import plain

__all__ = ["patch_ot", "patch_semidual", "restore"]


@plain
def patch_ot(
    reference: Tensor,
    patch: int,
    stride: int = 1,
    *,
    observe: Callable[[sinkhorn.Solution, Tensor], object] | None = None,
    **solver: Any,
) -> Callable[[Tensor], Tensor]:
    """The prior OT(alpha_u, beta): transport from an image's patches to reference patches.

    reference: (M, C * patch^2) patches, or a function of no argument that draws them afresh at each
        call, as the expectation in eq. (3) of Mignon et al. 2023 asks.
    patch, stride: side of the patches and step of their grid, pixels.
    observe: function (solution, reference) called after each solve, to record what it did.
    solver: arguments of `sinkhorn.solve`: eps, rho, tol, ...

    Returns a function image (C, H, W) -> scalar with the gradient of eq. (7) of Mignon et al., the
    cost summed over a patch's pixels and averaged over patches. For a fixed cloud each solve starts
    at the potentials of the one before: a step of Adam moves them little. Errors are those of
    `extract` and `solve`.
    """
    _check.whole("patch", patch)
    _check.whole("stride", stride)
    if not callable(reference):
        _check.cloud("reference", reference)
    init = None

    @plain
    def prior(image):
        nonlocal init
        target = reference() if callable(reference) else reference
        cloud = patches.extract(image, patch, stride)
        solution = sinkhorn.solve(cloud, target.to(cloud), init=init, **solver)
        if not callable(reference):
            init = (solution.f, solution.g)
        if observe is not None:
            observe(solution, target)
        return solution.value

    return prior


@plain
def patch_semidual(
    reference: Tensor, patch: int, stride: int = 1, *, dual_steps: int, dual_step: float = 1.0
) -> Callable[[Tensor], Tensor]:
    """The prior OT_0(alpha_u, beta) by its semi-dual: eq. (9), Mignon et al. 2023.

    reference, patch, stride: as in `patch_ot`, the reference a fixed cloud.
    dual_steps: supergradient steps >= 0 an evaluation, from the potential of the one before (10 in
        the Wasserstein patch prior of Hertrich et al. 2022). 0 leaves the potential at 0: each
        patch is compared with its nearest reference patch, which is the limit of `patch_ot` at
        rho = (inf, 0).
    dual_step: size > 0 of a supergradient step, see `semidual.ascend`.

    Returns a function image (C, H, W) -> scalar, differentiable, scaled as that of `patch_ot`.
    Errors are those of `extract` and `ascend`.
    """
    _check.whole("patch", patch)
    _check.whole("stride", stride)
    _check.whole("dual_steps", dual_steps, least=0)
    _check.positive("dual_step", dual_step)
    _check.cloud("reference", reference)
    g = None

    @plain
    def prior(image):
        nonlocal g
        cloud = patches.extract(image, patch, stride)
        options: dict[str, Any] = dict(init=g, step=dual_step, max_iter=dual_steps)
        solution = semidual.ascend(cloud, reference.to(cloud), **options)
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
    _check.finite("observed", observed)
    start = observed if start is None else start
    _check.image("start", start)
    _check.positive("lam", lam, zero=True)
    _check.positive("lr", lr)
    _check.whole("steps", steps)
    if not isinstance(priors, list | tuple) or not all(map(callable, priors)):
        raise ValueError(f"priors must be a list of functions, got {priors!r}")
    with torch.no_grad():
        reached = tuple(operator(start).shape)
    if reached != tuple(observed.shape):
        raise ValueError(
            f"operator(start) must have observed's shape {tuple(observed.shape)}, got {reached}"
        )
    image = start.detach().clone().requires_grad_()
    adam = torch.optim.Adam([image], lr=lr)
    for step in range(steps):
        adam.zero_grad()
        energy = lam / 2 * (operator(image) - observed).square().sum()
        energy = energy + sum(prior(image) for prior in priors)
        energy.backward()
        with torch.device("cpu"):  # where Adam counts its steps
            adam.step()
        if callback is not None:
            callback(step, image.detach())
    if not image.isfinite().all():
        raise RuntimeError(f"the image is no longer finite, lam={lam} or lr={lr} too large")
    return image.detach()
