"""The registry's networks, frozen: VGG-16, AlexNet, EfficientNet-lite0, the heads of LPIPS."""

import importlib
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from otlib._ambient import defaults, plain
from otlib.assets.registry import REGISTRY, opened

__all__ = ["alexnet", "efficientnet", "lpips_heads", "pretrained", "vgg16"]

# (input mean, input sd) of ImageNet in [0, 1]; on [-1, 1] they are the shift and scale of LPIPS
_MEAN, _SD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_VGG16 = (2, 2, 3, 3, 3)  # convolutions in each block
_LITE = ((127 / 255,) * 3, (128 / 255,) * 3)  # of EfficientNet-lite: (byte - 127) / 128


@plain
@defaults()
def vgg16(
    device: str | torch.device = "cpu", pooling: Literal["max", "average"] = "max"
) -> nn.Sequential:
    """VGG-16 up to relu5_3 (Simonyan and Zisserman 2015), frozen.

    device: of torch. pooling: "max", or "average" (Gatys et al. 2015).

    Returns an nn.Sequential from (N, 3, H, W) float32 RGB images in [0, 1], H and W >= 16, which
    it normalises itself. Its layers are named conv1_1, relu1_1, ..., pool1, ..., relu5_3: see
    `features`. Raises ValueError on an unknown pooling, and as `find` does.
    """
    pools = {"max": nn.MaxPool2d, "average": nn.AvgPool2d}
    if pooling not in pools:
        raise ValueError(f"pooling must be 'max' or 'average', got {pooling!r}")
    layers = OrderedDict(normalise=_normalise())
    with opened("vgg16") as path:
        weights = _convolutions(path)
        for block, depth in enumerate(_VGG16, 1):
            for index in range(1, depth + 1):
                layers[f"conv{block}_{index}"] = _convolution(*next(weights), padding=1)
                layers[f"relu{block}_{index}"] = nn.ReLU()
            layers[f"pool{block}"] = pools[pooling](2)
    del layers["pool5"]  # no tap lies behind it
    return _frozen(layers, device)


@plain
@defaults()
def alexnet(device: str | torch.device = "cpu") -> nn.Sequential:
    """AlexNet up to relu5 (Krizhevsky 2014), frozen.

    device: of torch.

    Returns an nn.Sequential from (N, 3, H, W) float32 RGB images in [0, 1], H and W >= 31, which
    it normalises itself. Its layers are named conv1, relu1, pool1, ..., relu5: see `layers.taps`.
    Raises as `find` does.
    """
    geometry = ({"stride": 4, "padding": 2}, {"padding": 2}, *[{"padding": 1}] * 3)
    layers = OrderedDict(normalise=_normalise())
    with opened("alexnet") as path:
        for index, (pair, how) in enumerate(zip(_convolutions(path), geometry, strict=True), 1):
            layers[f"conv{index}"] = _convolution(*pair, **how)
            layers[f"relu{index}"] = nn.ReLU()
            if index < 3:
                layers[f"pool{index}"] = nn.MaxPool2d(3, 2)
    return _frozen(layers, device)


@plain
@defaults()
def efficientnet(device: str | torch.device = "cpu") -> nn.Sequential:
    """EfficientNet-lite0 (Tan and Le 2019, without squeeze and excitation), frozen.

    device: of torch.

    Returns an nn.Sequential from (N, 3, 224, 224) float32 RGB images in [0, 1], which it normalises
    itself. Its layers are named normalise, stem, blocks, head, pool (1280 features) and classes
    (1000 logits of ImageNet): see `layers.taps`. Raises as `find` does.
    """
    from efficientnet_lite_pytorch import EfficientNet  # late: only the perceptual metrics need it

    network = EfficientNet.from_name("efficientnet-lite0")
    with opened("efficientnet-lite0") as path:
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    layers = OrderedDict(
        normalise=_normalise(*_LITE),
        stem=nn.Sequential(network._conv_stem, network._bn0, nn.ReLU6()),
        blocks=nn.Sequential(*network._blocks),
        head=nn.Sequential(network._conv_head, network._bn1, nn.ReLU6()),
        pool=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()),
        classes=network._fc,
    )
    return _frozen(layers, device)


@plain
@defaults()
def lpips_heads(
    net: Literal["alexnet", "vgg16"], device: str | torch.device = "cpu"
) -> list[Tensor]:
    """The 1 x 1 heads of LPIPS v0.1 (Zhang et al. 2018), one for each of the five taps.

    net: "alexnet" or "vgg16". device: of torch.

    Returns a list of (C,) float32 tensors >= 0. Raises as `find` does.
    """
    with opened(net) as path:
        tree = _unpickled(path)
        heads = [tree[f"NetLinLayer_{index}"]["Conv_0"]["kernel"] for index in range(5)]
        heads = [torch.tensor(head.ravel(), device="cpu") for head in heads]
    return [head.to(device) for head in heads]


@plain
@defaults()
def pretrained(name: str, module: str, kind: str) -> tuple[Any, Path]:
    """A network that diffusers or transformers saved, frozen; every weight must be there and fit.

    name: of the registry, whose file lies beside the network's config.json. module, kind: where its
    class is, imported late as it takes seconds.

    Returns the network, on the CPU, and its folder. Raises as `find` does, FileNotFoundError where
    there is no config.json, ValueError where the file does not hold such a network.
    """
    with opened(name) as path:
        expected, folder = Path(str(REGISTRY[name].file)).name, path.parent
        if path.name != expected:  # another file of the folder would be read
            raise ValueError(f"its name must be {expected}")
        if not (folder / "config.json").is_file():
            raise FileNotFoundError(f"{folder} has no config.json beside its weights")
        logging = importlib.import_module(f"{module.partition('.')[0]}.utils.logging")
        level = logging.get_verbosity()
        logging.set_verbosity_error()  # what does not fit is told below, in one line
        try:
            network, info = getattr(importlib.import_module(module), kind).from_pretrained(
                folder,
                local_files_only=True,
                low_cpu_mem_usage=False,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        finally:
            logging.set_verbosity(level)
        for key, found, wanted in info["mismatched_keys"]:
            raise ValueError(f"{key} must be {tuple(wanted)}, got {tuple(found)}")
        for key in info["missing_keys"]:
            raise ValueError(f"the weights lack {key} of config.json's network")
    return network.requires_grad_(False).eval(), folder


class _Arrays(pickle.Unpickler):
    """Reads numpy arrays and nothing else: any other name in a pickle could be code to run."""

    def find_class(self, module, name):
        admitted = {
            "numpy.core.multiarray._reconstruct": np.zeros(0).__reduce__()[0],
            "numpy.ndarray": np.ndarray,
            "numpy.dtype": np.dtype,
        }
        if f"{module}.{name}" not in admitted:
            raise ValueError(f"a weight file must hold numpy arrays only, got {module}.{name}")
        return admitted[f"{module}.{name}"]


def _unpickled(path):
    with open(path, "rb") as file:
        return _Arrays(file).load()


def _convolutions(path):
    """The (kernel, bias) of the convolutions of the trunk in a file, in order."""
    (trunk,) = (v for k, v in _unpickled(path).items() if not k.startswith("NetLin"))
    for index in range(len(trunk)):
        layer = trunk[f"Conv_{index}"]
        # height, width, in, out in the file
        yield torch.tensor(layer["kernel"]).permute(3, 2, 0, 1), torch.tensor(layer["bias"])


def _convolution(kernel, bias, **geometry):
    out, into, side, _ = kernel.shape
    layer = nn.Conv2d(into, out, side, **geometry)
    layer.load_state_dict({"weight": kernel, "bias": bias})
    return layer


def _normalise(mean=_MEAN, sd=_SD):
    """(x - mean) / sd of each channel, as a layer."""
    layer = nn.Conv2d(3, 3, 1, groups=3)
    mean, sd = torch.tensor(mean), torch.tensor(sd)
    layer.load_state_dict({"weight": (1 / sd).reshape(3, 1, 1, 1), "bias": -mean / sd})
    return layer


def _frozen(layers, device):
    return nn.Sequential(layers).requires_grad_(False).eval().to(device)
