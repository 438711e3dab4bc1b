"""What the pages of Deep OT share."""

import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from companion.page.intervals import Interval, largest, least
from companion.page.record import Better, record
from companion.page.tradeoff import Estimate
from otlib import dot, gaussian
from otlib.assets.autoencoders import Autoencoder
from otlib.assets.photographs import Photograph, Sets

# The paper's fit first; the natural images are the restored ones' own sources; ours (`keep_mean`)
FITS = ("unpaired", "paired", "kept")

#: No autoencoder at all: the transport of patches of pixels.
PIXELS = Autoencoder("pixels", "the pixels themselves", 1, 3, 3, lambda x: x, lambda z: z)


class Transported(NamedTuple):
    """What a restorer and the transports make of one turn of the photographs."""

    before: list[Tensor]  # the restored images that the transports are fitted on
    sources: list[Tensor]  # the test photographs
    one: list[Tensor]  # restored
    zero: dict[str, list[Tensor]]  # and transported, by fit
    unpaired: dot.Transport  # the paper's fit
    paired: dot.Transport


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


@torch.no_grad()
def round_trip(images: Sequence[Tensor], autoencoder: Autoencoder) -> list[Tensor]:
    """Encode and decode images. images: list of (3, H, W). Returns as many, (3, H', W')."""
    return [autoencoder.decode(autoencoder.encode(image[None]))[0] for image in images]


def transported(
    turn: Sets,
    images: dict[str, Tensor],
    restored: dict[str, Tensor],
    autoencoder: Autoencoder,
    patch: int,
) -> Transported:
    """Fit the transports on one turn of the photographs, and transport its test images.

    turn: of `rotations`. images, restored: {name of a photograph: (3, H, W)}. autoencoder, patch:
        as for `dot.fit`.
    Returns a Transported.
    """
    natural, sources, test = ([images[photo.name] for photo in part] for part in turn)
    before, one = ([restored[p.name] for p in part] for part in (turn.restored, turn.test))
    unpaired, paired = (dot.fit(clean, before, autoencoder, patch) for clean in (natural, sources))
    move = lambda fit, keep=False: [dot.transport(fit, x, autoencoder, keep_mean=keep) for x in one]
    zero = {"unpaired": move(unpaired), "paired": move(paired), "kept": move(unpaired, True)}
    return Transported(before, test, one, zero, unpaired, paired)


def parts(fitted: dot.Transport) -> dict[str, dot.Transport]:
    """Take the paper's map apart: into its shift of the mean and its change of the covariance.

    fitted: of `dot.fit`. Returns {"means", "covariances": Transport}, each with half of its map.
    """
    source, target, matrix, noise = fitted.full
    still = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    halves = {"means": dot.Map(source, target, still, None)}
    halves["covariances"] = dot.Map(source, source, matrix, noise)
    return {name: fitted._replace(full=half) for name, half in halves.items()}


def way(fitted: dot.Transport) -> float:
    """How far the map moves the patches it is fitted on, root mean square: W2 of the Gaussians."""
    source, target = fitted.restored, fitted.natural
    return gaussian.w2(source.mean, source.covariance, target.mean, target.covariance).sqrt().item()


def remembered(autoencoder: Autoencoder) -> Autoencoder:
    """The autoencoder, which encodes an image once: the turns of a page meet the same ones."""
    known: dict[bytes, Tensor] = {}

    def encode(images):
        key = hashlib.sha256(images.cpu().contiguous().numpy().tobytes()).digest()
        if key not in known:
            known[key] = autoencoder.encode(images)
        return known[key]

    return autoencoder._replace(encode=encode)


def worst(changes: Iterable[Estimate], better: Better) -> Interval:
    """Of the changes of several restorers the one that is least to the better, with its interval.

    changes: Estimates. better: "lower" or "higher". All are better if this one is.
    """
    changes = list(changes)
    ends = [change.interval(of=len(changes)) for change in changes]
    return largest(ends) if better == "lower" else least(ends)


def mean_square(x: Sequence[Tensor], y: Sequence[Tensor]) -> float:
    """Mean squared difference of images, pair by pair. x, y: lists of (C, H, W)."""
    return sum(float((a - b).square().mean()) for a, b in zip(x, y, strict=True)) / len(x)


def note(
    restorer: str, label: str, found: dict[str, Estimate], better: dict[str, Better] | None = None
) -> None:
    """Record the measures of a restorer as RESTORER_KIND_LABEL.

    restorer: name. label: text. found: {kind: Estimate} of `tradeoff.over_turns`. better: {kind: as
        `record` has it}, the kinds that are recorded; all of `found`, without it, by default.
    """
    for kind in better or found:
        mean, *ends = found[kind].interval()
        way = better[kind] if better else ""
        record(f"{key(restorer)}_{kind}_{label}", mean, better=way, interval=ends)


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
