"""The pages' figures and tables, and the jobs that run side by side."""

import io

import matplotlib
import numpy as np
import pytest
import torch

matplotlib.use("agg")

from companion import figures
from companion.threads import side_by_side


@pytest.fixture
def shown(monkeypatch):
    """A function: the data of the only output that a call displays."""
    outputs = []
    monkeypatch.setattr(figures, "display", lambda data, raw=False: outputs.append(data))

    def run(make):
        make()
        return outputs.pop()

    return run


def test_a_curve_is_the_same_svg_each_time(shown):
    def draw():
        series = {"one": [1, 2, 3], "many": np.arange(12).reshape(3, 4)}
        axis = figures.curves(series, [1, 10, 100], xlabel="x", ylabel="y", log=True)
        figures.show(axis.figure, "svg")

    first, second = shown(draw), shown(draw)
    assert first["image/svg+xml"].startswith("<?xml")
    assert first == second


def test_an_image_keeps_its_grey_levels(shown):
    ramp = torch.linspace(0, 1, 64).reshape(1, 8, 8)
    data = shown(lambda: figures.images({"ramp": ramp}, columns=1))["image/png"]
    pixels = matplotlib.pyplot.imread(io.BytesIO(data), format="png")[..., :3]
    grey = pixels[(pixels[..., 0] == pixels[..., 1]) & (pixels[..., 1] == pixels[..., 2])]
    for level in ramp.flatten().tolist():  # each is a square of many pixels, to 8 bits
        assert (np.abs(grey[:, 0] - level) <= 1 / 255).sum() > 500


def test_an_image_keeps_its_colours(shown):
    colours = torch.tensor([[1.2, 0.2, 0.0], [0.4, 0.8, 0.6]]).T[:, None].expand(3, 2, 2)
    data = shown(lambda: figures.images({"two": colours}, columns=1))["image/png"]
    pixels = matplotlib.pyplot.imread(io.BytesIO(data), format="png")[..., :3]
    for colour in colours[:, 0].clip(0, 1).T.numpy():
        assert (np.abs(pixels - colour).max(2) <= 1 / 255).sum() > 500


def test_an_unknown_kind_of_figure_is_refused():
    with pytest.raises(ValueError, match="kind must be 'svg' or 'png', got 'gif'"):
        figures.show(matplotlib.pyplot.figure(), "gif")


def test_a_table_is_markdown_with_two_decimals(shown):
    data = shown(lambda: figures.table(["name", "value"], [["a", 1.23456], ["b", 7]]))
    lines = data.data.splitlines()
    assert lines == ["| name | value |", "| --- | --- |", "| a | 1.23 |", "| b | 7 |"]


def test_jobs_keep_their_order_and_get_one_thread_each():
    before = torch.get_num_threads()
    found = side_by_side(lambda job: (job, torch.get_num_threads()), list(range(20)), "jobs")
    assert found == [(job, 1) for job in range(20)]
    assert torch.get_num_threads() == before


def test_a_failing_job_is_not_hidden():
    before = torch.get_num_threads()
    with pytest.raises(ZeroDivisionError):
        side_by_side(lambda job: 1 / job, [1, 0, 2], "jobs")
    assert torch.get_num_threads() == before
