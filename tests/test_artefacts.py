import math

import pytest
import torch

from otlib import artefacts


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def noise(*shape, seed=0):
    return 0.5 + 0.1 * torch.randn(shape, generator=seeded(seed), dtype=torch.float64)


def smooth(side, seed=0):
    """Noise with a spectrum that falls, periodic."""
    white = torch.fft.fft2(noise(1, side, side, seed=seed) - 0.5)
    k = torch.fft.fftfreq(side, dtype=torch.float64)
    kernel = torch.exp(-20 * (k[:, None] ** 2 + k**2))
    return 0.5 + torch.fft.ifft2(white * kernel).real


@pytest.mark.parametrize("make", [lambda s: noise(1, 128, 128, seed=s), lambda s: smooth(128, s)])
def test_noise_of_any_smooth_spectrum_has_no_checkerboard(make):
    values = [artefacts.checkerboard(make(seed)) for seed in range(8)]
    assert abs(sum(values) / 8 - 1) < 0.1


@pytest.mark.parametrize("period", [2, 4, 8, 16])
def test_a_grid_of_any_power_of_two_shows(period):
    image = noise(3, 128, 128)
    grid = torch.zeros(128, 128, dtype=torch.float64)
    grid[::period, ::period] = 0.05 * period  # the same energy at each period
    before, after = artefacts.checkerboard(image), artefacts.checkerboard(image + grid)
    assert after > 2 * before
    moved = grid.roll((1, 1), (0, 1))
    assert artefacts.checkerboard(image + moved) == pytest.approx(after, rel=0.2)


def test_a_texture_of_another_period_is_no_checkerboard():
    wave = torch.sin(2 * math.pi * torch.arange(132, dtype=torch.float64) / 11)
    image = noise(1, 132, 132) + 0.2 * wave
    assert artefacts.checkerboard(image) < 1.3


def test_structure_of_an_image_and_itself_or_moved():
    image = smooth(128)
    assert artefacts.structure(image, image) == 0
    assert artefacts.structure(0.5 * image, image) < 1e-12  # contrast is none of it
    wave = torch.sin(2 * math.pi * torch.arange(200, dtype=torch.float64) / 20).expand(1, 200, 200)
    moved = torch.cos(2 * math.pi * torch.arange(160, dtype=torch.float64) / 20).expand(1, 160, 160)
    assert artefacts.structure(wave, moved) < 0.05  # of unlike parts of a period at the ends


def test_structure_of_noise_is_what_the_exemplar_has():
    """The correlation of a wave is cos(2 pi d / 20); of white noise 0 but at lag 0."""
    side = 240
    wave = torch.sin(2 * math.pi * torch.arange(side, dtype=torch.float64) / 20)
    found = artefacts.structure(noise(1, side, side), wave.expand(1, side, side), least=1, most=20)
    assert found == pytest.approx(math.sqrt(0.5), rel=0.03)


def test_false_colours_are_those_out_of_reach():
    exemplar = torch.tensor([[0.2, 0.8], [0.5, 0.5], [0.5, 0.5]])[:, None]  # two colours
    image = torch.tensor([[0.21, 0.79, 0.5, 0.2], [0.5, 0.5, 0.5, 0.9], [0.5, 0.5, 0.5, 0.5]])
    assert artefacts.false_colours(image[:, None], exemplar) == 0.5
    assert artefacts.false_colours(image[:, None], exemplar, tolerance=1) == 0
    assert artefacts.false_colours(exemplar, exemplar) == 0


def test_diversity_of_copies_and_of_independent_samples():
    assert artefacts.diversity([noise(1, 32, 32)] * 3) == 0
    several = [noise(3, 32, 32, seed=k) for k in range(6)]
    assert artefacts.diversity(several) == pytest.approx(1, abs=0.03)
    shared = [smooth(64) - 0.5 + smooth(64, seed=k) for k in (1, 2)]  # half of each, but for means
    assert artefacts.diversity(shared) == pytest.approx(math.sqrt(0.5), abs=0.1)


def test_bad_input_is_named():
    image = noise(1, 64, 64)
    cases = {
        r"image must have sides >= 64 pixels": lambda: artefacts.checkerboard(image[:, 1:]),
        "period must be a whole number >= 2": lambda: artefacts.checkerboard(image, period=1),
        "image must have a texture": lambda: artefacts.checkerboard(0 * image),
        "most must be a whole number >= 8": lambda: artefacts.structure(image, image, most=3),
        "exemplar must have sides > 48 pixels": lambda: artefacts.structure(
            image, image[:, :, :40]
        ),
        "image must have the exemplar's 1 channels, got 3": lambda: artefacts.false_colours(
            image.expand(3, -1, -1), image
        ),
        "tolerance must be a number > 0": lambda: artefacts.false_colours(
            image, image, tolerance=0
        ),
        "images must be two or more, got 1": lambda: artefacts.diversity([image]),
        "images must have one shape": lambda: artefacts.diversity([image, image[:, 1:]]),
    }
    for message, call in cases.items():
        with pytest.raises(ValueError, match=message):
            call()
