"""A texture that a small network learns in seconds, for the tests of the rivals."""

import math

import torch


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def stripes(side, channels=1):
    """Vertical stripes of 8 pixels with a little noise."""
    wave = 0.5 + 0.35 * torch.sin(2 * math.pi * torch.arange(side) / 8)
    noise = 0.02 * torch.randn(channels, side, side, generator=seeded())
    return (wave.expand(channels, side, side) + noise).clamp(0, 1)
