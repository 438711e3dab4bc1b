"""What the pages of Deep OT share."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from companion.page.restored import content, restored
from companion.page.scenes import of
from otlib import dot, gaussian
from otlib.assets.autoencoders import Autoencoder
from otlib.assets.photographs import Sets

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


def restorations(
    restorers: Sequence[str], images: dict[str, Tensor], seed: int, device: str | torch.device
) -> dict[str, dict[str, Tensor]]:
    """Degrade and restore photographs by each restorer.

    restorers: names. images: {name of a photograph: (3, H, W)}. seed, device: as for
        `restored.restored`.
    Returns {restorer: {name of a photograph: (3, H, W)}}.
    """
    after = lambda name: restored(name, list(images.values()), seed, device)
    return {name: dict(zip(images, after(name), strict=True)) for name in restorers}


@torch.no_grad()
def round_trip(images: Sequence[Tensor], autoencoder: Autoencoder) -> list[Tensor]:
    """Encode and decode images. images: list of (3, H, W). Returns as many, (3, H', W')."""
    return [autoencoder.decode(autoencoder.encode(image[None]))[0] for image in images]


def fits(
    natural: Sequence[Tensor],
    sources: Sequence[Tensor],
    restored: Sequence[Tensor],
    autoencoder: Autoencoder,
    patch: int,
) -> dict[str, dot.Transport]:
    """Fit the transport of restored images as the paper does, and on pairs.

    natural, sources, restored: lists of (3, H, W); the restored images were made of the sources.
        autoencoder, patch: as for `dot.fit`.
    Returns {"unpaired", "paired": dot.Transport}.
    """
    clean = {"unpaired": natural, "paired": sources}
    return {fit: dot.fit(images, restored, autoencoder, patch) for fit, images in clean.items()}


def transported(
    turn: Sets,
    images: dict[str, Tensor],
    after: dict[str, Tensor],
    autoencoder: Autoencoder,
    patch: int,
) -> Transported:
    """Fit the transports on one turn of the photographs, and transport its test images.

    turn: of `rotations`. images, after: {name of a photograph: (3, H, W)}, as they are and
        restored. autoencoder, patch: as for `dot.fit`.
    Returns a Transported.
    """
    natural, sources, test = (of(images, part) for part in turn)
    before, one = of(after, turn.restored), of(after, turn.test)
    unpaired, paired = fits(natural, sources, before, autoencoder, patch).values()
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
        key = hashlib.sha256(content(images.cpu())).digest()
        if key not in known:
            known[key] = autoencoder.encode(images)
        return known[key]

    return autoencoder._replace(encode=encode)


def mean_square(x: Sequence[Tensor], y: Sequence[Tensor]) -> float:
    """Mean squared difference of images, pair by pair. x, y: lists of (C, H, W)."""
    return sum(float((a - b).square().mean()) for a, b in zip(x, y, strict=True)) / len(x)
