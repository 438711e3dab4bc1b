"""The numbers behind a plot, read back from the figure, so that each comes with its data."""

import csv
import io
import re
from typing import Any

import matplotlib.collections
import matplotlib.colors
import matplotlib.container
import numpy as np
from matplotlib.figure import Figure

MIME = "application/vnd.companion.plotted"  # of that text in the output of a cell
HEAD = ("panel", "series", "name", "x", "x low", "x high", "y", "y low", "y high")
# what matplotlib calls what has no label
_UNNAMED = re.compile("_?(child|container)[0-9]+|_nolegend_")


def text(figure: Figure) -> str:
    """The data of a figure as CSV: a row for each mark, bar or place of a band or line.

    figure: matplotlib Figure. The ends of error bars and bands are `low` and `high`, `series` is
        the label, where there is none that of what has the same colour, `name` that of the nearest
        tick in words; columns with nothing in them are left out. Images, plans and the lines that
        mark a level are no rows.
    Returns text; "" for a figure without such data.
    """
    rows: list[list[str]] = []
    for number, axis in enumerate(figure.axes, 1):
        rows += _of_axes(axis, number, _by_colour(figure.axes) | _by_colour([axis]))
    used = [k for k, _ in enumerate(HEAD) if any(row[k] != "" for row in rows)]
    if not rows:
        return ""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerows([row[k] for k in used] for row in (HEAD, *rows))
    return stream.getvalue()


def _of_axes(axis, number, labels):
    told = " against ".join(filter(None, [axis.get_ylabel(), axis.get_xlabel()]))
    panel = axis.get_title() or told or str(number)
    inside: list[Any] = []  # drawn as a part of something else
    for container in axis.containers:
        if isinstance(container, matplotlib.container.ErrorbarContainer):
            line, caps, bars = container.lines
            inside += [line, *caps, *bars]
            yield from _bars(axis, panel, labels, container)
        elif isinstance(container, matplotlib.container.BarContainer):
            for bar in container.patches:
                at = bar.get_x() + bar.get_width() / 2
                ends = at, "", "", bar.get_y() + bar.get_height(), "", ""
                yield _row(axis, panel, labels, container, *ends)
    for line in axis.lines:
        if line not in inside and line.get_transform() == axis.transData:
            for x, y in line.get_xydata():
                yield _row(axis, panel, labels, line, x, "", "", y, "", "")
    for found in axis.collections:
        if isinstance(found, matplotlib.collections.PolyCollection):  # a band
            corners = np.concatenate([path.vertices for path in found.get_paths()])
            for x in np.unique(corners[:, 0]):
                height = corners[corners[:, 0] == x, 1]
                yield _row(axis, panel, labels, found, x, "", "", "", height.min(), height.max())
        elif isinstance(found, matplotlib.collections.PathCollection):  # marks
            for x, y in np.ma.filled(found.get_offsets(), np.nan):
                yield _row(axis, panel, labels, found, x, "", "", y, "", "")


def _bars(axis, panel, labels, container):
    """Rows of error bars: the marks, and the ends of each bar beside the mark it belongs to."""
    line, _, bars = container.lines
    ends = [[(segment.min(0), segment.max(0)) for segment in bar.get_segments()] for bar in bars]
    along = [side for side, has in ((0, container.has_xerr), (1, container.has_yerr)) if has]
    for k, place in enumerate(line.get_xydata()):
        row: list[Any] = []
        for side in (0, 1):
            low = high = ""
            if side in along:
                low, high = (end[side] for end in ends[along.index(side)][k])
            row += [place[side], low, high]
        yield _row(axis, panel, labels, container, *row)


def _row(axis, panel, labels, drawn, *numbers):
    series = _label(drawn) or labels.get(_colour(drawn), "")
    name = _nearest(axis.xaxis, numbers[0]) or _nearest(axis.yaxis, numbers[3])
    told = [number if number == "" else f"{number:.6g}" for number in numbers]
    return [" ".join(panel.split()), series, name, *told]


def _label(drawn):
    label = str(drawn.get_label())
    return "" if _UNNAMED.fullmatch(label) else label.removeprefix("_")


def _colour(drawn):
    """The colour of a line, of marks, of bars or of a band, as text."""
    match drawn:
        case matplotlib.container.ErrorbarContainer():
            colour = drawn.lines[0].get_color()
        case matplotlib.container.BarContainer():
            colour = drawn.patches[0].get_facecolor()
        case matplotlib.collections.Collection():
            colour = (*drawn.get_facecolor(), *drawn.get_edgecolor(), "none")[0]
        case _:
            colour = drawn.get_color()
    return matplotlib.colors.to_hex(colour)


def _by_colour(axes):
    """The label of what has a colour alone: {colour: label}."""
    found: dict[str, set[str]] = {}
    for drawn in (drawn for axis in axes for drawn in (*axis.lines, *axis.containers)):
        if label := _label(drawn):
            found.setdefault(_colour(drawn), set()).add(label)
    return {colour: label for colour, (label, *more) in found.items() if not more}


def _nearest(side, place):
    """The text of the tick nearest to a place on an axis whose ticks are words, else ""."""
    texts = [label.get_text() for label in side.get_ticklabels()]
    texts = ["" if "$" in words else words for words in texts]  # a power is no name
    if place == "" or not any(re.search("[A-Za-z]{2}", words) for words in texts):
        return ""
    ticks = np.abs(side.get_ticklocs() - place)
    return texts[int(ticks.argmin())] if len(ticks) == len(texts) else ""
