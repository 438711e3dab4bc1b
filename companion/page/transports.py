"""Fits of the transport that one page keeps and another puts new images through."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path

import torch
from torch import Tensor

from companion.page.deep_ot import FITS, fits
from companion.page.kept import files
from companion.page.scenes import of
from otlib import dot
from otlib.assets import saved
from otlib.assets.autoencoders import Autoencoder
from otlib.assets.photographs import Sets

_KEPT = FITS[:2]  # the third, which keeps the mean colours, is a map of the first


def keep(
    folder: str | Path,
    turn: Sets,
    images: dict[str, Tensor],
    after: dict[str, dict[str, Tensor]],
    autoencoder: Autoencoder,
    patch: int,
) -> None:
    """Write the fits on one turn of the photographs, NAME-unpaired.safetensors and NAME-paired...

    folder: that is there. turn: of `rotations`. images: {name of a photograph: (3, H, W)}. after:
        of `deep_ot.restorations`. autoencoder, patch: as for `dot.fit`.
    Returns None. Raises OSError where a file cannot be written.
    """
    natural, sources = of(images, turn.natural), of(images, turn.restored)
    for name, restored in after.items():
        before = of(restored, turn.restored)
        for fit, fitted in fits(natural, sources, before, autoencoder, patch).items():
            saved.save_transport(Path(folder) / _file(name, fit), fitted)


def read(
    pattern: str,
    restorers: Sequence[str],
    autoencoder: Autoencoder,
    patch: int,
    device: str | torch.device = "cpu",
) -> dict[tuple[str, str], dot.Transport]:
    """Read the fits that `keep` wrote, of some restorers.

    pattern: of their files, as for `kept.files`, or their folder. restorers: names. autoencoder,
        patch: that the fits must be of. device: of torch, where they go.
    Returns {(restorer, "unpaired" or "paired"): dot.Transport}. Raises FileNotFoundError where a
    restorer's fit is not there, ValueError where two files have its name or it is of another
    autoencoder or patch, and as `saved.load_transport` does.
    """
    paths = files(pattern)
    if len(paths) == 1 and paths[0].is_dir():
        paths = sorted(paths[0].glob("*.safetensors"))
    there = [path.name for path in paths]
    begun = {name.removesuffix(_file("", "paired")) for name in there}
    whole = [name for name in sorted(begun) if {_file(name, fit) for fit in _KEPT} <= {*there}]
    found = {}
    for name, fit in product(restorers, _KEPT):
        file = _file(name, fit)
        if file not in there:
            allowed = ", ".join(whole) or "none"
            raise FileNotFoundError(f"fits: no {file} in {pattern}; restorers there: {allowed}")
        if there.count(file) > 1:
            raise ValueError(f"fits: {pattern} must name one {file}, got {there.count(file)}")
        fitted = saved.load_transport(paths[there.index(file)], device)
        if (fitted.autoencoder, fitted.patch) != (autoencoder.name, patch):
            wanted = f"autoencoder {autoencoder.name} and patch {patch}"
            told = f"got {fitted.autoencoder} and {fitted.patch}"
            raise ValueError(f"fits: {file} must be of {wanted}, {told}")
        found[name, fit] = fitted
    return found


def _file(restorer, fit):
    return f"{restorer}-{fit}.safetensors"
