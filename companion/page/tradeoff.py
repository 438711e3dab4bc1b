"""Distortion and perception of restored images along alpha: eq. (4) of Adrai et al. 2023."""

import math
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from companion.markdown import number
from otlib import metrics
from otlib.assets import perceptual


class Estimate(NamedTuple):
    """A number of a test set, and its values on resampled test sets."""

    value: float
    draws: torch.Tensor  # (draws,); resample k is the same for every kind and alpha of a test set

    @property
    def error(self) -> tuple[float, float]:
        """Distances (below, above) of the ends of the 90 % interval; 0 where nothing was drawn."""
        if not len(self.draws) or math.isinf(self.value):
            return 0.0, 0.0
        low, high = _interval(self.draws)
        return max(self.value - low, 0.0), max(high - self.value, 0.0)

    @property
    def text(self) -> str:
        """The 90 % interval in words."""
        ends = [number(e) if math.isinf(e) else f"{e:.3g}" for e in _interval(self.draws)]
        return " to ".join(ends)


def points(
    zero: Sequence[Tensor],
    one: Sequence[Tensor],
    sources: Sequence[Tensor],
    alphas: Sequence[float],
    kinds: Collection[str],
    draws: int = 100,
    seed: int = 0,
) -> dict[float, dict[str, Estimate]]:
    """Measure (1 - alpha) zero + alpha one against the sources, clipped to [0, 1] after mixing.

    zero: the transported images, at alpha = 0. one: the restored. sources: what they should be;
        lists of (3, H, W) float32, on one device, where all but SSIM and bootstrap is computed.
    alphas: numbers.
    kinds: of "mse", "psnr" (mean of the images'), "pooled" (PSNR of the mean error), "ssim",
        "lpips" (AlexNet), "gelbrich" (patches of 3 x 3 pixels), "kid" (x 1000), "fid", "is".
    draws, seed: of the bootstrap over test images; 0 draws for no intervals.

    Returns {alpha: {kind: Estimate}}. Raises ValueError as `otlib.metrics` does.
    """
    perceived = {"kid", "fid", "is"} & set(kinds)
    clean: Any = _moments(sources) if "gelbrich" in kinds else None
    true: Any
    true, _ = perceptual.embeddings(sources, sources[0].device) if perceived else (None, None)
    found = {}
    for alpha in alphas:
        mixed = [torch.lerp(z, o, alpha).clamp(0, 1) for z, o in zip(zero, one, strict=True)]
        seen, p = perceptual.embeddings(mixed, mixed[0].device) if perceived else (None, None)
        patches = _moments(mixed) if "gelbrich" in kinds else None
        mse = _mean([(x - y).square().mean() for x, y in zip(mixed, sources, strict=True)])
        statistics = {
            "mse": mse,
            "pooled": lambda w, mse=mse: decibels(mse(w)),
            "gelbrich": lambda w, patches=patches: metrics.gelbrich(patches, clean, w),
            "kid": lambda w, seen=seen: 1000 * metrics.kid(seen, true, paired=True, weights=w),
            "fid": lambda w, seen=seen: metrics.fid(seen, true, w),
            "is": lambda w, p=p: metrics.inception_score(p, w),
        }
        for kind in {"psnr", "ssim", "lpips"} & set(kinds):
            measure = getattr(perceptual if kind == "lpips" else metrics, kind)
            statistics[kind] = _mean([measure(x, y) for x, y in zip(mixed, sources, strict=True)])
        once, count = torch.ones(len(sources), dtype=torch.float64), len(sources)
        found[alpha] = {
            kind: Estimate(
                statistics[kind](once),
                metrics.bootstrap(statistics[kind], count, draws, seed) if draws else once[:0],
            )
            for kind in kinds
        }
    return found


def decibels(error: float) -> float:
    """PSNR in dB of a mean squared error of values in [0, 1]: inf of 0."""
    return -10 * math.log10(error) if error else math.inf


def vertex(zero: Sequence[Tensor], one: Sequence[Tensor], sources: Sequence[Tensor]) -> float:
    """The alpha of least squared error, where the parabola MSE(alpha) of eq. (4) turns.

    zero, one, sources: as in `points`; nothing is clipped. 1 where `one` is the best that mixing
    with `zero` can give, as the MMSE estimate is; below, `zero` takes error away from `one`.

    Returns a float.
    """
    pairs = [[t.double() for t in triple] for triple in zip(one, zero, sources, strict=True)]
    across = sum(float(((x - z) * (o - z)).sum()) for o, z, x in pairs)
    along = sum(float((o - z).square().sum()) for o, z, x in pairs)
    return across / along


def _moments(images):
    """Of `metrics.moments`, on the CPU: the resamples are many and small."""
    return [m._replace(mean=m.mean.cpu(), scatter=m.scatter.cpu()) for m in metrics.moments(images)]


def _mean(values):
    values = torch.tensor([float(value) for value in values], dtype=torch.float64)

    def mean(weights):
        drawn = torch.where(weights > 0, values, 0.0)  # 0 times infinity would be NaN
        return float(weights @ drawn / weights.sum())

    return mean


def _interval(draws):
    """The ends of the 90 % interval; between infinite values none is taken in between."""
    if draws.isfinite().all():
        return metrics.interval(draws)
    low, high = np.quantile(draws.numpy(), [0.05, 0.95], method="nearest")
    return float(low), float(high)
