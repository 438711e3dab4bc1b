"""Deep Optimal Transport (Adrai et al. 2023): Gaussian transport of the patches of latents."""

import warnings
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from otlib import _check, gaussian, patches
from otlib._ambient import plain

__all__ = [
    "Map",
    "Transport",
    "fit",
    "merge",
    "moments",
    "transport",
    "transport_latent",
]

# Directions in which the restored patches vary less than this times their largest variance count
# as singular: at p = 7 the condition number is 1e15 and eq. (2) would amplify rounding by 1e7.
_RTOL = 1e-6
_TOLERANCE = 1e-6  # of values in [0, 1], in float32


class Map(NamedTuple):
    """x -> target + matrix (x - source) + noise; float64."""

    source: torch.Tensor  # (d,)
    target: torch.Tensor  # (d,)
    matrix: torch.Tensor  # (d, d)
    noise: torch.Tensor | None  # covariance (d, d) of eq. (5); None where eq. (2) holds


class Transport(NamedTuple):
    """What `fit` learnt: enough to transport, and the moments it comes from."""

    autoencoder: str  # name
    channels: int  # of the latents
    patch: int  # side of the patches, latent pixels
    natural: patches.Moments
    restored: patches.Moments
    full: Map  # the paper's
    kept: Map  # ours: keeps the mean colours of the source's patches


@plain
def moments(latents: Iterable[Tensor], patch: int) -> patches.Moments:
    """Mean and scatter of all overlapping p x p patches: appendix B.3 of Adrai et al. 2023.

    latents: iterable of (C, h, w) float32 or float64, each of any h and w >= patch; one pass, so
        that a generator of any number of them fits in memory.
    patch: side p in latent pixels, odd.

    Returns Moments of dimension C p^2, a patch flattened as (C, p, p); float64 on the latents'
    device. Raises ValueError on bad latents, an even patch, latents smaller than it, none at all.
    """
    _check_patch(patch)
    total = None
    for latent in latents:
        _check.image("latents", latent)
        if min(latent.shape[1:]) < patch:
            height, width = latent.shape[1:]
            raise ValueError(f"patch must be at most the {height} x {width} latents, got {patch}")
        part = patches.moments(latent.double(), patch)
        total = part if total is None else merge(total, part)
    if total is None:
        raise ValueError("latents must hold at least one latent image, got none")
    return total


@plain
def merge(a: patches.Moments, b: patches.Moments) -> patches.Moments:
    """Moments of two sets together: as if one pass had seen both.

    a, b: Moments of the same dimension. Returns Moments. Raises ValueError on other dimensions.
    """
    if a.mean.shape != b.mean.shape:
        raise ValueError(f"b must have dimension {len(a.mean)} like a, got {len(b.mean)}")
    number = a.number + b.number
    gap = b.mean - a.mean
    scatter = a.scatter + b.scatter + (a.number * b.number / number) * gap.outer(gap)
    return patches.Moments(number, a.mean + (b.number / number) * gap, scatter)


@plain
def fit(
    natural: Iterable[Tensor], restored: Iterable[Tensor], autoencoder: Any, patch: int = 3
) -> Transport:
    """Learn the transport from restored to natural images: Adrai et al. 2023, sec. 4.1.

    It stands for the optimal coupling of eq. (3) of Adrai et al. 2023: the closed form between the
    Gaussians of latent patches, their eq. (2), computed by `gaussian.stochastic_map`, which at full
    rank is `gaussian.transport_map`.

    natural, restored: iterables of (3, H, W) float32 or float64 images in [0, 1], each of any size
        with sides >= stride * patch, on the autoencoder's device; their numbers may differ, ten of
        each in the paper. What exceeds a multiple of the stride is cut off.
    autoencoder: of `autoencoders.load`.
    patch: side p of the patches in latent pixels, odd (3 or 5 in the paper's code).

    Where the covariance of the restored patches is singular, to 1e-6 of its largest eigenvalue, the
    map is the stochastic one of eq. (5) of Adrai et al., with the clamped pseudo-inverse.

    Returns a Transport: its `full` map is the paper's. Its `kept` map is ours, for unpaired sets
    whose means differ by their subjects: it leaves a patch's mean colour as it is (the means over
    the patch of the autoencoder's first `colours` channels) and transports the rest. Raises
    ValueError on an even patch and on bad images. Warns where a set has no more patches than a
    patch has dimensions.
    """
    _check_patch(patch)
    found = {}
    for name, images in (("natural", natural), ("restored", restored)):
        latents = (
            _encode(autoencoder, _cut(_image(name, image, autoencoder, patch), autoencoder.stride))
            for image in images
        )
        found[name] = moments(latents, patch)
        count, d = found[name].number, len(found[name].mean)
        if count <= d:
            how = "stochastic, eq. (5)" if name == "restored" else "to a subspace"
            warnings.warn(
                f"{name} gives {count} patches in {d} dimensions: their covariance is singular, "
                f"the transport {how}",
                stacklevel=3,  # past `plain`
            )
    source, target = found["restored"], found["natural"]
    cov0, cov1 = source.covariance, target.covariance
    full = Map(source.mean, target.mean, *_map(cov0, cov1))
    # projections: on the mean colour of a patch, and on the rest
    channel = torch.arange(len(cov0), device=cov0.device) // patch**2
    same = channel[:, None] == channel
    colour = (same & (channel < autoencoder.colours)).to(cov0) / patch**2
    rest = torch.eye(len(cov0), dtype=cov0.dtype, device=cov0.device) - colour
    matrix, noise = _map(rest @ cov0 @ rest, rest @ cov1 @ rest, autoencoder.colours)
    mean = colour @ source.mean + rest @ target.mean
    kept = Map(source.mean, mean, colour + matrix, noise)
    name, channels = autoencoder.name, autoencoder.channels
    return Transport(name, channels, patch, target, source, full, kept)


@plain
def transport(
    fitted: Transport,
    image: Tensor,
    autoencoder: Any,
    alpha: float | Iterable[float] = 0.0,
    space: Literal["pixels", "latent"] = "pixels",
    keep_mean: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Transport a restored image: encode, map each patch, average, decode, mix.

    Adrai et al. 2023, sec. 4.1 and, for the mixture, eq. (4).

    fitted: of `fit`, with the same autoencoder. image: (3, H, W) restored image in [0, 1] on the
        autoencoder's device, of any sides >= stride * patch; padded by its border and cut again.
    alpha: 1 is the restored image, 0 the transported one, any number between and beyond; or a
        sequence of numbers, which costs one transport, and in "pixels" one decoding.
    space: where the two are mixed: "pixels" (the paper's; alpha = 1 gives the very image) or
        "latent" (the slides; alpha = 1 gives the autoencoder's round trip).
    keep_mean: take the map that leaves the mean colour of a patch (ours, see `fit`).
    generator: torch.Generator of the noise of a stochastic map, one draw a patch; without it the
        noise is left out, which gives the mean of eq. (5) of Adrai et al. and the same image each
        time.

    Returns (3, H, W), or (A, 3, H, W) for A alphas, in the dtype and on the device of the image,
    not clamped. Raises ValueError on a bad image, another autoencoder, an unknown space.
    """
    if (autoencoder.name, autoencoder.channels) != (fitted.autoencoder, fitted.channels):
        raise ValueError(
            f"autoencoder must be {fitted.autoencoder} with {fitted.channels} channels like the "
            f"fit's, got {autoencoder.name} with {autoencoder.channels}"
        )
    if space not in ("pixels", "latent"):
        raise ValueError(f"space must be 'pixels' or 'latent', got {space!r}")
    alphas = list(alpha) if isinstance(alpha, Iterable) else [alpha]
    if not alphas:
        raise ValueError("alpha must hold at least one number, got none")
    for value in alphas:
        _check.number("alpha", value)
    if generator is not None:
        _check.generator(generator)
    image = _image("image", image, autoencoder, fitted.patch)
    latent = _encode(autoencoder, _pad(image, autoencoder.stride))
    moved = transport_latent(fitted, latent, keep_mean, generator)

    def decoded(z):
        with torch.no_grad():
            x = autoencoder.decode(z[None])[0]
        return x[:, : image.shape[1], : image.shape[2]].to(image)

    if space == "pixels":
        end = decoded(moved)
        mixed = [torch.lerp(end, image, value) for value in alphas]
    else:
        mixed = [decoded(torch.lerp(moved, latent, value)) for value in alphas]
    return torch.stack(mixed) if isinstance(alpha, Iterable) else mixed[0]


@plain
def transport_latent(
    fitted: Transport,
    latent: Tensor,
    keep_mean: bool = False,
    generator: torch.Generator | None = None,
) -> Tensor:
    """The transport of `transport` between encoder and decoder: unfold, map, fold.

    fitted: of `fit`. latent: (C, h, w), any h and w >= 1. keep_mean, generator: as there.

    The border is repeated p - 1 pixels outwards, so that each latent pixel is the plain mean of
    p^2 transported patches.

    Returns (C, h, w) in the dtype and on the device of the latent; computed in float64. Raises
    ValueError on bad latents or another number of channels.
    """
    _check.image("latent", latent)
    if len(latent) != fitted.channels:
        raise ValueError(f"latent must have {fitted.channels} channels, got {len(latent)}")
    p, chosen = fitted.patch, fitted.kept if keep_mean else fitted.full
    wide = F.pad(latent.double()[None], (p - 1,) * 4, mode="replicate")[0]
    source, target, matrix = (t.to(wide) for t in chosen[:3])
    cloud = (patches.extract(wide, p) - source) @ matrix.mT + target
    if chosen.noise is not None and generator is not None:
        zero = torch.zeros_like(target)
        cloud += gaussian.sample(zero, chosen.noise.to(wide), len(cloud), generator)
    total = patches.adjoint(cloud, wide.shape, p)
    inside = slice(p - 1, -(p - 1) or None)
    return (total[:, inside, inside] / p**2).to(latent)


def _map(cov0, cov1, null=0):
    """Matrix and noise, None where cov0 has full rank, less a known null space."""
    matrix, noise = gaussian.stochastic_map(cov0, cov1, _RTOL)
    values = torch.linalg.eigvalsh(cov0)
    full = (values[null:] > _RTOL * values[-1]).all()
    return matrix, None if full else noise


def _image(name, image, autoencoder, patch):
    """An image that can be encoded and holds a patch, else ValueError."""
    _check.image(name, image)
    if len(image) != 3:
        what = {1: "repeat a grey one: expand(3, -1, -1)", 4: "put an alpha channel on a ground"}
        raise ValueError(
            f"{name} must be RGB (3, H, W), got {len(image)} channels; "
            f"{what.get(len(image), 'drop the others')}"
        )
    least = autoencoder.stride * patch
    if min(image.shape[1:]) < least:
        raise ValueError(
            f"{name} must have sides >= {least} = stride {autoencoder.stride} x patch {patch}, "
            f"got {image.shape[1]} x {image.shape[2]}"
        )
    low, high = image.min().item(), image.max().item()
    if low < -_TOLERANCE or high > 1 + _TOLERANCE:
        raise ValueError(f"{name} must be within [0, 1], got {low:.3g} to {high:.3g}; clamp it")
    return image


def _check_patch(patch):
    _check.whole("patch", patch)
    if patch % 2 == 0:
        raise ValueError(f"patch must be odd, so that it has a centre, got {patch}")


def _encode(autoencoder, image):
    with torch.no_grad():
        return autoencoder.encode(image[None])[0]


def _cut(image, stride):
    height, width = (side - side % stride for side in image.shape[1:])
    return image[:, :height, :width]


def _pad(image, stride):
    """The image with its last row and column repeated up to multiples of the stride."""
    height, width = image.shape[1:]
    return F.pad(image[None], (0, -width % stride, 0, -height % stride), mode="replicate")[0]
