"""What a measure of textures can tell, and ratios of its values."""

import math

import numpy as np
from numpy.typing import ArrayLike

from companion.page.intervals import Interval, student

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
