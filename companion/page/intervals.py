"""Intervals of what images or seeds make uncertain: a difference is told with one."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from companion.page.record import Better, record

# Of a hundred intervals one misses, and half of those on the side that turns a verdict over: some
# sixty orderings of the book make .3 wrong calls by chance. A page that asks whether all of k
# hold divides what may miss by k (Bonferroni).
LEVEL = 0.99


class Interval(NamedTuple):
    """An estimate and the ends of its confidence interval."""

    mean: float
    low: float
    high: float

    def antilog(self) -> "Interval":
        """10 to the power of each: what the estimate is the logarithm of."""
        return Interval(*(10.0**end for end in self))

    def texts(self, form: str) -> list[str]:
        """The mean and the interval in words. form: format of a number, such as "+.2f"."""
        return [f"{self.mean:{form}}", f"{self.low:{form}} to {self.high:{form}}"]

    def bracketed(self, form: str) -> str:
        """The mean, and the interval in brackets behind it. form: as in `texts`."""
        return "{} ({})".format(*self.texts(form))


def student(values: ArrayLike, of: int = 1) -> Interval:
    """The mean of independent values, such as paired differences, by Student's t.

    values: (n,), n >= 2, one an image or seed. of: how many such statements stand together.
    Returns an Interval at LEVEL; values that are all equal have one of length 0.
    """
    values = np.asarray(values, dtype=float)
    half = stats.t.ppf(1 - (1 - LEVEL) / of / 2, len(values) - 1) * stats.sem(values)
    return Interval(values.mean(), values.mean() - half, values.mean() + half)


def joint(samples: Iterable[ArrayLike]) -> list[Interval]:
    """The means of several samples that are stated together. samples: each as for `student`.

    Returns an Interval for each sample; at LEVEL all of them hold.
    """
    samples = list(samples)
    return [student(values, len(samples)) for values in samples]


def least(intervals: Iterable[Interval]) -> Interval:
    """The least of several, each made with `of` = their number: do all lie above a bound?"""
    return Interval(*(min(ends) for ends in zip(*intervals, strict=True)))


def largest(intervals: Iterable[Interval]) -> Interval:
    """The largest of several, each made with `of` = their number: do all lie below a bound?"""
    return Interval(*(max(ends) for ends in zip(*intervals, strict=True)))


def spread(values: np.ndarray, digits: int) -> str:
    """The mean and standard deviation (n - 1) of values in words. values: (n,), n >= 2."""
    return f"{values.mean():.{digits}f} ± {values.std(ddof=1):.{digits}f}"


def tell(name: str, found: Interval, unit: str = "", better: Better = "") -> None:
    """Record an estimate with its interval. name, unit, better: as `record` has them."""
    record(name, found.mean, unit, better, found[1:])


def tell_each(
    pattern: str,
    samples: Mapping[tuple[str, ...], ArrayLike],
    unit: str = "",
    better: Better = "",
) -> None:
    """Record the mean of each sample with Student's interval.

    pattern: of the records' names, such as "{}_psnr_{}", which the parts of a key fill in turn.
    samples: {key: values as for `student`}. unit, better: as for `record`.
    """
    for key, values in samples.items():
        tell(pattern.format(*key), student(values), unit, better)
