"""How near restored images are to the truth, and how much of a reference is foreign to it."""

import torch
from torch import Tensor

from companion.page.masses import share
from otlib import metrics, patches
from otlib.assets import perceptual
from otlib.softmin import hardmin

MEASURES = ("PSNR", "LPIPS-Alex", "LPIPS-Alex as read there", "LPIPS-VGG", "SSIM")


def quality(image: Tensor, truth: Tensor, border: int = 0) -> list[float]:
    """Measure a restored image as Table I of Mignon et al. 2023 does, and by two measures more.

    image, truth: (C, H, W) float32 in [0, 1]. border: pixels left out on each side.
    Returns [PSNR in dB, LPIPS by AlexNet, the same of images handed over in [0, 1], LPIPS by VGG,
    SSIM]: see MEASURES. The networks expect [-1, 1]; the authors' later code does the other.
    """
    lpips = [perceptual.lpips(image, truth, net, border=border) for net in ("alex", "vgg")]
    # `lpips` takes x to 2 x - 1, which undoes this
    as_read = perceptual.lpips((image + 1) / 2, (truth + 1) / 2, "alex", border=border)
    psnr, ssim = (measure(image, truth, border=border) for measure in (metrics.psnr, metrics.ssim))
    return [psnr, lpips[0], as_read, lpips[1], ssim]


def foreign(
    cloud: Tensor, clean: Tensor, target: Tensor, patch: int, step: int = 2, usual: float = 0.99
) -> Tensor:
    """Which patches of a reference are farther from all clean ones than is usual.

    cloud: (M, C patch^2) patches of the reference. clean, target: (C, H, W); the usual distance is
        that quantile of the distances of the target's patches to the nearest clean one. patch:
        side, step: of the grid on these two, pixels.
    Returns (M,) bool.
    """
    clean, target = (patches.extract(image, patch, step) for image in (clean, target))
    zero = torch.zeros(len(clean), dtype=clean.dtype, device=clean.device)
    farthest = hardmin(target, clean, zero)[0].quantile(usual)
    return hardmin(cloud, clean, zero)[0] > farthest


def foreign_mass(
    cloud: Tensor, mass: Tensor, clean: Tensor, target: Tensor, patch: int
) -> tuple[float, float]:
    """How much of a reference is foreign, and how much of what a plan takes of it.

    cloud, clean, target, patch: as for `foreign`. mass: (M,) second marginal of the plan.
    Returns (share of the patches, share of the mass).
    """
    far = foreign(cloud, clean, target, patch).to(mass.device)
    return float(far.float().mean()), float(share(mass, far))
