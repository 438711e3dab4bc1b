"""DDRM against what a Gaussian prior gives in closed form."""

import math

import pytest
import torch

from otlib import ddrm, operators

GEOMETRIC = torch.logspace(2, -3, 400, dtype=torch.float64).tolist()


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def eye(n):
    return torch.eye(n, dtype=torch.float64)


def gaussian(levels, variance):
    """E[x | x + level z] for independent coefficients of that variance and mean 0."""
    return lambda x, t: x * variance / (variance + levels[t] ** 2)


def normal(*shape, seed=0):
    return torch.randn(shape, generator=generator(seed), dtype=torch.float64)


def test_a_measurement_without_noise_is_kept():
    measured = normal(2, 5, 7)
    levels = [10.0, 1.0, 0.1]
    found = ddrm.sample(measured, 0.0, eye(5), eye(7), lambda x, t: 0 * x, levels, generator())
    torch.testing.assert_close(found, measured)


@pytest.mark.parametrize("eta", [0.0, 0.85, 1.0])
def test_the_sample_explains_a_small_image_without_noise(eta):
    n, factor = 24, 4
    columns = operators.downscale(eye(n)[:, :, None].expand(-1, -1, 2 * factor), factor)[:, :, 0].mT
    measured = normal(3, n // factor, n // factor)
    levels = [100.0, 10.0, 1.0, 0.1]
    predict = gaussian(levels, 0.3)
    found = ddrm.sample(measured, 0.0, columns, columns, predict, levels, generator(), eta)
    assert found.shape == (3, n, n)
    torch.testing.assert_close(operators.downscale(found, factor), measured)
    again = ddrm.sample(measured, 0.0, columns, columns, predict, levels, generator(), eta)
    assert torch.equal(found, again)


def test_what_is_not_measured_is_drawn_from_the_prior():
    """Without fresh noise and with many levels: the flow from noise to the prior."""
    measured, variance = normal(4000, 1, 1), 0.49
    rows = torch.eye(1, 2, dtype=torch.float64)
    predict = gaussian(GEOMETRIC, variance)
    found = ddrm.sample(measured, 0.0, rows, eye(1), predict, GEOMETRIC, generator(), eta=0.0)
    torch.testing.assert_close(found[:, 0], measured[:, 0])
    free = found[:, 1, 0]
    assert abs(free.mean()) < 4 * math.sqrt(variance / 4000)
    assert abs(free.var() / variance - 1) < 4 * math.sqrt(2 / 4000)
    assert abs(torch.corrcoef(torch.stack([free, measured[:, 0, 0]]))[0, 1]) < 4 / math.sqrt(4000)


def test_a_descent_that_ends_at_the_noise_gives_the_posterior_mean():
    """The last level is the measurement's own: its denoised form, for a correlated prior too."""
    sd, n = 0.4, 6
    root = normal(n, n, seed=1)
    prior = root @ root.mT / n
    levels = [20.0, 3.0, sd]

    def predict(x, t):
        return torch.linalg.solve(prior + levels[t] ** 2 * eye(n), prior).mT @ x

    measured = normal(1, n, 1, seed=2)
    found = ddrm.sample(measured, sd, eye(n), eye(1), predict, levels, generator())
    expected = prior @ torch.linalg.solve(prior + sd**2 * eye(n), measured[0])
    torch.testing.assert_close(found[0], expected)


@pytest.mark.parametrize(("eta", "eta_b"), [(0.85, 1.0), (0.5, 0.7), (1.0, 0.3)])
def test_moments_follow_the_published_recursion(eta, eta_b):
    """One coefficient, Gaussian prior: every step is linear, so mean and variance are known."""
    y, gain, sd, variance, draws = 0.8, 0.5, 0.25, 1.0, 40000
    levels = [8.0, 2.0, 0.6, 0.3, 0.1, 0.05]
    noise = sd / gain
    mean, spread = y / gain, levels[0] ** 2 - noise**2
    for level, after in zip(levels, [*levels[1:], 0.0], strict=True):
        shrink = variance / (variance + level**2)
        if noise <= after:
            keep, pull = shrink * (1 - eta_b), eta_b
            fresh = after**2 - (eta_b * noise) ** 2
        else:
            pull = math.sqrt(1 - eta**2) * after / noise
            keep, fresh = shrink * (1 - pull), (eta * after) ** 2
        mean = keep * mean + pull * y / gain
        spread = keep**2 * spread + fresh
    found = ddrm.sample(
        torch.full((draws, 1, 1), y, dtype=torch.float64),
        sd,
        gain * eye(1),
        eye(1),
        gaussian(levels, variance),
        levels,
        generator(),
        eta,
        eta_b,
    )
    assert abs(found.mean() - mean) < 4 * math.sqrt(spread / draws) + 1e-12
    assert abs(found.var() - spread) < 4 * spread * math.sqrt(2 / draws) + 1e-12


def test_with_many_levels_the_measurement_outweighs_the_prior():
    """What the docstring says: the limit is the measurement, not the posterior's mean y / 2."""
    y = torch.full((50, 1, 1), 0.9, dtype=torch.float64)
    predict = gaussian(GEOMETRIC, 1.0)
    found = ddrm.sample(y, 1.0, eye(1), eye(1), predict, GEOMETRIC, generator())
    assert abs(found.mean() - 0.9) < 0.15  # and not 0.45


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"sd": -1.0}, "^sd must be a number >= 0"),
        ({"eta": 1.5}, "^eta must be at most 1, got 1.5$"),
        ({"eta_b": -0.5}, "^eta_b must be a number >= 0"),
        ({"rows": eye(5)}, r"^rows must have shape \(4, >= 4\), got \(5, 5\)$"),
        ({"columns": torch.ones(3, 2)}, r"^columns must have shape \(3, >= 3\), got \(3, 2\)$"),
        (
            {"levels": [1.0, 2.0]},
            r"^levels must be falling numbers, at least one, got \[1.0, 2.0\]$",
        ),
        ({"levels": []}, r"^levels must be falling numbers, at least one, got \[\]$"),
        ({"levels": [1.0, math.nan]}, "^levels must be a number > 0 and finite, got nan$"),
        ({"rows": torch.zeros(4, 5)}, "^rows must measure something, got zeros only$"),
        ({"columns": torch.full((3, 5), torch.nan)}, "^columns must be finite, got 15 NaN"),
        ({"levels": [0.5, 0.1], "sd": 1.0}, "^levels must start at 1 or above, got 0.5$"),
        ({"measurement": torch.full((1, 4, 3), torch.nan)}, "^measurement must be finite"),
    ],
)
def test_bad_input_is_one_line(changes, match):
    arguments = {
        "measurement": torch.zeros(1, 4, 3),
        "sd": 0.1,
        "rows": eye(4),
        "columns": eye(3),
        "predict": lambda x, t: x,
        "levels": [2.0, 1.0],
        "generator": generator(),
    }
    with pytest.raises(ValueError, match=match) as error:
        ddrm.sample(**(arguments | changes))
    assert "\n" not in str(error.value)
