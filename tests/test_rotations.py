"""Photographs change their roles, and no two roles of one turn show the same scene."""

import numpy as np
import pytest
from PIL import Image

from companion.page.rotations import apart, dealt, pictured, rotations
from companion.page.scenes import scenes


@pytest.fixture
def folder(tmp_path):
    random = np.random.default_rng(0)
    for k in range(7):
        pixels = random.integers(0, 256, (32, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{k}.png")
    return tmp_path


def test_seven_turns_of_seven_scenes_give_each_the_same_parts(folder):
    turns = rotations(folder, 16, [5, 4, 3], 7, seed=1)
    assert [len(part) for part in turns[0]] == [5, 4, 3]
    shown = [[set(scenes(part)) for part in turn] for turn in turns]
    assert all([len(part) for part in turn] == [2, 2, 3] for turn in shown)
    assert all(len(set.union(*turn)) == 7 for turn in shown)
    often = [sum(f"{k}.png" in turn[role] for turn in shown) for k in range(7) for role in range(3)]
    assert often == [2, 2, 3] * 7
    for turn, others in enumerate(apart(turns)):
        assert others and not any(shown[k][2] & shown[turn][2] for k in others)


def test_a_folder_of_enough_photographs_gives_every_crop_a_scene_of_its_own(folder):
    (turn,) = rotations(folder, 16, [2, 2, 3], 1)
    assert [len(scenes(part)) for part in turn] == [2, 2, 3]
    assert apart([turn]) == [[]]


def test_a_role_without_photographs_is_refused(folder):
    for k in range(2, 7):
        (folder / f"{k}.png").unlink()
    with pytest.raises(ValueError, match="has 2 photographs, too few for 3 roles"):
        rotations(folder, 16, [1, 1, 1], 1)


def test_a_role_that_wants_none_gets_none(folder):
    turns = rotations(folder, 16, [0, 4, 3], 2)
    assert [len(part) for part in turns[1]] == [0, 4, 3]


def test_the_seed_decides_the_order(folder):
    names = lambda seed: [photo.name for photo in rotations(folder, 16, [2, 2, 3], 2, seed)[1].test]
    assert names(0) == names(0) != names(3)


def test_what_the_roles_get_is_counted(folder):
    turns = rotations(folder, 16, [5, 4, 3], 7, seed=1)
    found = dealt(turns)
    assert list(found) == ["natural", "restored", "test"]
    assert [part.crops for part in found.values()] == [5, 4, 3]
    assert [part.scenes for part in found.values()] == [2, 2, 3]
    names = {photo.name for turn in turns for photo in turn.test}
    assert found["test"].all == len(names) > 3
    every = pictured(turns, "cpu")
    assert names <= set(every) == {photo.name for turn in turns for part in turn for photo in part}
    first = turns[0].test[0]
    assert np.array_equal(every[first.name], first.image)
