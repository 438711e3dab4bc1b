"""Autoencoders of Deep Optimal Transport: an embedded linear one, TAESD, Stable Diffusion's."""

import functools
import hashlib
import importlib
import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from otlib._ambient import defaults, plain
from otlib.assets import networks, photographs, registry, used
from otlib.assets.images import read

__all__ = ["Autoencoder", "load"]

_BLOCK = 4  # side of the blocks of the linear autoencoder, pixels
_CHANNELS = {"pca8": 8, "pca16": 16}
_fallen: set[str] = set()  # names whose fallback was told


class Autoencoder(NamedTuple):
    """Encoder and decoder behind two calls, and what they are."""

    name: str  # of the one in use, which is not the one asked for where the hub is out of reach
    note: str  # one line for a page
    stride: int  # pixels a side that a latent pixel stands for
    channels: int
    colours: int  # how many of them, the first, hold mean colours: 3, or all where none is alone
    encode: Callable  # (B, 3, H, W) in [0, 1], sides multiples of stride -> (B, channels, h, w)
    decode: Callable  # the reverse, not clamped


@plain
@defaults()
def load(
    name: str, device: str | torch.device = "cpu", generator: torch.Generator | None = None
) -> Autoencoder:
    """Load an autoencoder; its two calls stand in for E and D of Adrai et al. 2023, sec. 4.1.

    name: "pca16" or "pca8", linear, embedded, at hand at once: the coefficients of 4 x 4 blocks
        of RGB pixels in an orthonormal basis, the three colour means first, then the leading
        principal components of what they leave of photographs; "taesd"; "sd-vae-ft-mse" (the
        paper's) or "sd-vae-ft-ema" (the slides'), whose latents are not scaled.
    device: of torch.
    generator: torch.Generator with which the two last draw their latents; their mean by default.

    TAESD and the two last come from the folder that OTLIB_TAESD, OTLIB_SD_VAE_FT_MSE or
    OTLIB_SD_VAE_FT_EMA names: one that diffusers wrote, or for TAESD its authors' two files; else
    from the hub. Where that cannot be reached "pca16" comes in their place, with a warning once.

    Returns an Autoencoder whose networks are frozen and compute in float32; the linear one in the
    dtype of its input. Raises ValueError on an unknown name and on weights of another hash or
    shape, FileNotFoundError where the user's folder lacks the file.
    """
    if name in _CHANNELS:
        return _linear(name, torch.device(device))
    loaders = {"taesd": _taesd, "sd-vae-ft-mse": _kl, "sd-vae-ft-ema": _kl}
    if name not in loaders:
        allowed = ", ".join([*_CHANNELS, *loaders])
        raise ValueError(f"name must be one of {allowed}, got {name!r}")
    try:
        encode, decode, stride, channels = loaders[name](name, device, generator)
    except registry.Unreachable as error:
        if name not in _fallen:
            _fallen.add(name)
            warnings.warn(
                f"{error}. In its place: pca16, linear, 16 channels a 4 x 4 block where {name} is "
                "a network with 4 channels an 8 x 8 block; their numbers are not comparable",
                stacklevel=4,  # past `plain` and `defaults`
            )
        return _linear("pca16", torch.device(device))
    note = f"{registry.REGISTRY[name].what} ({registry.REGISTRY[name].licence})"
    encode, decode = (plain(defaults()(function)) for function in (encode, decode))
    return Autoencoder(name, note, stride, channels, channels, encode, decode)


def _linear(name, device):
    """Blocks of pixels in an orthonormal basis: a convolution and its transpose."""
    files = tuple(photographs.files())
    kernel = _basis(files)[: _CHANNELS[name]].to(device)
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    source = f"fitted here on {', '.join(file.stem for file in files)}"
    used.note(name, source, digest, "that of the photographs")

    @plain
    def encode(images):
        return F.conv2d(images, kernel.to(images), stride=_BLOCK)

    @plain
    def decode(latents):
        return F.conv_transpose2d(latents, kernel.to(latents), stride=_BLOCK)

    note = (
        f"linear: {_CHANNELS[name]} of the 48 coefficients of 4 x 4 blocks of RGB pixels, the "
        f"colour means and principal components of {len(files)} photographs"
    )
    return Autoencoder(name, note, _BLOCK, _CHANNELS[name], 3, encode, decode)


@functools.cache
def _basis(files):
    """Orthonormal basis (48, 3, 4, 4) of the blocks of photographs, float64, best first."""
    d = 3 * _BLOCK**2
    means = torch.eye(3, dtype=torch.float64).repeat_interleave(_BLOCK**2, 1) / _BLOCK
    scatter = torch.zeros(d, d, dtype=torch.float64)
    for file in files:
        # every second pixel in both directions: the grid of blocks has no place of its own
        blocks = F.unfold(read(file)[None].double(), _BLOCK, stride=2)[0]
        rest = blocks - means.mT @ (means @ blocks)
        scatter += rest @ rest.mT
    components = torch.linalg.eigh(scatter).eigenvectors[:, 3:].flip(1).mT
    # the sign of an eigenvector is the machine's: the largest entry is made positive
    largest = components.gather(1, components.abs().argmax(1, keepdim=True))
    return torch.cat([means, components * largest.sign()]).reshape(d, 3, _BLOCK, _BLOCK)


def _taesd(name, device, generator):
    """Encoder, decoder, stride and channels of TAESD, from a folder of either form."""
    module, kind = "diffusers.models.autoencoders.autoencoder_tiny", "AutoencoderTiny"
    try:
        halves = [registry.find(f"taesd-{half}") for half in ("encoder", "decoder")]
    except FileNotFoundError:
        network, _ = networks.pretrained(name, module, kind)
    else:
        network = getattr(importlib.import_module(module), kind)()
        for file, half, shift in zip(halves, ("encoder", "decoder"), (0, 1), strict=True):
            weights = {}
            with registry.holding(f"{name}: {file}", registry.REGISTRY[f"taesd-{half}"].what):
                for key, value in load_file(file).items():
                    layer, _, rest = key.partition(".")  # the decoder's layer 0 has no weights
                    weights[f"layers.{int(layer) - shift}.{rest}"] = value.float()
                getattr(network, half).load_state_dict(weights)
    network = network.requires_grad_(False).eval().to(device)

    def encode(images):
        return network.encode(2 * images.float() - 1).latents

    def decode(latents):
        return (network.decode(latents.float()).sample + 1) / 2

    return encode, decode, 8, network.config.latent_channels


def _kl(name, device, generator):
    """Encoder, decoder, stride and channels of a diffusers AutoencoderKL."""
    module, kind = "diffusers.models.autoencoders.autoencoder_kl", "AutoencoderKL"
    network, _ = networks.pretrained(name, module, kind)
    network = network.to(device)

    def encode(images):
        law = network.encode(2 * images.float() - 1).latent_dist
        return law.mode() if generator is None else law.sample(generator)

    def decode(latents):
        return (network.decode(latents.float()).sample + 1) / 2

    stride = 2 ** (len(network.config.block_out_channels) - 1)
    return encode, decode, stride, network.config.latent_channels
