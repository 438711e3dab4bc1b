"""Networks that were trained by a page and are kept in the archive."""

from pathlib import Path

import torch
from torch import Tensor

from companion.page.kept import files
from otlib import generator, psgan, singan
from otlib.assets import saved


def trained(
    pattern: str, exemplar: str, size: int, device: str | torch.device = "cpu"
) -> dict[str, tuple]:
    """Read the networks of one exemplar.

    pattern: of their files, as for `kept.files`. exemplar: what they were trained on, a name or an
        image's path; size: pixels. device: of torch, where they go.
    Returns {loss: (network, facts)} as `saved.load_generator` gives them. Raises FileNotFoundError
    where the pattern names no file, ValueError where a network is of another exemplar or size.
    """
    paths, found = files(pattern), {}
    if not paths:
        raise FileNotFoundError(f"trained={pattern!r} names no file")
    for path in paths:
        net, facts = saved.load_generator(path)
        if (facts["exemplar"], facts["size"]) != (Path(exemplar).name, size):
            of = f"{facts['exemplar']} at {facts['size']} pixels"
            wanted = f"{exemplar} at {size}"
            raise ValueError(f"trained: {path.name} is of {of}, not {wanted}: -p trained ''")
        found[facts["loss"]] = (net.to(device), facts)
    return found


def drawn(net: saved.Drawing, height: int, width: int, random: torch.Generator) -> Tensor:
    """An image (C, height, width) of a network that draws textures.

    net: of `trained`. height, width: pixels, as the network can make them. random: on the CPU.
    """
    if isinstance(net, singan.Pyramid):
        return singan.sample(net, height, width, generator=random)
    if isinstance(net, psgan.Spatial):
        return psgan.generate(net, psgan.noise(net, height, width, generator=random))
    return generator.generate(net, generator.noise(net, height, width, generator=random))
