"""The one hot loop: soft-min over a patch cloud, streamed, behind one call.

    s_i = -eps log sum_j exp((h_j - |x_i - y_j|^2) / eps)

With `h = g + eps log b` this is the f-update of Theorem 1 and phi of eq. (8) of Mignon et al. 2023.
Its limit at eps = 0 is the hard-min, the c-transform of h in Houdard et al. 2020.
No N x M array is held: torch works on tiles, KeOps and fused attention on their own blocks.
"""

import functools
import importlib.util
import math
import os
import shutil

import torch

from otlib._ambient import plain, reduced
from otlib._check import cloud, positive

__all__ = ["BACKENDS", "Active", "hardmin", "kernel", "softmin", "unavailable"]

#: The ways to compute a soft-min.
BACKENDS = ("auto", "torch", "keops", "attention")

# Exponentials are taken in base 2: torch's exp2 is three times as fast on a CPU as its exp.
_LN2 = math.log(2)
# exp(-60) is below the rounding of float32; below -87 torch's CPU exponentials are slower by far,
# so scores are clamped before it.
_NEGLIGIBLE = -60.0 / _LN2
_REACH = 80.0  # pairs this many eps above their row's least cost are listed,
_SURE = 30.0  # and a list serves while what it leaves out is this many eps above


@plain
def softmin(x, y, h, eps, *, with_mean=False, backend="auto"):
    """Soft-min of h_j - |x_i - y_j|^2 over j at temperature eps (eq. (8), Mignon et al. 2023).

    x: (N, d) float32 or float64, the points at which it is taken; any device.
    y: (M, d) same dtype and device, the cloud.
    h: (M,) same dtype and device, biases in units of the cost; -inf removes a point.
    eps: temperature > 0 in units of the cost.
    with_mean: also return the barycentres of y under the soft-min's weights.
    backend: "torch"; "keops"; "attention", torch's fused attention operators, float32 only on CUDA;
        or "auto" (torch, the faster on every device tried).

    Returns s (N,), or (s, mean) with mean (N, d). Not differentiable: see `sinkhorn.solve`.
    Raises ValueError on mismatched shapes, dtypes or devices, NaN, eps <= 0, an unknown or
    unavailable backend.

    >>> x, y = torch.tensor([[0.0, 0.0]]), torch.tensor([[3.0, 4.0]])
    >>> softmin(x, y, torch.tensor([1.0]), eps=0.5)  # one point: |x - y|^2 - h
    tensor([24.])
    """
    _check(x, y, h)
    positive("eps", eps)
    return kernel(backend)(x.detach(), y.detach())(h.detach(), eps, with_mean)


@plain
def hardmin(x, y, h, *, backend="auto"):
    """Minimum over j of |x_i - y_j|^2 - h_j, and where it lies (eq. (9), Houdard et al. 2020).

    x: (N, d) float32 or float64, the points at which it is taken; any device.
    y: (M, d) same dtype and device, the cloud.
    h: (M,) same dtype and device, biases in units of the cost; -inf removes a point.
    backend: "torch", "keops", or "auto" (torch); "attention" has none of its own and takes torch's.

    Returns (s, index), both (N,): s in the type of x, index int64 into y. Of points equally near up
    to rounding, any may be the one returned; s is the value there, from differences of coordinates.
    Not differentiable: see `semidual`.
    Raises ValueError as `softmin` does.

    >>> x, y = torch.tensor([[0.0], [3.0]]), torch.tensor([[1.0], [5.0]])
    >>> hardmin(x, y, torch.zeros(2))
    (tensor([1., 4.]), tensor([0, 0]))
    """
    _check(x, y, h)
    return kernel(backend, hard=True)(x.detach(), y.detach())(h.detach())


def _check(x, y, h):
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


def kernel(backend="auto", *, hard=False):
    """The unchecked soft-min of a backend in two steps: what clouds fix, and what changes.

    Returns a function (x, y) -> soft, with soft(h, eps, with_mean=False) -> s or (s, mean); with
    `hard` the hard-min, (x, y) -> hard, with hard(h) -> (s, index). A soft-min's own weights w_ij
    sum to 1 over j; soft(h, eps, leaving=function) appends sum_i leaving(s)_i w_ij to what it
    returns, the function taking rows of s and their slice to masses: a whole Sinkhorn update in
    one pass. The torch backend shows its rows to `watch`, for `Active`.
    Raises ValueError where the backend is unknown or unavailable.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if reduced():  # called by a solver it is not
        within = plain(kernel)(backend, hard=hard)
        return lambda x, y: plain(within(x, y))
    if backend == "attention" and not hard:
        return _attention_softmin
    if backend != "keops":
        return _torch_hardmin if hard else _torch_softmin
    if reason := unavailable("keops"):
        raise ValueError(f"backend 'keops' is unavailable: {reason}")
    return _keops_hardmin if hard else _keops_softmin


def unavailable(backend):
    """Why a backend cannot be used on this machine, or "" where it can."""
    if backend != "keops":
        return ""
    if importlib.util.find_spec("pykeops") is None:
        return "the package pykeops is not installed"
    compiler = os.environ.get("CXX", "g++")
    return "" if shutil.which(compiler) else f"no C++ compiler ({compiler}) on the PATH"


def _torch_softmin(x, y):
    x, y, centre = _centred(x, y)
    norm_x, norm_y, transposed = x.square().sum(1), y.square().sum(1), y.T.contiguous()
    rows, columns = _tile(x)
    memory = x.new_empty(min(rows * columns, len(x) * len(y)))  # of a tile, used again and again

    def soft(h, eps, with_mean=False, leaving=None, watch=None):
        unit = eps * _LN2
        bias, s = (h - norm_y) / unit, torch.empty_like(norm_x)
        mean = torch.zeros_like(x) if with_mean else None
        high, wide, arriving = rows, columns, None
        if leaving is not None:  # the weights of a row must be in one tile
            high, wide, arriving = max(1, rows * columns // len(y)), len(y), x.new_zeros(len(y))
        for i in range(0, len(x), high):
            here, top, mass = x[i : i + high], None, 0
            tall = len(here)
            for j in range(0, len(y), wide):
                part = slice(j, j + wide)
                # (h_j - |y_j|^2 + 2 <x_i, y_j>) / unit, the exponent up to |x_i|^2 / unit
                score = _room(memory, tall, len(bias[part]))
                torch.addmm(bias[part], here, transposed[:, part], alpha=2 / unit, out=score)
                highest = score.amax(1, keepdim=True)
                if top is not None:
                    highest = torch.maximum(top, highest)
                # a block of weight 0 leaves -inf here, and -inf - -inf would be NaN
                shift = highest.clamp(min=torch.finfo(x.dtype).min)
                score.sub_(shift)
                if watch is not None:
                    watch(i, score, norm_x[i : i + high] - unit * shift.squeeze(1))
                score.clamp_(min=_NEGLIGIBLE).exp2_()
                fade = 0 if top is None else (top - shift).exp2_()
                mass = mass * fade + score.sum(1, keepdim=True)
                if with_mean:
                    mean[i : i + high].mul_(fade).addmm_(score, y[part])
                top = highest
            torch.sub(
                norm_x[i : i + high], unit * (top + mass.log2()).squeeze(1), out=s[i : i + high]
            )
            if with_mean:
                mean[i : i + high].div_(mass).add_(centre)
            if leaving is not None:
                rows_here = slice(i, i + high)
                arriving += (leaving(s[rows_here], rows_here) / mass.squeeze(1)) @ score
        return _packed(s, mean, arriving)

    return soft


def _room(memory, rows, columns):
    """A (rows, columns) tile in memory that is there: fresh pages cost as much as the sums."""
    if rows * columns > len(memory):  # a single row longer than a tile
        return memory.new_empty(rows, columns)
    return memory[: rows * columns].view(rows, columns)


def _packed(s, mean, arriving):
    found = tuple(part for part in (s, mean, arriving) if part is not None)
    return found[0] if len(found) == 1 else found


class Active:
    """The soft-min of a solve on the pairs that count: few, where the temperature is low.

    A dense pass lists the pairs within _REACH eps of their row's least cost c_ij - h_j. While h and
    eps change, an unlisted pair of row i stays at least

        least_i + reach - least'_i - max_j (h'_j - h_j)

    above the present least cost, and the list serves as long as that is above _SURE eps.
    """

    def __init__(self, dense, n, m):
        # a listed pair takes the time of three in a dense pass, and some 40 bytes
        self.dense, self.n, self.limit = dense, n, min(n * m // 8, 2**22)
        self.pairs, self.refused = None, math.inf

    def soft(self, h, eps, leaving):
        """(s, arriving) as in `kernel` from the listed pairs; None where no list serves."""
        if self.pairs is None:
            return None
        i, j, cost = self.pairs
        excess = cost - h[j]
        least = torch.full_like(self.least, math.inf).scatter_reduce_(0, i, excess, "amin")
        rise = (h - self.h).nan_to_num(nan=-math.inf).max()  # nan: -inf in both, a removed point
        reach = float((self.least - least).min() + self.reach - rise)
        if not reach >= _SURE * eps:
            self.pairs = None
            return None
        score = (least[i] - excess).div_(eps * _LN2)
        if reach > 1.5 * _REACH * eps:  # the temperature has fallen: fewer pairs count
            near = score >= -_REACH / _LN2
            i, j, score = i[near], j[near], score[near]
            self._keep((i, j, cost[near]), least, h, eps)
        weight = score.clamp_(min=_NEGLIGIBLE).exp2_()
        mass = torch.zeros_like(least).index_add_(0, i, weight)
        s = least - eps * mass.log()
        weight.mul_((leaving(s, slice(None)) / mass)[i])
        return s, torch.zeros_like(h).index_add_(0, j, weight)

    def list(self, h, eps, leaving):
        """The same from a dense pass, which lists the pairs where they are few enough to pay."""
        if eps >= self.refused:  # too many pairs at this temperature
            return self.dense(h, eps, leaving=leaving)
        parts, count = [], 0

        def watch(start, score, least):
            nonlocal parts, count
            if parts is None:
                return
            near = (score >= -_REACH / _LN2).view(-1)
            count += int(near.count_nonzero())
            share = (start + len(score)) / self.n  # of the rows seen
            if count > self.limit * min(1, 2 * share):
                parts = None
                return
            at = near.nonzero().squeeze(1)
            i, j = at // len(h), at % len(h)
            parts.append((i + start, j, h[j] + least[i] - eps * _LN2 * score.view(-1)[at], least))

        found = self.dense(h, eps, leaving=leaving, watch=watch)
        if parts is None:
            self.refused = eps
        else:
            *pairs, least = (torch.cat(part) for part in zip(*parts, strict=True))
            self._keep(pairs, least, h, eps)
        return found

    def _keep(self, pairs, least, h, eps):
        self.pairs, self.least, self.h, self.reach = pairs, least, h, _REACH * eps


def _torch_hardmin(x, y):
    near_x, near_y, _ = _centred(x, y)
    norm_y, transposed = near_y.square().sum(1), near_y.T.contiguous()
    rows, columns = _tile(x)

    def hard(h):
        bias, found = (h - norm_y) / 2, []
        for i in range(0, len(x), rows):
            here, top, index = near_x[i : i + rows], None, None
            for j in range(0, len(y), columns):
                part = slice(j, j + columns)
                score = torch.addmm(bias[part], here, transposed[:, part])
                highest, at = _max(score)
                if top is None:
                    top, index = highest, at
                else:
                    index = torch.where(highest > top, at + j, index)
                    top = torch.maximum(highest, top)
            found.append(index)
        index = torch.cat(found)
        return _value(x, y, h, index), index

    return hard


def _max(score):
    """Maximum of each row and its column. On a CPU torch's own takes ten times numpy's time."""
    if score.is_cuda:
        return score.max(1)
    at = torch.from_numpy(score.numpy().argmax(1))
    return score.gather(1, at[:, None]).squeeze(1), at


def _value(x, y, h, index):
    """|x_i - y_j|^2 - h_j at given j(i): no cancellation of squared norms."""
    return (x - y[index]).square().sum(1) - h[index]


def _centred(x, y):
    """Both clouds around the mean of y, and it: smaller products, and so less float32 rounding."""
    centre = y.mean(0)
    return x - centre, y - centre, centre


def _tile(x):
    """Rows and columns of a tile: one that stays in cache on a CPU, one that fills a GPU."""
    return (4096, 8192) if x.is_cuda else (512, 512)


def _attention_softmin(x, y):
    """A row's weights are those of attention with one query x_i, keys and values y_j."""
    if x.is_cuda and x.dtype != torch.float32:
        raise ValueError(f"backend 'attention' takes float32 on CUDA, got {x.dtype}")
    x, y, centre = _centred(x, y)
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
    from pykeops.torch import LazyTensor  # compiles on first use: seconds, so imported late

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

    def hard(h):
        index = (cost - _keops_bias(h, 1)).argmin(1).view(-1)
        return _value(x, y, h, index), index

    return hard
