"""The pairs of super-resolution with a reference: MVTec AD and the solar cells of elpv."""

import hashlib
import math
import os
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from otlib import _check
from otlib._ambient import plain
from otlib.assets import registry
from otlib.assets.images import below, grey, mask, named, read, resize
from otlib.assets.used import note

__all__ = ["Pair", "draw", "published"]

_APART = 24  # places in elpv's list; above .9 correlate a third of the neighbours, so far a twelfth

# The eighteen of the authors' later public code, in its order: category, side of its images,
# target and defective reference below test/, intact reference below train/good/.
_PUBLISHED = """
bottle 900 good/000 contamination/005 000
bottle 900 good/001 contamination/007 001
carpet 1024 good/000 color/000 000
carpet 1024 good/001 color/008 001
hazelnut 1024 good/000 crack/015 047
hazelnut 1024 good/035 print/008 008
capsule 1000 good/001 poke/000 003
capsule 1000 good/000 crack/001 001
pill 800 good/024 color/006 060
pill 800 good/025 color/022 155
wood 1024 good/004 hole/004 007
wood 1024 good/007 color/006 004
leather 1024 good/001 cut/018 000
leather 1024 good/000 glue/000 001
grid 1024 good/013 thread/010 037
grid 1024 good/007 thread/004 036
tile 840 good/032 rough/009 009
tile 840 good/002 crack/010 001
"""
_MATLAB = (0.2989, 0.5870, 0.1140)  # the weights of grey in that code


class Pair(NamedTuple):
    """An image to restore and its two references; (1, size, size) float32 in [0, 1] each."""

    category: str
    target: torch.Tensor
    good: torch.Tensor  # the defect-free reference
    defective: torch.Tensor  # the one with a defect
    names: tuple  # of the three files, within the folder
    area: float | None  # of the defect: share of its mask; elpv: the labelled probability


class _Category(NamedTuple):
    name: str
    good: list  # paths, in the order of their names
    defective: list
    distance: Callable  # of a file from another: how unlike the products are
    area: Callable  # of a defective file: Pair.area


@plain
def draw(
    folder: str | Path,
    count: int = 18,
    size: int = 256,
    seed: int = 0,
    split: Literal["test", "tuning"] = "test",
) -> list[Pair]:
    """Draw images to restore, each with an intact and a defective reference of the same product.

    The data of Mignon et al. 2023, sec. III and Table I: MVTec AD, or the solar cells of elpv.

    folder: "elpv" or "mvtec" for the entry of the registry, "./mvtec" for a folder of that name; or
        a path: a folder of MVTec AD's layout (CATEGORY/train/good, CATEGORY/test/DEFECT,
        CATEGORY/ground_truth), one category of it, or a folder with elpv's labels.csv. A mask of
        ground_truth has the name of its image, with _mask or without, or is all that lies in a
        folder of that name, as in MVTec LOCO.
    count: pairs, >= 1; size: side of the images in pixels; seed: of the draws.
    split: "test", or "tuning" for choosing settings. They share no file: tuning has every third
        file of the sorted defect-free and of the sorted defective files of a category.

    The rule. Categories take turns in the order of their names (elpv: mono, poly; its good cells
    have probability 0, the defective 1). The defect-free files of a category are put in an order
    drawn from the seed; the targets are its first, none twice. The reference is another one, the
    last of that order not taken yet; the defective one likewise. In elpv, where cells near in the
    list are of one make and the nearest are almost the same image (wafers cut one after the other),
    both are instead the nearest not taken yet that lie at least 24 places from the target. A
    reference serves again only when all did, and none has less than half the mean grey of the
    target: a cell that is dead all over holds no patch of the product. Images are turned grey and
    resized to `size`. A smaller count gives the first of the same pairs.

    Returns a list of Pair, as many as there are targets where that is fewer, with a warning that
    says so. Files that cannot be read are passed over, categories without the images left out, and
    a defect whose mask cannot be read has no area: all are named in a warning. Raises
    FileNotFoundError on a folder of neither layout, ValueError where no pair can be made, on count
    or size < 1, on an unknown split.
    """
    _check.whole("count", count)
    _check.whole("size", size)
    _check.whole("seed", seed, least=0)
    if split not in ("test", "tuning"):
        raise ValueError(f"split must be 'test' or 'tuning', got {split!r}")
    known = named("folder", folder, ("elpv", "mvtec"))
    asset = registry.REGISTRY[str(folder)] if known else None
    root = registry.find(str(folder)) if asset else Path(folder)
    root = root.parent if root.name == "labels.csv" else root
    notes: list[str] = []
    images: dict[Path, Any] = {}  # None where it cannot be read

    def load(path):
        if path not in images:
            try:
                images[path] = resize(grey(read(path)), size)
            except (ValueError, FileNotFoundError) as error:
                notes.append(f"passed over: {error}".replace(f"{root}/", ""))
                images[path] = None
        return images[path]

    turns: deque[Iterator] = deque()
    found: list[tuple[_Category, tuple[Path, ...]]] = []
    categories = [_part(category, split) for category in _categories(root, notes)]
    rngs = np.random.default_rng(seed).spawn(len(categories))
    for category, rng in zip(categories, rngs, strict=True):
        if len(category.good) >= 2 and category.defective:
            turns.append(_draws(category, rng, load))
        else:
            notes.append(
                f"{category.name} left out: {split} needs 2 defect-free files and 1 defective "
                f"(in test/DEFECT), has {len(category.good)} and {len(category.defective)}"
            )
    while turns and len(found) < count:
        pair = next(turns[0], None)
        if pair is None:
            turns.popleft()
        else:
            found.append(pair)
            turns.rotate(-1)
    if not found:
        raise ValueError("; ".join([f"folder {root.name} gives no pair", *notes]))
    if len(found) < count:
        notes.append(f"{len(found)} of {count} pairs: {split} has no more")

    def area(category, file):
        try:
            return category.area(file)
        except (ValueError, FileNotFoundError) as error:
            notes.append(f"no area: {error}".replace(f"{root}/", ""))

    areas = [area(category, files[2]) for category, files in found]
    if notes:
        warnings.warn(f"{root.name}: " + "; ".join(dict.fromkeys(notes)), stacklevel=3)
    if asset is None or asset.sha256 is None:
        drawn = sorted({file for _, files in found for file in files})
        name, source, digest, licence = _identity(asset, root, drawn)
        note(name, source, digest, licence, private=True)
    return [
        Pair(
            category=category.name,
            target=images[files[0]],
            good=images[files[1]],
            defective=images[files[2]],
            names=tuple(file.relative_to(root).as_posix() for file in files),
            area=area,
        )
        for (category, files), area in zip(found, areas, strict=True)
    ]


@plain
def published(folder: str | Path, count: int = 18, size: int = 256) -> list[Pair]:
    """The eighteen pairs of Mignon et al., as the authors' later public code lists them.

    That Table I of Mignon et al. 2023 was made on these is likely; the paper does not say.

    folder: path of MVTec AD, or of as much of it as the 54 files. count: 1 to 18, the first of
    them. size: side of the images in pixels, 256 there.

    Images are turned grey by the weights .2989, .5870, .1140 and resized by antialiased bilinear
    interpolation, as in that code.

    Returns a list of Pair; the area is None without ground_truth. An empty list where the folder
    does not hold all of them, with a warning that names the missing where it holds some. Raises
    ValueError on an image of another size than MVTec AD's and on a bad number.
    """
    _check.whole("count", count)
    _check.whole("size", size)
    root = Path(folder)
    rows = [line.split() for line in _PUBLISHED.split("\n") if line]
    files = [
        (
            root / c / "test" / f"{target}.png",
            root / c / "train/good" / f"{good}.png",
            root / c / "test" / f"{bad}.png",
        )
        for c, _, target, bad, good in rows
    ]
    each = [file for triple in files for file in triple]
    missing = [file.relative_to(root).as_posix() for file in each if not file.is_file()]
    if missing:
        if len(missing) < len(each):
            warnings.warn(
                f"{root.name}: {len(missing)} of the {len(each)} files of the published pairs are "
                f"missing, so that none of these pairs is taken: {', '.join(missing)}",
                stacklevel=3,
            )
        return []

    def load(file, side):
        image = read(file)
        if image.shape != (3, side, side):
            raise ValueError(
                f"{file} must have MVTec AD's {side} x {side} pixels in RGB, "
                f"got {tuple(image.shape)}"
            )
        luma = torch.tensordot(image.new_tensor(_MATLAB), image, 1)[None, None]
        how: dict[str, Any] = {"mode": "bilinear", "antialias": True, "align_corners": False}
        return F.interpolate(luma, (size, size), **how)[0]

    taken = files[:count]
    drawn = sorted({file for triple in taken for file in triple})
    name, source, digest, _ = _identity(None, root, drawn)
    note(name, source, digest, registry.REGISTRY["mvtec"].licence, private=True)
    pairs = []
    for (category, side, *_), triple in zip(rows, taken, strict=False):
        target, good, defective = (load(file, int(side)) for file in triple)
        names = tuple(file.relative_to(root).as_posix() for file in triple)
        area = _mvtec(root / category).area(triple[2])
        pairs.append(Pair(category, target, good, defective, names, area))
    return pairs


def _draws(category, rng, load):
    """The (category, (target, good, defective)) of one category, by the rule of `draw`."""
    good, defective = (
        [files[i] for i in rng.permutation(len(files))]
        for files in (category.good, category.defective)
    )
    served: Counter[Path] = Counter()
    for target in good:
        if load(target) is None:
            continue
        found, light = [target], load(target).mean() / 2
        for files in (good, defective):
            # a stable sort: the last of the drawn order comes first among equals
            order = sorted(
                reversed(files),
                key=lambda file: (served[file], category.distance(file, target)),
            )
            others = (file for file in order if file != target and load(file) is not None)
            found.append(next((file for file in others if load(file).mean() >= light), None))
        if None not in found:
            served.update(found[1:])
            yield category, tuple(found)


def _part(category, split):
    """The files of a category that belong to a split."""
    tuning = split == "tuning"
    good, defective = (
        [file for i, file in enumerate(files) if (i % 3 == 2) == tuning]
        for files in (category.good, category.defective)
    )
    return category._replace(good=good, defective=defective)


def _categories(root, notes):
    if (root / "labels.csv").is_file():
        return _elpv(root)
    within, seen = [], set()
    for folder in (root, *(sorted(root.iterdir()) if root.is_dir() else ())):
        if os.path.isdir(folder) and not os.access(folder, os.R_OK | os.X_OK):
            notes.append(f"passed over: {folder.name} cannot be listed")
        elif os.path.isdir(folder / "train" / "good") and os.path.realpath(folder) not in seen:
            seen.add(os.path.realpath(folder))  # a link to another category is none
            within.append(folder)
    if not within:
        raise FileNotFoundError(
            f"folder has neither a category with train/good (looked for {root}/*/train/good and "
            f"{root}/train/good) nor {root}/labels.csv"
        )
    return [_mvtec(folder) for folder in within]


def _mvtec(folder):
    masks = below(folder / "ground_truth") if (folder / "ground_truth").is_dir() else []
    files = [
        file
        for part in ("test", "train")
        for kind in sorted((folder / part).glob("*/"))
        for file in below(kind)
        if file.parent == kind
    ]

    def area(file):
        inner = file.relative_to(folder / "test").with_suffix("")
        names = [place.as_posix().lower() for place in (inner.parent / f"{inner.name}_mask", inner)]

        def marks(path):
            place = path.relative_to(folder / "ground_truth").with_suffix("")
            return place.as_posix().lower() in names or place.parent.as_posix().lower() == names[1]

        found = [mask(path) for path in masks if marks(path)]
        if len({tuple(part.shape) for part in found}) > 1:
            raise ValueError(f"the masks of {file} must have one size")
        return torch.stack(found).any(0).float().mean().item() if found else None

    good = [file for file in files if file.parent.name == "good"]
    defective = [file for file in files if file not in good and file.parts[-3] == "test"]
    return _Category(folder.name, good, defective, lambda file, other: 0, area)


def _elpv(folder):
    try:
        lines = (folder / "labels.csv").read_text().splitlines()
        rows = [(folder / file, float(p), kind) for file, p, kind in map(str.split, lines)]
    except ValueError:
        raise ValueError(f"{folder}/labels.csv must hold lines of FILE PROBABILITY TYPE") from None
    place = {file: i for i, (file, _, _) in enumerate(rows)}
    share = {file: p for file, p, _ in rows}

    def apart(i, j):
        return abs(i - j) if abs(i - j) >= _APART else math.inf

    return [
        _Category(
            name,
            [file for file, p, kind in rows if kind == name and p == 0],
            [file for file, p, kind in rows if kind == name and p == 1],
            lambda file, other: apart(place[file], place[other]),
            share.get,
        )
        for name in sorted({kind for _, _, kind in rows})
    ]


def _identity(asset, root, files):
    """What `note` is told of a folder of the user's: the hash is of the files drawn."""
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.relative_to(root).as_posix().encode() + b"\0" + file.read_bytes())
    given = f", given by {asset.variable}" if asset else ""
    licence = asset.licence if asset else "the user's"
    return f"{len(files)} images", f"folder {root.name}{given}", digest.hexdigest(), licence
