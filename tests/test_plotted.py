"""The numbers behind a figure: each kind of mark gives back what it was drawn from."""

import csv
import io

import matplotlib

matplotlib.use("agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from companion.page import figures, plotted
from companion.page.forest import forest
from companion.page.intervals import Interval

NUMBERS = st.floats(-1e6, 1e6).map(lambda x: float(f"{x:.6g}"))


@pytest.fixture
def axis():
    figure, axis = plt.subplots()
    yield axis
    plt.close(figure)


def rows(figure):
    return list(csv.DictReader(io.StringIO(plotted.text(figure))))


@settings(max_examples=20)
@given(st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=5))
def test_a_line_and_its_marks_give_their_points_back(points):
    figure, axis = plt.subplots()
    try:
        axis.plot(*zip(*points, strict=True), label="a, b")
        axis.scatter(*zip(*points, strict=True), label="marks")
        axis.axhline(0)  # a level is no datum
        axis.set(xlabel="t (s)", ylabel="error")
        found = rows(figure)
    finally:
        plt.close(figure)
    assert {row["panel"] for row in found} == {"error against t (s)"}
    for series in ("a, b", "marks"):
        own = [row for row in found if row["series"] == series]
        assert [(float(row["x"]), float(row["y"])) for row in own] == points
    assert len(found) == 2 * len(points)


def test_bars_of_both_ways_have_their_ends(axis):
    axis.errorbar([1, 2], [3, 4], yerr=[[0.5, 1], [1, 2]], xerr=0.25, label="one")
    first, second = rows(axis.figure)
    ends = {"x": "1", "x low": "0.75", "x high": "1.25", "y": "3", "y low": "2.5", "y high": "4"}
    assert first == {"panel": "1", "series": "one"} | ends
    assert (second["y low"], second["y high"]) == ("3", "6")


def test_a_row_of_a_forest_has_its_name_and_its_interval(axis):
    found = {"here": [Interval(0, -1, 1), None], "there": [None, Interval(2, 1, 3)]}
    forest(axis, ["one thing", "another"], found, xlabel="gain (dB)")
    here, there = rows(axis.figure)
    assert (here["series"], here["name"], here["x"], here["x low"]) == (
        "here",
        "one thing",
        "0",
        "-1",
    )
    assert (there["series"], there["name"], there["x high"]) == ("there", "another", "3")


def test_a_band_is_the_spread_of_its_curve(axis):
    values = np.array([[0.0, 2.0], [1.0, 5.0]])
    figures.curves({"s": values}, [1, 2], xlabel="n", ylabel="error", ax=axis)
    line, band = rows(axis.figure)[:2], rows(axis.figure)[2:]
    assert [row["y"] for row in line] == ["1", "3"] and {row["series"] for row in line} == {"s"}
    assert [(row["y low"], row["y high"]) for row in band] == [("0", "2"), ("1", "5")]
    assert {row["series"] for row in band} == {"s"}


def test_what_has_no_label_has_that_of_its_colour(axis):
    axis.plot([1], [2], "o", color="C0", label="one")
    axis.plot([], [], "o", color="C3", label="of the legend alone")
    axis.errorbar([1], [3], yerr=[[1], [1]], color="C0")
    axis.scatter([1], [4], color="C3")
    axis.plot([1], [5], color="C1")
    axis.set(yscale="log")  # whose ticks are powers and no names
    found = {row["y"]: row["series"] for row in rows(axis.figure)}
    assert found == {"2": "one", "3": "one", "4": "of the legend alone", "5": ""}
    assert "name" not in rows(axis.figure)[0]


def test_bars_have_the_name_of_their_tick(axis):
    axis.bar([0, 1], [3, -4], label="height")
    axis.set_xticks([0, 1], ["left", "right"])
    found = [(row["series"], row["name"], row["y"]) for row in rows(axis.figure)]
    assert found == [("height", "left", "3"), ("height", "right", "-4")]


def test_pictures_have_no_rows_and_give_no_data(axis, monkeypatch):
    axis.imshow(np.zeros((3, 3)))
    assert plotted.text(axis.figure) == ""
    shown = []
    monkeypatch.setattr(figures, "display", lambda data, raw=False: shown.append(data))
    figures.images({"one": np.zeros((8, 8))})
    assert plotted.MIME not in shown[0]
    figures.show(figures.curves({"ρ": [1.0]}, [2.0], xlabel="x", ylabel="y").figure, "svg")
    assert shown[1][plotted.MIME] == "panel,series,x,y\ny against x,ρ,2,1\n"
