"""Small clouds and weights, reproducible, for the tests of the solvers."""

import pytest
import torch

from otlib.softmin import unavailable


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def points(n, seed, d=3, dtype=torch.float64):
    return torch.rand(n, d, generator=generator(seed), dtype=torch.float64).to(dtype)


def weights(n, seed, zeros=0, total=1.0):
    w = 0.1 + torch.rand(n, generator=generator(seed), dtype=torch.float64)
    w[:zeros] = 0
    return total * w / w.sum()


def uniform(w, n):
    return torch.full((n,), 1 / n, dtype=torch.float64) if w is None else w.double()


def needs(backend):
    """The mark of a test that asks for a backend, skipped where it cannot be had."""
    reason = unavailable(backend)
    return pytest.mark.skipif(bool(reason), reason=reason or "present")
