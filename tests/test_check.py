"""What is a number, and the lines that answer to bad input, through the public functions."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from otlib import (
    _check,
    ddrm,
    dot,
    gaussian,
    generator,
    metrics,
    operators,
    patches,
    restore,
    semidual,
    sinkhorn,
    softmin,
    texto,
    texture,
)
from otlib.assets import exemplars, perceptual


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def uniform(*shape, seed=0):
    return torch.rand(shape, generator=seeded(seed))


X, Y, G = uniform(20, 4), uniform(25, 4, seed=1), uniform(25, seed=2)
IMAGE, COLOUR, EYE = uniform(1, 16, 16, seed=3), uniform(3, 32, 32, seed=4), torch.eye(2)
LAW = dict(weights=torch.tensor([0.25, 0.75]), means=torch.zeros(2, 2), covs=torch.stack([EYE] * 2))
REAL = [float, np.float32, np.float64, np.array, torch.tensor]
WHOLE = [int, np.int64, np.uint8, np.array, torch.tensor]
NONE = [True, np.True_, torch.tensor(True), math.nan, np.float32(math.nan), torch.tensor(math.nan)]
NONE += [None, "1", 1j, torch.ones(1), torch.ones(1, requires_grad=True)[0], -1.0, torch.tensor(-1)]


@given(st.floats(2**-20, 2**20, width=32), st.sampled_from(REAL))
def test_a_real_number_of_any_kind_is_that_number(value, kind):
    for found in (_check.positive("n", kind(value)), _check.number("n", kind(value))):
        assert found == value and type(found) is float


@given(st.integers(1, 200), st.sampled_from(WHOLE))
def test_a_whole_number_of_any_kind_is_that_number(value, kind):
    for check in (_check.positive, _check.number, _check.whole):
        found = check("n", kind(value))
        assert found == value and type(found) is int


@pytest.mark.parametrize("value", NONE, ids=repr)
def test_what_is_no_positive_number_is_refused_in_one_line(value):
    for check in (_check.positive, _check.whole):
        with pytest.raises(ValueError, match=r"^n must be a (whole )?number >=? [01]") as error:
            check("n", value)
        assert "\n" not in str(error.value)


def test_the_ends_of_the_range():
    for check in (_check.whole, _check.positive):
        with pytest.raises(ValueError, match=r"^n must"):
            check("n", 0)
    assert _check.positive("n", 0, zero=True) == 0 == _check.whole("n", 0, least=0)
    assert _check.positive("n", np.float32("inf"), infinite=True) == math.inf
    assert _check.number("n", -2.5) == -2.5 and _check.number("n", Fraction(1, 4)) == 0.25
    for beyond in (math.inf, 10**400):
        with pytest.raises(ValueError, match=r"^n must be a number > 0 and finite"):
            _check.positive("n", beyond)
        with pytest.raises(ValueError, match=r"^n must be a finite number"):
            _check.number("n", -beyond)
    for value in (2.0, np.float64(2), torch.tensor(2.0)):
        with pytest.raises(ValueError, match=r"^n must be a whole number"):
            _check.whole("n", value)


TAKE_REAL = {
    "softmin": lambda n: softmin.softmin(X, Y, G, n),
    "sinkhorn": lambda n: sinkhorn.solve(X, Y, eps=n, rho=(n, 4 * n), tol=n / 1e3).f,
    "semidual": lambda n: semidual.ascend(X, Y, step=n, max_iter=3).g,
    "kernel": lambda n: operators.gaussian_kernel(3, n),
    "noise": lambda n: operators.gaussian_noise(IMAGE, n, seeded()),
    "texture": lambda n: gaussian.texture((1, 8, 8), n, n, n, seeded()),
    "law": lambda n: torch.cat([part.flatten() for part in gaussian.edge_patch_law(3, n, n)]),
    "map": lambda n: gaussian.stochastic_map(EYE, EYE, n)[0],
    "restore": lambda n: restore.restore(IMAGE, lambda u: u / 2, [], lam=n, steps=2, lr=n),
    "psnr": lambda n: torch.tensor(metrics.psnr(IMAGE / 2, IMAGE, peak=4 * n)),
    "interval": lambda n: torch.tensor(metrics.interval(G, n)),
    "synthesise": lambda n: texture.synthesise(
        IMAGE, IMAGE, patch=3, levels=1, steps=2, lr=n, dual_step=n, generator=seeded()
    )[0],
    "ddrm": lambda n: ddrm.sample(
        IMAGE[:, :2, :4], n, X[:2], X[:4], lambda x, t: x, [99 * n], seeded(), n, n
    ),
}
TAKE_WHOLE = {
    "extract": lambda n: patches.extract(IMAGE, n, n),
    "adjoint": lambda n: patches.adjoint(torch.ones(64, 4), (1, 16, 16), n, n),
    "pyramid": lambda n: patches.pyramid(IMAGE, n)[-1],
    "subsample": lambda n: operators.subsample(IMAGE, n),
    "downscale": lambda n: operators.downscale(IMAGE, n),
    "jpeg": lambda n: operators.jpeg(IMAGE, n),
    "edges": lambda n: gaussian.edge_patches(n, n, 1.0, 0.0, seeded()),
    "sample": lambda n: gaussian.sample(torch.zeros(2), EYE, n, seeded()),
    "solve": lambda n: semidual.solve(X, Y, max_iter=20 * n).g,
    "network": lambda n: generator.network(n, n, n, generator=seeded()).leave.weight,
    "generate": lambda n: generator.noise(
        generator.network(scales=n, generator=seeded()), 8 * n, 8 * n, generator=seeded()
    )[0],
    "shuffle": lambda n: texture.shuffle(IMAGE, (n, n), n, seeded()),
    "moments": lambda n: metrics.moments([IMAGE], n)[0].mean,
    "bootstrap": lambda n: metrics.bootstrap(lambda w: float(w[0]), n, n, n),
    "dot": lambda n: dot.moments([IMAGE], n + 1).mean,
}


@pytest.mark.parametrize("kind", REAL[1:])
@pytest.mark.parametrize("name", TAKE_REAL)
def test_functions_take_a_real_number_of_any_kind(name, kind):
    assert torch.equal(TAKE_REAL[name](kind(0.25)), TAKE_REAL[name](0.25))


@pytest.mark.parametrize("kind", WHOLE[1:])
@pytest.mark.parametrize("name", TAKE_WHOLE)
def test_functions_take_a_whole_number_of_any_kind(name, kind):
    assert torch.equal(TAKE_WHOLE[name](kind(2)), TAKE_WHOLE[name](2))


# those that compute with the value before they give it
COMPUTE = {"sinkhorn", "psnr", "ddrm", "solve", "generate", "dot"}


@pytest.mark.parametrize("value", [*NONE[:8], torch.ones(1)], ids=repr)
@pytest.mark.parametrize("name", sorted((TAKE_REAL.keys() | TAKE_WHOLE.keys()) - COMPUTE))
def test_functions_refuse_what_is_no_number(name, value):
    with pytest.raises(ValueError, match="must be a") as error:
        (TAKE_REAL | TAKE_WHOLE)[name](value)
    assert "\n" not in str(error.value)


# ---- the scale of an image

MEASURES = {
    "ssim": metrics.ssim,
    "lpips": perceptual.lpips,
    "psnr": metrics.psnr,
    "pooled_psnr": lambda x, y: metrics.pooled_psnr([x], [y]),
    "embeddings": lambda x, y: perceptual.embeddings([y]),
}
SCALES = {
    r"\[-1, 1\]": lambda u: 2 * u - 1,
    r"\[0, 255\]": lambda u: 255 * u,
    "standardised": lambda u: (u - u.mean()) / u.std(),
}


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", MEASURES)
def test_images_of_another_scale_are_refused(name, scale):
    x, y = (SCALES[scale](image) for image in (COLOUR.flip(1), COLOUR))
    line = (
        r"^(reference|images) must have values in \[0, 1\] \(up to a half .*\), got .* to [0-9.]+$"
    )
    with pytest.raises(ValueError, match=line) as error:
        MEASURES[name](x, y)
    assert "\n" not in str(error.value)
    MEASURES[name](COLOUR.flip(1), COLOUR)


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", ["ssim", "lpips"])
def test_one_image_of_another_scale_is_refused(name, scale):
    with pytest.raises(ValueError, match=r"^x must have values in \[0, 1\]"):
        MEASURES[name](SCALES[scale](COLOUR), COLOUR)


@pytest.mark.parametrize("name", MEASURES)
def test_overshoot_and_noise_are_no_other_scale(name):
    """Noise of sd 0.3 carries 1 of 21 values of a black image below -1/2, the strongest taken."""
    noise = torch.randn(COLOUR.shape, generator=seeded())
    for x in (COLOUR * 1.8 - 0.4, 0.25 * noise, 1 + 0.25 * noise, COLOUR + 0.3 * noise):
        MEASURES[name](x, COLOUR)


def test_the_scale_is_that_of_the_peak():
    levels = 255 * COLOUR
    assert metrics.psnr(levels + 1, levels, peak=255) == pytest.approx(
        20 * math.log10(255), abs=1e-3
    )
    with pytest.raises(ValueError, match=r"^reference must have values in \[0, 100\]"):
        metrics.psnr(levels, levels, peak=100)


# ---- documented, and now checked

NET = generator.network(scales=1, generator=seeded())
GREY = torch.full((1, 16, 16), 0.5)
BAD = {
    "weights must be numbers >= 0 of sum 1, got [-1.0, 2.0]": lambda: gaussian.posterior(
        torch.zeros(1, 2), **{**LAW, "weights": torch.tensor([-1.0, 2.0])}, noise_cov=EYE
    ),
    "weights must be numbers >= 0 of sum 1, got [0.0, 0.0]": lambda: gaussian.posterior(
        torch.zeros(1, 2), **{**LAW, "weights": torch.zeros(2)}, noise_cov=EYE
    ),
    "noise_cov must be positive definite, got a singular matrix": lambda: gaussian.posterior(
        torch.zeros(1, 2), **LAW, noise_cov=torch.ones(2, 2)
    ),
    "noise_cov must have eigenvalues >= 0, got -1": lambda: gaussian.posterior(
        torch.zeros(1, 2), **LAW, noise_cov=-EYE
    ),
    "covs must be symmetric, got |covs - covs'| up to 1": lambda: gaussian.posterior(
        torch.zeros(1, 2),
        **{**LAW, "covs": torch.stack([EYE, torch.ones(2, 2).triu()])},
        noise_cov=EYE,
    ),
    "mean must be float32 or float64, got torch.float16": lambda: gaussian.sample(
        torch.zeros(2).half(), EYE, 1, seeded()
    ),
    "cov must be a floating point tensor, got list": lambda: gaussian.sample(
        torch.zeros(2), [[1.0, 0.0], [0.0, 1.0]], 1, seeded()
    ),
    "rtol must be a number < 1, got 1.0": lambda: gaussian.stochastic_map(EYE, EYE, 1.0),
    "generator must be a torch.Generator, got NoneType": lambda: gaussian.sample(
        torch.zeros(2), EYE, 1, None
    ),
    "generator must be a torch.Generator, got int": lambda: operators.gaussian_noise(IMAGE, 0.1, 0),
    "shape must be (C, H, W), got 16": lambda: patches.adjoint(torch.ones(4, 4), 16, 2),
    "shape must be a whole number >= 1, got 16.5": lambda: patches.adjoint(
        torch.ones(4, 4), (1, 16, 16.5), 2
    ),
    "exemplar must have a texture, got 0.5 at every pixel": lambda: texture.synthesise(
        GREY, GREY, dual_step=float(GREY.var()), generator=seeded()
    ),
    "dual_steps must be a whole number >= 0, got -1": lambda: texture.synthesise(
        IMAGE, IMAGE, dual_steps=-1, generator=seeded()
    ),
    "exemplar must have values in [0, 1] (up to a half beyond)": lambda: texture.kwatra(
        255 * IMAGE, IMAGE
    ),
    "steps must be a whole number >= 1, got 0": lambda: texto.layers(
        lambda: IMAGE[0], IMAGE[0], steps=0, generator=seeded()
    ),
    "priors must be a list of functions, got ": lambda: restore.restore(
        IMAGE, lambda u: u, torch.sum, lam=1.0, steps=1, lr=0.1
    ),
    "reference must be a floating point tensor, got function": lambda: restore.patch_semidual(
        lambda: X, 2, dual_steps=1
    ),
    "dual_step must be a number > 0 and finite, got 0": lambda: restore.patch_semidual(
        X, 2, dual_steps=1, dual_step=0
    ),
    "alpha must hold at least one number, got none": lambda: dot.transport(*fitted(), alpha=[]),
    "weights must have a sum > 1, as counts have, got 1": lambda: metrics.fid(
        X, X, torch.full((20,), 1 / 20, dtype=torch.float64)
    ),
    "2 or more of them > 0, got [1.0": lambda: metrics.kid(
        X, X, True, torch.eye(20, dtype=torch.float64)[0]
    ),
    "values must be a non-empty (draws,) tensor, got (0,)": lambda: metrics.interval(X[:0, 0]),
}


def fitted():
    from otlib.assets.autoencoders import Autoencoder

    pixels = Autoencoder("pixels", "", 1, 3, 1, lambda x: x, lambda z: z)
    return dot.fit([COLOUR], [COLOUR / 2], pixels, 1), COLOUR, pixels


@pytest.mark.parametrize("line", BAD)
def test_bad_input_is_one_line(line):
    with pytest.raises(ValueError) as error:
        BAD[line]()
    assert line in str(error.value) and "\n" not in str(error.value)


def test_a_restoration_that_diverges_says_so():
    with pytest.raises(RuntimeError, match=r"^the image is no longer finite, lam=1.0 or lr"):
        restore.restore(IMAGE, lambda u: 1e30 * u, [], lam=1.0, steps=1, lr=0.1)


def test_a_flat_exemplar_is_named(tmp_path):
    path = tmp_path / "flat.png"
    Image.fromarray(np.full((20, 20), 51, "u1")).save(path)
    with pytest.raises(ValueError, match=r"^exemplar .*flat.png must have a texture, got 0.2 at"):
        exemplars.load(str(path), 16)
