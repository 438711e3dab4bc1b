"""Gradients of entropic transport, and slopes by differences that they are checked against."""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from otlib.sinkhorn import solve


def envelope(
    x: Tensor, y: Tensor, eps: float, rho: tuple[float, float], **solver: Any
) -> dict[str, Tensor]:
    """The gradients of a form of transport by the envelope theorem: Mignon et al. 2023, eq. (7).

    x, y, eps, rho, solver: as `otlib.sinkhorn.solve` takes them; the points weigh the same.
    Returns {"x", "y", "a", "b": gradient in it}: those in the clouds by automatic differentiation
    of a solve from either side, those in the weights (on the simplex) from the potentials.
    """
    clouds = [cloud.clone().requires_grad_() for cloud in (x, y)]
    here = solve(clouds[0], y, eps=eps, rho=rho, **solver)
    there = solve(clouds[1], x, eps=eps, rho=rho[::-1], **solver)
    (here.value + there.value).backward()
    weight = lambda p, r: p if r == math.inf else (r + eps) * (1 - (-p / r).exp())
    found: dict[str, Any] = {"x": clouds[0].grad, "y": clouds[1].grad}
    return found | {"a": weight(here.f, rho[0]), "b": weight(here.g, rho[1])}


def way(like: Tensor, generator: torch.Generator, keep_sum: bool = False) -> Tensor:
    """Draw a direction to move a tensor in.

    like: what is moved. generator: on the CPU. keep_sum: for the weights of n points, of sum 1: the
        direction has sum 0 and the size of a weight, 1 / n.
    Returns a tensor like it.
    """
    drawn = torch.randn(like.shape, generator=generator, dtype=like.dtype).to(like.device)
    return (drawn - drawn.mean()) / len(like) if keep_sum else drawn


def central(
    function: Callable[..., Tensor],
    at: Mapping[str, Tensor],
    name: str,
    way: Tensor,
    step: float = 1e-5,
) -> float:
    """The slope of a function of several tensors along a way in one of them.

    function: of keyword arguments, to a scalar tensor. at: {argument: tensor}, where. name: the
    argument that moves. way: a tensor like it. step: of the central difference, in ways.
    """
    up, down = (function(**{**at, name: at[name] + s * way}) for s in (step, -step))
    return float((up - down) / (2 * step))
