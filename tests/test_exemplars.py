"""What the texture pages take from companion: their exemplars, and memory."""

import numpy as np
import pytest
import torch
from PIL import Image

from companion.page import memory
from otlib.assets import exemplars


@pytest.mark.parametrize("name", exemplars.CARRIED)
@pytest.mark.parametrize("size", [32, 128, 300])
def test_two_squares_of_a_photograph(name, size):
    first, second = exemplars.load(name, size)
    channels = 3 if name == "tissue" else 1
    assert first.shape == second.shape == (channels, size, size)
    assert first.dtype == torch.float32 and 0 <= first.min() < first.max() <= 1
    assert first.is_contiguous() and not torch.equal(first, second)


def test_each_size_shows_the_same_part():
    small, large = (exemplars.load("gravel", size)[0] for size in (64, 128))
    means = [image.reshape(4, image.shape[1] // 4, 4, -1).mean((1, 3)) for image in (small, large)]
    torch.testing.assert_close(*means, atol=0.03, rtol=0)


def test_a_file_is_taken_as_it_is(tmp_path):
    pixels = np.arange(20 * 30, dtype=np.uint8).reshape(20, 30)
    Image.fromarray(pixels).save(tmp_path / "own.png")
    first, second = exemplars.load(tmp_path / "own.png", 16)
    torch.testing.assert_close(first[0] * 255, torch.from_numpy(pixels[:16, :16]).float())
    torch.testing.assert_close(second[0] * 255, torch.from_numpy(pixels[4:, 14:]).float())
    with pytest.raises(ValueError, match="at least 24 x 24 pixels, got 20 x 30"):
        exemplars.load(tmp_path / "own.png", 24)


def test_an_unknown_name_is_no_file():
    with pytest.raises(FileNotFoundError, match="marble"):
        exemplars.load("marble", 16)


def test_memory_of_a_call_is_its_peak(capfd):
    def call():
        a = torch.zeros(2**20)  # 4 MiB
        del a
        b = torch.zeros(2**18)
        return b + 1  # 2 MiB in all

    assert memory.peak(call) == pytest.approx(4, abs=0.01)
    assert capfd.readouterr() == ("", "")  # it measures without a word
