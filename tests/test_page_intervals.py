import math

import numpy as np
import pytest
from scipy import stats

from companion.page import intervals
from companion.page.record import collect


def test_the_interval_of_a_mean_is_student_s():
    found = intervals.student([1.0, 2.0, 6.0])
    half = 9.92484320091807 * math.sqrt(7 / 3)  # t of 2 degrees of freedom, .995
    assert found.mean == 3
    assert found.low == pytest.approx(3 - half) and found.high == pytest.approx(3 + half)
    assert found.texts("+.1f") == ["+3.0", f"{3 - half:+.1f} to {3 + half:+.1f}"]
    assert found.bracketed("+.1f") == f"+3.0 ({3 - half:+.1f} to {3 + half:+.1f})"
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


def test_means_that_are_stated_together_have_wider_intervals():
    samples = [[1.0, 2.0, 6.0], [0.0, 1.0, 0.0], [5.0, 5.0, 5.0]]
    found = intervals.joint(iter(samples))
    assert found == [intervals.student(values, of=3) for values in samples]
    assert found[0].low < intervals.student(samples[0]).low
    assert intervals.joint([]) == []


def test_a_spread_is_that_of_a_sample():
    assert intervals.spread(np.array([1.0, 2.0, 3.0]), 2) == "2.00 ± 1.00"


def test_a_mean_is_recorded_with_its_interval(recorded):
    intervals.tell("gain", intervals.Interval(1.0, 0.5, 2.0), unit="dB", better="higher")
    facts = {"value": 1.0, "unit": "dB", "better": "higher", "interval": [0.5, 2.0]}
    assert collect(recorded) == {"gain": facts}


def test_each_sample_is_recorded_under_its_name(recorded):
    samples = {("rough", "semi"): [1.0, 2.0, 6.0], ("smooth", "semi"): [2.0, 2.0]}
    intervals.tell_each("{}_psnr_{}", samples, unit="dB", better="higher")
    found = collect(recorded)
    assert list(found) == ["rough_psnr_semi", "smooth_psnr_semi"]
    for entry, values in zip(found.values(), samples.values(), strict=True):
        mean, *ends = intervals.student(values)
        assert entry == {"value": mean, "unit": "dB", "better": "higher", "interval": ends}


def test_the_antilog_is_that_of_base_10():
    found = intervals.Interval(0.0, -math.inf, 2.0).antilog()
    assert found == (1, 0, 100)
