import pickle

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from stripes import seeded, stripes

from otlib import singan


def grown(exemplar, steps, scales=None, seed=0, **options):
    pyramid, random = singan.begin(exemplar, width=8, generator=seeded(seed)), seeded(seed + 1)
    losses = []
    for _ in pyramid.sides[:scales]:
        losses.append(singan.grow(pyramid, exemplar, steps=steps, generator=random, **options))
    return pyramid, losses


@settings(max_examples=50)
@given(st.integers(25, 400), st.integers(25, 400), st.floats(0.5, 0.9))
def test_sides_go_from_the_least_to_the_exemplar(height, width, factor):
    found = singan.sides(height, width, factor)
    assert min(found[0]) == singan.LEAST
    assert found[-1] == (height, width)
    shorter = [min(sides) for sides in found]
    assert shorter == sorted(shorter)
    if len(found) > 1:  # one ratio for all scales, no wider than asked for
        ratio = (singan.LEAST / min(height, width)) ** (1 / (len(found) - 1))
        assert ratio >= factor - 1e-9
        for k, (h, w) in enumerate(reversed(found)):
            assert abs(h - height * ratio**k) <= 0.5 + 1e-6
            assert abs(w - width * ratio**k) <= 0.5 + 1e-6


def test_the_fixed_noise_gives_the_exemplar_and_others_give_its_texture():
    exemplar = stripes(33)
    pyramid, losses = grown(exemplar, 150, inner=1)
    assert [len(told) for told in losses] == [150] * len(pyramid.sides)
    error = float((singan.reconstruct(pyramid) - exemplar).square().mean().sqrt())
    assert error < 0.1 < float(exemplar.std())
    for seed in range(3):
        image = singan.sample(pyramid, 33, 33, generator=seeded(seed))[0, 6:-6, 6:-6]
        along, across = image.mean(1).std(), image.mean(0).std()
        assert across > 1.5 * along  # 1 for what has no direction


def test_the_critic_tells_the_exemplar_from_samples():
    """The score that it learns is higher on the exemplar: the sign of the loss."""
    exemplar = stripes(25)
    start = singan.begin(exemplar, width=8, generator=seeded())
    losses = singan.grow(start, exemplar, steps=60, inner=2, lr=5e-4, generator=seeded(1))
    assert losses[10:, 0].mean() > 0.05


def test_samples_of_any_size_and_of_the_scales_that_are_trained():
    exemplar = stripes(60, channels=3)[:, :44]
    pyramid, _ = grown(exemplar, 1, scales=2)
    assert len(pyramid.sides) > 2
    assert singan.reconstruct(pyramid).shape == (3, *pyramid.sides[1])
    image = singan.sample(pyramid, 88, 120, generator=seeded())
    height, width = pyramid.sides[1]
    assert image.shape[0] == 3
    assert abs(image.shape[1] - 2 * height) <= 1
    assert abs(image.shape[2] - 2 * width) <= 1
    whole, _ = grown(exemplar, 1)
    image = singan.sample(whole, 50, 71, generator=seeded())
    assert image.shape == (3, 50, 71)
    assert image.min() >= 0
    assert image.max() <= 1
    again = singan.sample(whole, 50, 71, generator=seeded())
    assert torch.equal(image, again)
    assert not torch.equal(image, singan.sample(whole, 50, 71, generator=seeded(1)))


def test_training_goes_on_from_a_copy():
    exemplar = stripes(33)
    one, _ = grown(exemplar, 2, scales=1)
    two = pickle.loads(pickle.dumps(one))
    a, b = (singan.grow(p, exemplar, steps=2, generator=seeded(5)) for p in (one, two))
    torch.testing.assert_close(a, b, rtol=0, atol=0)
    draws = [singan.sample(p, 33, 33, generator=seeded()) for p in (one, two)]
    torch.testing.assert_close(*draws, rtol=0, atol=0)


def test_a_scale_starts_from_the_one_below():
    """With no step taken to speak of, a new scale has the weights of the last."""
    exemplar = stripes(33)
    second, _ = grown(exemplar, 3, scales=1)
    critic = second.critics[0].state_dict()
    singan.grow(second, exemplar, steps=1, inner=1, lr=1e-12, generator=seeded())
    for old, new in zip(second.nets[0].parameters(), second.nets[1].parameters(), strict=True):
        torch.testing.assert_close(old, new, rtol=0, atol=1e-9)
    for name, value in second.critics[0].named_parameters():
        torch.testing.assert_close(value.detach(), critic[name], rtol=0, atol=1e-9)
    below = second.amplitudes[1]
    assert 0 < below < second.amplitudes[0] == 1  # a tenth of what is missing at the scale


def test_bad_input_is_named():
    exemplar = stripes(33)
    pyramid, _ = grown(exemplar, 1)
    fresh = singan.begin(exemplar, generator=seeded())
    cases = {
        "exemplar must have sides >= 25 pixels, got 24 x 33": lambda: singan.begin(
            exemplar[:, :24], generator=seeded()
        ),
        "exemplar must be float32": lambda: singan.begin(exemplar.double(), generator=seeded()),
        "exemplar must have a texture": lambda: singan.begin(0 * exemplar, generator=seeded()),
        "factor must lie between 0 and 1, got 1": lambda: singan.sides(50, 50, 1.0),
        "height must be a whole number >= 25": lambda: singan.sides(20, 50),
        "pyramid must have a scale left": lambda: singan.grow(
            pyramid, exemplar, generator=seeded()
        ),
        r"exemplar must be \(1, 33, 33\)": lambda: singan.grow(
            fresh, stripes(33, channels=3), generator=seeded()
        ),
        "steps must be a whole number >= 1": lambda: singan.grow(
            fresh, exemplar, steps=0, generator=seeded()
        ),
        "lr must be a number > 0": lambda: singan.grow(fresh, exemplar, lr=0, generator=seeded()),
        "pyramid must have a trained scale": lambda: singan.reconstruct(fresh),
        "width must be a whole number >= 25": lambda: singan.sample(
            pyramid, 33, 5, generator=seeded()
        ),
    }
    for message, call in cases.items():
        with pytest.raises(ValueError, match=message):
            call()
