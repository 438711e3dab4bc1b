"""Scores of restored images, their means and intervals, and what a table of them shows."""

import math

import numpy as np
import pytest
import torch

from companion.page import figures, scores
from otlib import metrics, patches


def picture(seed, side=40):
    return torch.rand(1, side, side, generator=torch.Generator().manual_seed(seed))


def test_an_image_is_scored_inside_its_border():
    image, truth = picture(0, 48), picture(1, 48)
    changed = truth.clone()
    changed[:, :6] = 1 - changed[:, :6]
    found = scores.quality(image, changed, border=6)
    assert found == scores.quality(image, truth, border=6) and len(found) == len(scores.MEASURES)
    assert found[0] == metrics.psnr(image, truth, border=6)
    assert found[3] == metrics.ssim(image, truth, border=6)
    assert scores.quality(truth, truth) == [math.inf, 0, 0, 1]


def test_a_gain_has_the_interval_of_student():
    found = scores.gain(np.array([2.0, 4.0, 9.0]), np.array([1.0, 2.0, 3.0]))
    half = 4.302652729911275 * math.sqrt(7 / 3)  # t of 2 degrees of freedom; differences 1, 2, 6
    assert found.mean == 3
    assert found.low == pytest.approx(3 - half) and found.high == pytest.approx(3 + half)
    other = scores.gain(np.array([1.0, 2.0, 3.0]), np.array([2.0, 4.0, 9.0]))
    assert (other.mean, other.low) == (-3, pytest.approx(-found.high))
    assert found.texts("+.1f") == ["+3.0", f"{3 - half:+.1f} to {3 + half:+.1f}"]


def test_an_interval_covers_its_level():
    random = np.random.default_rng(0)
    gains = [scores.gain(random.normal(1, 2, 5), np.zeros(5), level=0.8) for _ in range(500)]
    covered = np.mean([gain.low < 1 < gain.high for gain in gains])
    assert abs(covered - 0.8) < 4 * math.sqrt(0.8 * 0.2 / 500)


def test_a_spread_is_that_of_a_sample():
    assert scores.spread(np.array([1.0, 2.0, 3.0]), 2) == "2.00 ± 1.00"


def test_table_one_puts_what_is_printed_beside_ours(monkeypatch):
    shown = []
    monkeypatch.setattr(figures, "display", lambda data, raw=False: shown.append(data.data))
    values = {"a": np.array([[20.0, 0.1, 0.2, 0.5], [22.0, 0.3, 0.2, 0.7]])}
    values["b"] = values["a"] + 1
    scores.beside("clean", values, {"b": "B", "a": "A"}, {"a": {"psnr": 30.125, "lpips": 0.0954}})
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in shown[0].splitlines()]
    assert rows[0] == ["clean", "PSNR (dB)", "paper", "LPIPS-Alex", "paper", "LPIPS-VGG", "SSIM"]
    assert rows[2][:5] == ["B", "22.00 ± 1.41", "-", "1.200 ± 0.141", "-"]
    assert rows[3][:5] == ["A", "21.00 ± 1.41", "30.12", "0.200 ± 0.141", "0.095"]


def test_a_part_that_is_nowhere_in_the_clean_reference_is_foreign():
    clean = 0.5 + 0.01 * picture(0)
    target = 0.5 + 0.01 * picture(1)
    defective = clean.clone()
    assert scores.foreign(clean, clean, target, patch=4) == 0
    defective[:, :20] = 1
    corners = patches.extract(torch.zeros(1, 40, 40) + (defective == 1), 4, 2)
    touched = float((corners.sum(1) > 0).double().mean())
    assert scores.foreign(defective, clean, target, patch=4) == pytest.approx(touched)
    assert scores.foreign(torch.ones(1, 40, 40), clean, target, patch=4) == 1
