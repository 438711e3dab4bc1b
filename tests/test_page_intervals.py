import math

import IPython.display
import numpy as np
import pytest
from scipy import stats

from companion.page import intervals


def test_the_interval_of_a_mean_is_student_s():
    found = intervals.student([1.0, 2.0, 6.0])
    half = 9.92484320091807 * math.sqrt(7 / 3)  # t of 2 degrees of freedom, .995
    assert found.mean == 3
    assert found.low == pytest.approx(3 - half) and found.high == pytest.approx(3 + half)
    assert found.texts("+.1f") == ["+3.0", f"{3 - half:+.1f} to {3 + half:+.1f}"]
    assert intervals.student([2.0, 2.0]) == (2, 2, 2)


@pytest.mark.parametrize("of", [1, 10])
def test_an_interval_misses_as_often_as_it_says(of):
    """One statement in a hundred, and all of several together too."""
    random, n = np.random.default_rng(0), 4000 // of
    missed = 0
    for _ in range(n):
        found = [intervals.student(random.normal(1, 2, 5), of) for _ in range(of)]
        missed += not all(one.low < 1 < one.high for one in found)
    assert stats.binomtest(missed, n, 1 - intervals.LEVEL).pvalue > 1e-3


def test_the_least_and_the_largest_of_several():
    three = [intervals.Interval(*ends) for ends in ((1, 0, 5), (2, 1, 3), (3, -1, 4))]
    assert intervals.least(three) == (1, -1, 3)
    assert intervals.largest(three) == (3, 1, 5)


def test_the_antilog_is_that_of_base_10():
    found = intervals.Interval(0.0, -math.inf, 2.0).antilog()
    assert found == (1, 0, 100)


def test_an_estimate_is_recorded_with_its_ends(monkeypatch):
    told = {}
    display = lambda *_, metadata, **__: told.update(metadata)
    monkeypatch.setattr(IPython.display, "display", display)
    intervals.tell("gain", intervals.Interval(2.0, 1.0, 3.0), unit="dB", better="higher")
    assert told["scrapbook"]["name"] == "gain"
    expected = {"value": 2.0, "unit": "dB", "better": "higher", "interval": [1.0, 3.0]}
    assert told["record"] == expected
