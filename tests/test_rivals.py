from collections import OrderedDict

import pytest
import torch
from torch import nn

from otlib import generator, rivals
from otlib.assets import networks

TAPS = ("relu1_1", "relu2_1")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def small(dtype=torch.float64):
    """A stand-in for VGG: two periodic layers with names of its own, and a pooling between."""
    random = seeded()
    layers = OrderedDict(
        conv1_1=nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"),
        relu1_1=nn.Softplus(),  # smooth, so that differences converge
        pool1=nn.AvgPool2d(2),
        conv2_1=nn.Conv2d(4, 5, 3, padding=1, padding_mode="circular"),
        relu2_1=nn.Softplus(),
    )
    net = nn.Sequential(layers).to(dtype).requires_grad_(False)
    for weights in net.parameters():
        weights.copy_(torch.randn(weights.shape, generator=random) / 3)
    return net


def picture(seed, side=16, channels=3, dtype=torch.float64):
    return torch.rand(channels, side, side, generator=seeded(seed), dtype=dtype)


def waves(side=32, dtype=torch.float32):
    rows = torch.arange(side, dtype=dtype)
    wave = 0.5 + 0.3 * torch.sign(torch.sin(2 * torch.pi * (rows + 0.5) / 8))
    return wave.expand(1, side, side).contiguous()


def test_grams_are_means_over_pixels():
    image, net = picture(0), small()
    for found, layer in zip(rivals.grams(image, net, TAPS), (2, 5), strict=True):
        features = nn.Sequential(*list(net)[:layer])(image[None])[0]
        expected = torch.stack([f * g for f in features for g in features]).mean((1, 2))
        torch.testing.assert_close(found, expected.reshape(found.shape))


def test_grey_is_a_colour_image_of_equal_channels():
    grey, net = picture(0, channels=1), small()
    pairs = zip(
        rivals.grams(grey, net, TAPS), rivals.grams(grey.repeat(3, 1, 1), net, TAPS), strict=True
    )
    for one, other in pairs:
        assert torch.equal(one, other)


def test_gram_loss_is_zero_at_the_exemplar_and_at_its_shifts():
    """At shifts by the stride of the poolings, which is all that the features can follow."""
    exemplar, net = picture(0), small()
    loss = rivals.gram_loss(exemplar, net, TAPS)
    assert float(loss(exemplar)) == 0
    assert float(loss(exemplar.roll((2, 4), (1, 2)))) < 1e-25
    assert float(loss(exemplar.roll(1, 1))) > 1e-9
    assert float(loss(picture(1))) > 1e-6


def test_gram_loss_has_the_printed_weights():
    exemplar, image, net = picture(0), picture(1), small()
    pairs = zip(rivals.grams(image, net, TAPS), rivals.grams(exemplar, net, TAPS), strict=True)
    expected = sum(1000 / len(g) ** 4 * (g - w).square().sum() for g, w in pairs)
    torch.testing.assert_close(rivals.gram_loss(exemplar, net, TAPS)(image), expected)


def test_gradient_of_the_gram_loss():
    loss = rivals.gram_loss(picture(0), small(), TAPS)
    image, way = picture(1).requires_grad_(), picture(2) - 0.5
    loss(image).backward()
    with torch.no_grad():
        slope = (loss(image + 1e-5 * way) - loss(image - 1e-5 * way)) / 2e-5
    assert float((image.grad * way).sum()) == pytest.approx(float(slope), rel=1e-6)


def test_gram_distance_is_relative():
    image, exemplar, net = picture(0), picture(1, 24), small()
    assert rivals.gram_distance(exemplar, exemplar, net, TAPS) == 0
    found = rivals.gram_distance(image, exemplar, net, TAPS)
    pairs = zip(rivals.grams(image, net, TAPS), rivals.grams(exemplar, net, TAPS), strict=True)
    assert found == pytest.approx(sum(float((g - w).norm() / w.norm()) for g, w in pairs) / 2)
    with torch.no_grad():  # all features times 3: so are both Gram matrices, by 9
        layers = OrderedDict(net.named_children())
        for name in TAPS:
            layers[name] = nn.Sequential(layers[name], scaled(3))
        layers["conv2_1"].weight /= 3
    scaled_net = nn.Sequential(layers)
    assert rivals.gram_distance(image, exemplar, scaled_net, TAPS) == pytest.approx(found)


def scaled(factor):
    layer = nn.Conv2d(1, 1, 1)
    layer.forward = lambda x: factor * x
    return layer


def test_gatys_lowers_the_loss():
    exemplar, start, seen = picture(0), picture(1), []
    value = rivals.gram_loss(exemplar, small(), TAPS)
    watch = lambda step, u: seen.append((step, float(value(u))))
    image, losses = rivals.gatys(exemplar, small(), start, taps=TAPS, steps=20, callback=watch)
    assert [step for step, _ in seen] == list(range(20)) and len(losses) == 20
    assert losses[-1] < 0.01 * losses[0]
    assert (losses.diff() <= 0).all()
    assert float(value(start)) == pytest.approx(float(losses[0]))
    assert [after for _, after in seen[:-1]] == pytest.approx(losses[1:].tolist())
    assert image.shape == start.shape and not image.requires_grad


def test_texture_network_learns_grams():
    """The same generator and loop with the other loss."""
    net = generator.network(1, 3, 2, generator=seeded())
    loss = rivals.gram_loss(waves(), small(torch.float32), TAPS)
    losses = generator.train(net, loss, 32, 32, steps=40, generator=seeded(1))
    assert sum(losses[-5:]) < sum(losses[:5]) / 10


@pytest.fixture(scope="module")
def vgg():
    return networks.vgg16(pooling="average")


def test_vgg_tells_a_texture_from_noise(vgg):
    """A piece of the same waves is nearer than noise of the same grey levels; shifts nearly 0."""
    exemplar = waves(64)
    shifted = rivals.gram_distance(exemplar.roll(8, 1), exemplar, vgg)
    noise = exemplar.flatten()[torch.randperm(64 * 64, generator=seeded())].reshape(1, 64, 64)
    assert shifted < 0.05
    assert rivals.gram_distance(noise, exemplar, vgg) > 5 * shifted
    loss = rivals.gram_loss(exemplar, vgg)
    assert float(loss(exemplar)) == 0


def test_bad_input():
    with pytest.raises(ValueError, match="image must have 1 or 3 channels, got 2"):
        rivals.grams(picture(0, channels=2), small(), TAPS)
    with pytest.raises(ValueError, match="image must be finite"):
        rivals.grams(picture(0) / 0, small(), TAPS)
    with pytest.raises(ValueError, match="start must be a non-empty"):
        rivals.gatys(picture(0), small(), torch.rand(4, 4))
    with pytest.raises(ValueError, match="steps must be a whole number >= 1, got 0"):
        rivals.gatys(picture(0), small(), picture(0), steps=0)
