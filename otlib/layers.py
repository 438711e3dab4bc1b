"""What the named layers of a network see of an image."""

from collections.abc import Sequence

from torch import Tensor, nn

from otlib._ambient import plain

__all__ = ["taps"]


@plain
def taps(network: nn.Sequential, x: Tensor, names: Sequence[str]) -> list[Tensor]:
    """Return the outputs of the named layers of a network, as far as it must run for them.

    network: of `vgg16`, `alexnet` or `efficientnet`. x: its input. names: layers, such as
        ("relu1_1", "relu2_1").

    Returns a list of (N, C, h, w) in the order of names; differentiable in x. Raises ValueError
    on an unknown name.
    """
    layers = dict(network.named_children())
    unknown = [name for name in names if name not in layers]
    if unknown:
        raise ValueError(f"names must be layers of the network, got {unknown[0]!r}")
    found = {}
    for name, layer in layers.items():
        x = layer(x)
        if name in names:
            found[name] = x
        if len(found) == len(set(names)):
            break
    return [found[name] for name in names]
