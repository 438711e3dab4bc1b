"""How well the covariances of latent patches can be inverted, and what the remedies change."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from companion.page import figures
from companion.page.deep_ot import mean_square
from companion.page.record import record
from companion.page.seeds import seeded
from otlib import dot, gaussian
from otlib.assets.autoencoders import Autoencoder


class Condition(NamedTuple):
    """Of the covariance of the restored patches of one side; mean squared differences of images."""

    dimension: int
    number: int  # of patches
    log10_condition: float
    negative: int  # eigenvalues below 0 where the same covariance is computed in float32
    singular: int  # directions that `dot.fit` cuts
    noise: float  # with the noise of eq. (5) of Adrai et al. 2023 against without
    constant: float  # with a constant on the diagonal instead of the cut


def of(
    natural: Sequence[Tensor],
    restored: Sequence[Tensor],
    images: Sequence[Tensor],
    autoencoder: Autoencoder,
    patch: int,
    share: float = 1e-6,
) -> Condition:
    """Look at the transport of patches of one side: appendices A.2 and B.2 of Adrai et al. 2023.

    natural, restored, autoencoder, patch: as for `dot.fit`. images: restored ones to transport.
    share: of the largest variance, below which `dot.fit` cuts; the constant, of the mean one.
    """
    fitted = dot.fit(natural, restored, autoencoder, patch)
    cov0, cov1 = fitted.restored.covariance, fitted.natural.covariance
    values = torch.linalg.eigvalsh(cov0)
    low = torch.linalg.eigvalsh(cov0.float())
    plain = [dot.transport(fitted, image, autoencoder) for image in images]
    drawn = [dot.transport(fitted, image, autoencoder, generator=seeded(0)) for image in images]
    still = torch.eye(len(cov0), dtype=cov0.dtype, device=cov0.device)
    lifted = cov0 + share * cov0.trace() / len(cov0) * still
    matrix = gaussian.transport_map(lifted, cov1)
    shifted = fitted._replace(full=fitted.full._replace(matrix=matrix, noise=None))
    other = [dot.transport(shifted, image, autoencoder) for image in images]
    return Condition(
        len(cov0),
        int(fitted.restored.number),
        (values[-1] / values[0].clamp(min=1e-300)).log10().item(),
        int((low < 0).sum()),
        int((values <= share * values[-1]).sum()),
        mean_square(drawn, plain),
        mean_square(other, plain),
    )


def table(told: dict[int, Condition]) -> None:
    """Show a table with a row a side. told: {side of the patches: Condition}."""
    headers = ["p", "dimension", "patches", "log10 of the condition number"]
    headers += ["negative eigenvalues in float32", "directions cut", "MSE of the noise"]
    rows = []
    for side, one in told.items():
        row = [side, one.dimension, one.number, f"{one.log10_condition:.1f}", one.negative]
        rows.append([*row, one.singular, f"{one.noise:.1e}", f"{one.constant:.1e}"])
    figures.table([*headers, "MSE of a constant instead"], rows)


def note(told: dict[int, Condition]) -> None:
    """Record, of each side, the numbers that tell how singular a covariance is, and the last's all.

    told: {side of the patches: Condition}, from 1 to the largest.
    """
    for side, one in told.items():
        record(f"log10_condition_p{side}", one.log10_condition)
        record(f"float32_negative_p{side}", one.negative)
        record(f"singular_p{side}", one.singular)
    last = told[max(told)]
    record("log10_condition_growth", last.log10_condition - told[1].log10_condition)
    record("float32_negative_largest", last.negative)
    record("noise_mse", last.noise)
    record("constant_mse", last.constant)
