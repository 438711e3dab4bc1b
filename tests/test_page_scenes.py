"""Photographs told apart by the scenes that they show."""

import types
from itertools import chain

import torch

from companion.page import scenes


def crops(*names):
    return [types.SimpleNamespace(name=name) for name in names]


def test_what_is_known_of_photographs_keeps_their_order():
    images = {name: torch.full((1,), value) for name, value in (("a@0", 1.0), ("b@0", 2.0))}
    assert torch.cat(scenes.of(images, crops("b@0", "a@0", "b@0"))).tolist() == [2, 1, 2]


def test_scenes_are_counted_once():
    photos = crops("b.png@0,0", "a.png@0,8", "b.png@8,0")
    assert list(scenes.scenes(photos).items()) == [("a.png", [1]), ("b.png", [0, 2])]


def test_crops_and_scenes_are_parted_without_loss():
    photos = crops("a@0", "b@0", "a@1", "b@1", "a@2", "c@0")
    even, odd = scenes.every_second(photos)
    assert [p.name for p in even] == ["a@0", "a@2", "b@0", "c@0"]
    assert [p.name for p in odd] == ["a@1", "b@1"]
    half = [p.name for p in scenes.half_of_the_scenes(photos)]
    assert half == ["a@0", "a@1", "a@2", "c@0"]


def test_mixed_sets_have_the_crops_of_the_sets_of_one_scene():
    photos = crops("a@0", "b@0", "a@1", "c@0", "b@1", "a@2", "c@1", "a@3", "c@2", "b@2")
    found = scenes.alone_and_mixed(photos)
    alone, mixed = ([[p.name for p in part] for part in found[k]] for k in ("scenes", "mixed"))
    assert alone == [["a@0", "a@1", "a@2"], ["b@0", "b@1", "b@2"], ["c@0", "c@1", "c@2"]]
    assert list(map(len, mixed)) == [3, 3, 3]
    assert sorted(chain(*mixed)) == sorted(chain(*alone))
    assert all(len({name[0] for name in part}) == 3 for part in mixed)
