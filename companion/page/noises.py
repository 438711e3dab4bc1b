"""Ways between two noises."""

import math

import torch
from torch import Tensor


def between(first: Tensor, last: Tensor, t: float) -> Tensor:
    """The noise at t on a way between two uniform noises, itself uniform and independent by pixel.

    first, last: float tensors with values in [0, 1], of one shape. t: 0 for the first, 1 for the
        last. The Gaussian quantiles turn, cos(pi t / 2) and sin(pi t / 2), which keeps their law.
    Returns a tensor like the first.
    """
    quantiles = [torch.special.ndtri(a.double().clamp(1e-9, 1 - 1e-9)) for a in (first, last)]
    angle = math.pi / 2 * t
    turned = math.cos(angle) * quantiles[0] + math.sin(angle) * quantiles[1]
    return torch.special.ndtr(turned).to(first)
