"""The numbers behind a plot, read back from the figure, so that each comes with its data."""

import re
from typing import Any

import matplotlib.collections
import matplotlib.colors
import matplotlib.container
import numpy as np
from matplotlib.figure import Figure

from companion.page.as_csv import as_csv

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
    everywhere = _by_colour(figure.axes)
    for number, axis in enumerate(figure.axes, 1):
        told = " against ".join(filter(None, [axis.get_ylabel(), axis.get_xlabel()]))
        panel = " ".join((axis.get_title() or told or str(number)).split())
        labels = everywhere | _by_colour([axis])
        ticks, other = _named(axis.xaxis), _named(axis.yaxis)
        for drawn, places in _drawn(axis):
            series = _label(drawn) or labels.get(_colour(drawn), "")
            for place in places:
                name = _nearest(ticks, place[0]) or _nearest(other, place[3])
                shown = [number if number == "" else f"{number:.6g}" for number in place]
                rows.append([panel, series, name, *shown])
    used = [k for k, _ in enumerate(HEAD) if any(row[k] != "" for row in rows)]
    return as_csv([row[k] for k in used] for row in (HEAD, *rows)) if rows else ""


def _drawn(axis):
    """What is drawn on an axis, each with its places: numbers as in HEAD, "" for none."""
    inside: list[Any] = []  # drawn as a part of something else
    for container in axis.containers:
        if isinstance(container, matplotlib.container.ErrorbarContainer):
            line, caps, bars = container.lines
            inside += [line, *caps, *bars]
            yield container, _bars(container)
        elif isinstance(container, matplotlib.container.BarContainer):
            tops = [(b.get_x() + b.get_width() / 2, b.get_y() + b.get_height()) for b in container]
            yield container, [(x, "", "", y, "", "") for x, y in tops]
    for line in axis.lines:
        if line not in inside and line.get_transform() == axis.transData:
            yield line, [(x, "", "", y, "", "") for x, y in line.get_xydata()]
    for found in axis.collections:
        if isinstance(found, matplotlib.collections.PolyCollection):  # a band
            corners = np.concatenate([path.vertices for path in found.get_paths()])
            heights = {x: corners[corners[:, 0] == x, 1] for x in np.unique(corners[:, 0])}
            yield found, [(x, "", "", "", y.min(), y.max()) for x, y in heights.items()]
        elif isinstance(found, matplotlib.collections.PathCollection):  # marks
            marks = np.ma.filled(found.get_offsets(), np.nan)
            yield found, [(x, "", "", y, "", "") for x, y in marks]


def _bars(container):
    """The places of error bars: the marks, and the ends of each bar beside its own."""
    line, _, bars = container.lines
    ends = [[(segment.min(0), segment.max(0)) for segment in bar.get_segments()] for bar in bars]
    along = [side for side, has in ((0, container.has_xerr), (1, container.has_yerr)) if has]
    for k, place in enumerate(line.get_xydata()):
        found: list[Any] = []
        for side in (0, 1):
            low = high = ""
            if side in along:
                low, high = (end[side] for end in ends[along.index(side)][k])
            found += [place[side], low, high]
        yield found


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


def _named(side):
    """The places and texts of the ticks of an axis where they are words, else nothing."""
    texts = [label.get_text() for label in side.get_ticklabels()]
    texts = ["" if "$" in words else words for words in texts]  # a power is no name
    places = side.get_ticklocs()
    words = any(re.search("[A-Za-z]{2}", text) for text in texts)
    return (places, texts) if words and len(places) == len(texts) else None


def _nearest(named, place):
    """The text of the tick nearest to a place, "" where ticks are no words."""
    if place == "" or named is None:
        return ""
    places, texts = named
    return texts[int(np.abs(places - place).argmin())]
