"""Every public function under every ambient setting of torch: the same result, torch as found."""

import contextlib
import dataclasses
import functools
import inspect
import math
import shutil
import tempfile
import threading
import warnings
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from torch import nn

from companion.docstrings import modules
from otlib import (
    _ambient,
    artefacts,
    ddrm,
    diffusion,
    dot,
    gaussian,
    generator,
    layers,
    metrics,
    operators,
    patches,
    psgan,
    restore,
    rivals,
    semidual,
    singan,
    sinkhorn,
    softmin,
    texto,
    texture,
    wiener,
)
from otlib.assets import (
    autoencoders,
    exemplars,
    images,
    networks,
    pairs,
    perceptual,
    photographs,
    prior,
    registry,
    restorers,
    saved,
    trainings,
    used,
)

CPU = torch.device("cpu")
TAPS = ("relu1_1",)


def seeded(seed=0):
    return torch.Generator(device="cpu").manual_seed(seed)


def uniform(*shape, seed=0, dtype=torch.float32):
    return torch.rand(shape, generator=seeded(seed), dtype=dtype, device="cpu")


@torch.inference_mode(False)
def small(d):
    """A stand-in for VGG: one layer with its name."""
    convolution = nn.Conv2d(3, 4, 3, padding=1, device="cpu", dtype=torch.float32)
    net = nn.Sequential(OrderedDict(conv1_1=convolution, relu1_1=nn.ReLU())).requires_grad_(False)
    for weights in net.parameters():
        weights.copy_(uniform(*weights.shape, seed=weights.ndim) - 0.3)
    return net.to(d.colour.device)


def data():
    """What the calls take, the same in every setting that makes it."""
    x, y = 0.5 * uniform(60, 8), uniform(70, 8, seed=1)
    eye = torch.eye(2, dtype=torch.float32, device="cpu")
    image, other = uniform(1, 24, 24, seed=2), uniform(1, 24, 24, seed=3)
    colour = uniform(3, 32, 32, seed=4)
    hole = torch.zeros(24, 24, dtype=torch.bool, device="cpu")
    hole[10:13, 10:13] = True
    square = uniform(3, 3, seed=5)
    cov = (square[:, None] * square).sum(2) + torch.eye(3, dtype=torch.float32, device="cpu")
    return SimpleNamespace(
        x=x,
        y=y,
        g=uniform(70, seed=6),
        b=torch.full_like(y[:, 0], 1 / 70),
        image=image,
        other=other,
        colour=colour,
        hole=hole,
        hole_of=uniform(24, 24, seed=7) > 0.5,
        kernel=uniform(3, 3, seed=8),
        cov=cov,
        cov2=(cov[:, None] * cov).sum(2),
        mean=uniform(3, seed=9),
        eye=eye,
        two=(eye, eye / 2),
        features=uniform(12, 4, seed=10),
        others=uniform(12, 4, seed=11),
        chances=uniform(6, 5, seed=12).softmax(1),
        counts=torch.tensor([1.0, 2.0] * 6, dtype=torch.float64, device="cpu"),
        wide=uniform(4, 8, seed=13),
        colours=[uniform(3, 10, 10, seed=20 + k) for k in range(8)],
    )


def identity():
    """An autoencoder whose latents are pixels."""
    return autoencoders.Autoencoder("identity", "", 1, 3, 1, lambda x: x, lambda z: z)


def there_and_back(image):
    """Through an autoencoder that is made here and now."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as new:
        # copies are other photographs, whose basis is made anew; few: quicker
        few = [Path(shutil.copy(file, new)) for file in photographs.files()[1:3]]
        patch.setattr(photographs, "files", lambda: few)
        autoencoder = autoencoders.load("pca8")
    return autoencoder.decode(autoencoder.encode(image[None]))


def entered(context):
    with context as found:
        return found


def diffused(folder):
    """A network as diffusers saves it, written and read."""
    from diffusers.models.unets.unet_2d import UNet2DModel

    ends = ("DownBlock2D",), ("UpBlock2D",)
    small = dict(block_out_channels=(4,), layers_per_block=1, norm_num_groups=2, sample_size=8)
    folder = folder / "unet"
    if not folder.is_dir():
        net = UNet2DModel(down_block_types=ends[0], up_block_types=ends[1], **small)
        net.save_pretrained(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTLIB_DDRM", str(folder))
        return networks.pretrained("ddrm", "diffusers.models.unets.unet_2d", "UNet2DModel")


class Multiple(nn.Module):
    """A network that takes a multiple of what it sees for the noise."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.5, dtype=torch.float32, device="cpu"))

    def forward(self, seen, _):
        return SimpleNamespace(sample=self.factor * seen)


def guess(x, k):
    levels = [9.0, 1.0, 0.1]
    return diffusion.predictor(Multiple(), [2, 1, 0], levels)(x, k)


@torch.inference_mode(False)
def learnt(d):
    training = diffusion.begin(Multiple())
    options = dict(total=3, sides=(8,), pixels=128, generator=seeded())
    return diffusion.advance(training, d.colours, steps=range(3), **options), training[:2]


def pictured(folder):
    folder = folder / "photographs"
    folder.mkdir(exist_ok=True)
    image = Image.open(photographs.files()[1]).convert("RGB").crop((0, 0, 130, 130))
    image.save(folder / "a.png")
    return folder


def learnt_prior(folder):
    out = folder / "prior"
    shutil.rmtree(out, ignore_errors=True)
    told = prior.train([pictured(folder)], out, steps=1, width=8)
    return out, told | dict(seconds=0)


@functools.cache
def kept_prior(folder):
    """One training for all that is read from it: training has a test of its own."""
    prior.train([pictured(folder)], folder / "kept prior", steps=1, width=8)
    return folder / "kept prior"


def drawn(net, losses):
    """A trained network by its images, and all of it that more threads leave as it is.

    A bias before a normalisation has the gradient 0: Adam's first step on it is the sign of a
    rounding, which the normalisation's mean takes up and no image shows.
    """
    held = net.state_dict().items()
    told = {name: value for name, value in held if not name.endswith(("bias", "running_mean"))}
    image = generator.generate(net, generator.noise(net, 16, 16, generator=seeded()))
    return net.training, told, image, losses


def fitted(d):
    return dot.fit(d.colours[:4], d.colours[4:], identity(), patch=1)


def network():
    return generator.network(scales=2, width=1, generator=seeded())


def trained(d):
    net = network()
    loss = lambda u: (u - d.image[:, :8, :8]).square().mean()
    losses = generator.train(net, loss, 8, 8, steps=3, generator=seeded())
    return losses, net


def pyramid(d):
    grown = singan.begin(d.colour, width=4, generator=seeded())
    losses = singan.grow(grown, d.colour, steps=2, inner=1, generator=seeded(1))
    return losses, grown


def spatial(d):
    training = psgan.begin(d.colour, depth=2, width=4, generator=seeded())
    losses = psgan.advance(training, d.colour, steps=2, batch=2, crop=8, generator=seeded(1))
    return losses, training.net, training.critic


def transported(d):
    how = dict(patch=2, levels=2, targets=20, components=2, cells=2, draws=30, steps=3)
    return texto.fit(d.image, **how, generator=seeded())


def halves(d):
    return texto.layers(lambda: d.x, d.y, cells=2, steps=3, generator=seeded())


def written(tmp_path, save, load):
    save(tmp_path / "file.safetensors")
    return load(tmp_path / "file.safetensors")


SOLVE = dict(eps=0.05, tol=1e-6)


def restored(d, minimise, **how):
    operator = lambda u: operators.mask(operators.blur(u, d.kernel / 9, periodic=True), d.hole_of)
    priors = [restore.patch_ot(d.y[:, :4], 2, 3, **SOLVE)]
    return minimise(operator(d.image), operator, priors, lam=10.0, steps=3, **how)


CALLS = {
    "softmin.softmin": lambda d, _: softmin.softmin(d.x, d.y, d.g, 0.05, with_mean=True),
    "softmin.hardmin": lambda d, _: softmin.hardmin(d.x, d.y, d.g),
    "softmin.kernel": lambda d, _: [
        softmin.kernel()(d.x, d.y)(d.g, 0.05, leaving=lambda s, rows: torch.ones_like(s)),
        softmin.kernel(hard=True)(d.x, d.y)(d.g),
    ],
    "softmin.unavailable": lambda d, _: softmin.unavailable("torch"),
    "sinkhorn.solve": lambda d, _: sinkhorn.solve(d.x, d.y, rho=(math.inf, 0.1), b=d.b, **SOLVE),
    "sinkhorn.plan": lambda d, _: sinkhorn.plan(d.x, d.y, sinkhorn.solve(d.x, d.y, **SOLVE)),
    "sinkhorn.mean_cost": lambda d, _: sinkhorn.mean_cost(d.x, d.y),
    "semidual.evaluate": lambda d, _: semidual.evaluate(d.x, d.y, d.g, b=d.b),
    "semidual.ascend": lambda d, _: semidual.ascend(d.x, d.y, b=d.b, max_iter=5),
    "semidual.ascend_averaged": lambda d, _: semidual.ascend_averaged(
        lambda: d.x, d.y, b=d.b, max_iter=5
    ),
    "semidual.solve": lambda d, _: semidual.solve(d.x, d.y, init=d.g),
    "patches.extract": lambda d, _: patches.extract(d.image, 3, 2, periodic=True),
    "patches.adjoint": lambda d, _: patches.adjoint(
        patches.extract(d.image, 3, 3), (1, 24, 24), 3, 3
    ),
    "patches.average": lambda d, _: patches.average(patches.extract(d.image, 3), (1, 24, 24), 3),
    "patches.moments": lambda d, _: patches.moments(d.image, 3),
    "patches.draw": lambda d, _: patches.draw(d.image[0], 3, seeded()),
    "patches.pyramid": lambda d, _: patches.pyramid(d.image, 2, periodic=True),
    "operators.gaussian_kernel": lambda d, _: operators.gaussian_kernel(5, 1.0),
    "operators.blur": lambda d, _: [
        operators.blur(d.image, kernel, stride=2)
        for kernel in (d.kernel, operators.gaussian_kernel(4, 1.0))
    ],
    "operators.subsample": lambda d, _: operators.subsample(d.image, 2),
    "operators.mask": lambda d, _: operators.mask(d.image, d.hole_of),
    "operators.gaussian_noise": lambda d, _: operators.gaussian_noise(d.image, 0.1, seeded()),
    "operators.downscale": lambda d, _: operators.downscale(d.image, 4),
    "operators.jpeg": lambda d, _: operators.jpeg(d.colour, 50),
    "gaussian.texture": lambda d, _: gaussian.texture((1, 8, 9), 1.0, 0.1, 0.5, seeded()),
    "gaussian.texture_patch_law": lambda d, _: gaussian.texture_patch_law(2, 1.0, 0.1, 0.5, 8),
    "gaussian.random_phase": lambda d, _: gaussian.random_phase(d.image, seeded()),
    "gaussian.edge_patches": lambda d, _: gaussian.edge_patches(9, 3, 0.5, 0.4, seeded()),
    "gaussian.edge_patch_law": lambda d, _: gaussian.edge_patch_law(3, 0.5, 0.4),
    "gaussian.sample": lambda d, _: gaussian.sample(d.mean, d.cov, 5, seeded()),
    "gaussian.mixture": lambda d, _: gaussian.mixture(
        [lambda n: d.x[:n], lambda n: d.y[:n]], [0.25, 0.75], 20, seeded()
    ),
    "gaussian.posterior": lambda d, _: gaussian.posterior(
        d.wide[:, :2],
        d.wide[0, :2] / d.wide[0, :2].sum(),
        d.wide[:2, :2],
        torch.stack(d.two),
        d.eye,
    ),
    "gaussian.w2": lambda d, _: gaussian.w2(d.mean, d.cov, d.mean + 1, 2 * d.cov),
    "gaussian.transport_map": lambda d, _: gaussian.transport_map(d.cov, d.cov2),
    "gaussian.stochastic_map": lambda d, _: gaussian.stochastic_map(
        d.mean[:, None] * d.mean, d.cov
    ),
    "restore.majorise": lambda d, _: restored(d, restore.majorise),
    "restore.patch_ot": lambda d, _: restore.patch_ot(d.y[:, :4], 2, 3, **SOLVE)(d.image),
    "restore.patch_semidual": lambda d, _: restore.patch_semidual(d.y[:, :4], 2, 3, dual_steps=2)(
        d.image
    ),
    "restore.restore": lambda d, _: restored(d, restore.restore, lr=0.01),
    "texture.synthesise": lambda d, _: texture.synthesise(
        d.image, d.other, patch=3, levels=2, steps=2, samples=50, batch=80, generator=seeded()
    ),
    "texture.inpaint": lambda d, _: texture.inpaint(
        d.image, d.hole, patch=3, levels=1, steps=2, samples=50, batch=8, generator=seeded()
    ),
    "texture.loss": lambda d, _: texture.loss(
        [(d.y, d.b)], 2, rows=[torch.arange(0, 9, 2, device="cpu")], dual_steps=2
    )(d.image[:, :5, :5].expand(2, -1, -1)),
    "texture.kwatra": lambda d, _: texture.kwatra(
        d.image, d.other, sizes=(8, 4), levels=2, rounds=2
    ),
    "texture.shuffle": lambda d, _: texture.shuffle(d.image, (12, 13), 5, seeded()),
    "texture.distances": lambda d, _: texture.distances(
        d.image, d.other, patch=3, levels=2, count=40, generator=seeded()
    ),
    "texture.sliced": lambda d, _: texture.sliced(d.image, d.other, generator=seeded()),
    "texture.copied": lambda d, _: texture.copied(d.image[:, :, 2:], d.image, patch=4),
    "generator.network": lambda d, _: network(),
    "generator.noise": lambda d, _: generator.noise(network(), 8, 8, generator=seeded()),
    "generator.generate": lambda d, _: [
        generator.generate(net, generator.noise(net, 16, 8, generator=seeded()), tile=tile)
        for net in [network()]
        for tile in (None, 8)
    ],
    "generator.transport_loss": lambda d, _: generator.transport_loss(
        d.image, patch=3, levels=2, samples=30, batch=40, dual_steps=2, generator=seeded()
    )(d.other),
    "generator.train": lambda d, _: trained(d),
    "rivals.grams": lambda d, _: rivals.grams(d.colour, small(d), TAPS),
    "rivals.gram_loss": lambda d, _: rivals.gram_loss(d.colour, small(d), TAPS)(d.colour / 2),
    "rivals.gram_distance": lambda d, _: rivals.gram_distance(
        d.colour / 2, d.colour, small(d), TAPS
    ),
    "rivals.gatys": lambda d, _: rivals.gatys(
        d.colour, small(d), d.colour / 2 + 0.1, taps=TAPS, steps=3
    ),
    "texto.fit": lambda d, _: [[s.map.fine, s.map.coarse] for s in transported(d).scales],
    "texto.draw": lambda d, _: texto.draw(transported(d), *d.image.shape[1:], generator=seeded(1)),
    "texto.spots": lambda d, _: texto.spots(d.image, 40, 40, seeded()),
    "texto.mixture": lambda d, _: texto.mixture(d.x, 2, seeded()),
    "texto.layers": lambda d, _: list(halves(d)),
    "texto.assign": lambda d, _: texto.assign(d.x, halves(d)),
    "artefacts.checkerboard": lambda d, _: artefacts.checkerboard(d.colour, period=8),
    "artefacts.structure": lambda d, _: artefacts.structure(d.image, d.other, least=2, most=8),
    "artefacts.spectrum": lambda d, _: artefacts.spectrum(d.image, d.other, octaves=2),
    "artefacts.responses": lambda d, _: artefacts.responses(
        d.image, d.other, scales=1, projections=8, generator=seeded()
    ),
    "artefacts.false_colours": lambda d, _: artefacts.false_colours(d.image, d.other),
    "artefacts.diversity": lambda d, _: artefacts.diversity([d.image, d.other]),
    "singan.sides": lambda d, _: singan.sides(40, 50),
    "singan.begin": lambda d, _: singan.begin(d.colour, width=4, generator=seeded()),
    "singan.grow": lambda d, _: pyramid(d),
    "singan.sample": lambda d, _: singan.sample(pyramid(d)[1], 32, 40, generator=seeded()),
    "singan.reconstruct": lambda d, _: singan.reconstruct(pyramid(d)[1]),
    "psgan.begin": lambda d, _: psgan.begin(d.colour, width=4, generator=seeded())[:2],
    "psgan.advance": lambda d, _: spatial(d),
    "psgan.noise": lambda d, _: psgan.noise(spatial(d)[1], 8, 8, generator=seeded()),
    "psgan.generate": lambda d, _: [
        psgan.generate(net, psgan.noise(net, 8, 8, generator=seeded())) for net in [spatial(d)[1]]
    ],
    "dot.moments": lambda d, _: dot.moments(d.colours, 3),
    "dot.merge": lambda d, _: dot.merge(*(dot.moments([c], 1) for c in d.colours[:2])),
    "dot.fit": lambda d, _: fitted(d),
    "dot.transport": lambda d, _: dot.transport(
        fitted(d), d.colours[5], identity(), [0.0, 0.5], generator=seeded()
    ),
    "dot.transport_latent": lambda d, _: dot.transport_latent(fitted(d), d.colours[5]),
    "ddrm.sample": lambda d, _: ddrm.sample(
        d.image[:, :4, :4], 0.1, d.wide, d.wide, lambda x, t: x / 2, [9.0, 1.0, 0.1], seeded()
    ),
    "diffusion.kept": lambda d, _: diffusion.kept(9),
    "diffusion.begin": lambda d, _: diffusion.begin(Multiple())[:2],
    "diffusion.advance": lambda d, _: learnt(d),
    "diffusion.descent": lambda d, _: diffusion.descent(diffusion.kept(9), 3),
    "diffusion.predictor": lambda d, _: guess(d.image, 0),
    "diffusion.draw": lambda d, _: diffusion.draw(guess, [9.0, 1.0, 0.1], (2, 4, 4), seeded()),
    "wiener.fit": lambda d, _: wiener.fit(d.colours, 4),
    "wiener.restorer": lambda d, _: wiener.restorer(wiener.fit(d.colours, 4), 0.1, d.eye, d.eye)(
        d.colours[0][:, :2, :2]
    ),
    "wiener.draw": lambda d, _: wiener.draw(wiener.fit(d.colours, 4), 4, seeded()),
    "metrics.psnr": lambda d, _: metrics.psnr(d.image, d.other),
    "metrics.ssim": lambda d, _: metrics.ssim(d.image, d.other),
    "metrics.pooled_psnr": lambda d, _: metrics.pooled_psnr([d.image] * 2, [d.other] * 2),
    "metrics.kid": lambda d, _: metrics.kid(d.features, d.others, True, d.counts),
    "metrics.fid": lambda d, _: metrics.fid(d.features, d.others, d.counts),
    "metrics.inception_score": lambda d, _: metrics.inception_score(d.chances),
    "metrics.moments": lambda d, _: metrics.moments(d.colours),
    "metrics.gelbrich": lambda d, _: metrics.gelbrich(
        metrics.moments(d.colours[:4]), metrics.moments(d.colours[4:])
    ),
    "metrics.patch_w2": lambda d, _: metrics.patch_w2(
        d.colours[:2], d.colours[2:4], count=30, generator=seeded()
    ),
    "metrics.bootstrap": lambda d, _: metrics.bootstrap(
        lambda w: float(w[0] / w.sum()), 4, draws=3
    ),
    "metrics.interval": lambda d, _: metrics.interval(d.counts),
    "layers.taps": lambda d, _: layers.taps(small(d), d.colour[None], TAPS),
    "assets.autoencoders.load": lambda d, _: there_and_back(d.colour),
    "assets.exemplars.load": lambda d, _: exemplars.load("brick", 32),
    "assets.images.read": lambda d, _: images.read(photographs.files()[1]),
    "assets.images.mask": lambda d, _: images.mask(photographs.files()[1]),
    "assets.images.size": lambda d, _: images.size(photographs.files()[1]),
    "assets.images.below": lambda d, _: [
        path.name for path in images.below(photographs.files()[1].parent)
    ],
    "assets.images.named": lambda d, _: images.named("exemplar", "brick", ("brick",)),
    "assets.images.grey": lambda d, _: images.grey(d.colour),
    "assets.images.resize": lambda d, _: images.resize(d.colour, 16),
    "assets.networks.vgg16": lambda d, _: networks.vgg16()[:4],
    "assets.networks.alexnet": lambda d, _: networks.alexnet(),
    "assets.networks.efficientnet": lambda d, _: networks.efficientnet(),
    "assets.networks.pretrained": lambda d, folder: diffused(folder),
    "assets.networks.lpips_heads": lambda d, _: networks.lpips_heads("alexnet"),
    "assets.pairs.draw": lambda d, _: pairs.draw("elpv", count=1, size=16),
    "assets.pairs.published": lambda d, _: pairs.published(".", count=1, size=16),
    "assets.perceptual.lpips": lambda d, _: perceptual.lpips(d.colour, d.colour.flip(1)),
    "assets.perceptual.lpips_each": lambda d, _: perceptual.lpips_each(
        [d.colour.flip(1), d.colour.flip(2)], d.colour
    ),
    "assets.perceptual.embeddings": lambda d, _: perceptual.embeddings([d.colour]),
    "assets.photographs.files": lambda d, _: photographs.files(),
    "assets.photographs.sets": lambda d, _: photographs.sets(size=64, counts=(1, 1, 1)),
    "assets.prior.network": lambda d, _: prior.network(8),
    "assets.prior.photographs": lambda d, folder: prior.photographs([pictured(folder)]),
    "assets.prior.train": lambda d, folder: learnt_prior(folder),
    "assets.prior.load": lambda d, folder: prior.load(kept_prior(folder))[:3],
    "assets.registry.find": lambda d, _: registry.find("alexnet"),
    "assets.registry.holding": lambda d, _: entered(registry.holding("a file", "an asset")),
    "assets.registry.opened": lambda d, _: entered(registry.opened("alexnet")),
    "assets.restorers.degrade": lambda d, _: [
        restorers.degrade(d.colour, task, seeded()) for task in restorers.TASKS
    ],
    "assets.restorers.load": lambda d, _: [
        restorers.load(name)(d.colour)
        for name in ("blur", "nlm50", "ffdnet50", "cunet", "srmd", "span", "waifu2x")
    ],
    "assets.saved.save_generator": lambda d, folder: written(
        folder, lambda path: saved.save_generator(path, network(), steps=3), saved.load_generator
    ),
    "assets.saved.load_generator": lambda d, f: CALLS["assets.saved.save_generator"](d, f),
    "assets.saved.save_transport": lambda d, folder: written(
        folder, lambda path: saved.save_transport(path, fitted(d)), saved.load_transport
    ),
    "assets.saved.load_transport": lambda d, f: CALLS["assets.saved.save_transport"](d, f),
    "assets.trainings.train_network": lambda d, folder: drawn(
        *trainings.train_network(
            d.colour[:, :16, :16],
            lambda random: generator.transport_loss(
                d.colour[:, :16, :16], levels=1, samples=20, batch=20, generator=random
            ),
            **dict(steps=2, scales=2),
            generator=seeded(),
            state=folder / "network",
        )[:2]
    ),
    "assets.trainings.train_psgan": lambda d, folder: trainings.train_psgan(
        d.colour,
        **dict(steps=2, depth=2, width=4, batch=2, crop=8),
        generator=seeded(),
        state=folder / "psgan",
    )[:2],
    "assets.trainings.train_singan": lambda d, folder: trainings.train_singan(
        d.colour, steps=1, inner=1, width=4, generator=seeded(), state=folder / "singan"
    )[:2],
    "assets.used.note": lambda d, _: used.note("name", "source", None, "licence"),
    "assets.used.used": lambda d, _: type(used.used()),
}
# Calls whose result has a gradient in the named input.
SLOPES = {
    "sinkhorn.solve": ("x", lambda s: s.value),
    "semidual.evaluate": ("x", lambda s: s.value),
    "semidual.ascend": ("x", lambda s: s.value),
    "semidual.solve": ("x", lambda s: s.value),
    "patches.extract": ("image", lambda s: s.square().sum()),
    "patches.average": ("image", lambda s: s.square().sum()),
    "patches.pyramid": ("image", lambda s: s[1].square().sum()),
    "operators.blur": ("image", lambda s: s[0].square().sum() + s[1].square().sum()),
    "operators.mask": ("image", lambda s: s.square().sum()),
    "operators.downscale": ("image", lambda s: s.square().sum()),
    "restore.patch_ot": ("image", lambda s: s),
    "restore.patch_semidual": ("image", lambda s: s),
    "texture.loss": ("image", lambda s: s),
    "generator.transport_loss": ("other", lambda s: s),
    "rivals.grams": ("colour", lambda s: s[0].square().sum()),
    "rivals.gram_loss": ("colour", lambda s: s),
}


@contextlib.contextmanager
def changed(read, write, value):
    before = read()
    try:
        write(value)
        yield
    finally:
        write(before)


def precision(*level):
    """A context that reduces one of torch's switches of float32 precision."""
    *level, value = level
    read = functools.partial(torch._C._get_fp32_precision_getter, *level)
    write = functools.partial(torch._C._set_fp32_precision_setter, *level)
    return lambda: changed(read, write, value)


def default_device(kind):
    return lambda: changed(lambda: None, lambda value: torch.set_default_device(value), kind)


PRECISION = {
    "matmul precision high": lambda: changed(
        torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "high"
    ),
    "matmul precision medium": lambda: changed(
        torch.get_float32_matmul_precision, torch.set_float32_matmul_precision, "medium"
    ),
    "matmul.allow_tf32": lambda: changed(
        lambda: torch.backends.cuda.matmul.allow_tf32,
        lambda value: setattr(torch.backends.cuda.matmul, "allow_tf32", value),
        True,
    ),
    "fp32_precision of all": precision("generic", "all", "bf16"),
    "fp32_precision of cuDNN": precision("cuda", "all", "tf32"),
    "fp32_precision of CUDA's products": precision("cuda", "matmul", "tf32"),
    "fp32_precision of oneDNN": precision("mkldnn", "all", "bf16"),
    "fp32_precision of oneDNN's products": precision("mkldnn", "matmul", "bf16"),
    "fp32_precision of oneDNN's convolutions": precision("mkldnn", "conv", "bf16"),
}
UNRECORDED = {
    "no_grad": torch.no_grad,
    "inference mode": torch.inference_mode,
    "set_grad_enabled": lambda: torch.set_grad_enabled(False),
}
SETTINGS = (
    PRECISION
    | UNRECORDED
    | {
        "autocast to bfloat16": lambda: torch.autocast("cpu", dtype=torch.bfloat16),
        "autocast to float16": lambda: torch.autocast("cpu", dtype=torch.float16),
        "default dtype float64": lambda: changed(
            torch.get_default_dtype, torch.set_default_dtype, torch.float64
        ),
        "default dtype float16": lambda: changed(
            torch.get_default_dtype, torch.set_default_dtype, torch.float16
        ),
        "default device meta": default_device("meta"),
        "device meta": lambda: torch.device("meta"),
        "deterministic algorithms": lambda: changed(
            torch.are_deterministic_algorithms_enabled, torch.use_deterministic_algorithms, True
        ),
        "three threads": lambda: changed(torch.get_num_threads, torch.set_num_threads, 3),
        "anomaly mode": lambda: torch.autograd.set_detect_anomaly(True),
    }
)


def at_once(*names):
    """A context of several settings."""

    @contextlib.contextmanager
    def all_of_them():
        with contextlib.ExitStack() as stack:
            for name in names:
                stack.enter_context(SETTINGS[name]())
            yield

    return all_of_them


# Each setting is in one of these, but a medium precision of products stands for the high one, which
# reduces less: what bears them together bears each, and there are many functions. torch refuses old
# switches of precision beside the new.
TOGETHER = {
    "old switches of precision": at_once("matmul precision medium", "matmul.allow_tf32"),
    # the general ones last, from which the others would inherit
    "new switches of precision": at_once(*reversed([k for k in PRECISION if "fp32" in k])),
    "autocast, more threads, checks": at_once(
        "autocast to bfloat16", "three threads", "deterministic algorithms", "anomaly mode"
    ),
} | {
    name: SETTINGS[name]
    for name in (
        *UNRECORDED,
        "autocast to float16",
        "default dtype float64",
        "default dtype float16",
        "default device meta",
        "device meta",
    )
}


def state():
    """What torch is set to."""
    levels = [("generic", "all")]
    levels += [(b, k) for b in ("cuda", "mkldnn") for k in ("all", "matmul", "conv", "rnn")]
    autocast = [
        (torch.is_autocast_enabled(d), torch.get_autocast_dtype(d)) for d in ("cpu", "cuda")
    ]
    return (
        [torch._C._get_fp32_precision_getter(*level) for level in levels],
        autocast,
        torch.get_default_dtype(),
        torch.get_default_device(),
        torch.is_grad_enabled(),
        torch.is_inference_mode_enabled(),
        torch.are_deterministic_algorithms_enabled(),
        torch.get_num_threads(),
        torch.is_anomaly_enabled(),
    )


def parts(result):
    """The numbers and tensors in a result, in order."""
    if torch.is_tensor(result):
        return [result.detach().to_dense() if result.is_sparse else result.detach()]
    if isinstance(result, nn.Module):
        return [result.training, *parts(list(result.state_dict().values()))]
    if dataclasses.is_dataclass(result):
        return parts([getattr(result, field.name) for field in dataclasses.fields(result)])
    if isinstance(result, dict):
        return parts([*result.items()])
    if isinstance(result, list | tuple):
        return [part for one in result for part in parts(one)]
    return [result]


def called(name, folder, d=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # few patches, few steps; anomaly mode's own
        return CALLS[name](data() if d is None else d, folder)


@functools.cache
def in_the_plain_state(name, folder):
    return parts(called(name, folder))


def assert_same(found, expected):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        if torch.is_tensor(other):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)  # dtype, device too
        elif isinstance(other, float):
            assert one == pytest.approx(other, rel=1e-4, abs=1e-6)
        else:
            assert one == other


@pytest.fixture(scope="module", autouse=True)
def settled():
    """torch writes switches that nobody has written when its old ones are put back."""
    torch.set_float32_matmul_precision("highest")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("files")


def test_the_table_misses_no_public_function():
    public = {
        f"{module.__name__.removeprefix('otlib.')}.{name}"
        for module in modules().values()
        for name, value in vars(module).items()
        if inspect.isfunction(value) and value.__module__ == module.__name__ and name[0] != "_"
    }
    assert public == set(CALLS)


@pytest.mark.parametrize("setting", TOGETHER)
@pytest.mark.parametrize("name", CALLS)
def test_a_setting_changes_no_result_and_is_left_as_found(name, setting, folder):
    expected = in_the_plain_state(name, folder)
    outside = state()
    with TOGETHER[setting]():
        before = state()
        assert before != outside
        found = parts(called(name, folder))
        assert state() == before
    assert_same(found, expected)
    assert state() == outside


@pytest.mark.parametrize("setting", sorted(TOGETHER.keys() - UNRECORDED.keys()))
@pytest.mark.parametrize("name", SLOPES)
def test_a_setting_changes_no_gradient(name, setting, folder):
    key, scalar = SLOPES[name]

    def slope():
        d = data()
        leaf = getattr(d, key).requires_grad_()
        return torch.autograd.grad(scalar(called(name, folder, d)), leaf)[0]

    expected = slope()
    with TOGETHER[setting]():
        found = slope()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("setting", UNRECORDED)
@pytest.mark.parametrize("name", SLOPES)
def test_no_gradient_is_recorded_where_the_caller_wants_none(name, setting, folder):
    d, (key, scalar) = data(), SLOPES[name]
    getattr(d, key).requires_grad_()
    with SETTINGS[setting]():
        assert not scalar(called(name, folder, d)).requires_grad


@pytest.mark.parametrize("name", CALLS)
def test_tensors_of_inference_mode_are_taken(name, folder):
    """Made inside, used outside: also where a gradient flows through what they are mixed with."""
    with torch.inference_mode():
        d = data()
    if name in SLOPES:
        leaf = SLOPES[name][0]
        setattr(d, leaf, getattr(d, leaf).clone().requires_grad_())
    assert_same(parts(called(name, folder, d)), in_the_plain_state(name, folder))


def test_a_closure_over_a_tensor_of_inference_mode_is_named():
    with torch.inference_mode():
        d = data()
        with pytest.raises(
            RuntimeError, match=r"^restore takes gradients, and what .* outside it$"
        ):
            restore.restore(d.image, lambda u: u * d.other, [], lam=1.0, steps=1, lr=0.1)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_setting_is_left_as_found_after_an_error(setting):
    def fail(step, image):
        raise KeyError

    d = data()
    with SETTINGS[setting]():
        before = state()
        with pytest.raises(KeyError):
            restore.restore(d.image, lambda u: u, [], lam=1.0, steps=1, lr=0.1, callback=fail)
        with pytest.raises(ValueError, match=r"^eps must"):
            sinkhorn.solve(d.x, d.y, eps=-1.0)
        assert state() == before


def test_an_inherited_precision_is_still_inherited_afterwards():
    """What is written back must not be the value that a switch had from another."""
    levels = [("mkldnn", "all"), ("mkldnn", "conv")]
    read = lambda: [torch._C._get_fp32_precision_getter(*level) for level in levels]
    d = data()
    before = read()
    with precision("generic", "all", "bf16")():
        assert read() == ["bf16", "bf16"]
        operators.blur(d.image, d.kernel)
        assert read() == ["bf16", "bf16"]
    assert read() == before != ["bf16", "bf16"]


def test_precision_is_full_until_the_last_of_two_threads_has_left():
    """The one that enters first leaves first, and must not reduce the other's products."""
    entered, left, seen = threading.Event(), threading.Event(), []

    def first(step, image):
        if step == 0:
            second.start()
            assert entered.wait(10)

    def last(step, image):
        entered.set()
        assert left.wait(10)
        seen.append(_ambient.reduced())

    d = data()
    run = lambda callback: restore.restore(
        d.image, lambda u: u, [], lam=1.0, steps=1, lr=0.1, callback=callback
    )
    second = threading.Thread(target=run, args=(last,))
    with SETTINGS["matmul precision medium"]():
        before = state()
        run(first)
        seen.append(_ambient.reduced())
        left.set()
        second.join()
        assert state() == before
    assert seen == [False, False]


def test_a_warning_names_the_line_of_the_caller():
    d = data()
    for call in (
        lambda: sinkhorn.solve(d.x, d.y, eps=1e-3, max_iter=1),
        lambda: semidual.ascend(d.x, d.y, max_iter=1, tol=1e-9),
        lambda: semidual.solve(d.x, d.y, max_iter=1),
        lambda: dot.fit([torch.rand(3, 4, 4)], [torch.rand(3, 4, 4)], identity(), patch=3),
    ):
        with pytest.warns(UserWarning) as told:
            call()
        assert {warning.filename for warning in told} == {__file__}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("name", ["operators.blur", "rivals.grams", "sinkhorn.solve"])
def test_tf32_reaches_neither_value_nor_gradient_on_a_gpu(name):
    """It is what torch takes for convolutions by default, and for products on demand."""
    (key, scalar), found = SLOPES[name], []
    for device in ("cpu", "cuda"):
        d = data()
        for what, value in vars(d).items():
            if torch.is_tensor(value):
                setattr(d, what, value.to(device))
        leaf = getattr(d, key).requires_grad_()
        with SETTINGS["matmul precision high"]():
            before = state()
            value = scalar(CALLS[name](d, None))
            found.append([part.cpu() for part in (value, *torch.autograd.grad(value, leaf))])
            assert state() == before
    torch.testing.assert_close(found[1], found[0], rtol=2e-5, atol=2e-6)
