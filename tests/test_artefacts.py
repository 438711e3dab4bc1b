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


def responses(image, exemplar, seed=0, **options):
    return artefacts.responses(image, exemplar, generator=seeded(seed), **options)


MEASURES = pytest.mark.parametrize("measure", [artefacts.spectrum, responses])


def blurred(image, sd):
    """By a periodic Gaussian, in pixels."""
    down, right = (torch.fft.fftfreq(n, dtype=torch.float64) for n in image.shape[1:])
    kernel = torch.exp(-2 * (math.pi * sd) ** 2 * (down[:, None] ** 2 + right**2))
    return torch.fft.ifft2(torch.fft.fft2(image) * kernel).real


@MEASURES
@pytest.mark.parametrize("shape", [(1, 64, 100), (3, 96, 64)])
def test_an_image_is_at_no_distance_from_itself_and_the_further_the_more_blurred(measure, shape):
    image = noise(*shape)
    assert measure(image, image) == 0
    assert measure(image.float(), image) < 1e-4  # another type, the same pixels
    found = [measure(blurred(image, sd), image) for sd in (0.3, 0.6, 1.2, 2.4)]
    assert found == sorted(found)
    assert found[0] > 0.01


def test_the_power_of_a_doubled_contrast_is_fourfold():
    image = noise(1, 96, 128)
    found = artefacts.spectrum(2 * image - 0.5, image)
    assert found == pytest.approx(math.log(4), rel=1e-3)
    assert artefacts.spectrum(image, 2 * image - 0.5) == pytest.approx(found)
    other = 2 * noise(3, 256, 192, seed=1) - 0.5  # of the same law, and another size
    assert artefacts.spectrum(other, noise(3, 128, 160)) == pytest.approx(math.log(4), rel=0.1)


def test_a_blur_takes_its_transfer_function_from_the_spectrum():
    """4 pi^2 sd^2 f^2 at frequency f, averaged over an octave from f to 2 f: 5 / 2 f^2."""
    image, sd = noise(1, 512, 512), 0.25
    lowest = [2.0 ** (k - 4) for k in range(3)]
    expected = sum(10 * (math.pi * sd * f) ** 2 for f in lowest) / 3
    found = artefacts.spectrum(blurred(image, sd), image, octaves=3)
    assert found == pytest.approx(expected, rel=0.1)


def test_responses_of_a_doubled_contrast_are_a_spread_away():
    """W2 from X to 2 X is the root mean square of X: 1, in standard deviations of the exemplar."""
    image = smooth(80)
    found = responses(2 * image - image.mean(), image, projections=300)
    assert found == pytest.approx(1, rel=0.05)
    assert responses(2 * image, image, projections=300) == pytest.approx(found)  # means are none


@MEASURES
@pytest.mark.parametrize("make", [lambda s: noise(1, 128, 128, seed=s), lambda s: smooth(128, s)])
def test_images_of_one_law_are_near_and_so_is_one_that_is_moved(measure, make):
    image, other = make(0), make(1)
    far = measure(blurred(image, 1), image)
    assert measure(other, image) < far / 4
    assert measure(image.roll((30, 41), (1, 2)), image) < far / 4
    assert measure(make(2)[:, :96], image) < far / 4  # of another size


def test_both_images_turned_are_as_far_apart():
    """Textures with a direction: the orientations are turned into each other."""
    wave = 0.1 * torch.sin(2 * math.pi * torch.arange(128, dtype=torch.float64) / 8)
    image, exemplar = noise(1, 128, 128) + wave[:, None], smooth(128) + wave
    image = image[:, :112]
    turned = [one.rot90(1, (1, 2)) for one in (image, exemplar)]
    assert artefacts.spectrum(*turned) == pytest.approx(artefacts.spectrum(image, exemplar))
    options = dict(projections=200)
    assert responses(*turned, **options) == pytest.approx(
        responses(image, exemplar, **options), rel=0.06
    )
    for measure in (artefacts.spectrum, responses):  # and one alone is not
        assert measure(turned[1], exemplar) > 0.3


def test_responses_see_what_the_spectrum_does_not():
    """Random phases keep the power of lines and lose the lines."""
    lines = torch.zeros(1, 128, 128, dtype=torch.float64)
    lines[:, ::16] = lines[:, :, ::16] = 1
    lines = blurred(lines, 0.7) + 0.02 * (noise(1, 128, 128) - 0.5)
    phases = torch.fft.fft2(noise(1, 128, 128, seed=1) - 0.5)
    random = torch.fft.ifft2(torch.fft.fft2(lines) * phases / phases.abs()).real
    own = responses(lines.roll((5, 7), (1, 2)), lines)
    assert artefacts.spectrum(random, lines) < 0.3
    assert responses(random, lines) > 4 * own


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
    strip, flat = torch.zeros(1, 70, 70), noise(3, 64, 64)
    strip[:, 64:], flat[1] = noise(1, 6, 70), 0.5  # beyond whole periods; one channel
    cases = {
        r"image must have sides >= 64 pixels": lambda: artefacts.checkerboard(image[:, 1:]),
        "period must be a whole number >= 2": lambda: artefacts.checkerboard(image, period=1),
        "image must have a texture": lambda: artefacts.checkerboard(0 * image),
        "image must have a texture, got 0 at": lambda: artefacts.checkerboard(strip),
        "each channel of image must have a texture": lambda: artefacts.structure(flat, flat),
        "most must be a whole number >= 8": lambda: artefacts.structure(image, image, most=3),
        "exemplar must have sides >= 49 pixels": lambda: artefacts.structure(
            image, image[:, :, :40]
        ),
        "image must have the exemplar's 1 channels, got 3": lambda: artefacts.false_colours(
            image.expand(3, -1, -1), image
        ),
        "tolerance must be a number > 0": lambda: artefacts.false_colours(
            image, image, tolerance=0
        ),
        r"image must have sides >= 64 pixels, got \(40, 64\)": lambda: artefacts.spectrum(
            image[:, :40], image
        ),
        r"exemplar must have sides >= 64 pixels, got \(64, 40\)": lambda: responses(
            image, image[:, :, :40]
        ),
        "octaves must be a whole number >= 1, got 0": lambda: artefacts.spectrum(
            image, image, octaves=0
        ),
        "scales must be a whole number >= 1, got 0": lambda: responses(image, image, scales=0),
        "projections must be a whole number >= 1": lambda: responses(image, image, projections=0),
        "exemplar must have a texture, got 0": lambda: artefacts.spectrum(image, 0 * image),
        "image must have a texture, got 0": lambda: responses(0 * image, image),
        "image must have the exemplar's 1 channels, got 2": lambda: responses(
            image.expand(2, -1, -1), image
        ),
        "image must be finite": lambda: artefacts.spectrum(image / 0, image),
        "generator must be a torch.Generator": lambda: artefacts.responses(
            image, image, generator=0
        ),
        "images must be two or more, got 1": lambda: artefacts.diversity([image]),
        "images must have one shape": lambda: artefacts.diversity([image, image[:, 1:]]),
    }
    for message, call in cases.items():
        with pytest.raises(ValueError, match=message):
            call()
