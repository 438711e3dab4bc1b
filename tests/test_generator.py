import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from otlib import generator, patches, semidual


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def trained(scales=3, channels=1, width=2, seed=0):
    """A double network whose statistics are those of no single image."""
    net = generator.network(channels, scales, width, generator=seeded(seed)).double()
    random = seeded(seed + 1)
    for layer in net.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.running_mean = 0.3 * torch.randn(layer.num_features, generator=random).double()
            layer.running_var = 0.5 + torch.rand(layer.num_features, generator=random).double()
    return net.eval()


def stripes(side=32):
    """A texture of diagonal waves in [0, 1] with a little noise."""
    rows, columns = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    wave = 0.5 + 0.3 * torch.sin(2 * torch.pi * (rows + 2 * columns) / 8)
    return (wave + 0.02 * torch.randn(side, side, generator=seeded()))[None]


@pytest.mark.parametrize("width, count", [(2, 7968), (8, 116832)])
def test_number_of_parameters_is_that_of_the_authors_code(width, count):
    """Colour, 6 scales, no bias in the last convolution."""
    net = generator.Network(channels=3, scales=6, width=width)
    assert sum(weights.numel() for weights in net.parameters()) == count


@pytest.mark.parametrize("scales", [1, 2, 4])
def test_any_size_in_one_pass(scales):
    net, stride = trained(scales, channels=3), 1 << (scales - 1)
    for height, width in [(stride, stride), (3 * stride, 8 * stride)]:
        noises = generator.noise(net, height, width, generator=seeded())
        assert generator.generate(net, noises).shape == (3, height, width)
        assert all(z.min() >= 0 and z.max() <= 1 for z in noises)


@settings(max_examples=15)
@given(st.integers(0, 7), st.integers(0, 7))
def test_translation_of_the_noise_translates_the_image(down, right):
    net = trained()
    noises = generator.noise(net, 32, 32, generator=seeded())
    moved = [z.roll((4 * down >> k, 4 * right >> k), (2, 3)) for k, z in enumerate(noises)]
    expected = generator.generate(net, noises).roll((4 * down, 4 * right), (1, 2))
    torch.testing.assert_close(generator.generate(net, moved), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("scale", [0, 1, 2])
def test_receptive_field(scale):
    """What one value of noise changes: all of a square, and nothing outside it."""
    net = trained()
    noises = generator.noise(net, 64, 64, generator=seeded())
    before = generator.generate(net, noises)
    at = 32 >> scale
    noises[scale][0, :, at, at] += 1
    rows, columns = (generator.generate(net, noises) - before)[0].nonzero().T
    # joins of the scales <= k see 2 pixels of theirs, and so does the block that the noise enters;
    # the coarsest noise enters without a join
    joins = sum(2 << k for k in range(min(scale + 1, 2)))
    reach = joins + (2 << scale)
    for found in (rows, columns):
        assert found.min() == 32 - reach
        assert found.max() == 32 + (1 << scale) - 1 + reach


@settings(max_examples=12)
@given(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9), st.integers(1, 5))
def test_tiles_are_seamless(scales, rows, columns, tile):
    net, stride = trained(scales, seed=scales), 1 << (scales - 1)
    noises = generator.noise(net, rows * stride, columns * stride, generator=seeded())
    whole = generator.generate(net, noises)
    tiled = generator.generate(net, noises, tile=tile * stride)
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-12)


def test_generation_is_that_of_the_fixed_statistics():
    """In training the statistics are those of the image: a tile would have its own."""
    net = trained().train()
    noises = generator.noise(net, 16, 16, generator=seeded())
    before = {name: value.clone() for name, value in net.state_dict().items()}
    image = generator.generate(net, noises)
    assert net.training and not image.requires_grad
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert torch.equal(image, net.eval()(noises)[0].detach())


def test_loss_is_half_the_transport_cost():
    """On all patches never above the exact cost of both levels, and with phi kept soon near it."""
    exemplar = stripes(16).double()
    image = 0.6 + 0.1 * exemplar.roll(3, 2) + 0.02 * torch.rand(1, 16, 16, generator=seeded())
    levels = patches.pyramid(image, 2, periodic=True), patches.pyramid(exemplar, 2)
    clouds = [
        (patches.extract(u, 3, periodic=True), patches.extract(v, 3))
        for u, v in zip(*levels, strict=True)
    ]
    exact = sum(float(semidual.solve(x, y).value) for x, y in clouds) / 2
    loss = generator.transport_loss(
        exemplar, patch=3, levels=2, dual_steps=4, dual_step=2e-3, generator=seeded()
    )
    values = [float(loss(image)) for _ in range(60)]
    assert all(value <= exact + 1e-9 for value in values)
    assert values[0] < 0.8 * exact
    assert values[-1] == pytest.approx(exact, rel=0.02)


def test_gradient_of_the_loss():
    """In the image and in the weights, by central differences; phi is locally constant in both."""
    exemplar = stripes(16).double()
    fresh = lambda: generator.transport_loss(exemplar, patch=3, levels=2, generator=seeded())
    image = torch.rand(1, 16, 16, generator=seeded(1)).double().requires_grad_()
    way = torch.randn(1, 16, 16, generator=seeded(2)).double()
    fresh()(image).backward()
    with torch.no_grad():
        slope = (fresh()(image + 1e-6 * way) - fresh()(image - 1e-6 * way)) / 2e-6
    assert float((image.grad * way).sum()) == pytest.approx(float(slope), rel=1e-6)

    net = trained()
    noises = generator.noise(net, 16, 16, generator=seeded())
    fresh()(net(noises)[0]).backward()
    weights = net.enter[1][0].weight
    way = torch.randn(weights.shape, generator=seeded(3)).double()
    sides = []
    for sign in (1, -2):
        weights.data += sign * 1e-6 * way
        sides.append(float(fresh()(net(noises)[0]).detach()))
    slope = (sides[0] - sides[1]) / 2e-6
    assert float((weights.grad * way).sum()) == pytest.approx(slope, rel=1e-4)


def short(seed, steps=60):
    draw = seeded(seed)
    net = generator.network(1, 3, 2, generator=draw)
    loss = generator.transport_loss(stripes().float(), levels=2, batch=200, generator=draw)
    losses = generator.train(net, loss, 32, 32, steps=steps, generator=draw)
    return net, losses


def test_training_lowers_the_loss():
    """On a toy exemplar, to below a third in a few steps; the images have its mean."""
    net, losses = short(0)
    assert not net.training and len(losses) == 60
    assert sum(losses[-5:]) < sum(losses[:5]) / 3
    image = generator.generate(net, generator.noise(net, 64, 64, generator=seeded()))
    assert float(image.mean()) == pytest.approx(0.5, abs=0.05)


def test_training_depends_on_the_seed_only():
    torch.manual_seed(1)
    first, losses = short(0, 3)
    torch.manual_seed(2)
    again, losses_again = short(0, 3)
    _, losses_other = short(1, 3)
    assert torch.equal(losses, losses_again) and not torch.equal(losses, losses_other)
    for name, value in first.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_training_calls_back_with_each_image():
    seen = []
    net = generator.network(1, 2, 1, generator=seeded())
    losses = generator.train(
        net,
        lambda image: image.square().mean(),
        8,
        8,
        steps=3,
        generator=seeded(),
        callback=lambda *step: seen.append(step),
    )
    assert [step for step, _ in seen] == [0, 1, 2]
    assert [float(u.square().mean()) for _, u in seen] == losses.tolist()


def test_training_stops_where_the_loss_is_lost():
    net = generator.network(1, 2, 1, generator=seeded())
    with pytest.raises(RuntimeError, match="loss is nan at step 0"):
        nan = lambda image: image.sum() * float("nan")
        generator.train(net, nan, 8, 8, steps=3, generator=seeded())


def test_sizes_that_the_strides_do_not_divide():
    net = trained(scales=4)
    with pytest.raises(ValueError, match="height must be a multiple of 8 pixels, got 20"):
        generator.noise(net, 20, 16, generator=seeded())
    with pytest.raises(ValueError, match="width must be a whole number >= 1, got 0"):
        generator.noise(net, 16, 0, generator=seeded())
    noises = generator.noise(net, 16, 16, generator=seeded())
    with pytest.raises(ValueError, match="tile must be a multiple of 8 pixels, got 12"):
        generator.generate(net, noises, tile=12)
    with pytest.raises(ValueError, match="noises must have the shapes"):
        generator.generate(net, noises[:-1])
    with pytest.raises(ValueError, match="width must be a multiple of 8 pixels, got 4"):
        generator.train(net, torch.sum, 8, 4, steps=1, generator=seeded())


@pytest.mark.parametrize("name", ["channels", "scales", "width"])
@pytest.mark.parametrize("value", [0, 1.5, True])
def test_bad_settings(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a whole number >= 1, got {value}"):
        generator.Network(**{name: value})


def test_bad_losses():
    with pytest.raises(ValueError, match="dual_step must be a number > 0"):
        generator.transport_loss(stripes(), dual_step=0, generator=seeded())
    with pytest.raises(ValueError, match="dual_steps must be a whole number >= 1, got 0"):
        generator.transport_loss(stripes(), dual_steps=0, generator=seeded())
    with pytest.raises(ValueError, match="patch must be at most the image's 3 x 3 pixels, got 4"):
        generator.transport_loss(stripes(8), levels=2, generator=seeded())
    with pytest.raises(ValueError, match="exemplar must be finite"):
        generator.transport_loss(stripes() / 0, generator=seeded())
