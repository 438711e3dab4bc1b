"""Distortion and perception of restored images along alpha: eq. (4) of Adrai et al. 2023."""

import hashlib
import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from companion.page import pictures
from companion.page.restored import content
from companion.page.seeds import seeded
from otlib import metrics, operators
from otlib.assets import perceptual

Points = dict[float, dict[str, Any]]  # by alpha and kind


def points(
    zero: Sequence[Tensor],
    one: Sequence[Tensor],
    sources: Sequence[Tensor],
    alphas: Sequence[float],
    kinds: Collection[str],
) -> Points:
    """Measure (1 - alpha) zero + alpha one against the sources, clipped to [0, 1] after mixing.

    zero: the transported images, at alpha = 0. one: the restored. sources: what they should be;
        lists of (3, H, W) float32, on one device, where all but SSIM is computed.
    alphas: numbers.
    kinds: of "mse", "psnr" (mean of the images'), "pooled" (PSNR of the mean error), "ssim",
        "lpips_vgg" (as the authors' code has it), "gelbrich" and "w2" (patches of 3 x 3 pixels;
        that exact, of 500 patches), "kid" (x 1000), "fid", "is", "sharpness" (standard deviation of
        fine detail over the sources').

    Returns {alpha: {kind: float}}. Raises ValueError as `otlib.metrics` does.
    """
    perceived = {"kid", "fid", "is"} & set(kinds)
    clean: Any = metrics.moments(sources) if "gelbrich" in kinds else None
    true: Any
    true = _features(sources) if perceived else None
    found: Points = {}
    mix = lambda z, o, alpha: torch.lerp(z, o, alpha).clamp(0, 1)
    lpips: Any = []
    if "lpips_vgg" in kinds:  # an image at all alphas, since the network sees its source once
        for z, o, x in zip(zero, one, sources, strict=True):
            lpips.append(perceptual.lpips_each([mix(z, o, alpha) for alpha in alphas], x, "vgg"))
    for place, alpha in enumerate(alphas):
        mixed = [mix(z, o, alpha) for z, o in zip(zero, one, strict=True)]
        seen: Any
        seen, p = perceptual.embeddings(mixed, mixed[0].device) if perceived else (None, None)
        pairs = list(zip(mixed, sources, strict=True))
        mean = lambda measure, pairs=pairs: float(
            np.mean([float(measure(*pair)) for pair in pairs])
        )
        statistics: dict[str, Any] = {
            "mse": lambda mean=mean: mean(_error),
            "psnr": lambda mean=mean: mean(metrics.psnr),
            "pooled": lambda mean=mean: decibels(mean(_error)),
            "ssim": lambda mean=mean: mean(metrics.ssim),
            "lpips_vgg": lambda place=place: float(np.mean([along[place] for along in lpips])),
            "gelbrich": lambda mixed=mixed: metrics.gelbrich(metrics.moments(mixed), clean),
            "w2": lambda mixed=mixed: metrics.patch_w2(mixed, sources, 3, 500, seeded(0)),
            "kid": lambda seen=seen: 1000 * metrics.kid(seen, true, paired=True),
            "fid": lambda seen=seen: metrics.fid(seen, true),
            "is": lambda p=p: metrics.inception_score(p),
            "sharpness": lambda mean=mean: mean(lambda x, y: fineness(x) / fineness(y)),
        }
        found[alpha] = {kind: statistics[kind]() for kind in kinds}
    return found


_known: dict[bytes, Tensor] = {}


def _features(sources):
    """Their features, of each once a process: rows and turns of a page meet the same sources."""
    keys = [hashlib.sha256(content(x.cpu())).digest() for x in sources]
    new = {key: x for key, x in zip(keys, sources, strict=True) if key not in _known}
    if new:
        features, _ = perceptual.embeddings(list(new.values()), sources[0].device)
        _known.update(zip(new, features, strict=True))
    return torch.stack([_known[key] for key in keys])


def fineness(image: Tensor) -> float:
    """Standard deviation of the fine detail of an image, away from its border. image: (C, H, W)."""
    return pictures.details(image.cpu(), side=7, border=3).std().item()


def inconsistency(image: Tensor, source: Tensor) -> float:
    """Root mean squared distance from the measurement of x4 super-resolution.

    image, source: (C, H, W), H and W multiples of 4. The measurement is the source, shrunk.
    """
    small = [operators.downscale(x.cpu(), 4) for x in (image, source)]
    return (small[0] - small[1]).square().mean().sqrt().item()


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


def _error(x, y):
    return (x - y).square().mean()
