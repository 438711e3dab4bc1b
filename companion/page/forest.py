"""Forest plots: what several runs say of the same differences, each with its interval."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from companion.page import figures
from companion.page.intervals import Interval


def told(run: dict[str, Any], names: Sequence[str]) -> list[Interval | None]:
    """The intervals that a run tells of names, an Interval or None each.

    run: of `kept.archived`. names: of records, which it may lack.
    """
    entries = [run["records"].get(name) for name in names]
    return [entry and Interval(entry["value"], *entry["interval"]) for entry in entries]


def forest(
    axis: Axes,
    labels: Sequence[str],
    series: Mapping[str, Sequence[Interval | None]],
    *,
    xlabel: str,
) -> None:
    """Draw intervals about a line at zero: a row for each label, a colour and mark for each series.

    axis: matplotlib Axes. labels: texts of the rows. series: {title: one Interval or None a row};
        one of no length is drawn as its mark alone. xlabel: text with its unit.
    Returns None.
    """
    shifts = np.linspace(-0.25, 0.25, len(series)) if len(series) > 1 else [0]
    looks = figures.looks(list(series))
    for (title, found), shift in zip(series.items(), shifts, strict=True):
        shown = [(place + shift, one) for place, one in enumerate(found) if one is not None]
        places = [place for place, _ in shown]
        ends = np.array([[one.mean - one.low, one.high - one.mean] for _, one in shown]).T
        means = [one.mean for _, one in shown]
        style: dict[str, Any] = looks[title] | dict(linestyle="", markersize=5, capsize=2)
        axis.errorbar(means, places, xerr=ends if shown else None, label=title, **style)
    axis.axvline(0, color="0.3", linewidth=1)
    axis.set_yticks(range(len(labels)), labels)
    axis.set_ylim(len(labels) - 0.5, -0.5)
    axis.set_xlabel(xlabel)
