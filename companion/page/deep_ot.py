"""What the pages of Deep OT share."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from companion.page.record import Better, record
from companion.page.tradeoff import Estimate
from otlib.assets.autoencoders import Autoencoder
from otlib.assets.photographs import Photograph


def key(restorer: str) -> str:
    """The name of a restorer as the names of records begin with it."""
    return restorer.replace("-", "_")


def scenes(photos: Sequence[Photograph]) -> dict[str, list[int]]:
    """The scenes that photographs show.

    photos: list of Photograph. Returns {scene: places of its photographs in the list}, sorted.
    """
    found: dict[str, list[int]] = {}
    for place, photo in enumerate(photos):
        found.setdefault(photo.name.partition("@")[0], []).append(place)
    return dict(sorted(found.items()))


@torch.no_grad()
def round_trip(images: Sequence[Tensor], autoencoder: Autoencoder) -> list[Tensor]:
    """Encode and decode images. images: list of (3, H, W). Returns as many, (3, H', W')."""
    return [autoencoder.decode(autoencoder.encode(image[None]))[0] for image in images]


def note(
    restorer: str, label: str, found: dict[str, Estimate], better: dict[str, Better] | None = None
) -> None:
    """Record the measures of a restorer as RESTORER_KIND_LABEL.

    restorer: name. label: text. found: {kind: Estimate} of `tradeoff.points`. better: {kind: as
        `record` has it}, the kinds that are recorded; all of `found`, without it, by default.
    """
    for kind in better or found:
        value = found[kind].value
        record(f"{key(restorer)}_{kind}_{label}", value, better=better[kind] if better else "")


def slashed(
    values: dict[str, Any], restorer: str, digits: dict[str, int], labels: Sequence[str]
) -> list[str]:
    """Cells of a kept run's table: of each measure the values at each label, slashes between.

    values: of `kept.values`, recorded by `note`. restorer: name. digits: {kind: decimals}.
    labels: as `note` had them.
    Returns a list of texts, one a kind.
    """
    return [
        " / ".join(f"{values[f'{key(restorer)}_{kind}_{label}']:.{places}f}" for label in labels)
        for kind, places in digits.items()
    ]
