"""The numbers along alpha are those of the metrics, and follow the theory where it is exact."""

import numpy as np
import pytest
import torch

from companion.page import tradeoff
from otlib import metrics
from otlib.assets import perceptual


def sets(count=4, side=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    sources = list(0.3 + 0.4 * torch.rand((count, 3, side, side), generator=generator))
    one = [0.5 + 0.7 * (x - 0.5) for x in sources]
    zero = [x + 0.05 * torch.randn(x.shape, generator=generator) for x in sources]
    return one, zero, sources


def test_every_number_is_that_of_the_metric():
    one, zero, sources = sets()
    kinds = ["mse", "psnr", "pooled", "ssim", "lpips", "gelbrich", "kid", "fid", "is"]
    found = tradeoff.points(zero, one, sources, [0.25], kinds, draws=3)[0.25]
    mixed = [(0.75 * z + 0.25 * o).clamp(0, 1) for z, o in zip(zero, one, strict=True)]
    (seen, p), (true, _) = perceptual.embeddings(mixed), perceptual.embeddings(sources)
    pairs = list(zip(mixed, sources, strict=True))
    expected = {
        "mse": np.mean([float((x - y).square().mean()) for x, y in pairs]),
        "psnr": np.mean([metrics.psnr(x, y) for x, y in pairs]),
        "pooled": metrics.pooled_psnr(mixed, sources),
        "ssim": np.mean([metrics.ssim(x, y) for x, y in pairs]),
        "lpips": np.mean([perceptual.lpips(x, y) for x, y in pairs]),
        "gelbrich": metrics.gelbrich(metrics.moments(mixed), metrics.moments(sources)),
        "kid": 1000 * metrics.kid(seen, true, paired=True),
        "fid": metrics.fid(seen, true),
        "is": metrics.inception_score(p),
    }
    assert set(found) == set(expected)
    for kind, value in expected.items():
        assert found[kind].value == pytest.approx(value, rel=1e-3, abs=1e-4), kind
        assert found[kind].draws.shape == (3,)


def test_a_perfect_restoration_has_infinite_decibels():
    _, zero, sources = sets()
    one = [sources[0], *(0.9 * x for x in sources[1:])]  # one of them alone
    found = tradeoff.points(zero, one, sources, [1], ["psnr", "pooled"], draws=40)[1]
    assert found["psnr"].value == np.inf and np.isfinite(found["pooled"].value)
    without = found["psnr"].draws[found["psnr"].draws.isfinite()]
    assert 0 < len(without) < 40 and not found["psnr"].draws.isnan().any()
    assert found["psnr"].error == (0, 0) and found["psnr"].text.endswith("to ∞")
    found = tradeoff.points(zero, sources, sources, [1], ["psnr", "pooled"], draws=4)[1]
    assert found["pooled"].value == found["psnr"].value == np.inf
    assert found["pooled"].text == "∞ to ∞"


def test_values_are_clipped_after_mixing():
    sources = [torch.full((3, 4, 4), 0.9)] * 2
    one, zero = [torch.full((3, 4, 4), 0.8)] * 2, [torch.full((3, 4, 4), 0.95)] * 2
    found = tradeoff.points(zero, one, sources, [-1, 2], ["mse"])
    assert found[-1]["mse"].value == pytest.approx(0.1**2, rel=1e-4)  # 1.1 is seen as 1
    assert found[2]["mse"].value == pytest.approx(0.25**2, rel=1e-4)


def test_resamples_are_the_same_at_each_alpha():
    one, zero, sources = sets()
    found = tradeoff.points(zero, one, sources, [0, 1], ["mse", "pooled"], draws=20)
    again = tradeoff.points(one, one, sources, [1], ["mse"], draws=20)
    assert torch.equal(found[1]["mse"].draws, again[1]["mse"].draws)
    pooled = -10 * found[0]["mse"].draws.log10()
    torch.testing.assert_close(found[0]["pooled"].draws, pooled)
    bare = tradeoff.points(zero, one, sources, [0], ["mse"], draws=0)[0]["mse"]
    assert bare.value == found[0]["mse"].value and bare.error == (0, 0) and len(bare.draws) == 0
    below, above = found[0]["mse"].error
    low, high = metrics.interval(found[0]["mse"].draws)
    value = found[0]["mse"].value
    assert value - below == pytest.approx(min(low, value))
    assert value + above == pytest.approx(max(high, value))


def test_the_vertex_is_the_alpha_of_least_error():
    one, zero, sources = sets()
    best = tradeoff.vertex(zero, one, sources)
    around = [best - 0.01, best, best + 0.01]
    found = tradeoff.points(zero, one, sources, around, ["mse"])
    errors = [found[alpha]["mse"].value for alpha in around]
    assert errors[1] < min(errors[0], errors[2])
    assert errors[0] == pytest.approx(errors[2], rel=1e-3)


def test_the_vertex_of_the_best_estimate_is_1():
    """E[x | y] for x and noise Gaussian of variance 1 is y / 2; its transport is y / sqrt 2."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn((1, 3, 400, 400), generator=generator)
    y = x + torch.randn(x.shape, generator=generator)
    for gain in (0.5, 0.6):  # the best estimate, and one that is not
        best = tradeoff.vertex(list(y / 2**0.5), list(gain * y), list(x))
        # (1 - a) / sqrt 2 + a gain = 1 / 2
        expected = (0.5**0.5 - 0.5) / (0.5**0.5 - gain)
        assert best == pytest.approx(expected, abs=0.03)
