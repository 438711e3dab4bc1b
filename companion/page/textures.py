"""What a measure of textures can tell, and ratios of its values."""

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from companion.page.intervals import LEVEL, Interval, student

# White noise must be half as far again from the exemplar as another piece of its photograph is.
_TELLS = 1.5


def telling(noise: ArrayLike, piece: ArrayLike) -> np.ndarray:
    """Where a distance to an exemplar tells its texture from white noise.

    noise, piece: (n,) distances of white noise, and of another piece of the same photograph, one a
        scale or another way to measure. Where the first is no larger the exemplar is like noise
        there, or no stationary texture: what a method reaches then says nothing.
    Returns (n,) bool.
    """
    return np.asarray(noise) >= _TELLS * np.asarray(piece)


def ratio(values: ArrayLike, of: int = 1) -> Interval:
    """The geometric mean of ratios, with Student's interval of their logarithms.

    values: (n,) > 0, n >= 1, one an image or a seed. of: as for `intervals.student`.
    Returns an Interval; that of a single value is (0, inf), for one image says nothing of others.
    """
    logs = np.log(np.asarray(values, dtype=float))
    if len(logs) == 1:
        return Interval(float(np.exp(logs[0])), 0.0, math.inf)
    return Interval(*(float(np.exp(end)) for end in student(logs, of)))


def spreads(one: ArrayLike, other: ArrayLike, of: int = 1) -> Interval:
    """How many times as far one sample spreads as another: Fisher's interval of their variances.

    one, other: (n,) and (m,), n, m >= 2, such as the logarithms of a distance, one a training.
    of: as for `intervals.student`.
    Returns the ratio of the standard deviations, an Interval that holds for normal values.
    """
    one, other = np.asarray(one, dtype=float), np.asarray(other, dtype=float)
    found = one.var(ddof=1) / other.var(ddof=1)
    miss, free = (1 - LEVEL) / of, (len(one) - 1, len(other) - 1)
    ends = found / stats.f.ppf([1 - miss / 2, miss / 2], *free)
    return Interval(*(float(np.sqrt(value)) for value in (found, *ends)))
