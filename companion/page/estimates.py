"""Numbers of a test set over the turns of the photographs, and what all restorers do together."""

import math
from collections.abc import Callable, Iterable, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np

from companion.markdown import number
from companion.page.intervals import Interval, largest, least, student
from companion.page.jobs import side_by_side
from companion.page.record import Better


class Estimate(NamedTuple):
    """A number of a test set on each of several turns of the photographs: see `rotations`."""

    values: np.ndarray  # (turns,)

    @property
    def value(self) -> float:
        """The mean over the turns."""
        return float(self.values.mean())

    def interval(self, of: int = 1) -> Interval:
        """Of the mean, by Student's t over the turns; without ends where they cannot tell.

        of: how many such statements stand together.
        """
        if len(self.values) > 1 and np.isfinite(self.values).all():
            return student(self.values, of)
        return Interval(self.value, -math.inf, math.inf)

    def less(self, other: "Estimate") -> "Estimate":
        """The difference to another number of the same turns."""
        return Estimate(self.values - other.values)

    @property
    def error(self) -> tuple[float, float]:
        """Distances (below, above) of the interval's ends; 0 where there are none."""
        _, low, high = self.interval()
        finite = math.isfinite(low) and math.isfinite(high)
        return (self.value - low, high - self.value) if finite else (0.0, 0.0)

    @property
    def text(self) -> str:
        """The interval in words."""
        ends = [number(e) if math.isinf(e) else f"{e:.3g}" for e in self.interval()[1:]]
        return " to ".join(ends)


class Signs(NamedTuple):
    """How many of several changes are below 0, and how many are so by their whole interval."""

    falls: int
    surely_falls: int
    surely_rises: int


def over_turns(found: Sequence[Any]) -> Any:
    """Gather the numbers of all turns.

    found: numbers, or dicts of them to any depth, one a turn, with the same keys.
    Returns an Estimate, or a dict like each of `found` with an Estimate for each number.
    """
    if not isinstance(found[0], dict):
        return Estimate(np.array(found))
    return {key: over_turns([one[key] for one in found]) for key in found[0]}


def compared(
    work: Callable[[str, Any], Any], restorers: Sequence[str], turns: Sequence[Any], label: str
) -> dict[str, Any]:
    """Do the same with each restorer in each turn, side by side.

    work: function of (restorer, turn) to numbers as `over_turns` gathers them. restorers: names.
    turns: list of what stands for a turn. label: as for `jobs.side_by_side`.
    Returns {restorer: what `over_turns` makes of its turns}.
    """
    done = side_by_side(lambda job: work(*job), list(product(restorers, turns)), label)
    each = zip(*[iter(done)] * len(turns), strict=True)
    return {name: over_turns(found) for name, found in zip(restorers, each, strict=True)}


def change(found: dict[Any, dict[str, Estimate]], kind: str, now: Any, before: Any) -> Estimate:
    """How much more a measure is at one place than at another.

    found: {place: {kind: Estimate}}. kind: of the measure. now, before: places.
    """
    return found[now][kind].less(found[before][kind])


def chosen(values: dict[Any, Estimate], free: Sequence[list[int]]) -> tuple[list[Any], Estimate]:
    """Choose for each turn what is best on other turns, and see what it gives on its own.

    values: {choice: Estimate}, the less the better. free: for each turn the places of those that it
        may choose on, as of `rotations.apart`.
    Returns (choices, what they give): a list, one a turn, and an Estimate.
    """
    best = [min(values, key=lambda one: values[one].values[places].mean()) for places in free]
    return best, Estimate(np.array([values[one].values[turn] for turn, one in enumerate(best)]))


def worst(changes: Iterable[Estimate], better: Better) -> Interval:
    """Of the changes of several restorers the one that is least to the better, with its interval.

    changes: Estimates. better: "lower" or "higher". All are better if this one is.
    """
    changes = list(changes)
    ends = [change.interval(of=len(changes)) for change in changes]
    return largest(ends) if better == "lower" else least(ends)


def signs(changes: Sequence[Estimate]) -> Signs:
    """Count what falls, what surely does and what surely rises. changes: of several restorers."""
    ends = [change.interval() for change in changes]
    falls = sum(change.value < 0 for change in changes)
    return Signs(falls, sum(end.high < 0 for end in ends), sum(end.low > 0 for end in ends))
