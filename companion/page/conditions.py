"""How well the covariances of latent patches can be inverted, and what the remedies change."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from companion.page.deep_ot import mean_square
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
