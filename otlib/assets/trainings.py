"""Trainings of hours that an interruption does not undo: ours, PSGAN and SinGAN.

What a training has reached lies in one file until it is done; the same call goes on from there.

    net, losses, seconds = train_psgan(exemplar, steps=3000, generator=random, state="psgan")
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from otlib import _check, _training, psgan, singan
from otlib import generator as texture_networks
from otlib._ambient import plain
from otlib.assets import _unfinished

__all__ = ["train_network", "train_psgan", "train_singan"]

_EVERY = 100  # steps of ours and of PSGAN from one state kept to the next


@plain(grad=True)
def train_network(
    exemplar: Tensor,
    loss: Callable[[torch.Generator], Callable[[Tensor], Tensor]],
    *,
    steps: int,
    scales: int = 6,
    width: int = 2,
    lr: float = 0.01,
    about: Mapping[str, Any] | None = None,
    generator: torch.Generator,
    state: str | Path | None = None,
    callback: Callable[[int], object] | None = None,
) -> tuple[texture_networks.Network, Tensor, float]:
    """Train a texture network: Algorithm 2, Houdard et al. 2020. It goes on as `train_psgan` does.

    exemplar: (C, H, W) float32 in [0, 1], sides multiples of 2^(scales - 1): those of the images.
    loss: function of the generator that makes a loss: `otlib.generator.transport_loss` of the
        exemplar, or a rival's. One that keeps potentials from step to step has them, a list of
        tensors, as its attribute `potentials`.
    steps, lr: as in `otlib.generator.train`. scales, width: as in `otlib.generator.network`.
    about: settings of the loss, as JSON holds them, which the state tells with the others.
    generator: torch.Generator on the CPU, as at the first call.
    state, callback: as in `train_psgan`.

    Returns (network, losses (steps,) float64, CPU seconds as of `train_psgan`). Raises ValueError
    as `train_psgan` and `otlib.generator.train` do.
    """
    sizes: dict[str, Any] = dict(steps=_check.whole("steps", steps), lr=_check.positive("lr", lr))
    shape: dict[str, Any] = dict(scales=scales, width=width)
    _training.exemplar(exemplar, 1 << (_check.whole("scales", scales) - 1))
    begun, since = _beginning(exemplar, generator), time.thread_time()
    net = texture_networks.network(len(exemplar), **shape, generator=generator).to(exemplar.device)
    measured = loss(generator)
    adam = torch.optim.Adam(net.parameters(), lr=lr)
    path = _unfinished.place(state)
    told = sizes | shape | {"loss": dict(about or {})} | begun
    tensors, reached = _unfinished.read(path, told, dict(losses=[], seconds=0.0))
    losses, before = reached.values()
    parts: dict[str, Any] = dict(net=net, adam=adam)
    parts["potentials"] = _Held(getattr(measured, "potentials", []))
    _unfinished.restore(path, tensors, generator, **parts)

    def kept(image):
        value = measured(image)
        losses.append(float(value.detach()))
        return value

    def after(step, _):
        if callback is not None:
            callback(step)
        if (step + 1) % _EVERY == 0:
            reached = dict(losses=losses, seconds=before + time.thread_time() - since)
            _unfinished.write(path, told, reached, generator, **parts)

    going_on: dict[str, Any] = dict(first=len(losses), adam=adam, callback=after)
    height, breadth = exemplar.shape[1:]
    texture_networks.train(net, kept, height, breadth, **sizes, generator=generator, **going_on)
    _unfinished.done(path)
    return net, _table(losses), before + time.thread_time() - since


class _Held:
    """Tensors in a list, which are saved and restored as those of a module are."""

    def __init__(self, tensors):
        self.tensors = tensors

    def state_dict(self):
        return {str(number): value for number, value in enumerate(self.tensors)}

    def load_state_dict(self, told):
        expected = {name: value.shape for name, value in self.state_dict().items()}
        if {name: value.shape for name, value in told.items()} != expected:
            raise ValueError(f"potentials must have the shapes {expected}")
        self.tensors[:] = [told[name].to(old) for name, old in self.state_dict().items()]


@plain(grad=True)
def train_psgan(
    exemplar: Tensor,
    *,
    steps: int,
    depth: int = 4,
    width: int = 32,
    local: int = 20,
    whole: int = 4,
    periodic: int = 4,
    lr: float = 2e-4,
    batch: int = 8,
    crop: int = 96,
    generator: torch.Generator,
    state: str | Path | None = None,
    callback: Callable[[int], object] | None = None,
) -> tuple[psgan.Spatial, Tensor, float]:
    """Train PSGAN; Bergmann et al. 2017. The same call goes on with an interrupted training.

    exemplar, depth, width, local, whole, periodic, lr: as in `psgan.begin`. steps, batch, crop: as
    in `psgan.advance`. generator: torch.Generator on the CPU, as at the first call.
    state: file that holds the training until it is done, written every 100 steps and then removed;
    None keeps nothing. callback: called with the number of each step of the whole training.

    Returns (network, losses (steps, 2) float64 as of `psgan.advance`, CPU seconds of this thread
    with those before an interruption): the same network to the bit, interrupted or not. Raises
    ValueError where the state is damaged or of other settings, another exemplar or generator, which
    it names; and as `psgan.begin` and `psgan.advance` do.
    """
    sizes: dict[str, Any] = dict(depth=depth, width=width, local=local, whole=whole)
    sizes |= dict(periodic=periodic, lr=lr)
    crops: dict[str, Any] = dict(batch=batch, crop=crop)
    steps = _check.whole("steps", steps)
    settings = dict(steps=steps, **sizes, **crops)
    begun, since = _beginning(exemplar, generator), time.thread_time()
    training = psgan.begin(exemplar, **sizes, generator=generator)
    path = _unfinished.place(state)
    told = settings | begun
    tensors, reached = _unfinished.read(path, told, dict(losses=[], seconds=0.0))
    losses, before = reached.values()
    parts: dict[str, Any] = dict(net=training.net, critic=training.critic)
    parts |= zip(("adam_critic", "adam_net"), training.adams, strict=True)
    _unfinished.restore(path, tensors, generator, **parts)
    training.net.eval()
    while (first := len(losses)) < steps:
        found = psgan.advance(
            training,
            exemplar,
            steps=min(_EVERY, steps - first),
            **crops,
            generator=generator,
            callback=_numbered(callback, first),
        )
        losses = [*losses, *found.tolist()]
        reached = dict(losses=losses, seconds=before + time.thread_time() - since)
        _unfinished.write(path, told, reached, generator, **parts)
    _unfinished.done(path)
    return training.net, _table(losses), reached["seconds"]


@plain(grad=True)
def train_singan(
    exemplar: Tensor,
    *,
    steps: int,
    factor: float = 0.75,
    width: int = 32,
    inner: int = 3,
    lr: float = 5e-4,
    penalty: float = 0.1,
    anchoring: float = 10.0,
    generator: torch.Generator,
    state: str | Path | None = None,
    callback: Callable[[int], object] | None = None,
) -> tuple[singan.Pyramid, Tensor, float]:
    """Train all scales of SinGAN; Shaham et al. 2019. It goes on as `train_psgan` does.

    exemplar, factor, width: as in `singan.begin`. steps (of each scale), inner, lr, penalty,
    anchoring: as in `singan.grow`. generator: torch.Generator on the CPU, as at the first call.
    state: as in `train_psgan`, written after each scale. callback: called with the number of each
    step, counted over all scales.

    Returns (pyramid, losses (scales * steps, 2) float64 as of `singan.grow`, CPU seconds as of
    `train_psgan`). Raises ValueError as `train_psgan`, `singan.begin` and `singan.grow` do.
    """
    options: dict[str, Any] = dict(steps=_check.whole("steps", steps), inner=inner, lr=lr)
    options |= dict(penalty=penalty, anchoring=anchoring)
    begun, since = _beginning(exemplar, generator), time.thread_time()
    pyramid = singan.begin(exemplar, factor=factor, width=width, generator=generator)
    path = _unfinished.place(state)
    told = options | dict(factor=factor, width=width) | begun
    start = dict(amplitudes=[], losses=[], seconds=0.0)
    tensors, reached = _unfinished.read(path, told, start)
    before, losses = reached["seconds"], reached["losses"]
    if tensors:
        settings = pyramid.settings | dict(amplitudes=reached["amplitudes"])
        pyramid = singan.Pyramid(**settings, critic=True).to(exemplar.device)
        pyramid.critics = [critic.to(exemplar.device) for critic in pyramid.critics]
        parts = dict(pyramid=pyramid, critic=pyramid.critics[0])
        _unfinished.restore(path, tensors, generator, **parts)
        pyramid.nets.eval().requires_grad_(False)
    for scale in range(len(pyramid.nets), len(pyramid.sides)):
        tick = _numbered(callback, scale * steps)
        found = singan.grow(pyramid, exemplar, **options, generator=generator, callback=tick)
        losses = [*losses, *found.tolist()]
        reached = dict(amplitudes=pyramid.amplitudes, losses=losses)
        reached["seconds"] = before + time.thread_time() - since
        parts = dict(pyramid=pyramid, critic=pyramid.critics[0])
        _unfinished.write(path, told, reached, generator, **parts)
    _unfinished.done(path)
    return pyramid, _table(losses), reached["seconds"]


def _beginning(exemplar, generator):
    """What a training starts from besides its numbers, as settings that a state tells."""
    _check.image("exemplar", exemplar)
    _check.generator(generator, cpu=True)
    pixels = exemplar.detach().cpu().contiguous().numpy().tobytes()
    shape = " x ".join(map(str, exemplar.shape))
    random = generator.get_state().numpy().tobytes()
    return dict(
        exemplar=f"{shape} of SHA-256 {_unfinished.digest(pixels)}",
        generator=f"in the state of SHA-256 {_unfinished.digest(random)}",
    )


def _numbered(callback, first):
    """A callback that counts from a number on."""
    return None if callback is None else lambda step: callback(first + step)


def _table(losses):
    return torch.tensor(losses, dtype=torch.float64, device="cpu")
