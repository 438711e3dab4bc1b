"""What was trained or fitted here, as safetensors files: no code in them, settings beside."""

import json
from pathlib import Path
from typing import Any, TypeAlias

import torch
from safetensors import SafetensorError, safe_open

from otlib import dot, generator, patches, psgan, singan
from otlib._ambient import plain
from otlib.assets import _unfinished
from otlib.assets.registry import holding

__all__ = ["load_generator", "load_transport", "save_generator", "save_transport"]

Drawing: TypeAlias = generator.Network | psgan.Spatial | singan.Pyramid

_DRAWING: dict[str, Any] = {  # networks that draw a texture
    "otlib texture generator": generator.Network,
    "otlib PSGAN": psgan.Spatial,
    "otlib SinGAN": singan.Pyramid,
}
_TRANSPORT = "otlib deep optimal transport"
_PARTS: dict[str, Any] = {
    "natural": patches.Moments,
    "restored": patches.Moments,
    "full": dot.Map,
    "kept": dot.Map,
}


def save_generator(path: str | Path, net: Drawing, **facts: Any) -> None:
    """Write a network that draws textures, and its settings, into one file.

    path: of the file. net: generator.Network, psgan.Spatial or singan.Pyramid. facts: what the file
    is to tell of the training, as JSON holds it: exemplar, steps, seed, ...

    Returns None. Raises OSError where the file cannot be written.
    """
    kind = next(name for name, of in _DRAWING.items() if isinstance(net, of))
    tensors = {name: value.contiguous().cpu() for name, value in net.state_dict().items()}
    told = {"kind": kind, "settings": json.dumps(net.settings), "facts": json.dumps(facts)}
    _unfinished.save(path, tensors, told)


@plain
def load_generator(path: str | Path) -> tuple[Drawing, dict[str, Any]]:
    """Read a network that `save_generator` wrote.

    path: of the file.

    Returns (network, facts): the network on the CPU in `eval()`, a singan.Pyramid without its
    critic, and the dict given to `save_generator`. Raises FileNotFoundError, and ValueError, with
    the name, for a file of another kind or architecture.
    """
    tensors, told = _read(path, *_DRAWING)
    with holding(path, f"an {told['kind']}"):
        net = _DRAWING[told["kind"]](**json.loads(told["settings"]))
        facts = json.loads(told["facts"])
    _same_shapes(path, tensors, {key: value.shape for key, value in net.state_dict().items()})
    net.load_state_dict(tensors)
    return net.eval(), facts


def save_transport(path: str | Path, fitted: dot.Transport) -> None:
    """Write a Transport of `otlib.dot` into one file.

    path: of the file. fitted: of `dot.fit`.

    Returns None. Raises OSError where the file cannot be written.
    """
    tensors = {}
    for name in _PARTS:
        for key, value in getattr(fitted, name)._asdict().items():
            if value is not None:
                value = torch.as_tensor(value, device="cpu").contiguous()
                tensors[f"{name}.{key}"] = value.clone()  # no two may share memory
    told = {"kind": _TRANSPORT, "autoencoder": fitted.autoencoder, "patch": str(fitted.patch)}
    _unfinished.save(path, tensors, told)


@plain
def load_transport(path: str | Path, device: str | torch.device = "cpu") -> dot.Transport:
    """Read a Transport that `save_transport` wrote.

    path: of the file. device: of torch.

    Returns a dot.Transport. Raises FileNotFoundError, and ValueError for a file of another kind.
    """
    tensors, told = _read(path, _TRANSPORT)
    with holding(path, f"an {_TRANSPORT}"):
        autoencoder, patch = told["autoencoder"], int(told["patch"])
        channels = len(tensors["natural.mean"]) // patch**2
    d, expected = channels * patch**2, {}
    shapes = {"number": (), "mean": (d,), "source": (d,), "target": (d,)}
    for name, kind in _PARTS.items():
        for key in kind._fields:
            if key != "noise" or f"{name}.noise" in tensors:
                expected[f"{name}.{key}"] = shapes.get(key, (d, d))
    _same_shapes(path, tensors, expected)
    parts: dict[str, Any] = {}
    for name, kind in _PARTS.items():
        values = [tensors.get(f"{name}.{key}") for key in kind._fields]
        values = [value if value is None else value.to(device) for value in values]
        parts[name] = kind(*values)
        if kind is patches.Moments:
            parts[name] = parts[name]._replace(number=int(parts[name].number))
    return dot.Transport(autoencoder, channels, patch, **parts)


def _same_shapes(path, tensors, expected):
    """Raise ValueError, with the name, where a tensor is missing, too many, or of another shape."""
    found = {name: tuple(value.shape) for name, value in tensors.items()}
    for name in sorted(expected.keys() | found):
        wanted = tuple(expected[name]) if name in expected else "absent"
        if found.get(name, "absent") != wanted:
            raise ValueError(f"{path}: {name} must be {wanted}, got {found.get(name, 'none')}")


def _read(path, *kinds):
    """The tensors and the metadata of a file of one of these kinds."""
    try:
        with safe_open(path, framework="pt") as file:
            told = file.metadata() or {}
            # copies: the tensors lie in the file, which may be written anew
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise
    except (SafetensorError, OSError) as error:  # OSError of a folder
        raise ValueError(f"{path} must be a safetensors file of otlib: {error}") from error
    if told.get("kind") not in kinds:
        wanted = " or ".join(kinds)
        raise ValueError(f"{path} must hold an {wanted}, got {told.get('kind', 'no kind')!r}")
    return tensors, told
