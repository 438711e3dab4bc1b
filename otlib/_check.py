"""One line for each bad input: the argument, what it was, what is allowed."""

import math
import numbers

import numpy as np
import torch
from torch.autograd import forward_ad


def finite(name, tensor):
    """Raise ValueError naming `name` where a tensor is not floating point or holds NaN or inf."""
    if not torch.is_tensor(tensor) or not tensor.is_floating_point():
        raise ValueError(f"{name} must be a floating point tensor, got {_kind(tensor)}")
    bad = int((~tensor.isfinite()).sum())
    if bad:
        raise ValueError(f"{name} must be finite, got {bad} NaN or infinite values")


def scalar(value):
    """The Python number in a numpy scalar or a tensor of no dimension, anything else as it is."""
    if torch.is_tensor(value):
        known = value.ndim == 0 and not (value.requires_grad or value.is_meta)
        return value.item() if known else value
    if isinstance(value, np.generic | np.ndarray) and value.ndim == 0:
        return value.item()
    return value


def positive(name, value, *, infinite=False, zero=False):
    """Return a number as Python's. Raise ValueError naming `name` where it is not positive."""
    allowed = (">= 0" if zero else "> 0") + (", inf allowed" if infinite else " and finite")
    found = _real(value)
    if not found >= 0 or (found == 0 and not zero) or (found == math.inf and not infinite):
        raise ValueError(f"{name} must be a number {allowed}, got {value!r}")
    return found


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
    """Return a whole number as Python's. Raise ValueError naming `name` where it is < `least`."""
    found = scalar(value)
    if not isinstance(found, numbers.Integral) or isinstance(found, bool) or found < least:
        raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}")
    return int(found)


def number(name, value):
    """Return a real number as Python's. Raise ValueError naming `name` where it is not finite."""
    found = _real(value)
    if not math.isfinite(found):
        raise ValueError(f"{name} must be a finite number, got {value!r}")
    return found


#: Share of an image's values that noise may carry out of its range, and half of it, unnoticed.
NOISE = 0.05


def levels(name, tensor, peak=1.0, *, share=0.0):
    """Raise ValueError where an image is in another scale than [0, peak], such as [-1, 1].

    A restoration overshoots its range, and a noisy image leaves it: no more than a `share` of the
    values may lie outside [-peak / 2, 3 peak / 2].
    """
    outside = (tensor < -peak / 2) | (tensor > 1.5 * peak)
    if outside.double().mean() > share:
        most = f", but for {share:.0%} of the values" if share else ""
        raise ValueError(
            f"{name} must have values in [0, {peak:g}] (up to a half beyond{most}), "
            f"got {tensor.min():g} to {tensor.max():g}"
        )


def shape(value):
    """Raise ValueError where `value` is no (C, H, W) of whole numbers >= 1."""
    if not isinstance(value, tuple | list) or len(value) != 3:
        raise ValueError(f"shape must be (C, H, W), got {value!r}")
    for side in value:
        whole("shape", side)


def generator(value, *, cpu=False):
    """Raise ValueError where `value` is no torch.Generator, or none on the CPU where `cpu`."""
    if not isinstance(value, torch.Generator):
        raise ValueError(f"generator must be a torch.Generator, got {_kind(value)}")
    if cpu and value.device.type != "cpu":
        raise ValueError(f"generator must be on the CPU, got one on {value.device}")


def varied(name, tensor):
    """Raise ValueError where all values of an image are the same: it has no texture."""
    if tensor.min() == tensor.max():
        raise ValueError(f"{name} must have a texture, got {tensor.min():g} at every pixel")


def pair(x, reference, border, least, peak=1.0):
    """Both images without their border, in float64 on the CPU.

    Raise ValueError on bad pixels, different shapes, a border that leaves less than `least` pixels
    a side, and a reference in another scale than [0, peak].
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
    x, reference = (image.detach()[inside].double().cpu() for image in (x, reference))
    levels("reference", reference, peak)
    return x, reference


def _real(value):
    """A real number as a float, an int as it is; NaN for what is none, such as a bool."""
    found = scalar(value)
    if not isinstance(found, numbers.Real) or isinstance(found, bool):
        return math.nan
    try:
        return found if isinstance(found, int) and math.isfinite(found) else float(found)
    except OverflowError:  # an int beyond floats
        return -math.inf if str(found).startswith("-") else math.inf


def _kind(value):
    return str(value.dtype) if torch.is_tensor(value) else type(value).__name__
