"""Scores of restored images, and what of a reference is foreign."""

import math

import torch

from companion.page import scores
from otlib import metrics, patches


def picture(seed, side=40):
    return torch.rand(1, side, side, generator=torch.Generator().manual_seed(seed))


def test_an_image_is_scored_inside_its_border():
    image, truth = picture(0, 48), picture(1, 48)
    changed = truth.clone()
    changed[:, :6] = 1 - changed[:, :6]
    found = scores.quality(image, changed, border=6)
    assert found == scores.quality(image, truth, border=6) and len(found) == len(scores.MEASURES)
    assert found[0] == metrics.psnr(image, truth, border=6)
    # half the range: nearer by what the network makes of fainter images
    assert 0 < found[2] < found[1]
    assert found[4] == metrics.ssim(image, truth, border=6)
    assert scores.quality(truth, truth) == [math.inf, 0, 0, 0, 1]


def test_a_part_that_is_nowhere_in_the_clean_reference_is_foreign():
    clean = 0.5 + 0.01 * picture(0)
    target = 0.5 + 0.01 * picture(1)
    defective = clean.clone()
    cloud = patches.extract(clean, 4, 2)
    assert not scores.foreign(cloud, clean, target, patch=4).any()
    defective[:, :20] = 1
    cloud = patches.extract(defective, 4, 2)
    touched = (cloud == 1).any(1)
    assert torch.equal(scores.foreign(cloud, clean, target, patch=4), touched)
    assert scores.foreign(torch.ones(3, 16), clean, target, patch=4).all()


def test_a_plan_that_leaves_what_is_foreign_puts_no_mass_there():
    clean, target = 0.5 + 0.01 * picture(0), 0.5 + 0.01 * picture(1)
    cloud = torch.cat([patches.extract(clean, 4, 2)[:3], torch.ones(1, 16)])
    left, taken = torch.tensor([1.0, 1, 1, 0]), torch.tensor([1.0, 1, 1, 3])
    assert scores.foreign_mass(cloud, left, clean, target, patch=4) == (0.25, 0)
    assert scores.foreign_mass(cloud, taken, clean, target, patch=4) == (0.25, 0.5)
