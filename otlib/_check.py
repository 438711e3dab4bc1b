"""One line for each bad input: the argument, what it was, what is allowed."""

import math
import numbers

import torch
from torch.autograd import forward_ad


def finite(name, tensor):
    """Raise ValueError naming `name` where a tensor is not floating point or holds NaN or inf."""
    if not torch.is_tensor(tensor) or not tensor.is_floating_point():
        raise ValueError(f"{name} must be a floating point tensor, got {_kind(tensor)}")
    bad = int((~tensor.isfinite()).sum())
    if bad:
        raise ValueError(f"{name} must be finite, got {bad} NaN or infinite values")


def positive(name, value, *, infinite=False, zero=False):
    """Raise ValueError naming `name` where a number is not positive (and finite)."""
    allowed = (">= 0" if zero else "> 0") + (", inf allowed" if infinite else " and finite")
    ok = isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)
    if not ok or value < 0 or (value == 0 and not zero) or (math.isinf(value) and not infinite):
        raise ValueError(f"{name} must be a number {allowed}, got {value!r}")


def cloud(name, points, *, like=None):
    """Raise ValueError where `points` is no finite (n, d) cloud in the type and space of `like`."""
    finite(name, points)
    if points.ndim != 2 or 0 in points.shape:
        raise ValueError(f"{name} must be a non-empty (n, d) tensor, got {tuple(points.shape)}")
    if points.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{name} must be float32 or float64, got {points.dtype}")
    if like is None:
        return
    if points.shape[1] != like.shape[1]:
        raise ValueError(f"{name} must have {like.shape[1]} columns, got {points.shape[1]}")
    if points.dtype != like.dtype or points.device != like.device:
        raise ValueError(
            f"{name} must be {like.dtype} on {like.device}, got {points.dtype} on {points.device}"
        )


def squares(x, y, **scales):
    """Raise ValueError where squared distances, or a number in their unit, are beyond the type.

    x: (n, d), y: (m, d) checked clouds; scales: numbers > 0 by name, None and inf left out. What
    overflows, or loses its digits near the smallest number, would come out as NaN, inf or 0; beside
    an eps that is no such number, squares may be.
    """
    limits = torch.finfo(x.dtype)
    low, high = limits.tiny / limits.eps, limits.max / 256  # room for the sums of a solver
    ends = [pick(torch.stack([pick(x, 0), pick(y, 0)]), 0) for pick in (torch.amin, torch.amax)]
    widest = float((ends[1].detach().double() - ends[0].detach().double()).square().sum())
    if widest > high or ("eps" not in scales and 0 < widest < low):
        raise ValueError(
            f"x and y must have squared distances of 0 or from {low:.0e} to {high:.0e} in "
            f"{x.dtype}, got up to {widest:.3g}"
        )
    largest = max(float(end.detach().abs().max()) for end in ends)
    if largest > limits.max / (len(x) + len(y)):
        raise ValueError(
            f"x and y must hold values below {limits.max / (len(x) + len(y)):.0e}, their sums in "
            f"{x.dtype}, got {largest:.3g}"
        )
    for name, value in scales.items():
        if value is not None and not math.isinf(value) and not low <= value <= high:
            raise ValueError(
                f"{name} must lie between {low:.0e} and {high:.0e} for {x.dtype}, got {value!r}"
            )
    if widest > 1e290 * scales.get("eps", math.inf):
        raise ValueError(
            f"eps must be at least {widest / 1e290:.0e} for squared distances up to {widest:.3g}, "
            f"got {scales['eps']!r}"
        )
    return widest


def reverse(function, *tensors, dual=False):
    """Raise RuntimeError where a solver is differentiated in a way that it does not follow.

    torch.func's transforms, and unless `dual` forward-mode derivatives, would get 0 or a message
    from inside torch.
    """
    for tensor in filter(torch.is_tensor, tensors):
        wrapped = torch._C._functorch.is_functorch_wrapped_tensor(tensor)
        if wrapped or (not dual and forward_ad.unpack_dual(tensor).tangent is not None):
            way = "torch.func transforms" if wrapped else "forward-mode derivatives"
            raise RuntimeError(
                f"{function} does not run under {way}: use backward() or torch.autograd.grad, "
                "one pair of clouds a call"
            )


def vector(name, values, points):
    """Raise ValueError where `values` holds no finite number a point, in the type of `points`."""
    finite(name, values)
    if values.shape != points.shape[:1]:
        raise ValueError(f"{name} must have shape ({len(points)},), got {tuple(values.shape)}")
    cloud(name, values[:, None], like=points[:, :1])


def weights(name, weight, points):
    """One weight >= 0 a point, 1/n where None is given. Raise ValueError naming `name` if not."""
    if weight is None:
        return points.new_full((len(points),), 1 / len(points), requires_grad=False)
    vector(name, weight, points)
    if weight.requires_grad:
        raise ValueError(f"{name} must not require a gradient: only x gets one")
    if (weight < 0).any() or not 0 < weight.sum() < math.inf:
        raise ValueError(
            f"{name} must be >= 0 with a positive, finite sum, got minimum {weight.min():g} and "
            f"sum {weight.sum():g}"
        )
    return weight


def image(name, tensor):
    """Raise ValueError where `tensor` is no finite, non-empty (C, H, W) image."""
    finite(name, tensor)
    if tensor.ndim != 3 or 0 in tensor.shape:
        raise ValueError(f"{name} must be a non-empty (C, H, W) tensor, got {tuple(tensor.shape)}")
    if tensor.dtype not in (torch.float32, torch.float64):
        raise ValueError(f"{name} must be float32 or float64, got {tensor.dtype}")


def whole(name, value, least=1):
    """Raise ValueError naming `name` where a value is not a whole number >= `least`."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < least:
        raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}")


def number(name, value):
    """Raise ValueError naming `name` where a value is not a finite real number."""
    ok = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
    if not ok:
        raise ValueError(f"{name} must be a finite number, got {value!r}")


def _kind(value):
    return str(value.dtype) if torch.is_tensor(value) else type(value).__name__
