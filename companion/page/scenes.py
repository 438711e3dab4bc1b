"""The scenes that photographs show: crops of one are alike, so sets are told apart by them."""

from collections.abc import Sequence

from torch import Tensor

from otlib.assets.photographs import Photograph


def of(images: dict[str, Tensor], photos: Sequence[Photograph]) -> list[Tensor]:
    """What is known of some photographs. images: {name of a photograph: tensor}. photos: list."""
    return [images[photo.name] for photo in photos]


def scenes(photos: Sequence[Photograph]) -> dict[str, list[int]]:
    """The scenes that photographs show.

    photos: list of Photograph. Returns {scene: places of its photographs in the list}, sorted.
    """
    found: dict[str, list[int]] = {}
    for place, photo in enumerate(photos):
        found.setdefault(photo.name.partition("@")[0], []).append(place)
    return dict(sorted(found.items()))


def half_of_the_scenes(photos: Sequence[Photograph]) -> list[Photograph]:
    """The photographs of every second scene, at least of one. photos: list."""
    kept = set(list(scenes(photos))[::2])
    return [photo for photo in photos if photo.name.partition("@")[0] in kept]


def every_second(photos: Sequence[Photograph]) -> tuple[list[Photograph], list[Photograph]]:
    """Part the crops of each scene into the first, third, ... and the second, fourth, ...

    photos: list. Returns two lists without a crop in common; a lone crop is in the first.
    """
    shown = list(scenes(photos).values())
    even, odd = ([photos[k] for places in shown for k in places[start::2]] for start in (0, 1))
    return even, odd


def alone_and_mixed(photos: Sequence[Photograph]) -> dict[str, list[list[Photograph]]]:
    """Sets of the crops of one scene each, and as many sets of the same crops, scenes mixed.

    photos: list. Each set has as many as the scene with fewest crops.
    Returns {"scenes", "mixed": list of lists}.
    """
    shown = scenes(photos).values()
    count = min(map(len, shown))
    alone = [[photos[k] for k in places[:count]] for places in shown]
    dealt = [photo for crops in zip(*alone, strict=True) for photo in crops]
    mixed = [dealt[k : k + count] for k in range(0, len(dealt), count)]
    return {"scenes": alone, "mixed": mixed}
