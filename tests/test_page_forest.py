import matplotlib
import numpy as np
import pytest

matplotlib.use("agg")

import matplotlib.pyplot as plt

from companion.page import forest
from companion.page.intervals import Interval


def test_each_interval_lies_in_its_row_and_a_lacking_one_is_left_out():
    series = {"one": [Interval(1, 0, 3), None], "two": [Interval(-1, -2, -1), Interval(5, 5, 5)]}
    axis = plt.subplots()[1]
    forest.forest(axis, ["first", "second"], series, xlabel="dB")
    assert [text.get_text() for text in axis.get_yticklabels()] == ["first", "second"]
    marks = {bar.get_label(): bar[0].get_xydata() for bar in axis.containers}
    np.testing.assert_allclose(marks["one"], [[1, -0.25]])
    np.testing.assert_allclose(marks["two"], [[-1, 0.25], [5, 1.25]])
    bars = {
        bar.get_label(): [part.tolist() for part in bar[2][0].get_segments()]
        for bar in axis.containers
    }
    assert bars["one"] == [[[0, -0.25], [3, -0.25]]]
    assert bars["two"][0] == pytest.approx(np.array([[-2, 0.25], [-1, 0.25]]))
    assert axis.get_ylim() == (1.5, -0.5)  # the first row on top


def test_a_run_tells_what_it_has():
    run = {"records": {"a": {"value": 1.0, "interval": [0.5, 2.0]}}}
    assert forest.told(run, ["a", "b"]) == [Interval(1.0, 0.5, 2.0), None]
