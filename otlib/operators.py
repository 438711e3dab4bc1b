"""Degradations: blur, downscaling, mask, noise, JPEG. The linear ones are differentiable."""

import io

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from otlib import _check
from otlib._ambient import plain

__all__ = ["blur", "downscale", "gaussian_kernel", "gaussian_noise", "jpeg", "mask", "subsample"]


@plain
def gaussian_kernel(size: int, sd: float) -> Tensor:
    """Square Gaussian kernel of sum 1, sampled at the pixel centres about its middle.

    size: side in pixels, >= 1 (Mignon et al. 2023, sec. III: 16 for the blur, 4 for the pyramid).
    sd: standard deviation in pixels, > 0 (2 for the blur, 1 for the pyramid).

    Returns (size, size), float64 on the CPU; `blur` brings it to the image's dtype and device.
    Raises ValueError on size < 1 or sd <= 0.
    """
    _check.whole("size", size)
    _check.positive("sd", sd)
    offsets = torch.arange(size, dtype=torch.float64, device="cpu") - (size - 1) / 2
    # softmax: the normalised Gaussian even where every sample of exp would underflow
    line = torch.softmax(-offsets.square() / (2 * sd**2), 0)
    return torch.outer(line, line)


@plain
def blur(image: Tensor, kernel: Tensor, stride: int = 1, periodic: bool = False) -> Tensor:
    """Convolve every channel with one kernel (H of Mignon et al. 2023, sec. III; SH with a stride).

    image: (C, H, W) float32 or float64, any device and value range.
    kernel: (h, w), h <= H and w <= W; index (h // 2, w // 2) is its centre, so that an even
        kernel followed by a stride of 2 looks at the middle of each 2 x 2 block.
    stride: >= 1; only what `subsample` would keep is computed.
    periodic: wrap round the borders; else keep the pixels that the kernel fully covers.

    Returns (C, H, W) where periodic, else (C, H - h + 1, W - w + 1), each side n made
    ceil(n / stride), in the dtype and on the device of the image. Raises ValueError on bad pixels
    or taps, a kernel larger than the image, stride < 1.
    """
    _check.image("image", image)
    _check.finite("kernel", kernel)
    _check.whole("stride", stride)
    if kernel.ndim != 2 or 0 in kernel.shape:
        raise ValueError(f"kernel must be a non-empty (h, w) tensor, got {tuple(kernel.shape)}")
    (h, w), (height, width) = kernel.shape, image.shape[1:]
    if h > height or w > width:
        raise ValueError(f"image must be at least the {h} x {w} kernel, got {height} x {width}")
    # TF32 would reach the gradient on a GPU: it is computed after this call, in the caller's state
    planes = image[:, None].double() if image.is_cuda else image[:, None]
    if periodic:
        left, right, top, bottom = (w - 1) // 2, w // 2, (h - 1) // 2, h // 2
        planes = F.pad(planes, (left, right, top, bottom), mode="circular")
    column, weight, row = torch.linalg.svd(kernel.double())
    # conv2d correlates: flip for a convolution
    if weight[1:].sum() > 1e-12 * weight[0]:
        taps = kernel.flip(0, 1).to(planes)[None, None]
        return F.conv2d(planes, taps, stride=stride)[:, 0].to(image.dtype)
    # of rank 1, as a Gaussian is: a column and a row, h + w products a pixel instead of h w
    column, row = column[:, 0] * weight[0], row[0]
    column, row = column.flip(0).to(planes)[:, None], row.flip(0).to(planes)[None]
    planes = F.conv2d(planes, column[None, None], stride=(stride, 1))
    return F.conv2d(planes, row[None, None], stride=(1, stride))[:, 0].to(image.dtype)


@plain
def subsample(image: Tensor, stride: int) -> Tensor:
    """Keep every `stride`-th row and column, from the first (S of Mignon et al. 2023, sec. III).

    image: (C, H, W) float32 or float64, any device.
    stride: pixels, >= 1.

    Returns (C, ceil(H / stride), ceil(W / stride)). Raises ValueError on bad pixels, stride < 1.

    >>> subsample(torch.arange(9.0).view(1, 3, 3), 2).tolist()
    [[[0.0, 2.0], [6.0, 8.0]]]
    """
    _check.image("image", image)
    _check.whole("stride", stride)
    return image[:, ::stride, ::stride]


@plain
def mask(image: Tensor, hole: Tensor) -> Tensor:
    """Set the pixels of a hole to 0.

    image: (C, H, W) float32 or float64, any device.
    hole: (H, W), (1, H, W) or (C, H, W) bool, same device; True is missing.

    Returns (C, H, W). Raises ValueError on bad pixels, a hole of another type, shape or device,
    and one that leaves nothing.

    >>> mask(torch.ones(1, 1, 3), torch.tensor([[False, True, False]])).tolist()
    [[[1.0, 0.0, 1.0]]]
    """
    _check.image("image", image)
    if not torch.is_tensor(hole) or hole.dtype != torch.bool or hole.device != image.device:
        kind = f"{hole.dtype} on {hole.device}" if torch.is_tensor(hole) else type(hole).__name__
        raise ValueError(f"hole must be a bool tensor on {image.device}, got {kind}")
    shape = tuple(image.shape)
    if tuple(hole.shape) not in (shape[1:], (1, *shape[1:]), shape):
        raise ValueError(f"hole must have shape {shape[1:]} or {shape}, got {tuple(hole.shape)}")
    if hole.all():
        raise ValueError(f"hole must leave at least one pixel, got all {hole.numel()}")
    return image * ~hole


@plain
def gaussian_noise(image: Tensor, sd: float, generator: torch.Generator) -> Tensor:
    """Add white Gaussian noise, unclipped (eta of Mignon et al. 2023, sec. III).

    image: (C, H, W) float32 or float64, any device.
    sd: standard deviation >= 0 in the image's units.
    generator: torch.Generator; a CPU one gives the same noise for an image on any device.

    Returns (C, H, W). Raises ValueError on bad pixels or sd < 0.
    """
    _check.image("image", image)
    _check.positive("sd", sd, zero=True)
    _check.generator(generator)
    noise = torch.randn(
        image.shape, generator=generator, dtype=image.dtype, device=generator.device
    )
    return image + sd * noise.to(image.device)


@plain
def downscale(image: Tensor, factor: int) -> Tensor:
    """Shrink by the bicubic kernel widened by the factor: x4 of Adrai et al. 2023, sec. 5.

    The paper says bicubic, its code takes the antialiased bilinear kernel; this is the antialiased
    bicubic one, with which super-resolution networks are trained.

    image: (C, H, W) float32 or float64, any device and value range; H, W multiples of the factor,
        at least two.
    factor: >= 1.

    Returns (C, H / factor, W / factor); overshoots the range at edges, nothing is clipped. Raises
    ValueError on bad pixels, factor < 1, sides that are no such multiples.
    """
    _check.image("image", image)
    _check.whole("factor", factor)
    height, width = image.shape[1:]
    # two: torch 2.13 returns equal rows where the result is one pixel wide
    if height % factor or width % factor or min(height, width) < 2 * factor:
        sides = f"multiples of {factor} from {2 * factor} on"
        raise ValueError(f"image must have sides that are {sides}, got {height} x {width}")
    size = (height // factor, width // factor)
    return F.interpolate(image[None], size, mode="bicubic", antialias=True)[0]


@plain
def jpeg(image: Tensor, quality: int) -> Tensor:
    """Write as JPEG and read again (quality 10 of Adrai et al. 2023, sec. 5). Not differentiable.

    image: (C, H, W) float32 or float64, C 1 or 3; clipped to [0, 1] and rounded to 8 bits.
    quality: 1 to 100, of libjpeg's tables; colours at half resolution, its default.

    Returns (C, H, W) in [0, 1] in the dtype and on the device of the image. Raises ValueError on
    bad pixels, another number of channels or quality.
    """
    _check.image("image", image)
    _check.whole("quality", quality)
    if image.shape[0] not in (1, 3):
        raise ValueError(f"image must have 1 or 3 channels, got {image.shape[0]}")
    if quality > 100:
        raise ValueError(f"quality must be at most 100, got {quality}")
    levels = (image.detach().clamp(0, 1) * 255).round().byte().movedim(0, 2).cpu().numpy()
    file = io.BytesIO()
    Image.fromarray(levels.squeeze(2) if image.shape[0] == 1 else levels).save(
        file, "JPEG", quality=int(quality)
    )
    read = torch.from_numpy(np.array(Image.open(file))).to(image) / 255
    return read.reshape(levels.shape).movedim(2, 0)
