"""The best linear restoration against dense Gaussian conditioning, and its limits."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from otlib import gaussian, wiener


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def eye(n):
    return torch.eye(n, dtype=torch.float64)


def textured(seed=0, side=24):
    return gaussian.texture((3, side, side), 1.0, 0.2, 0.5, seeded(seed))


@pytest.fixture(scope="module")
def prior():
    return wiener.fit([textured(k) for k in range(3)], 6)


def dense(prior, side):
    """Mean (C,) and covariance (C side^2, C side^2) of an image of the prior, by the sum itself."""
    most = (prior.covariance.shape[1] + 1) // 2
    place = torch.arange(side * side)
    down = place[:, None] // side - place // side + most - 1
    across = place[:, None] % side - place % side + most - 1
    blocks = prior.covariance[:, down, across]
    return torch.einsum("kc,kij,kd->cidj", prior.colours, blocks, prior.colours)


def test_it_is_the_posterior_mean(prior):
    side, sd = 5, 0.1
    rows = torch.randn(3, side, dtype=torch.float64, generator=seeded(1))
    columns = torch.randn(4, side, dtype=torch.float64, generator=seeded(2))
    y = torch.randn(3, 3, 4, dtype=torch.float64, generator=seeded(3))
    operator = torch.kron(eye(3), torch.kron(rows, columns))
    covariance = dense(prior, side).reshape(3 * side**2, -1)
    mean = prior.mean.repeat_interleave(side**2)
    gain = covariance @ operator.mT
    seen = operator @ gain + sd**2 * eye(len(operator))
    expected = mean + gain @ torch.linalg.solve(seen, y.flatten() - operator @ mean)
    found = wiener.restorer(prior, sd, rows, columns)(y)
    torch.testing.assert_close(found.flatten(), expected)


def test_a_measurement_without_noise_is_kept(prior):
    rows = torch.randn(3, 6, dtype=torch.float64, generator=seeded(1))
    y = torch.einsum("ai,cij->caj", rows, textured(4).double()[:, :6, :6])
    found = wiener.restorer(prior, 0.0, rows, eye(6))(y)
    torch.testing.assert_close(torch.einsum("ai,cij->caj", rows, found), y)


def test_much_noise_leaves_the_mean(prior):
    y = textured(5)[:, :6, :6]
    found = wiener.restorer(prior, 1e6, eye(6), eye(6))(y)
    expected = prior.mean[:, None, None].expand(3, 6, 6).float()
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
    assert found.dtype == y.dtype


@settings(max_examples=10)
@given(st.integers(0, 99), st.integers(1, 6))
def test_the_covariance_is_one(seed, side):
    photograph = torch.rand(3, 2 * side + 1, 2 * side, generator=seeded(seed)) ** 2
    fitted = wiener.fit([photograph], side)
    covariance = dense(fitted, side).reshape(3 * side**2, -1)
    torch.testing.assert_close(covariance, covariance.mT)
    assert torch.linalg.eigvalsh(covariance)[0] > -1e-12
    torch.testing.assert_close(fitted.colours @ fitted.colours.mT, eye(3))
    piece = photograph.double()[:, : 2 * side].flatten(1)
    expected = torch.cov(piece, correction=0)
    same = fitted.covariance[:, side - 1, side - 1]
    torch.testing.assert_close(fitted.colours.mT @ torch.diag(same) @ fitted.colours, expected)


def test_white_noise_has_no_covariance_at_a_distance():
    noise = 0.5 + 0.1 * torch.randn(1, 256, 256, generator=seeded())
    lags = wiener.fit([noise], 8).covariance[0]
    assert float(lags[7, 7]) == pytest.approx(0.01, rel=0.02)
    lags[7, 7] = 0
    assert lags.abs().max() < 5 * 0.01 / 256


def test_draws_have_the_covariance(prior):
    side, count = 4, 1500
    random = seeded()
    images = torch.stack([wiener.draw(prior, side, random) for _ in range(count)]).double()
    found = torch.cov(images.flatten(1).mT)
    expected = dense(prior, side).reshape(3 * side**2, -1)
    scale = expected.diagonal().max()
    assert (found - expected).abs().max() < 6 * scale / count**0.5
    centre = images.mean((0, 2, 3)) - prior.mean
    assert centre.abs().max() < 5 * (scale / count) ** 0.5


@pytest.mark.parametrize(
    ("call", "match"),
    [
        (lambda p: wiener.fit([textured(side=8)], 6), "photographs must have sides >= 12 pixels"),
        (lambda p: wiener.fit([textured()], 0), "side must be"),
        (lambda p: wiener.restorer(p, -1.0, eye(4), eye(4)), "sd must be"),
        (lambda p: wiener.restorer(p, 0.1, eye(7), eye(4)), r"rows must be \(n, <= 6\), got"),
        (lambda p: wiener.restorer(p, 0.1, eye(4), eye(9)), r"columns must be \(n, <= 6\), got"),
        (
            lambda p: wiener.restorer(p, 0.0, torch.ones(2, 4).double(), eye(4)),
            "sd must be > 0 for this prior and operator, got 0",
        ),
        (
            lambda p: wiener.restorer(p, 0.1, eye(4), eye(4))(torch.zeros(3, 4, 5)),
            r"measurement must be \(3, 4, 4\), got \(3, 4, 5\)",
        ),
        (lambda p: wiener.draw(p, 7, seeded()), "side must be at most 6, got 7"),
    ],
)
def test_bad_input_is_refused(prior, call, match):
    with pytest.raises(ValueError, match=f"^{match}") as error:
        call(prior)
    assert "\n" not in str(error.value)
