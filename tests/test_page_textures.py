import math

import numpy as np
import pytest

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
