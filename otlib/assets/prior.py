"""The diffusion prior of photographs: trained once from folders of images, kept as diffusers does.

python -m otlib.assets.prior FOLDER... --out FOLDER
"""

import argparse
import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm import tqdm

from otlib import _check, diffusion, wiener
from otlib._ambient import defaults, plain
from otlib.assets import _unfinished, images
from otlib.assets.registry import holding
from otlib.assets.used import note

__all__ = ["Prior", "load", "network", "photographs", "train"]

_WEIGHTS = "diffusion_pytorch_model.safetensors"
_STATE, _FACTS, _GAUSSIAN = "training.safetensors", "training.json", "gaussian.safetensors"
_SIDE = 64  # of the images that the prior is for, pixels
_EVERY = 100  # steps from one state kept to the next


class Prior(NamedTuple):
    """What a folder of `train` holds."""

    net: nn.Module  # a diffusers UNet2DModel, frozen
    share: Tensor  # of the signal's variance at each of its steps
    gaussian: wiener.Stationary  # the second moments of the same photographs
    facts: dict[str, Any]  # of the training

    def level(self, step: int) -> float:
        """The noise level of a step, as `diffusion.descent` has it."""
        share = float(self.share[step])
        return ((1 - share) / share) ** 0.5


@plain
@defaults()
def load(folder: str | Path, device: str | torch.device = "cpu") -> Prior:
    """Read what `train` wrote.

    folder: a path. device: of torch, where the network goes.

    Returns a Prior. Raises FileNotFoundError where a file is missing, ValueError where one holds
    something else, or a network that is not of three channels.
    """
    folder = Path(folder)
    from diffusers.models.unets.unet_2d import UNet2DModel  # seconds: late

    with holding(folder / "config.json", "the settings of a UNet2DModel of colour images"):
        net = UNet2DModel.from_config(dict(json.loads((folder / "config.json").read_text())))
        # a descent takes the first three channels out: some predict a variance too
        for name, allowed in (("in_channels", (3,)), ("out_channels", (3, 6))):
            if (value := net.config[name]) not in allowed:
                raise ValueError(f"{name} must be {' or '.join(map(str, allowed))}, got {value}")
    with holding(folder / _WEIGHTS, "the weights of config.json's UNet2DModel"):
        weights = {name: value.float() for name, value in load_file(folder / _WEIGHTS).items()}
        net.load_state_dict(weights)
        net.requires_grad_(False).eval()
    with holding(folder / _FACTS, "what is told of a training"):
        facts = json.loads((folder / _FACTS).read_text())
        wanted = ("photographs", "licence", "steps", "every", "losses", "seconds")
        told = {key: facts[key] for key in wanted}
    with holding(folder / _GAUSSIAN, "second moments of photographs"):
        gaussian = wiener.Stationary(**load_file(folder / _GAUSSIAN))
    digest = hashlib.sha256((folder / _WEIGHTS).read_bytes()).hexdigest()
    note("diffusion prior", folder.name, digest, told["licence"])
    return Prior(net.to(device), diffusion.kept(), gaussian, told)


def photographs(
    folders: Sequence[str | Path], least: int = _SIDE
) -> tuple[list[Tensor], list[str]]:
    """Read all photographs of folders, each as it is and at half its size.

    folders: paths. least: side of the smallest one, pixels: what is smaller is left out.

    Returns ([(3, H, W) float32 in [0, 1]], [their files' names]). Raises ValueError where there is
    none, and as `images.read` does.
    """
    found, paths = _photographs(folders, least)
    return found, [path.name for path in paths]


def _photographs(folders, least):
    """What `photographs` returns, with paths for the names."""
    found, paths = [], []
    for folder in folders:
        for path in images.below(folder):
            image = images.read(path).expand(3, -1, -1)
            half = F.interpolate(
                image[None], scale_factor=0.5, mode="bicubic", antialias=True, align_corners=False
            )[0].clamp(0, 1)
            sizes = [one for one in (image, half) if min(one.shape[1:]) >= least]
            found += sizes
            paths += [path] * bool(sizes)
    if not found:
        raise ValueError(f"folders must hold photographs of >= {least} pixels, got {folders}")
    return found, paths


@plain
@defaults()
def network(width: int = 32, seed: int = 0) -> nn.Module:
    """Draw the network of Ho et al. 2020, appendix B, in small: four scales, attention at the last.

    width: channels at full size, a multiple of 8 (128 in the paper); 2, 3 and 4 times as many at
        the other scales. seed: of the weights.

    Returns a diffusers UNet2DModel on the CPU, for sides that are multiples of 8. Raises ValueError
    on bad numbers.
    """
    from diffusers.models.unets.unet_2d import UNet2DModel  # seconds: late

    if _check.whole("width", width) % 8:
        raise ValueError(f"width must be a multiple of 8, got {width}")
    _check.whole("seed", seed, least=0)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return UNet2DModel(
            sample_size=_SIDE,
            block_out_channels=(width, 2 * width, 3 * width, 4 * width),
            down_block_types=(*["DownBlock2D"] * 3, "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", *["UpBlock2D"] * 3),
            layers_per_block=1,
            norm_num_groups=8,
            attention_head_dim=width,
        )


@plain(grad=True)
@defaults()
def train(
    folders: Sequence[str | Path],
    out: str | Path,
    *,
    steps: int = 4500,
    width: int = 32,
    lr: float = 5e-4,
    seed: int = 0,
    licence: str = "the user's",
) -> dict[str, Any]:
    """Train a diffusion model of photographs; Ho et al. 2020. An interrupted training goes on.

    folders: of photographs, one of them at least 128 pixels wide and high. out: the folder that
        gets config.json and the weights, in 16 bits, as diffusers saves them, gaussian.safetensors,
        training.json with what is told of the training, and, until it is done, its state in
        training.safetensors. steps: of the whole training, >= 1. width, seed: as for `network`.
        lr: as for `diffusion.begin`. licence: of the photographs, with their source, for
        training.json.

    Returns what training.json holds. A finished training in `out` is written anew when the new one
    is done. Raises ValueError where `out` holds the state of a training with other settings or
    photographs, or a damaged one, and as `photographs`, `wiener.fit`, `network` and
    `diffusion.advance` do.
    """
    out = Path(out)
    steps, width = _check.whole("steps", steps), _check.whole("width", width)
    lr, seed = _check.positive("lr", lr), _check.whole("seed", seed, least=0)
    pieces, paths = _photographs(folders, _SIDE)
    told = dict(steps=steps, width=width, lr=lr, seed=seed, photographs=len(paths), licence=licence)
    content = _unfinished.digest(*(path.read_bytes() for path in paths))  # the crops depend on it
    settings = told | dict(photographs=f"{len(paths)} of SHA-256 {content}")
    training = diffusion.begin(network(width, seed), lr=lr)
    random = torch.Generator().manual_seed(seed)
    parts = dict(net=training.net, average=training.average, adam=training.adam)
    state, start = out / _STATE, dict(done=0, seconds=0.0, losses=[])
    tensors, reached = _unfinished.read(state, settings, start)
    first, seconds, losses = reached.values()
    _unfinished.restore(state, tensors, random, **parts)
    gaussian = wiener.fit(pieces, _SIDE)  # before the loop: it refuses what is too small
    out.mkdir(parents=True, exist_ok=True)
    with tqdm(total=steps, initial=first, desc="diffusion prior") as bar:
        while first < steps:
            part, since = range(first, min(first + _EVERY, steps)), time.process_time()
            found = diffusion.advance(
                training,
                pieces,
                steps=part,
                total=steps,
                generator=random,
                callback=lambda _: bar.update(),
            )
            first, seconds = part.stop, seconds + time.process_time() - since
            losses = [*losses, round(float(found.mean()), 5)]
            bar.set_postfix(loss=losses[-1])
            reached = dict(done=first, seconds=seconds, losses=losses)
            _unfinished.write(state, settings, reached, random, **parts)
    told |= dict(done=first, every=_EVERY, seconds=round(seconds), losses=losses)
    # first gone and last written: it never tells of the weights of another training
    (out / _FACTS).unlink(missing_ok=True)
    average: Any = training.average  # of diffusers
    average.half().save_pretrained(out)
    save_file(gaussian._asdict(), out / _GAUSSIAN)
    _unfinished.aside(out / _FACTS, lambda path: path.write_text(json.dumps(told)))
    _unfinished.done(state)
    return told


def _main():
    parser = argparse.ArgumentParser(prog="python -m otlib.assets.prior", description=__doc__)
    parser.add_argument("folders", nargs="+", help="of photographs")
    parser.add_argument("--out", required=True, help="folder for the network")
    for name, value in (
        ("steps", 4500),
        ("width", 32),
        ("lr", 5e-4),
        ("seed", 0),
        ("licence", "the user's"),
    ):
        parser.add_argument(f"--{name}", type=type(value), default=value, help=f"default: {value}")
    given = vars(parser.parse_args())
    try:
        train(given.pop("folders"), given.pop("out"), **given)
    except (ValueError, OSError) as error:
        parser.error(str(error))


if __name__ == "__main__":
    _main()
