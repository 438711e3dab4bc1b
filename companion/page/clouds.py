"""Clouds of the plane that one can see being matched."""

import math
from typing import Any

import torch
from torch import Tensor


def crescents(
    points: int, outliers: float, generator: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """Draw two crescents, some points of the second one in a cluster far below.

    points: of each cloud. outliers: share of the second that is wrong, 0 to 1. generator: on the
        CPU.
    Returns x, y, (points, 2) float64, and which of y are wrong, (points,) bool.
    """
    wrong = round(outliers * points)
    draw: dict[str, Any] = dict(generator=generator, dtype=torch.float64)
    angle = math.pi * torch.rand(points, **draw)
    x = torch.stack([angle.cos(), angle.sin()], 1)
    x = x + 0.07 * torch.randn(x.shape, **draw)
    angle = math.pi * torch.rand(points - wrong, **draw)
    y = torch.stack([0.8 * angle.cos(), 0.8 * angle.sin() - 0.1], 1)
    far = torch.tensor([0.0, -1.2]) + 0.1 * torch.randn(wrong, 2, generator=generator)
    y = y + 0.05 * torch.randn(y.shape, **draw)
    return x, torch.cat([y, far.double()]), torch.arange(points) >= points - wrong
