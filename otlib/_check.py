"""One line for each bad input: the argument, what it was, what is allowed."""

import math
import numbers

import torch


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
    if (weight < 0).any() or not weight.sum() > 0:
        raise ValueError(f"{name} must be >= 0 with a positive sum, got minimum {weight.min():g}")
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


def pair(x, reference, border, least):
    """Both images without their border, in float64 on the CPU. Raise ValueError on bad pixels,

    different shapes, and a border that leaves less than `least` pixels a side.
    """
    image("x", x)
    image("reference", reference)
    whole("border", border, least=0)
    if x.shape != reference.shape:
        raise ValueError(
            f"x must have the shape of reference {tuple(reference.shape)}, got {tuple(x.shape)}"
        )
    height, width = (side - 2 * border for side in x.shape[1:])
    if min(height, width) < least:
        raise ValueError(
            f"border must leave at least {least} x {least} of "
            f"{x.shape[1]} x {x.shape[2]} pixels, got {border}"
        )
    inside = (slice(None), slice(border, border + height), slice(border, border + width))
    return tuple(image.detach()[inside].double().cpu() for image in (x, reference))


def _kind(value):
    return str(value.dtype) if torch.is_tensor(value) else type(value).__name__
