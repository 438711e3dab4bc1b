import math
import pickle

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from stripes import seeded, stripes

from otlib import psgan


def started(exemplar=None, depth=2, seed=0, **sizes):
    exemplar = stripes(40) if exemplar is None else exemplar
    options = dict(depth=depth, width=8, local=4, whole=3, periodic=2) | sizes
    return psgan.begin(exemplar, **options, generator=seeded(seed))


@settings(max_examples=12)
@given(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5), st.sampled_from([1, 3]))
def test_any_size(depth, rows, columns, channels):
    net, side = started(stripes(40, channels), depth).net, 1 << depth
    z = psgan.noise(net, rows * side, columns * side, generator=seeded())
    image = psgan.generate(net, z)
    assert image.shape == (channels, rows * side, columns * side)
    assert image.min() >= 0
    assert image.max() <= 1
    assert z.local.abs().max() <= 1
    assert 0 <= z.phases.min() <= z.phases.max() < 2 * math.pi


def test_a_step_of_the_noise_moves_the_image_and_its_waves():
    """The local part moved by a place and the phases by a wave vector: the same image, moved."""
    net = started().net.double()
    net.eval()
    z = psgan.noise(net, 64, 64, generator=seeded())
    z = psgan.Noise(*(part.double() for part in z))
    down, right = net.waves(z.whole).detach().split(2, 1)
    moved = psgan.Noise(z.local.roll((1, -1), (2, 3)), z.whole, z.phases - down + right)
    one, two = psgan.generate(net, z), psgan.generate(net, moved)
    inside = slice(16, 48)  # away from the zeros around
    expected = one.roll((4, -4), (1, 2))[:, inside, inside]
    torch.testing.assert_close(two[:, inside, inside], expected, rtol=0, atol=1e-12)


def test_the_waves_depend_on_the_global_noise_alone():
    net = started().net
    z = psgan.noise(net, 16, 16, generator=seeded())
    other = psgan.noise(net, 16, 16, generator=seeded(1))
    mixed = other._replace(whole=z.whole)
    assert torch.equal(net.waves(mixed.whole), net.waves(z.whole))
    assert not torch.equal(net.waves(other.whole), net.waves(z.whole))


def test_losses_start_where_the_critic_guesses_and_it_learns():
    training = started()
    losses = psgan.advance(training, stripes(40), steps=60, batch=4, crop=32, generator=seeded(1))
    assert losses.shape == (60, 2)
    torch.testing.assert_close(losses[0], torch.full((2,), math.log(2)).double(), rtol=0.1, atol=0)
    assert losses[5:, 0].min() < math.log(2)


def test_it_draws_the_texture():
    training = started(width=16)
    psgan.advance(training, stripes(40), steps=500, batch=6, crop=32, generator=seeded(1))
    for seed in range(3):
        z = psgan.noise(training.net, 64, 64, generator=seeded(seed))
        image = psgan.generate(training.net, z)[0, 8:-8, 8:-8]
        along, across = image.mean(1).std(), image.mean(0).std()
        assert across > 1.5 * along  # 1 for what has no direction


def test_training_goes_on_from_a_copy():
    training, exemplar = started(), stripes(40)
    psgan.advance(training, exemplar, steps=2, batch=2, crop=16, generator=seeded(1))
    copy = pickle.loads(pickle.dumps(training))
    options = dict(steps=3, batch=2, crop=16)
    one = psgan.advance(training, exemplar, **options, generator=seeded(2))
    two = psgan.advance(copy, exemplar, **options, generator=seeded(2))
    torch.testing.assert_close(one, two, rtol=0, atol=0)
    draws = [
        psgan.generate(t.net, psgan.noise(t.net, 16, 16, generator=seeded()))
        for t in (training, copy)
    ]
    torch.testing.assert_close(*draws, rtol=0, atol=0)


def test_bad_input_is_named():
    training, exemplar = started(), stripes(40)
    advance = lambda exemplar=exemplar, **options: psgan.advance(
        training, exemplar, **(dict(steps=1, batch=2, crop=16) | options), generator=seeded()
    )
    cases = {
        "exemplar must have sides >= 64 pixels, got 40 x 40": lambda: started(depth=6),
        "exemplar must be float32": lambda: started(exemplar.double()),
        "exemplar must have a texture": lambda: started(0 * exemplar),
        "width must be a whole number >= 1": lambda: started(width=0),
        "lr must be a number > 0": lambda: started(lr=0),
        "exemplar must have 1 channels as at `begin`, got 3": lambda: advance(stripes(40, 3)),
        "crop must be a multiple of 4 pixels, got 18": lambda: advance(crop=18),
        "crop must lie in the exemplar": lambda: advance(crop=44),
        "batch must be a whole number >= 2": lambda: advance(batch=1),
        "steps must be a whole number >= 1": lambda: advance(steps=0),
        "height must be a multiple of 4 pixels, got 10": lambda: psgan.noise(
            training.net, 10, 8, generator=seeded()
        ),
    }
    for message, call in cases.items():
        with pytest.raises(ValueError, match=message):
            call()
