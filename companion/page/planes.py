"""Perception against distortion: curves over alpha in the plane of two measures."""

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from companion.page import figures


def plane(
    axis: Axes,
    points: dict[float, dict[str, Any]],
    x: str,
    y: str,
    *,
    colour: str = figures.COLOURS[0],
    hollow: bool = False,
    label: str | None = None,
) -> None:
    """Draw one curve over alpha in the plane of two measures, with its ends and their intervals.

    axis: matplotlib Axes. points: of `tradeoff.points`, gathered by `estimates.over_turns`, 0 and 1
        among its alphas; those that lack a kind are passed over. x, y: kinds. The curve is full
        for alpha in [0, 1] and dotted beyond; a circle lies at 1, a square at 0. colour: of
        matplotlib. hollow: whether these are, so that a print without colours tells two curves
        apart. label: of the legend.
    Returns None.
    """
    along = sorted(alpha for alpha, values in points.items() if {x, y} <= set(values))
    inside = [alpha for alpha in along if 0 <= alpha <= 1]
    for part, dash in ((along, ":"), (inside, "-")):
        values = [[points[alpha][kind].value for alpha in part] for kind in (x, y)]
        axis.plot(*values, dash, color=colour, marker="")
    face = "none" if hollow else colour
    axis.plot([], [], color=colour, marker="s", markerfacecolor=face, label=label)  # legend
    for alpha, marker in ((1, "o"), (0, "s")):
        p, q = (points[alpha][kind] for kind in (x, y))
        bars: dict[str, Any] = {"xerr": [[e] for e in p.error], "yerr": [[e] for e in q.error]}
        style: dict[str, Any] = {
            "color": colour,
            "markerfacecolor": face,
            "marker": marker,
            "markersize": 6,
            "elinewidth": 0.8,
        }
        axis.errorbar(p.value, q.value, **bars, **style)


def planes(
    panels: dict[str, dict[str, dict[float, dict[str, Any]]]],
    x: str,
    y: str,
    *,
    xlabel: str,
    ylabel: str,
    log: bool = False,
) -> Figure:
    """Draw curves of `plane`, one panel a restorer.

    panels: {title: {label: points}}, the first with a legend; every second curve has hollow marks.
        x, y: kinds. xlabel, ylabel: texts with units. log: logarithmic abscissa.
    Returns the figure.
    """
    figure, axes = figures.grid({title: title for title in panels})
    for title, curves in panels.items():
        for index, (label, points) in enumerate(curves.items()):
            colour, hollow = figures.COLOURS[index], index % 2 == 1
            plane(axes[title], points, x, y, colour=colour, hollow=hollow, label=label)
        scale = "log" if log else "linear"
        axes[title].set(xlabel=xlabel, ylabel=ylabel, xscale=scale)
    axes[next(iter(panels))].legend(frameon=False, fontsize=8)
    return figure
