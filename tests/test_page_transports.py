"""Fits of the transport that one page keeps and another reads."""

import shutil
from pathlib import Path

import pytest
import torch

from companion.page import deep_ot, transports
from companion.page.seeds import seeded
from otlib import dot
from otlib.assets.photographs import Photograph, Sets
from otlib.assets.restorers import RESTORERS

AE = deep_ot.PIXELS


@pytest.fixture
def kept(tmp_path):
    """A folder with the fits of two restorers, the turn, its images and what was made of them."""
    names = [["a", "b"], ["c"], []]
    images = {name: torch.rand(3, 16, 16, generator=seeded(k)) for k, name in enumerate("abc")}
    turn = Sets(*([Photograph(name, images[name]) for name in part] for part in names))
    after = {"nlm50": {"c": images["c"] / 2}, "dat-light": {"c": images["c"] / 3 + 0.1}}
    folder = tmp_path / "one"
    folder.mkdir()
    transports.keep(folder, turn, images, after, AE, 1)
    return folder, images, after


def test_kept_fits_are_those_of_the_turn(kept):
    folder, images, after = kept
    for pattern in (folder, folder / "*.safetensors"):
        found = transports.read(str(pattern), ["nlm50", "dat-light"], AE, 1)
        assert len(found) == 4
        for (name, fit), fitted in found.items():
            natural = [images[name] for name in ("ab" if fit == "unpaired" else "c")]
            wanted = dot.fit(natural, after[name].values(), AE, 1)
            assert torch.equal(fitted.full.matrix, wanted.full.matrix)
            assert torch.equal(fitted.kept.target, wanted.kept.target)
            assert fitted.natural.number == wanted.natural.number


def test_fits_that_are_not_there_or_of_something_else_are_refused(kept):
    folder, *_ = kept
    read = lambda pattern="", restorer="nlm50", ae=AE, patch=1: transports.read(
        str(folder / pattern), [restorer], ae, patch
    )
    with pytest.raises(FileNotFoundError, match=r"no cunet-unpaired.* there: dat-light, nlm50$"):
        read(restorer="cunet")
    with pytest.raises(FileNotFoundError, match=r"no nlm50-paired.* there: none$"):
        read("*-unpaired.*")
    with pytest.raises(ValueError, match=r"nlm50-unpaired\.\w+ must .* patch 3, got pixels and 1$"):
        read(patch=3)
    with pytest.raises(ValueError, match=r"autoencoder pca8 and patch 1, got pixels and 1$"):
        read(ae=AE._replace(name="pca8"))
    shutil.copytree(folder, folder.parent / "two")
    with pytest.raises(ValueError, match=r"must name one nlm50-unpaired\.safetensors, got 2$"):
        read("../*/*.safetensors")


def test_the_archived_fits_push_their_own_moments_forward():
    """M C_restored M^T = C_natural, and a mean goes to a mean; for every restorer."""
    folder = Path(__file__).parents[1] / "book" / "archive" / "dot-fits-taesd"
    restorers = {path.name.rpartition("-")[0] for path in folder.glob("*.safetensors")}
    assert len(restorers) == 9 and restorers <= {*RESTORERS}
    found = transports.read(str(folder), sorted(restorers), AE._replace(name="taesd"), 3)
    for fitted in found.values():
        matrix, natural = fitted.full.matrix, fitted.natural.covariance
        pushed = matrix @ fitted.restored.covariance @ matrix.mT
        assert (pushed - natural).norm() < 1e-6 * natural.norm()
        assert torch.equal(fitted.full.source, fitted.restored.mean)
        assert torch.equal(fitted.full.target, fitted.natural.mean)
