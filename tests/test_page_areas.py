"""Which areas a restoration changes, and how much of an image that is."""

import numpy as np
import torch

from companion.page import areas

SIDE, PATCH = 24, 4


def half():
    """A change of size 2 in the left half of an image, none in the right one."""
    change = torch.zeros(1, SIDE, SIDE)
    change[:, :, : SIDE // 2] = 2
    return change


def test_a_change_is_measured_by_the_mean_of_one_form():
    maps = areas.changed({"all": torch.ones(1, SIDE, SIDE), "half": half()}, "all", PATCH)
    torch.testing.assert_close(maps["all"], torch.ones(1, SIDE, SIDE))
    inside = maps["half"][:, :, PATCH : SIDE // 2 - PATCH]
    torch.testing.assert_close(inside, torch.full_like(inside, 4.0))
    assert (maps["half"][:, :, SIDE // 2 + PATCH : -PATCH] == 0).all()
    torch.testing.assert_close(maps["half"].mean(), torch.tensor(2.0))  # a blur keeps the mean
    twice = areas.changed({name: 3 * one for name, one in maps.items()}, "half", PATCH)
    torch.testing.assert_close(twice["half"].mean(), torch.tensor(1.0))


def test_what_a_form_leaves_and_what_it_restores_are_counted_apart():
    bounds = [0.0, areas.LEFT - 0.01, areas.LEFT + 0.01, areas.RESTORED + 0.01]
    image = torch.tensor(bounds)[None, None].expand(1, 8, 4)
    maps = [[{"a": image, "b": image + 1}] * 3] * 2
    found = areas.shares(maps)
    assert found["a"].left.shape == found["a"].restored.shape == (2, 3)
    assert (found["a"].left == 0.5).all() and (found["a"].restored == 0.25).all()
    assert (found["b"].left == 0).all() and (found["b"].restored == 1).all()
    assert np.array_equal(areas.shares(maps[:1])["a"].left, found["a"].left[:1])
