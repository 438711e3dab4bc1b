"""Where the mass of a plan goes, and clouds on which one can see it."""

import math
import warnings

import pytest
import torch

from companion.page import clouds, masses
from otlib.restore import patch_ot
from otlib.sinkhorn import ConvergenceWarning, solve


def test_two_crescents_and_a_cluster_that_is_marked():
    draw = lambda seed: clouds.crescents(200, 0.2, torch.Generator().manual_seed(seed))
    x, y, wrong = draw(0)
    assert x.shape == y.shape == (200, 2) and x.dtype == y.dtype == torch.float64
    assert wrong.sum() == 40 and wrong[-40:].all()
    assert (y[wrong] - torch.tensor([0.0, -1.2])).norm(dim=1).max() < 0.6
    assert (y[~wrong, 1] > -0.5).all()  # far above the cluster
    assert (x.norm(dim=1) - 1).abs().mean() < 0.1
    assert torch.equal(draw(0)[1], y) and not torch.equal(draw(1)[1], y)
    assert not clouds.crescents(7, 0.0, torch.Generator())[2].any()


@pytest.mark.parametrize("rho", [(math.inf, math.inf), (math.inf, 0.1)])
def test_a_reference_is_matched_as_far_as_its_weights_are_met(rho):
    x, y, wrong = clouds.crescents(60, 0.2, torch.Generator().manual_seed(0))
    arrived = solve(x, y, eps=0.01, rho=rho, tol=1e-8, max_iter=2000).marginals[1]
    share, matched = float(masses.share(arrived, wrong)), float(masses.matched(arrived))
    if rho[1] == math.inf:  # all of it, the wrong ones too
        assert matched == pytest.approx(1, abs=1e-6) and share == pytest.approx(0.2, abs=1e-6)
    else:
        assert 0 < share < 0.02 and 0.6 < matched < 0.95
    both = torch.stack([arrived, torch.full_like(arrived, 1 / 60)])
    assert masses.matched(both).tolist() == pytest.approx([matched, 1])


def test_a_watched_prior_tells_what_each_solve_did_with_the_sample():
    random = torch.Generator().manual_seed(0)
    image = torch.rand(1, 8, 8, generator=random)

    def sample():  # every other patch is far from all of the image
        component = torch.arange(30) % 2
        cloud = torch.rand(30, 16, generator=random) + 5.0 * component[:, None]
        return cloud, component

    seen, reference, observe = masses.watch(sample, "cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        options = dict(eps=0.05, rho=(math.inf, 0.5), tol=1e-4, max_iter=200)
        prior = patch_ot(reference, 4, 2, observe=observe, **options)
        prior(image), prior(image)
    assert [len(seen[what]) for what in ("residual", "outliers", "matched")] == [2, 2, 2]
    assert max(seen["outliers"]) < 1e-3 and all(0.4 < m < 0.51 for m in seen["matched"])
    torch.testing.assert_close(seen["kept"], torch.ones(9))  # its own marginal is exact
