import math

import numpy as np
import pytest
from scipy import stats

from companion.page import intervals, textures


def test_a_distance_tells_where_noise_is_half_as_far_again():
    assert textures.telling([3.0, 1.5, 1.4, 0.5], [1.0, 1.0, 1.0, 1.0]).tolist() == [1, 1, 0, 0]


def test_a_ratio_is_geometric_and_its_interval_turns_over_with_it():
    values = np.array([0.5, 1.2, 2.0, 3.0])
    found, other = textures.ratio(values), textures.ratio(1 / values)
    assert found.mean == pytest.approx(3.6 ** (1 / 4))
    assert other == pytest.approx((1 / found.mean, 1 / found.high, 1 / found.low))
    logs = intervals.student(np.log(values), 3)
    assert textures.ratio(values, of=3) == pytest.approx(tuple(map(math.exp, logs)))


def test_a_single_ratio_says_nothing_of_others():
    assert textures.ratio([2.5]) == pytest.approx((2.5, 0, math.inf))


def test_spreads_are_of_standard_deviations_and_turn_over_with_them():
    one, other = np.array([0.0, 2.0, 4.0]), np.array([5.0, 6.0, 7.0, 8.0])
    found, turned = textures.spreads(one, other), textures.spreads(other, one)
    assert found.mean == pytest.approx(2 / other.std(ddof=1))
    assert turned == pytest.approx((1 / found.mean, 1 / found.high, 1 / found.low))
    wider = textures.spreads(one, other, of=2)
    assert wider.low < found.low < 1 < found.high < wider.high
    # at its ends the one-sided tests of equal spreads just reject
    for end, tail in ((found.low, stats.f.sf), (found.high, stats.f.cdf)):
        assert tail((found.mean / end) ** 2, 2, 3) == pytest.approx(0.005)


def test_an_interval_of_spreads_misses_as_often_as_it_says():
    random = np.random.default_rng(0)
    draws = random.normal(size=(4000, 2, 3)) * np.array([[[3.0], [1.0]]])
    inside = [low <= 3 <= high for _, low, high in (textures.spreads(*pair) for pair in draws)]
    # 1 - LEVEL of 4000 within four standard deviations
    missed, expected = 4000 - sum(inside), 4000 * (1 - intervals.LEVEL)
    assert abs(missed - expected) < 4 * math.sqrt(expected)
