"""Curves in the plane of perception and distortion."""

import matplotlib
import numpy as np

matplotlib.use("agg")

from companion.page import figures, planes
from companion.page.estimates import Estimate


def test_a_plane_shows_both_ends_and_their_intervals():
    spread = np.array([-1.0, 0.0, 1.0])
    half = 9.92484 / np.sqrt(3)  # Student's t at 99.5 % and 2 degrees
    points = {
        alpha: {"mse": Estimate(alpha + spread), "kid": Estimate(2 * spread - alpha)}
        for alpha in (-1.0, 0.0, 0.5, 1.0, 2.0)
    }
    points[0.7] = {"mse": points[0.5]["mse"]}  # a kind that was not measured there
    axis = matplotlib.pyplot.figure().subplots()
    planes.plane(axis, points, "mse", "kid", label="a")
    full, dotted = (
        next(line for line in axis.lines if line.get_linestyle() == style) for style in ("-", ":")
    )
    np.testing.assert_allclose(full.get_xydata(), [[0, 0], [0.5, -0.5], [1, -1]])
    np.testing.assert_allclose(dotted.get_xdata(), [-1, 0, 0.5, 1, 2])
    marks = [box.lines[0] for box in axis.containers]
    assert [mark.get_marker() for mark in marks] == ["o", "s"]
    for box, (x, y) in zip(axis.containers, [(1, -1), (0, 0)], strict=True):
        across, up = (bar.get_segments()[0] for bar in box.lines[2])
        np.testing.assert_allclose(across[:, 0], [x - half, x + half], rtol=1e-5)
        np.testing.assert_allclose(up[:, 1], [y - 2 * half, y + 2 * half], rtol=1e-5)


def test_planes_have_a_panel_a_restorer_and_a_colour_a_fit():
    one = lambda value: Estimate(np.array([value]))
    points = {alpha: {"mse": one(1.0 + alpha), "kid": one(alpha)} for alpha in (0.0, 1.0)}
    fits = {"unpaired": points, "paired": points}
    figure = planes.planes({"b": fits, "a": fits}, "mse", "kid", xlabel="x", ylabel="y", log=True)
    first, second = (axis for axis in figure.axes if axis.get_title())
    assert (first.get_title(), second.get_title()) == ("b", "a")
    assert [text.get_text() for text in first.get_legend().texts] == ["unpaired", "paired"]
    assert second.get_legend() is None and second.get_xscale() == "log"
    assert (second.get_xlabel(), second.get_ylabel()) == ("x", "y")
    colours = {line.get_label(): line.get_color() for line in second.lines}
    assert [colours[fit] for fit in fits] == list(figures.COLOURS[:2])
    filled = [
        {box.lines[0].get_markerfacecolor() for box in second.containers[k : k + 2]} for k in (0, 2)
    ]
    assert filled == [{figures.COLOURS[0]}, {"none"}]  # told apart without colours, too
