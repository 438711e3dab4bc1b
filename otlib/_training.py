"""What the trainings of networks that draw textures share."""

import torch
from torch import nn

from otlib import _check


def step(adam, loss):
    """One step of Adam on a scalar loss."""
    adam.zero_grad()
    loss.backward()
    with torch.device("cpu"):  # where Adam counts its steps
        adam.step()


def exemplar(image, least):
    """Raise ValueError where an exemplar is no textured float32 image of sides >= least pixels."""
    _check.image("exemplar", image)
    if image.dtype != torch.float32:
        raise ValueError(f"exemplar must be float32, got {image.dtype}")
    if min(image.shape[1:]) < least:
        sides = " x ".join(map(str, image.shape[1:]))
        raise ValueError(f"exemplar must have sides >= {least} pixels, got {sides}")
    _check.levels("exemplar", image)
    _check.varied("exemplar", image)


def drawn(part: nn.Module, generator: torch.Generator) -> nn.Module:
    """Draw the weights of a network as SinGAN and PSGAN do: normal, of standard deviation .02."""
    for layer in part.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            nn.init.normal_(layer.weight, 0, 0.02, generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return part
