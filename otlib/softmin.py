"""The one hot loop: soft-min over a patch cloud, streamed, behind one call.

    s_i = -eps log sum_j exp((h_j - |x_i - y_j|^2) / eps)

With `h = g + eps log b` this is the f-update of Theorem 1 and phi of eq. (8) of Mignon et al. 2023.
No N x M array is held: torch works on tiles, KeOps on its own blocks.
"""

import functools
import importlib.util
import os
import shutil

import torch

from otlib._check import cloud, positive

BACKENDS = ("auto", "torch", "keops")

# exp(-60) is below the rounding of float32; below -87 torch's CPU exp is two orders of magnitude
# slower, so scores are clamped before it.
_NEGLIGIBLE = -60.0


def softmin(x, y, h, eps, *, with_mean=False, backend="auto"):
    """Soft-min of h_j - |x_i - y_j|^2 over j at temperature eps (eq. (8), Mignon et al. 2023).

    x: (N, d) float32 or float64, the points at which it is taken; any device.
    y: (M, d) same dtype and device, the cloud.
    h: (M,) same dtype and device, biases in units of the cost; -inf removes a point.
    eps: temperature > 0 in units of the cost.
    with_mean: also return the barycentres of y under the soft-min's weights.
    backend: "torch", "keops", or "auto" (torch, the faster on every device tried).

    Returns s (N,), or (s, mean) with mean (N, d). Not differentiable: see `sinkhorn.solve`.
    Raises ValueError on mismatched shapes, dtypes or devices, NaN, eps <= 0, an unknown or
    unavailable backend, and RuntimeError where reduced matmul precision is switched on.
    """
    cloud("x", x)
    cloud("y", y, like=x)
    positive("eps", eps)
    if not torch.is_tensor(h):
        raise ValueError(f"h must be a tensor, got {type(h).__name__}")
    if h.shape != y.shape[:1] or h.dtype != y.dtype or h.device != y.device:
        raise ValueError(
            f"h must be a {y.dtype} vector of length {len(y)} on {y.device}, "
            f"got {tuple(h.shape)}, {h.dtype}, {h.device}"
        )
    if not h.max().isfinite():  # NaN, inf or all -inf
        raise ValueError("h must hold no NaN or inf and at least one finite value")
    return kernel(backend)(x.detach(), y.detach())(h.detach(), eps, with_mean)


def kernel(backend="auto"):
    """The unchecked soft-min of a backend in two steps: what clouds fix, and what changes.

    Returns a function (x, y) -> soft, with soft(h, eps, with_mean=False) -> s or (s, mean).
    Raises ValueError where the backend is unknown or unavailable, RuntimeError where float32
    products are not computed in float32: at eps = 2e-4 TF32 errs by several eps.
    """
    if backend not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {backend!r}")
    if torch.get_float32_matmul_precision() != "highest":
        raise RuntimeError(
            "float32 matmul precision is "
            f"{torch.get_float32_matmul_precision()!r}, soft-min needs 'highest' "
            "(torch.set_float32_matmul_precision)"
        )
    if backend != "keops":
        return _torch_softmin
    if reason := unavailable("keops"):
        raise ValueError(f"backend 'keops' is unavailable: {reason}")
    return _keops_softmin


def unavailable(backend):
    """Why a backend cannot be used on this machine, or "" where it can."""
    if backend != "keops":
        return ""
    if importlib.util.find_spec("pykeops") is None:
        return "the package pykeops is not installed"
    compiler = os.environ.get("CXX", "g++")
    return "" if shutil.which(compiler) else f"no C++ compiler ({compiler}) on the PATH"


def _torch_softmin(x, y):
    # Centred coordinates keep the products small, and so their float32 rounding.
    centre = y.mean(0)
    x, y = x - centre, y - centre
    norm_x, norm_y, transposed = x.square().sum(1), y.square().sum(1), y.T.contiguous()
    rows, columns = _tile(x)

    def soft(h, eps, with_mean=False):
        bias, found = h - norm_y, []
        for i in range(0, len(x), rows):
            here, top, mass, moment = x[i : i + rows], None, 0, 0
            for j in range(0, len(y), columns):
                part = slice(j, j + columns)
                # (h_j - |y_j|^2 + 2 <x_i, y_j>) / eps, the exponent up to |x_i|^2 / eps
                score = torch.addmm(
                    bias[part], here, transposed[:, part], beta=1 / eps, alpha=2 / eps
                )
                highest = score.amax(1, keepdim=True)
                if top is not None:
                    highest = torch.maximum(top, highest)
                # a block of weight 0 leaves -inf here, and -inf - -inf would be NaN
                shift = highest.clamp(min=torch.finfo(x.dtype).min)
                score.sub_(shift).clamp_(min=_NEGLIGIBLE).exp_()
                fade = 0 if top is None else (top - shift).exp_()
                mass = mass * fade + score.sum(1, keepdim=True)
                if with_mean:
                    moment = moment * fade + score @ y[part]
                top = highest
            found.append((top + mass.log(), moment / mass))
        s = norm_x - eps * torch.cat([log for log, _ in found]).squeeze(1)
        return (s, torch.cat([mean for _, mean in found]) + centre) if with_mean else s

    return soft


def _tile(x):
    """Rows and columns of a tile: one that stays in cache on a CPU, one that fills a GPU."""
    return (4096, 8192) if x.is_cuda else (1024, 1024)


@functools.cache
def _lazy_tensor():
    from pykeops.torch import LazyTensor  # compiles on first use: seconds, so imported late

    return LazyTensor


def _keops_softmin(x, y):
    LazyTensor = _lazy_tensor()
    x_i, y_j = LazyTensor(x[:, None, :].contiguous()), LazyTensor(y[None, :, :].contiguous())
    cost = ((x_i - y_j) ** 2).sum(-1)

    def soft(h, eps, with_mean=False):
        # KeOps makes NaN of -inf: a finite bias as low as its division by eps allows
        low = torch.finfo(h.dtype).min * min(eps, 1) / 4
        score = (LazyTensor(h.clamp(min=low)[None, :, None].contiguous()) - cost) / eps
        s = -eps * score.logsumexp(1).view(-1)
        return (s, score.sumsoftmaxweight(y_j, 1)) if with_mean else s

    return soft
