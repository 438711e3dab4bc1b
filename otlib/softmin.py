"""The one hot loop: soft-min over a patch cloud, streamed, behind one call.

    s_i = -eps log sum_j exp((h_j - |x_i - y_j|^2) / eps)

With `h = g + eps log b` this is the f-update of Theorem 1 and phi of eq. (8) of Mignon et al. 2023.
Its limit at eps = 0 is the hard-min, the c-transform of h in Houdard et al. 2020.
No N x M array is held: torch works on tiles, KeOps and fused attention on their own blocks.
A tile's scores are one product of matrices; `_passes` makes weights and sums of them.
"""

import functools
import importlib.util
import math
import os
import warnings
from collections.abc import Callable
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from otlib import _compiled
from otlib._ambient import plain, reduced
from otlib._check import cloud, positive, reverse, squares
from otlib._passes import LN2, Compiled, Torch
from otlib._rounding import centred, coarseness, costs, height, working

__all__ = ["BACKENDS", "Backend", "hardmin", "kernel", "softmin", "unavailable"]

#: The ways to compute a soft-min, as a type.
Backend = Literal["auto", "torch", "compiled", "keops", "attention"]
#: The ways to compute a soft-min.
BACKENDS: tuple[Backend, ...] = get_args(Backend)


@plain
def softmin(
    x: Tensor,
    y: Tensor,
    h: Tensor,
    eps: float,
    *,
    with_mean: bool = False,
    backend: Backend = "auto",
) -> Tensor | tuple[Tensor, Tensor]:
    """Soft-min of h_j - |x_i - y_j|^2 over j at temperature eps (eq. (8), Mignon et al. 2023).

    x: (N, d) float32 or float64, the points at which it is taken; any device.
    y: (M, d) same dtype and device, the cloud.
    h: (M,) same dtype and device, biases in units of the cost; -inf removes a point.
    eps: temperature > 0 in units of the cost.
    with_mean: also return the barycentres of y under the soft-min's weights.
    backend: "torch"; "compiled", torch with its passes over a tile compiled, for float32 on the CPU
        and elsewhere as torch; "keops"; "attention", torch's fused attention operators, float32
        only on CUDA; or "auto", compiled where there is a compiler, else torch.

    Returns s (N,), or (s, mean) with mean (N, d), computed in float64 where the distances are too
    large beside eps for float32. Not differentiable: see `sinkhorn.solve`.
    Raises ValueError on mismatched shapes, dtypes or devices, NaN, eps <= 0, squares or an eps
    beyond the type's range, an unknown or unavailable backend; warns (RuntimeWarning) where float64
    is too coarse as well.

    >>> x, y = torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]])
    >>> softmin(x, y, torch.tensor([1.0]), eps=0.5)  # one point: |x - y|^2 - h
    tensor([24.])
    """
    _check("softmin", x, y, h)
    positive("eps", eps)
    widest = squares(x, y, eps=eps)
    x, y, h = x.detach(), y.detach(), h.detach()
    kind, apart = working(x, y, eps, high := height(h, widest + 100 * eps))
    found = kernel(backend, apart=apart)(*(t.to(kind) for t in (x, y)))(h.to(kind), eps, with_mean)
    s, *mean = found if with_mean else (found,)
    if apart and (rounding := coarseness(s, high)) > eps / 4:
        warnings.warn(
            f"softmin's weights err: scores in float64 round by {rounding / eps:.1g} eps",
            RuntimeWarning,
            stacklevel=3,  # past `plain`
        )
    return (s.to(x), *(m.to(x) for m in mean)) if with_mean else s.to(x)


@plain
def hardmin(x: Tensor, y: Tensor, h: Tensor, *, backend: Backend = "auto") -> tuple[Tensor, Tensor]:
    """Minimum over j of |x_i - y_j|^2 - h_j, and where it lies (eq. (9), Houdard et al. 2020).

    x: (N, d) float32 or float64, the points at which it is taken; any device.
    y: (M, d) same dtype and device, the cloud.
    h: (M,) same dtype and device, biases in units of the cost; -inf removes a point.
    backend: as in `softmin`; "attention" has none of its own and takes torch's.

    Returns (s, index), both (N,): s in the type of x, index int64 into y. Of points equally near up
    to rounding, any may be the one returned; s is the value there, from differences of coordinates,
    and so are rows in which products would round by more than a sixteenth of |x_i - y_j|^2 and of
    the squared distances of neighbours in y.
    Not differentiable: see `semidual`.
    Raises ValueError as `softmin` does.

    >>> x, y = torch.tensor([[0.0], [3.0]]), torch.tensor([[1.0], [5.0]])
    >>> hardmin(x, y, torch.zeros(2))
    (tensor([1., 4.]), tensor([0, 0]))
    """
    _check("hardmin", x, y, h)
    squares(x, y)
    return kernel(backend, hard=True)(x.detach(), y.detach())(h.detach())[:2]


def _check(function, x, y, h):
    reverse(function, x, y, h)
    cloud("x", x)
    cloud("y", y, like=x)
    if not torch.is_tensor(h):
        raise ValueError(f"h must be a tensor, got {type(h).__name__}")
    if h.shape != y.shape[:1] or h.dtype != y.dtype or h.device != y.device:
        raise ValueError(
            f"h must be a {y.dtype} vector of length {len(y)} on {y.device}, "
            f"got {tuple(h.shape)}, {h.dtype}, {h.device}"
        )
    if not h.max().isfinite():  # NaN, inf or all -inf
        raise ValueError("h must hold no NaN or inf and at least one finite value")


def kernel(
    backend: Backend = "auto", *, hard: bool = False, apart: bool = False
) -> Callable[..., Any]:
    """The unchecked soft-min of a backend in two steps: what clouds fix, and what changes.

    Returns a function (x, y) -> soft, with soft(h, eps, with_mean=False) -> s or (s, mean); with
    `hard` the hard-min, (x, y) -> hard, see `_settling`. A soft-min's own weights w_ij
    sum to 1 over j; soft(h, eps, leaving=function) appends sum_i leaving(s)_i w_ij to what it
    returns, the function taking rows of s and their slice to masses: a whole Sinkhorn update in
    one pass. With `leaving`, torch and compiled also take near=(reach, most), for `Active`, and
    append the pairs (i, j, excess) at most `reach` eps above the least |x_i - y_j|^2 - h_j of
    their row, excess how far, and those minima (N,), as one tuple; None for it where there are
    more than `most`, or so many in the first rows that more are to be expected.
    `apart` takes distances from differences, not from products.
    Raises ValueError where the backend is unknown or unavailable or has no such sums.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if reduced():  # called by a solver it is not
        within = plain(kernel)(backend, hard=hard, apart=apart)
        return lambda x, y: plain(within(x, y))
    if backend == "attention" and not hard:
        if apart:
            raise ValueError(
                "backend 'attention' takes products of coordinates, too coarse for clouds as far "
                "apart as these at this eps: use 'auto'"
            )
        return _attention_softmin
    if reason := unavailable(backend):
        raise ValueError(f"backend {backend!r} is unavailable: {reason}")
    if backend == "keops":
        return _keops_hardmin if hard else _keops_softmin
    compiled = backend in ("auto", "compiled") and not unavailable("compiled")
    if hard:
        return functools.partial(_tiled_hardmin, compiled=compiled)
    return functools.partial(_tiled_softmin, compiled=compiled, apart=apart)


def unavailable(backend: str) -> str:
    """Why a backend cannot be used on this machine, or "" where it can."""
    if backend == "compiled":
        return _compiled.unavailable()
    if backend != "keops":
        return ""
    if importlib.util.find_spec("pykeops") is None:
        return "the package pykeops is not installed"
    return _compiled.compiler()[1]


def _tiled_softmin(x, y, compiled=False, apart=False):
    if apart:  # centring would round
        centre, norm_x, norm_y = 0, x.new_zeros(len(x)), x.new_zeros(len(y))
    else:
        x, y, centre = centred(x, y)
        norm_x, norm_y = x.square().sum(1), y.square().sum(1)
        left, right = _products(x, y)
    passes, (rows, columns) = _passes(x, compiled), _tile(x)
    memory = x.new_empty(min(rows * columns, len(x) * len(y)))  # of a tile, used again and again

    def soft(h, eps, with_mean=False, leaving=None, near=None):
        unit = eps * LN2
        bias, s = (h - norm_y) / unit, torch.empty_like(norm_x)
        mean = torch.zeros_like(x) if with_mean else None
        high, wide, arriving = rows, columns, None
        lowest, count = torch.empty_like(norm_x), 0
        pairs: Any = []  # None where there are too many
        reach, most = near or (0, 0)
        if not apart:
            scaled = right * (2 / unit)
            scaled[-1] = bias
        if leaving is not None:  # the weights of a row must be in one tile
            high, wide, arriving = max(1, rows * columns // len(y)), len(y), x.new_zeros(len(y))
        for i in range(0, len(x), high):
            these = slice(i, i + high)
            n = len(norm_x[these])
            top, mass = x.new_full((n,), -math.inf), x.new_zeros(n)
            for j in range(0, len(y), wide):
                part = slice(j, j + wide)
                # (h_j - |y_j|^2 + 2 <x_i, y_j>) / unit, the exponent up to |x_i|^2 / unit
                if apart:
                    score = costs(x[these], y[part]).div_(-unit).add_(bias[part])
                else:
                    score = _room(memory, n, len(bias[part]))
                    torch.mm(left[these], scaled[:, part], out=score)
                if near is not None and pairs is not None:
                    seen = (i + n) / len(x)
                    few = most * min(1, 2 * seen) - count
                    if (listed := passes.near(score, reach / LN2, few)) is None:
                        pairs = None
                    else:
                        pairs.append((listed[0] + i, *listed[1:]))
                        count += len(listed[0])
                fade = passes.weigh(score, top, mass)
                if mean is not None:
                    mean[these].mul_(fade[:, None]).addmm_(score, y[part])
            torch.sub(norm_x[these], unit * top, out=lowest[these])
            torch.sub(lowest[these], unit * mass.log2(), out=s[these])
            if mean is not None:
                mean[these].div_(mass[:, None]).add_(centre)
            if leaving is not None:
                passes.spread(score, leaving(s[these], these) / mass, arriving)
        found = _packed(s, mean, arriving)
        if near is None:
            return found
        if pairs is not None:
            *at, below = (torch.cat(part) for part in zip(*pairs, strict=True))
            pairs = *at, below.mul_(unit), lowest
        return *found, pairs

    return soft


def _products(x, y):
    """(x, 1) and the transpose of (y, 0): with h in place of the 0 their product is <x, y> + h."""
    left = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    return left, torch.cat([y, torch.zeros_like(y[:, :1])], 1).T.contiguous()


def _room(memory, rows, columns):
    """A (rows, columns) tile in memory that is there: fresh pages cost as much as the sums."""
    if rows * columns > len(memory):  # a single row longer than a tile
        return memory.new_empty(rows, columns)
    return memory[: rows * columns].view(rows, columns)


def _packed(s, mean, arriving):
    found = tuple(part for part in (s, mean, arriving) if part is not None)
    return found[0] if len(found) == 1 else found


def _tiled_hardmin(x, y, compiled=False):
    near_x, near_y, _ = centred(x, y)
    norm_y, (left, right) = near_y.square().sum(1), _products(near_x, near_y)
    passes, (rows, columns) = _passes(x, compiled), _tile(x)
    memory = x.new_empty(min(rows * columns, len(x) * len(y)))
    settle = _settling(x, y, near_x, norm_y)

    def hard(h, within=None):
        right[-1] = (h - norm_y) / 2
        top = x.new_full((len(x),), -math.inf)
        index = torch.zeros(len(x), dtype=torch.int64, device=x.device)
        for i in range(0, len(x), rows):
            these = slice(i, i + rows)
            for j in range(0, len(y), columns):
                part = slice(j, j + columns)
                score = _room(memory, len(left[these]), len(y[part]))
                torch.mm(left[these], right[:, part], out=score)
                passes.best(score, j, top[these], index[these])
        return settle(h, index, within)

    return hard


def _settling(x, y, near_x, norm_y):
    """What follows the search of a hard-min: a function (h, index, within) -> (s, index, rounding).

    near_x, norm_y: x, and the squared norms of y, around the mean of y.
    s is |x_i - y_j|^2 - h_j at the index, from differences: no cancellation of squared norms there.
    The search may have missed a lower value, by the unit roundoff times the squares it summed: rows
    where that exceeds `within` are searched again from differences, by default those where it is
    not small beside |x_i - y_j|^2, nor beside the squared distances of neighbours in y.
    rounding: (N,) bound on what s is above the minimum.
    """
    terms = (near_x.square().sum(1).sqrt() + norm_y.max().sqrt()).square()
    unit, d, span = torch.finfo(x.dtype).eps / 2, x.shape[1], 2 * float(terms.max())
    rows, _ = _tile(x)
    spacing = functools.cache(lambda: _spacing(y))

    def settle(h, index, within=None):
        high = height(h, span)
        squares = (x - y[index]).square().sum(1)
        s, error = squares - h[index], 2 * (d + 8) * unit * (terms + high)
        if within is None:
            again = squares < 32 * unit * (terms + high)
            if again.any():
                again &= spacing() < 32 * unit * (terms + high)
        else:
            again = error > within
        again = again.nonzero().squeeze(1)
        for part in again.split(rows):
            values = costs(x[part].double(), y.double()).sub_(h)
            low, at = values.min(1)
            at = torch.where(low < values.gather(1, index[part, None]).squeeze(1), at, index[part])
            index[part] = at
            s[part] = (x[part] - y[at]).square().sum(1) - h[at]
            error[part] = 2 * (d + 8) * unit * (s[part].abs() + 2 * high)
        return s, index, error

    return settle


def _spacing(y):
    """A typical squared distance of a point of y to the next one, from a few of the points."""
    squares = costs(y[:: -(-len(y) // 16)], y)
    return squares.masked_fill_(squares == 0, math.inf).amin(1).median()


def _passes(x, compiled):
    return Compiled if compiled and x.dtype is torch.float32 and not x.is_cuda else Torch


def _tile(x):
    """Rows and columns of a tile: one that stays in cache on a CPU, one that fills a GPU."""
    return (4096, 8192) if x.is_cuda else (512, 512)


def _attention_softmin(x, y):
    """A row's weights are those of attention with one query x_i, keys and values y_j."""
    if x.is_cuda and x.dtype != torch.float32:
        raise ValueError(
            "backend 'attention' takes float32 on CUDA, at an eps for which that is fine enough, "
            f"got a problem for {x.dtype}: use 'auto'"
        )
    x, y, centre = centred(x, y)
    back = functools.partial(_attention, y, x)

    def soft(h, eps, with_mean=False, leaving=None):
        s, mean = _attention(x, y, h, eps)
        arriving = None
        if leaving is not None:
            # sum_i l_i exp((h_j + s_i - c_ij) / eps) is itself a soft-min, over x
            log = leaving(s, slice(None)).log()
            arriving = ((h - back(s + eps * log, eps)[0]) / eps).exp()
        return _packed(s, mean + centre if with_mean else None, arriving)

    return soft


def _attention(x, y, h, eps):
    """s and the barycentres, in one pass; the bias is one more coordinate, where x has a 1."""
    h = h.clamp(min=torch.finfo(h.dtype).min * min(eps, 1) / 8)  # -inf times 0 would be NaN
    bias, pad = (h - y.square().sum(1)) / 2, -(x.shape[1] + 1) % 4  # CUDA wants multiples of 4
    query = torch.nn.functional.pad(torch.cat([x, torch.ones_like(x[:, :1])], 1), (0, pad))
    key = torch.nn.functional.pad(torch.cat([y, bias[:, None]], 1), (0, pad))
    value = torch.nn.functional.pad(y, (0, pad + 1))
    heads = [cloud[None, None] for cloud in (query, key, value)]
    if x.is_cuda:
        operator = torch.ops.aten._scaled_dot_product_efficient_attention
        mean, log_sum, *_ = operator(*heads, None, True, scale=2 / eps)
    else:
        operator = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        mean, log_sum = operator(*heads, scale=2 / eps)
    log_sum = log_sum.flatten()[: len(x)]  # CUDA pads it
    return x.square().sum(1) - eps * log_sum, mean[0, 0, :, : x.shape[1]]


@functools.cache
def _lazy_tensor():
    # Its own switch, unless the user has turned it: that there is no CUDA is no news on a CPU.
    quiet = not {"KEOPS_VERBOSE", "PYKEOPS_VERBOSE"} & os.environ.keys()
    if quiet:
        os.environ["KEOPS_VERBOSE"] = "0"
    try:
        from pykeops.torch import LazyTensor  # compiles on first use: seconds, so imported late
    finally:
        if quiet:
            del os.environ["KEOPS_VERBOSE"]
    return LazyTensor


def _keops_cost(x, y):
    LazyTensor = _lazy_tensor()
    x_i, y_j = LazyTensor(x[:, None, :].contiguous()), LazyTensor(y[None, :, :].contiguous())
    return ((x_i - y_j) ** 2).sum(-1), y_j


def _keops_bias(h, eps):
    # KeOps makes NaN of -inf: a finite bias as low as its division by eps allows
    low = torch.finfo(h.dtype).min * min(eps, 1) / 4
    return _lazy_tensor()(h.clamp(min=low)[None, :, None].contiguous())


def _keops_softmin(x, y):
    cost, y_j = _keops_cost(x, y)

    def column(values):
        return _lazy_tensor()(values[:, None, None].contiguous())

    def soft(h, eps, with_mean=False, leaving=None):
        score = (_keops_bias(h, eps) - cost) / eps
        s = -eps * score.logsumexp(1).view(-1)
        mean = score.sumsoftmaxweight(y_j, 1) if with_mean else None
        if leaving is None:
            return _packed(s, mean, None)
        weights = (score + column(s) / eps).exp()
        return _packed(s, mean, (column(leaving(s, slice(None))) * weights).sum(0).view(-1))

    return soft


def _keops_hardmin(x, y):
    cost, _ = _keops_cost(x, y)
    near_x, near_y, _ = centred(x, y)
    settle = _settling(x, y, near_x, near_y.square().sum(1))

    def hard(h, within=None):
        return settle(h, (cost - _keops_bias(h, 1)).argmin(1).view(-1), within)

    return hard
