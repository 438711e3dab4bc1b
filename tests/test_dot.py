import math
import warnings

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data as photographs

from otlib import dot, gaussian, patches
from otlib.assets import autoencoders

torch.set_num_threads(1)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def toy(channels=2, stride=1, colours=1):
    """An autoencoder that is the identity on the first channels: latents are pixels."""

    def encode(x):
        return x[:, :channels]

    def decode(z):
        return torch.cat([z, z[:, :1].expand(-1, 3 - channels, -1, -1)], 1)

    return autoencoders.Autoencoder("toy", "", stride, channels, colours, encode, decode)


def smooth(count, height=24, width=24, seed=0, kernel=1.0, std=0.1):
    """Random images in [0, 1] with correlated pixels and channels."""
    made = []
    for k in range(count):
        image = gaussian.texture((3, height, width), kernel, std, 0.5, seeded(seed * 1000 + k))
        mixing = image.new_tensor([[1, 0.4, 0.2], [0, 0.9, 0.3], [0, 0, 0.8]])[:, :, None, None]
        made.append((mixing * (image - 0.5)).sum(1).add(0.5).clamp(0, 1))
    return made


def photos(size=128):
    images = (photographs.astronaut(), photographs.coffee(), photographs.chelsea())
    tensors = [torch.from_numpy(np.ascontiguousarray(i)).movedim(-1, 0) / 255 for i in images]
    return [t[:, 40 : 40 + size, 60 : 60 + size] for t in tensors]


def blurred(image):
    return torch.nn.functional.avg_pool2d(
        torch.nn.functional.pad(image[None], (1, 1, 1, 1), mode="replicate"), 3, 1
    )[0]


def pushed(fitted, chosen):
    """Covariance of the restored patches after a map."""
    noise = 0 if chosen.noise is None else chosen.noise
    return chosen.matrix @ fitted.restored.covariance @ chosen.matrix.mT + noise


# ---------------------------------------------------------------- moments


@pytest.mark.parametrize("patch", [1, 3])
def test_moments_are_those_of_all_patches(patch):
    latents = [torch.rand((2, h, w), generator=seeded(h)) for h, w in ((7, 9), (5, 4), (12, 6))]
    found = dot.moments(iter(latents), patch)
    cloud = torch.cat([patches.extract(z.double(), patch) for z in latents])
    assert found.number == len(cloud)
    assert found.mean.dtype == found.scatter.dtype == torch.float64
    torch.testing.assert_close(found.mean, cloud.mean(0), rtol=0, atol=1e-15)
    torch.testing.assert_close(found.covariance, torch.cov(cloud.mT), rtol=0, atol=1e-14)


@settings(max_examples=25)
@given(st.lists(st.tuples(st.integers(3, 9), st.integers(3, 9)), min_size=2, max_size=5))
def test_merging_parts_is_one_pass(sizes):
    latents = [torch.randn((2, h, w), generator=seeded(h * w)) + h for h, w in sizes]
    whole = dot.moments(latents, 3)
    for cut in range(1, len(latents)):
        merged = dot.merge(dot.moments(latents[:cut], 3), dot.moments(latents[cut:], 3))
        assert merged.number == whole.number
        torch.testing.assert_close(merged.mean, whole.mean, rtol=1e-13, atol=0)
        scale = whole.scatter.abs().max().item()
        torch.testing.assert_close(merged.scatter, whole.scatter, rtol=0, atol=1e-13 * scale)


def test_the_order_of_images_does_not_matter():
    latents = [torch.randn((2, 8, 8), generator=seeded(k)) for k in range(4)]
    one, other = dot.moments(latents, 3), dot.moments(latents[::-1], 3)
    torch.testing.assert_close(one.covariance, other.covariance, rtol=0, atol=1e-14)


def test_moments_of_small_differences_on_a_large_mean_are_exact():
    """One pass of sums of squares would lose all digits in float32 here."""
    latent = 1e4 + torch.randn((1, 40, 40), generator=seeded(), dtype=torch.float64)
    found = dot.moments([latent], 1)
    assert found.covariance.item() == pytest.approx(latent.var().item(), rel=1e-12)


# ---------------------------------------------------------------- the map


@pytest.mark.parametrize("patch", [1, 3])
def test_the_map_pushes_the_restored_covariance_to_the_natural_one(patch):
    natural, restored = smooth(4, kernel=0.5), smooth(4, seed=1, kernel=1.0)
    fitted = dot.fit(natural, restored, toy(), patch)
    assert fitted.full.noise is None
    target = fitted.natural.covariance
    error = (pushed(fitted, fitted.full) - target).abs().max()
    assert error < 1e-10 * target.max()
    # the gradient of a convex function, hence optimal
    matrix = fitted.full.matrix
    assert (matrix - matrix.mT).abs().max() < 1e-8 * matrix.abs().max()
    torch.testing.assert_close(fitted.full.target, fitted.natural.mean)


def test_the_map_of_a_fit_at_full_rank_is_the_closed_form():
    """Eq. (2) of the paper, which `fit` reaches by the stochastic map."""
    fitted = dot.fit(smooth(3, kernel=0.5), smooth(3, seed=1), toy(), 3)
    cov0, cov1 = fitted.restored.covariance, fitted.natural.covariance
    assert fitted.full.noise is None
    torch.testing.assert_close(
        fitted.full.matrix, gaussian.transport_map(cov0, cov1), rtol=0, atol=1e-9
    )


def test_fewer_patches_than_dimensions_is_stochastic_and_said():
    natural, restored = smooth(4), smooth(1, 4, 4, seed=1)
    with pytest.warns(UserWarning, match=r"^restored gives 4 patches in 18 dimensions: .* eq. .5"):
        fitted = dot.fit(natural, restored, toy(), 3)
    assert fitted.full.noise is not None
    assert torch.linalg.matrix_rank(fitted.restored.covariance) == 3
    target = fitted.natural.covariance
    assert (pushed(fitted, fitted.full) - target).abs().max() < 1e-10 * target.max()
    assert torch.linalg.eigvalsh(fitted.full.noise)[0] > -1e-12 * target.max()
    image = smooth(1, seed=2)[0]
    one, two = (dot.transport(fitted, image, toy(), generator=seeded(k)) for k in (0, 0))
    assert torch.equal(one, two)
    assert not torch.equal(one, dot.transport(fitted, image, toy(), generator=seeded(1)))
    # without a generator: the mean of the draws
    draws = [dot.transport(fitted, image, toy(), generator=seeded(k)) for k in range(200)]
    mean = dot.transport(fitted, image, toy())
    spread = torch.stack(draws).std(0).max().item()
    assert (torch.stack(draws).mean(0) - mean).abs().max() < 5 * spread / math.sqrt(200)


def test_few_natural_patches_are_said_too():
    with pytest.warns(UserWarning, match=r"^natural gives 4 patches in 18 dim.* to a subspace$"):
        dot.fit(smooth(1, 4, 4), smooth(3), toy(), 3)


def test_enough_patches_warn_of_nothing():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dot.fit(smooth(2), smooth(2, seed=1), toy(), 3)


@pytest.mark.parametrize("keep_mean", [False, True])
def test_equal_sets_leave_the_image_alone(keep_mean):
    images = smooth(4, kernel=0.3)
    fitted = dot.fit(images, images, toy(), 3)
    assert (fitted.full.matrix - torch.eye(18)).abs().max() < 1e-9
    for sides in ((24, 24), (9, 31)):  # any size and aspect ratio
        image = smooth(1, *sides, seed=5)[0]
        moved = dot.transport(fitted, image, toy(), keep_mean=keep_mean)
        torch.testing.assert_close(moved[:2], image[:2], rtol=0, atol=1e-6)


def test_one_pixel_patches_are_the_closed_form_in_colour_blocks():
    """p = 1 and linear latents: POT's Gaussian map of the latent pixels, and linear decoding."""
    autoencoder = autoencoders.load("pca8")
    natural = [image.double() for image in photos()]
    restored = [blurred(image) for image in natural]
    fitted = dot.fit(natural[:2], restored[:2], autoencoder, 1)
    assert fitted.full.noise is None
    codes = [
        torch.cat([autoencoder.encode(x[None])[0].flatten(1).mT for x in images]).numpy()
        for images in (restored[:2], natural[:2])
    ]
    matrix, bias = ot.gaussian.empirical_bures_wasserstein_mapping(*codes, reg=0)
    latent = autoencoder.encode(restored[2][None])
    cloud = latent[0].flatten(1).mT.numpy() @ matrix + bias
    expected = torch.from_numpy(cloud).mT.reshape(latent.shape)
    moved = dot.transport(fitted, restored[2], autoencoder)
    torch.testing.assert_close(moved, autoencoder.decode(expected)[0], rtol=0, atol=1e-6)


def test_transport_averages_the_mapped_patches_of_the_padded_latent():
    fitted = dot.fit(smooth(3, kernel=0.5), smooth(3, seed=1), toy(), 3)
    latent = torch.rand((2, 6, 5), generator=seeded(), dtype=torch.float64)
    wide = torch.nn.functional.pad(latent[None], (2, 2, 2, 2), mode="replicate")[0]
    cloud = (patches.extract(wide, 3) - fitted.full.source) @ fitted.full.matrix.mT
    slow = patches.average(cloud + fitted.full.target, wide.shape, 3)[:, 2:-2, 2:-2]
    torch.testing.assert_close(dot.transport_latent(fitted, latent), slow, rtol=0, atol=1e-13)


def test_float32_images_have_float64_statistics():
    natural, restored = smooth(3, kernel=0.5), smooth(3, seed=1)
    single = dot.fit(natural, restored, toy(), 3)
    double = dot.fit([x.double() for x in natural], [x.double() for x in restored], toy(), 3)
    assert single.full.matrix.dtype == torch.float64
    torch.testing.assert_close(single.full.matrix, double.full.matrix, rtol=0, atol=0)
    assert dot.transport(single, restored[0], toy()).dtype == torch.float32


def test_keeping_the_mean_keeps_the_mean_colours():
    """Darker natural images of the same kind: the paper's map darkens, ours does not."""
    autoencoder = autoencoders.load("pca16")
    natural = [0.5 * image for image in photos()]
    restored = [blurred(image) for image in photos()]
    fitted = dot.fit(natural, restored, autoencoder, 3)
    image = restored[0]
    full, kept = (dot.transport(fitted, image, autoencoder, keep_mean=k) for k in (False, True))
    assert full.mean() < 0.75 * image.mean()
    assert kept.mean() == pytest.approx(image.mean().item(), abs=0.01)
    # a constant patch of colour is left as it is, whatever the sets; the rest of it is mapped
    colour = torch.zeros(16, 3, 3, dtype=torch.float64)
    colour[1] = 1
    column = fitted.kept.matrix @ colour.flatten()
    torch.testing.assert_close(column, colour.flatten(), rtol=0, atol=1e-9)
    rest = torch.eye(144, dtype=torch.float64)
    rest -= torch.block_diag(*[torch.full((9, 9), 1 / 9 if c < 3 else 0.0) for c in range(16)])
    target = rest @ fitted.natural.covariance @ rest
    error = (rest @ pushed(fitted, fitted.kept) @ rest - target).abs().max()
    assert error < 1e-6 * target.max()


# ---------------------------------------------------------------- alpha


def test_alpha_one_is_the_restored_image_itself():
    autoencoder = autoencoders.load("pca8")
    fitted = dot.fit(photos(), [blurred(x) for x in photos()], autoencoder, 3)
    image = blurred(photos()[0])[:, :70, :101]  # no multiple of the stride
    assert torch.equal(dot.transport(fitted, image, autoencoder, alpha=1), image)
    moved, half = dot.transport(fitted, image, autoencoder, alpha=[0, 0.5])
    assert moved.shape == image.shape
    torch.testing.assert_close(half, (moved + image) / 2, rtol=0, atol=1e-6)
    round_trip = dot.transport(fitted, image, autoencoder, alpha=1.0, space="latent")
    padded = torch.nn.functional.pad(image[None], (0, 3, 0, 2), mode="replicate")
    expected = autoencoder.decode(autoencoder.encode(padded))[0, :, :70, :101]
    torch.testing.assert_close(round_trip, expected, rtol=0, atol=1e-6)
    for alpha in (-0.7, 1.3):
        alone = dot.transport(fitted, image, autoencoder, alpha=alpha)
        torch.testing.assert_close(alone, moved + alpha * (image - moved), rtol=0, atol=1e-6)


@pytest.mark.parametrize("space", ["pixels", "latent"])
def test_error_is_quadratic_in_alpha_for_a_linear_decoder(space):
    autoencoder = autoencoders.load("pca16")
    clean = [x.double() for x in photos()]
    restored = [blurred(x) for x in clean]
    fitted = dot.fit(clean[:2], restored[:2], autoencoder, 3)
    alphas = torch.linspace(-1, 2, 13, dtype=torch.float64)
    moved = dot.transport(fitted, restored[2], autoencoder, alphas.tolist(), space)
    errors = (moved - clean[2]).square().mean((1, 2, 3))
    basis = alphas[:, None] ** torch.arange(3)
    fitted_errors = basis @ torch.linalg.lstsq(basis, errors[:, None]).solution
    assert (errors - fitted_errors[:, 0]).abs().max() < 1e-12


def test_mmse_path_is_the_theoretical_tradeoff():
    """White Gaussian pixels with noise: MSE = D* + (1 - alpha)^2 G^2 (Freirich et al. 2021)."""
    s2, n2 = 0.01, 0.01
    g, size = seeded(), 256
    clean = 0.5 + math.sqrt(s2) * torch.randn((3, size, size), generator=g, dtype=torch.float64)
    noisy = clean + math.sqrt(n2) * torch.randn(clean.shape, generator=g, dtype=torch.float64)
    wiener = 0.5 + s2 / (s2 + n2) * (noisy - 0.5)
    clean, wiener = clean.clamp(0, 1), wiener.clamp(0, 1)
    fitted = dot.fit([clean], [wiener], toy(3, colours=3), 1)
    alphas = [-0.5, 0.0, 0.5, 1.0, 1.5]
    moved = dot.transport(fitted, wiener, toy(3, colours=3), alphas)
    best = s2 * n2 / (s2 + n2)
    gap = (math.sqrt(s2) - math.sqrt(s2 - best)) ** 2
    for alpha, image in zip(alphas, moved, strict=True):
        error = (image - clean).square().mean().item()
        assert error == pytest.approx(best + (1 - alpha) ** 2 * gap, rel=0.02)


# ---------------------------------------------------------------- bad input

GOOD = torch.full((3, 80, 80), 0.5)
BAD = {
    "patch must be odd, so that it has a centre, got 4": dict(patch=4),
    "patch must be a whole number >= 1, got 0": dict(patch=0),
    "natural must be RGB .3, H, W., got 1 channels; repeat a grey one": dict(natural=[GOOD[:1]]),
    "restored must be RGB .3, H, W., got 4 channels; put an alpha": dict(
        restored=[GOOD[[0, 1, 2, 0]]]
    ),
    "natural must be within .0, 1., got 0 to 127; clamp it": dict(
        natural=[254 * torch.stack([GOOD[0], 0 * GOOD[0], GOOD[0]])]
    ),
    "restored must be finite, got 19200 NaN": dict(restored=[GOOD * math.nan]),
    "restored must have sides >= 20 = stride 4 x patch 5, got 80 x 16": dict(
        restored=[GOOD[:, :, :16]], patch=5
    ),
    "natural must be a non-empty .C, H, W. tensor": dict(natural=GOOD),
    "latents must hold at least one": dict(natural=[]),
}


@pytest.mark.parametrize("message", BAD)
def test_bad_sets_are_one_line(message):
    good = dict(natural=[GOOD], restored=[GOOD], patch=3)
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        dot.fit(autoencoder=autoencoders.load("pca8"), **(good | BAD[message]))
    assert "\n" not in str(caught.value)


def test_bad_transports_are_one_line():
    autoencoder = autoencoders.load("pca8")
    fitted = dot.fit(photos(), photos(), autoencoder, 3)
    bad = {
        "image must have sides >= 12": dict(image=GOOD[:, :11]),
        "image must be within .0, 1., got 1.5": dict(image=GOOD + 1),
        "image must be RGB": dict(image=GOOD[:1]),
        "alpha must be a finite number, got nan": dict(alpha=math.nan),
        "space must be 'pixels' or 'latent', got 'pixel'": dict(space="pixel"),
        "autoencoder must be pca8 with 8 channels like the fit's, got pca16": dict(
            autoencoder=autoencoders.load("pca16")
        ),
    }
    for message, change in bad.items():
        with pytest.raises(ValueError, match=f"^{message}") as caught:
            dot.transport(fitted, **(dict(image=GOOD, autoencoder=autoencoder) | change))
        assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"^patch must be at most the 4 x 2 latents, got 3$"):
        dot.moments([torch.zeros(1, 4, 2)], 3)
    with pytest.raises(ValueError, match=r"^b must have dimension 18 like a, got 8"):
        dot.merge(dot.moments([GOOD[:2]], 3), dot.moments([torch.zeros(8, 2, 2)], 1))
    with pytest.raises(ValueError, match=r"^latent must have 8 channels, got 3"):
        dot.transport_latent(fitted, GOOD)
