"""The training, the descent and the draws of a diffusion model, against closed forms."""

import copy
import math
import types

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otlib import diffusion


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class Scaled(torch.nn.Module):
    """Takes a multiple of what it sees for the noise."""

    def __init__(self, start=0.0):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(start))

    def forward(self, seen, t):
        return types.SimpleNamespace(sample=self.factor * seen)


GREY = [torch.full((3, 16, 16), 0.5)]  # 0 in the network's units


def advanced(training, steps, generator, total=8, **others):
    options = dict(sides=(8,), pixels=512) | others
    return diffusion.advance(
        training, GREY, steps=steps, total=total, generator=generator, **options
    )


def test_what_is_kept_of_the_signal():
    share = diffusion.kept()
    assert share.shape == (1000,) and share.dtype == torch.float32
    assert share[0] == pytest.approx(1 - 1e-4) and 0 < share[-1] < 1e-4
    assert (share.diff() < 0).all()
    torch.testing.assert_close(share[1] / share[0], 1 - torch.tensor(1e-4 + 0.0199 / 999))


@given(st.integers(2, 60))
def test_the_descent_ends_at_the_first_step(count):
    share = diffusion.kept()
    steps, levels = diffusion.descent(share, count)
    assert (steps[0], steps[-1], len(steps)) == (999, 0, count)
    assert levels == sorted(levels, reverse=True)
    for step, level in zip(steps, levels, strict=True):
        assert 1 / (1 + level**2) == pytest.approx(float(share[step]), rel=1e-5)


def test_a_network_that_knows_the_noise_gives_the_image_back():
    image = 2 * torch.rand(3, 8, 8, generator=seeded()) - 1
    share = diffusion.kept()
    steps, levels = diffusion.descent(share, 5)

    def net(sample, t):
        kept = share[t]
        return types.SimpleNamespace(sample=(sample - kept.sqrt() * image) / (1 - kept).sqrt())

    predict = diffusion.predictor(net, steps, levels)
    for k, level in enumerate(levels):
        noisy = image + level * torch.randn(image.shape, generator=seeded(k))
        torch.testing.assert_close(predict(noisy, k), image, atol=1e-4 * max(1, level), rtol=0)
        batch = predict(noisy[None].repeat(2, 1, 1, 1), k)
        torch.testing.assert_close(batch[1], predict(noisy, k))


def test_training_finds_the_best_multiple():
    """On a grey photograph x_t = sqrt(1 - a) z: the best factor is E sqrt(1 - a) / E (1 - a)."""
    training = diffusion.begin(Scaled(), lr=0.05)
    losses = advanced(training, range(250), seeded(), total=250)
    noise = 1 - diffusion.kept().double()
    best = float(noise.sqrt().mean() / noise.mean())
    least = 1 - float(noise.sqrt().mean() ** 2 / noise.mean())
    assert float(training.net.factor.detach()) == pytest.approx(best, abs=0.05)
    assert float(training.average.factor) == pytest.approx(best, abs=0.05)
    assert losses[0] == pytest.approx(1, abs=0.2)
    assert losses[-50:].mean() == pytest.approx(least, abs=0.02)


def test_a_training_in_two_parts_is_the_same():
    whole, parts = (diffusion.begin(Scaled(0.3)) for _ in range(2))
    once = advanced(whole, range(8), seeded())
    random = seeded()
    first = advanced(parts, range(3), random)
    then = advanced(parts, range(3, 8), random)
    assert torch.equal(once, torch.cat([first, then]))
    for one, two in zip(whole[:2], parts[:2], strict=True):
        assert torch.equal(one.factor, two.factor)


def test_the_step_size_rises_and_falls():
    training = diffusion.begin(Scaled(), lr=0.5)
    seen = []
    look = lambda _: seen.append(training.adam.param_groups[0]["lr"])
    advanced(training, range(300), seeded(), total=300, callback=look, pixels=64)
    assert seen[0] == pytest.approx(0.5 / 200)
    assert seen[199] == pytest.approx(0.5 * (1 + math.cos(math.pi * 199 / 300)) / 2)
    assert seen[-1] < 1e-4 and max(seen) < 0.5


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_draws_have_the_law_of_a_gaussian_prior(eta):
    """Independent coefficients of variance v: the best guess is x v / (v + level^2)."""
    variance, levels = 0.49, torch.logspace(2, -3, 400, dtype=torch.float64).tolist()
    predict = lambda x, k: x * variance / (variance + levels[k] ** 2)
    found = diffusion.draw(predict, levels, (3, 60, 60), seeded(), eta)
    count = found.numel()
    assert abs(found.mean()) < 4 * math.sqrt(variance / count)
    assert abs(found.var() / variance - 1) < 4 * math.sqrt(2 / count) + 0.03  # of 400 levels
    assert torch.equal(found, diffusion.draw(predict, levels, (3, 60, 60), seeded(), eta))


def test_the_global_state_of_torch_is_left():
    before = torch.get_rng_state()
    advanced(diffusion.begin(Scaled()), range(2), seeded())
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (dict(steps=range(3, 9)), "steps must be a part of 0 to 8, got range\\(3, 9\\)"),
        (dict(steps=range(0, 4, 2)), "steps must be a part of 0 to 8"),
        (dict(sides=(12,)), "sides must be multiples of 8 of <= 512 pixels, got 12"),
        (dict(sides=(24,)), "sides must be multiples of 8 of <= 512 pixels, got 24"),
        (dict(sides=(16, 8), pixels=128), "sides must be multiples of 8 of <= 128 pixels, got 16"),
        (dict(photographs=[torch.zeros(1, 16, 16)]), "photographs must be \\(3, >= 8, same\\)"),
        (dict(photographs=[torch.full((3, 16, 16), 200.0)]), "photographs must have values"),
        (dict(photographs=[]), "photographs must be one or more, got none"),
    ],
)
def test_bad_input_is_refused(change, match):
    options = dict(photographs=GREY, steps=range(2), total=8, sides=(8,), pixels=512) | change
    given = options.pop("photographs")
    with pytest.raises(ValueError, match=f"^{match}") as error:
        diffusion.advance(diffusion.begin(Scaled()), given, generator=seeded(), **options)
    assert "\n" not in str(error.value)


@settings(max_examples=10)
@given(st.sampled_from([0, -3, 1, 2.5]))
def test_bad_counts_are_refused(count):
    with pytest.raises(ValueError, match=r"^count must be"):
        diffusion.descent(diffusion.kept(), count)


def test_a_bad_share_of_fresh_noise_is_refused():
    with pytest.raises(ValueError, match=r"^eta must lie in \[0, 1\], got 1.5"):
        diffusion.draw(lambda x, k: x, [1.0], (3, 8, 8), seeded(), 1.5)


def test_a_loss_that_is_not_finite_stops_the_training():
    net = Scaled(math.inf)
    with pytest.raises(RuntimeError, match=r"^loss is "):
        advanced(diffusion.begin(copy.deepcopy(net)), range(2), seeded())
