"""Photographs for Deep Optimal Transport: disjoint sets of square crops."""

import hashlib
import importlib.metadata
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from otlib import _check
from otlib._ambient import plain
from otlib.assets import images, registry
from otlib.assets.used import note

__all__ = ["Photograph", "Sets", "files", "sets"]

# Each another scene; what else these packages carry is no photograph of the everyday world.
_EMBEDDED = (
    ("scikit-image", "skimage/data/astronaut.png"),
    ("scikit-image", "skimage/data/chelsea.png"),
    ("scikit-image", "skimage/data/coffee.png"),
    ("scikit-image", "skimage/data/motorcycle_left.png"),
    ("scikit-image", "skimage/data/rocket.jpg"),
    ("matplotlib", "matplotlib/mpl-data/sample_data/grace_hopper.jpg"),
)


class Photograph(NamedTuple):
    """A square crop."""

    name: str  # file within the folder, and the crop's top left corner: "beach.png@0,256"
    image: torch.Tensor  # (3, size, size) float32 in [0, 1]


class Sets(NamedTuple):
    """Three lists of Photograph; no two of them share a scene."""

    natural: list  # seen as they are
    restored: list  # to degrade and restore
    test: list


class _Scene(NamedTuple):
    name: str
    path: Path
    corners: list  # of its crops, in the order drawn


def files(folder: str | Path = "embedded") -> list[Path]:
    """Return the paths of all image files of a folder, at any depth and behind links, sorted.

    folder: a path, or "embedded" for seven photographs that scikit-image, matplotlib and scico
        carry, 300 x 451 to 512 x 768 pixels; "./embedded" is a folder of that name.

    Raises FileNotFoundError where there is no folder or no image in it, and as
    `registry.find` does.
    """
    if images.named("folder", folder, ("embedded",)):
        carried = [
            Path(str(importlib.metadata.distribution(package).locate_file(file)))
            for package, file in _EMBEDDED
        ]
        return [*carried, registry.find("kodim23")]
    found = images.below(folder) if Path(folder).is_dir() else []
    if not found:
        raise FileNotFoundError(f"folder must hold image files, found none in {folder}")
    return found


@plain
def sets(
    folder: str | Path = "embedded",
    size: int = 256,
    counts: Sequence[int] = (10, 10, 8),
    seed: int = 0,
) -> Sets:
    """Draw three disjoint sets of square photographs (Adrai et al. 2023, sec. 5).

    folder: as in `files`. size: side of the crops in pixels >= 1; nothing is resized.
    counts: (natural, restored, test), photographs wanted in each, >= 0 and not all 0.
    seed: of the order of the scenes and of the crops of each.

    The rule. A file is a scene; it holds the crops of a centred grid that do not overlap. Scenes
    are dealt in an order drawn from the seed, each to the set that has the smallest share of the
    crops it wants, until every set has as many scenes as it wants photographs. A set takes one crop
    of each of its scenes, then a second one, and so on. Grey images are repeated to three channels.

    Returns Sets, shorter than wanted where the scenes give no more, with a warning that says so.
    Files that cannot be read, are smaller than a crop or repeat another one's bytes, and crops that
    repeat another one's pixels, are passed over and named in it. Raises FileNotFoundError as
    `files` does; ValueError on bad numbers and where a set gets nothing.
    """
    _check.whole("size", size)
    _check.whole("seed", seed, least=0)
    if len(counts) != len(Sets._fields):
        raise ValueError(f"counts must be three whole numbers >= 0, got {counts!r}")
    for count in counts:
        _check.whole("counts", count, least=0)
    if not any(counts):
        raise ValueError(f"counts must not all be 0, got {counts!r}")
    notes: list[str] = []
    seen: dict[str, str] = {}
    dealt = _deal(files(folder), folder, size, counts, np.random.default_rng(seed), notes, seen)
    drawn = [
        _crops(scenes, size, count, notes, seen)
        for scenes, count in zip(dealt, counts, strict=True)
    ]
    for name, found, count in zip(Sets._fields, drawn, counts, strict=True):
        if count and not found:
            why = f"{folder} has too few scenes of {size} x {size} pixels"
            raise ValueError("; ".join([f"{name} gets no photograph: {why}", *notes]))
        if len(found) < count:
            notes.append(f"{len(found)} of {count} {name} photographs: there are no more")
    if notes:
        warnings.warn(f"photographs of {Path(folder).name}: {'; '.join(notes)}", stacklevel=3)
    _note(folder, [scene for scenes in dealt for scene in scenes])
    return Sets(*drawn)


def _deal(paths, folder, size, counts, rng, notes, seen):
    """The scenes of each set, by the rule of `sets`."""
    dealt: list[list[_Scene]] = [[] for _ in counts]
    held = [0] * len(counts)
    for index in rng.permutation(len(paths)):
        wanting = [i for i, count in enumerate(counts) if len(dealt[i]) < count]
        if not wanting:
            break
        path = paths[index]
        name = path.name if folder == "embedded" else path.relative_to(folder).as_posix()
        try:
            height, width = images.size(path)
        except (ValueError, FileNotFoundError) as error:
            notes.append(f"passed over: {error}".replace(str(path), name))
            continue
        rows, columns = height // size, width // size
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        if not rows * columns:
            notes.append(f"passed over: {name} is smaller, {width} x {height}")
        elif digest in seen:
            notes.append(f"passed over: {name} repeats {seen[digest]}")
        else:
            seen[digest] = name
            top, left = (height - rows * size) // 2, (width - columns * size) // 2
            corners = [
                (top + size * (place // columns), left + size * (place % columns))
                for place in rng.permutation(rows * columns).tolist()
            ]
            least = min(wanting, key=lambda i: held[i] / counts[i])
            dealt[least].append(_Scene(name, path, corners))
            held[least] += len(corners)
    return dealt


def _crops(scenes, size, count, notes, seen):
    """The first `count` crops of the scenes, which take turns."""
    found: list[Photograph] = []
    read: dict[Path, Any] = {}  # None where it cannot be read
    turns = max((len(scene.corners) for scene in scenes), default=0)
    places = [(scene, turn) for turn in range(turns) for scene in scenes]
    for scene, turn in places:
        if len(found) == count or turn >= len(scene.corners):
            continue
        if scene.path not in read:
            try:
                read[scene.path] = images.read(scene.path).expand(3, -1, -1)
            except ValueError as error:
                notes.append(f"passed over: {error}".replace(str(scene.path), scene.name))
                read[scene.path] = None
        if read[scene.path] is None:
            continue
        top, left = scene.corners[turn]
        name = f"{scene.name}@{top},{left}"
        image = read[scene.path][:, top : top + size, left : left + size].contiguous()
        digest = hashlib.sha256(image.numpy().tobytes()).hexdigest()
        if seen.setdefault(digest, name) == name:
            found.append(Photograph(name, image))
        else:
            notes.append(f"passed over: {name} repeats {seen[digest]}")
    return found


def _note(folder, scenes):
    """Tell `used` which files were drawn from."""
    digest = hashlib.sha256()
    for scene in sorted(scenes):
        digest.update(scene.name.encode() + b"\0" + scene.path.read_bytes())
    if folder == "embedded":
        packages = sorted({package for package, _ in _EMBEDDED})
        source = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
        licence = "CC0, public domain, or free for research: see the packages"
    else:
        source, licence = f"folder {Path(folder).name}", "the user's"
    name, private = f"{len(scenes)} photographs", folder != "embedded"
    note(name, source, digest.hexdigest(), licence, private)
