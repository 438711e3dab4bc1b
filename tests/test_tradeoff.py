"""The numbers along alpha are those of the metrics, and follow the theory where it is exact."""

import numpy as np
import pytest
import torch

from companion.page import pictures, tradeoff
from companion.page.seeds import seeded
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
    kinds = ["mse", "psnr", "pooled", "ssim", "lpips_vgg", "gelbrich", "w2", "kid", "fid", "is"]
    found = tradeoff.points(zero, one, sources, [0.25], [*kinds, "sharpness"])[0.25]
    mixed = [(0.75 * z + 0.25 * o).clamp(0, 1) for z, o in zip(zero, one, strict=True)]
    (seen, p), (true, _) = perceptual.embeddings(mixed), perceptual.embeddings(sources)
    pairs = list(zip(mixed, sources, strict=True))
    fine = lambda x: pictures.details(x, side=7, border=3).std()
    expected = {
        "mse": np.mean([float((x - y).square().mean()) for x, y in pairs]),
        "psnr": np.mean([metrics.psnr(x, y) for x, y in pairs]),
        "pooled": metrics.pooled_psnr(mixed, sources),
        "ssim": np.mean([metrics.ssim(x, y) for x, y in pairs]),
        "lpips_vgg": np.mean([perceptual.lpips(x, y, "vgg") for x, y in pairs]),
        "gelbrich": metrics.gelbrich(metrics.moments(mixed), metrics.moments(sources)),
        "w2": metrics.patch_w2(mixed, sources, 3, 500, seeded(0)),
        "kid": 1000 * metrics.kid(seen, true, paired=True),
        "fid": metrics.fid(seen, true),
        "is": metrics.inception_score(p),
        "sharpness": np.mean([float(fine(x) / fine(y)) for x, y in pairs]),
    }
    assert set(found) == set(expected)
    for kind, value in expected.items():
        assert found[kind] == pytest.approx(value, rel=1e-3, abs=1e-4), kind


def test_what_was_seen_before_is_remembered_as_it_was():
    """Features of the sources are kept: among others, in another order, of another shape."""
    one, zero, sources = sets()
    before = tradeoff.points(zero, one, sources, [0.0, 0.5], ["kid", "lpips_vgg"])
    turned = tradeoff.points(zero[::-1], one[::-1], sources[::-1], [0.5], ["kid", "lpips_vgg"])
    assert turned[0.5] == pytest.approx(before[0.5])
    flat = [x.reshape(3, x.shape[1] // 2, -1) for x in sources]  # the same bytes
    features = perceptual.embeddings(flat)[0]
    assert torch.equal(tradeoff._features(flat), features)
    assert not torch.equal(tradeoff._features(sources), features)


def test_a_perfect_restoration_has_infinite_decibels():
    _, zero, sources = sets()
    found = tradeoff.points(zero, sources, sources, [1], ["psnr", "pooled"])
    assert found[1]["pooled"] == found[1]["psnr"] == np.inf


def test_an_image_is_consistent_with_itself_and_with_what_a_shrunk_image_does_not_show():
    image = torch.rand((3, 16, 16), generator=torch.Generator().manual_seed(0))
    assert tradeoff.inconsistency(image, image) == 0
    assert tradeoff.inconsistency(image + 0.25, image) == pytest.approx(0.25, rel=1e-5)


def test_values_are_clipped_after_mixing():
    sources = [torch.full((3, 4, 4), 0.9)] * 2
    one, zero = [torch.full((3, 4, 4), 0.8)] * 2, [torch.full((3, 4, 4), 0.95)] * 2
    found = tradeoff.points(zero, one, sources, [-1, 2], ["mse"])
    assert found[-1]["mse"] == pytest.approx(0.1**2, rel=1e-4)  # 1.1 is seen as 1
    assert found[2]["mse"] == pytest.approx(0.25**2, rel=1e-4)


def test_the_vertex_is_the_alpha_of_least_error():
    one, zero, sources = sets()
    best = tradeoff.vertex(zero, one, sources)
    around = [best - 0.01, best, best + 0.01]
    found = tradeoff.points(zero, one, sources, around, ["mse"])
    errors = [found[alpha]["mse"] for alpha in around]
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
