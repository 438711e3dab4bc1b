"""Photographs in turn natural, degraded and tested, so that no number hangs on one choice."""

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from companion.page.scenes import scenes
from otlib.assets import photographs
from otlib.assets.photographs import Photograph, Sets


class Dealt(NamedTuple):
    """What a role gets."""

    crops: int  # each turn
    scenes: int  # that they show, in the turn with fewest
    all: int  # crops in all turns


def rotations(
    folder: str | Path, size: int, counts: list[int], turns: int, seed: int = 0
) -> list[Sets]:
    """Deal the scenes of photographs into three roles, several times, each time turned on.

    folder, size: as for `photographs.sets`. counts: (natural, restored, test) wanted each time, at
        least 1 of the last. turns: how often, >= 1. seed: of the order of the scenes and the crops.

    The scenes stand in a circle in an order drawn from the seed; from a place that moves on with
    each turn they go to test, natural and restored by turns, until each role has as many scenes as
    it wants photographs. A role takes one crop of each of its scenes, then a second one, and so on.
    With seven turns of seven scenes each is tested three times, and learnt from four times.

    Returns a list of Sets, no two roles of one sharing a scene. Raises ValueError where a role gets
    none, and as `photographs.sets` does.
    """
    roles = [role for role, count in zip((2, 0, 1), (counts[2], *counts[:2]), strict=True) if count]
    wanted = min(len(photographs.files(folder)), sum(counts))
    dealt = _deal(wanted, roles, counts)
    if not all(dealt[role] for role in roles):
        raise ValueError(f"{folder} has {wanted} photographs, too few for {len(roles)} roles")
    each = max(-(-counts[role] // len(dealt[role])) for role in roles)
    photos = photographs.sets(folder, size, (0, 0, each * wanted), seed).test
    shown = scenes(photos)
    order = np.random.default_rng(seed).permutation(len(shown))
    circle = [[photos[place] for place in list(shown.values())[k]] for k in order]
    dealt = _deal(len(circle), roles, counts)
    found = []
    for turn in range(turns):
        start = turn * len(circle) // turns
        places = {role: [circle[(start + k) % len(circle)] for k in dealt[role]] for role in dealt}
        found.append(Sets(*(_crops(places[role], counts[role]) for role in range(3))))
    return found


def pictured(turns: list[Sets], device: str | torch.device) -> dict[str, Tensor]:
    """The images of all turns: {name of a photograph: (3, H, W)}, on the device."""
    photos = {photo.name: photo for turn in turns for part in turn for photo in part}
    return {name: photo.image.to(device) for name, photo in photos.items()}


def dealt(turns: list[Sets]) -> dict[str, Dealt]:
    """How many photographs each role gets: {"natural", "restored", "test": Dealt}."""
    found = {}
    for role, parts in zip(Sets._fields, zip(*turns, strict=True), strict=True):
        names = {photo.name for part in parts for photo in part}
        found[role] = Dealt(len(parts[0]), min(len(scenes(part)) for part in parts), len(names))
    return found


def apart(turns: list[Sets]) -> list[list[int]]:
    """For each turn the places of those whose test shows none of its test's scenes.

    Returns a list of lists; all others where there is none.
    """
    tested = [set(scenes(turn.test)) for turn in turns]
    others = [[k for k in range(len(turns)) if k != turn] for turn in range(len(turns))]
    free = [
        [k for k in places if not tested[k] & tested[turn]] for turn, places in enumerate(others)
    ]
    return [some or places for some, places in zip(free, others, strict=True)]


def _deal(count, roles, counts):
    """{role: the places in the circle that it takes}."""
    dealt: dict[int, list[int]] = {role: [] for role in range(3)}
    places = iter(range(count))
    for role in itertools.cycle(roles):
        if all(len(dealt[one]) >= counts[one] for one in roles):
            break
        if len(dealt[role]) < counts[role]:
            place = next(places, None)
            if place is None:
                break
            dealt[role].append(place)
    return dealt


def _crops(shown: Iterable[list[Photograph]], count: int) -> list[Photograph]:
    """The first `count` crops of scenes that take turns."""
    turns = itertools.zip_longest(*shown)
    return [crop for turn in turns for crop in turn if crop is not None][:count]
