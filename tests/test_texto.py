import functools

import pytest
import torch

from otlib import gaussian, patches, semidual, softmin, texto


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def waves(side=32, dtype=torch.float32):
    rows = torch.arange(side, dtype=dtype)
    wave = 0.5 + 0.3 * torch.sign(torch.sin(2 * torch.pi * (rows + 0.5) / 8))
    return wave.expand(1, side, side).contiguous()


def line(n, seed=0):
    """A function that draws n points of the unit interval."""
    random = seeded(seed)
    return lambda: torch.rand(n, 1, generator=random, dtype=torch.float64)


def test_two_layers_on_a_line_are_optimal_transport():
    """Cells of a line are intervals, so that both layers together are the monotone map."""
    y = torch.rand(12, 1, generator=seeded(1), dtype=torch.float64).sort(0).values
    found = texto.layers(line(500), y, cells=3, steps=1000, generator=seeded())
    x = (torch.arange(1200, dtype=torch.float64)[:, None] + 0.5) / 1200
    to = texto.assign(x, found)
    assert (to.diff() >= 0).all()
    wanted = torch.arange(12).repeat_interleave(100)
    assert (to != wanted).double().mean() < 0.05  # an ascent of so many steps is so near


def test_one_cell_is_semi_discrete_transport():
    """From a Gaussian: the dual value of an exact solver, and the mass of each point."""
    y = torch.randn(20, 2, generator=seeded(3), dtype=torch.float64) + 1
    mean, cov = torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    source = functools.partial(gaussian.sample, mean, cov, 500, seeded())
    found = texto.layers(source, y, cells=1, steps=800, generator=seeded(1))
    x = gaussian.sample(mean, cov, 4000, seeded(2))
    to = texto.assign(x, found)
    counts = to.bincount(minlength=20) / len(x)
    assert (counts - 1 / 20).abs().max() < 0.02
    exact = float(semidual.solve(x, y, tol=1e-3).value)
    assert exact * 0.99 < float(semidual.evaluate(x, y, found.fine).value) < exact * 1.001
    assert torch.equal(to, softmin.hardmin(x, y, found.fine)[1])


def test_more_cells_are_dearer_and_carry_the_same_masses():
    y = torch.randn(60, 2, generator=seeded(3), dtype=torch.float64)
    mean, cov = torch.zeros(2, dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    source = functools.partial(gaussian.sample, mean, cov, 500, seeded())
    x, costs = gaussian.sample(mean, cov, 6000, seeded(2)), []
    for cells in (1, 5):
        found = texto.layers(source, y, cells=cells, steps=500, generator=seeded(1))
        to = texto.assign(x, found)
        masses = to.bincount(minlength=60) / len(x)
        assert float((masses - 1 / 60).abs().sum()) / 2 < 0.1
        costs.append(float((x - y[to]).square().sum(1).mean()))
    assert costs[0] < costs[1] < 1.5 * costs[0]


def test_a_mixture_is_found_again():
    """Two far components: weights, means and covariances to the error of the sample."""
    random, d = seeded(), 3
    parts = [(0.3, -4.0, 0.5), (0.7, 4.0, 2.0)]
    cloud = torch.cat(
        [
            mean + var**0.5 * torch.randn(int(5000 * w), d, generator=random, dtype=torch.float64)
            for w, mean, var in parts
        ]
    )
    weights, means, covs = texto.mixture(cloud, 2, seeded(1))
    order = means[:, 0].argsort()
    for k, (weight, mean, var) in zip(order, parts, strict=True):
        assert float(weights[k]) == pytest.approx(weight, abs=0.01)
        assert (means[k] - mean).abs().max() < 0.1
        assert (covs[k] - var * torch.eye(d)).abs().max() < 0.15 * var


def test_spots_have_the_exemplars_law():
    """The mean over draws of the spectrum is that of the exemplar, zero around it."""
    exemplar = torch.rand(2, 8, 8, generator=seeded(4), dtype=torch.float64)
    random = seeded()
    images = torch.stack([texto.spots(exemplar, 16, 24, random) for _ in range(4000)])
    mean = exemplar.mean((1, 2), keepdim=True)
    assert (images.mean((0, 2, 3)) - mean.flatten()).abs().max() < 0.02
    products = [images[:, 0] - mean[0], images[:, 1] - mean[1]]
    spot = (exemplar - mean) / 8
    for a in range(2):
        for b in range(2):  # the covariance at lag 0, of colours too
            found = float((products[a] * products[b]).mean())
            assert found == pytest.approx(float((spot[a] * spot[b]).sum()), abs=0.003)
    lag = float((products[0] * products[0].roll((1, 2), (1, 2))).mean())
    wanted = float((spot[0, 1:, 2:] * spot[0, :-1, :-2]).sum())
    assert lag == pytest.approx(wanted, abs=0.003)


def test_a_flat_image_is_drawn_flat():
    flat = torch.full((3, 16, 16), 0.25, dtype=torch.float64)
    model = texto.fit(flat, levels=2, steps=3, generator=seeded())
    image = texto.draw(model, 32, 16, generator=seeded())
    torch.testing.assert_close(image, flat[:, :1, :1].expand(3, 32, 16))


def test_it_is_nearer_to_the_exemplar_than_its_random_phase():
    """Patches of two grey levels, which no Gaussian has; means of patches stay in their range."""
    exemplar = waves(32)
    exemplar = torch.where(torch.rand(1, 32, 32, generator=seeded(1)) < 0.1, 0.2, exemplar)
    model = texto.fit(exemplar, levels=3, cells=3, draws=300, steps=100, generator=seeded())
    image = texto.draw(model, 64, 64, generator=seeded())
    assert image.shape == (1, 64, 64) and image.dtype == exemplar.dtype
    assert exemplar.min() <= image.min() + 1e-6 and image.max() <= exemplar.max() + 1e-6

    def distance(u):
        clouds = (patches.extract(v, 3)[::3] for v in (u, exemplar))
        return float(semidual.solve(*clouds, tol=1e-2).value)

    assert distance(image[:, :32, :32]) < 0.5 * distance(gaussian.random_phase(exemplar, seeded()))


def test_it_depends_on_the_seeds_only():
    noise = torch.rand(1, 16, 16, generator=seeded(5))

    def drawn(first, second):
        model = texto.fit(noise, levels=2, targets=50, cells=2, steps=5, generator=seeded(first))
        return texto.draw(model, 16, 16, generator=seeded(second))

    assert torch.equal(drawn(0, 0), drawn(0, 0))
    assert not torch.equal(drawn(0, 0), drawn(1, 0))
    assert not torch.equal(drawn(0, 0), drawn(0, 1))


def test_bad_input():
    square = torch.rand(1, 16, 16, generator=seeded())
    with pytest.raises(ValueError, match="exemplar's sides must be multiples of 4, got 18 x 16"):
        texto.fit(torch.rand(1, 18, 16, generator=seeded()), levels=3, generator=seeded())
    for name in ("targets", "components", "cells", "draws", "steps"):
        with pytest.raises(ValueError, match=f"{name} must be a whole number >= 1, got 0"):
            texto.fit(square, levels=2, **{name: 0}, generator=seeded())
    with pytest.raises(ValueError, match="patch must be at most the image's 2 x 2 pixels, got 3"):
        texto.fit(square, levels=4, generator=seeded())
    with pytest.raises(ValueError, match="components must be a whole number >= 1, got 0"):
        texto.mixture(square[0], 0, seeded())
    with pytest.raises(ValueError, match="cells must be a whole number >= 1, got 0"):
        texto.layers(lambda: square[0], square[0], cells=0, generator=seeded())
    model = texto.fit(square, levels=2, steps=2, generator=seeded())
    with pytest.raises(ValueError, match="height and width must be multiples of 2, got 17 x 16"):
        texto.draw(model, 17, 16, generator=seeded())
    with pytest.raises(ValueError, match=r"sides must be at least the exemplar's \(8, 8\)"):
        texto.draw(model, 8, 16, generator=seeded())
