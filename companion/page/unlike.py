"""Why a transport fitted on other photographs moves away: each suspect is taken away in turn."""

from collections.abc import Sequence

from torch import Tensor

from companion.page.deep_ot import PIXELS, Transported, parts
from companion.page.scenes import every_second, half_of_the_scenes, of
from otlib import dot, metrics
from otlib.assets.autoencoders import Autoencoder
from otlib.assets.photographs import Sets

# What is measured, as a table says it
SUSPECTS = {
    "restored": "the restored image, alpha = 1",
    "unpaired": "the paper's map",
    "means": "only its shift of the mean",
    "covariances": "only its change of the covariance",
    "kept": "mean colours kept (ours)",
    "fewer": "half of the photographs, in both sets",
    "same_scenes": "both sets from other crops of the same photographs",
    "pixels": "no autoencoder: patches of pixels",
    "yardstick": "the natural images of the fit themselves",
}


def distances(
    turn: Sets,
    at: Transported,
    images: dict[str, Tensor],
    after: dict[str, Tensor],
    autoencoder: Autoencoder,
    patch: int,
) -> dict[str, float]:
    """The Gelbrich distance to the test photographs after each variant of the unpaired map.

    turn, images, after, autoencoder, patch: as for `deep_ot.transported`, which gave `at`.
    Returns {kind of SUSPECTS: float}, without "same_scenes" where no scene has two crops.
    """
    clean = metrics.moments(at.sources)

    def away(shown: Sequence[Tensor]) -> float:
        return metrics.gelbrich(metrics.moments([x.clamp(0, 1) for x in shown]), clean)

    def moved(fitted: dot.Transport, by: Autoencoder = autoencoder) -> float:
        return away([dot.transport(fitted, x, by) for x in at.one])

    def fit(natural, restored, by=autoencoder):
        return dot.fit(of(images, natural), of(after, restored), by, patch)

    natural, degraded, _ = turn
    even, odd = every_second([*natural, *degraded])
    found = {"restored": away(at.one), "unpaired": moved(at.unpaired)}
    found |= {kind: moved(half) for kind, half in parts(at.unpaired).items()}
    found["kept"] = away(at.zero["kept"])
    found["fewer"] = moved(fit(half_of_the_scenes(natural), half_of_the_scenes(degraded)))
    if odd:  # a photograph gives more than one crop
        found["same_scenes"] = moved(fit(odd, even))
    found["pixels"] = moved(fit(natural, degraded, PIXELS), PIXELS)
    return found | {"yardstick": away(of(images, natural))}
