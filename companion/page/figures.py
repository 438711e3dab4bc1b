"""Figures and tables of the pages: one style, PNG for images, SVG for curves.

Nothing here gives a number back, so that a change of it makes no archived run old: see `keys`.
"""

import base64
import html
import io
import json
import math
import textwrap
from collections.abc import Collection, Sequence
from typing import Any, Literal, TypeAlias

import cycler
import matplotlib
import matplotlib.collections
import matplotlib.pyplot as plt
import matplotlib.text
import matplotlib.ticker
import matplotlib.transforms
import numpy as np
from IPython.display import Markdown, display
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from companion import markdown
from companion.page import plotted
from companion.page.as_csv import as_csv
from companion.page.letters import lettered

Array: TypeAlias = Any  # a tensor, an array or a list of numbers

# Okabe and Ito's palette tells apart with any colour vision; the markers tell apart in print.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"

matplotlib.rcParams.update(
    {
        # lines that share a colour and a mark, from the eighth on, are dashed and dotted
        "axes.prop_cycle": cycler.cycler(linestyle=["-", "--", ":"])
        * (cycler.cycler(color=COLOURS) + cycler.cycler(marker=list(MARKERS))),
        "axes.spines.right": False,
        "axes.spines.top": False,
        "axes.titlesize": 10,
        "figure.constrained_layout.use": True,
        "figure.dpi": 100,
        "font.size": 10,
        "legend.frameon": False,
        "lines.markersize": 4,
        "svg.hashsalt": "companion",  # the same figure gives the same bytes
    }
)

CSS = 96  # pixels of a page in an inch
WIDTH = 6.8  # inches; with the margins the column of a page, so that text has its own size there
CARD = "application/vnd.companion.card"  # of a picture without words in the output of a cell
LEAST = 9  # points, of any text
DOTS = 160  # an inch
_LINE = 0.2  # inches, the height of a line of a legend
_SHARP = 2  # dots of a picture of images for each pixel of a page, so that its words are sharp
_GAP = 3  # pixels of a page between images
_MOST = 260  # such pixels across an image
_CARD = 640  # dots across a card, on a screen of two a pixel

# The browser mixes the two ends, so that a page holds two images and not one for each alpha.
_MIX = """const box = this.parentNode, canvas = box.querySelector('canvas'),
[one, zero] = box.querySelectorAll('img'), size = [0, 0, canvas.width, canvas.height],
[alpha, text] = JSON.parse(this.dataset.stops)[this.value],
pen = canvas.getContext('2d', {willReadFrequently: true}),
read = image => (pen.drawImage(image, ...size), pen.getImageData(...size)),
mixed = read(zero), other = read(one).data;
mixed.data.forEach((value, i) => { mixed.data[i] = (1 - alpha) * value + alpha * other[i]; });
pen.putImageData(mixed, 0, 0);
box.querySelector('p').textContent = text; this.setAttribute('aria-valuetext', text)"""


def show(figure: Figure, kind: Literal["svg", "png"]) -> None:
    """Display a figure and close it, as a page can show it.

    figure: matplotlib Figure; it is made no wider than WIDTH, its text no smaller than LEAST, the
        names of Greek letters become these, long titles get lines, and legends of axes go below
        them, off the curves.
    kind: "svg" for curves, "png" for images, which keeps grey levels.
    The page links the numbers behind it, `plotted.text`. Returns None. Raises ValueError for
    another kind.
    """
    if kind not in ("svg", "png"):
        raise ValueError(f"kind must be 'svg' or 'png', got {kind!r}")
    _fit(figure)
    _move_legends(figure)
    _display(figure, kind, bbox_inches="tight", dpi=_dots(figure))


def _display(figure, kind, **how):
    """Display a figure as it is, a picture with its size, and close it. how: of savefig."""
    stream, metadata = io.BytesIO(), {"Date": None} if kind == "svg" else {"Software": None}
    figure.savefig(stream, format=kind, metadata=metadata, facecolor="white", **how)
    shown: dict[str, Any] = {"text/plain": "figure"}
    if kind == "svg":
        shown["image/svg+xml"] = stream.getvalue().decode()
    else:
        with Image.open(stream) as whole:
            smaller = io.BytesIO()  # an eighth less
            whole.convert("RGB").save(smaller, "png", optimize=True, dpi=whole.info["dpi"])
        shown |= {"image/png": smaller.getvalue(), CARD: _card(figure)}
    if numbers := plotted.text(figure):
        shown[plotted.MIME] = numbers
    plt.close(figure)
    display(shown, raw=True)


def _card(figure):
    """The upper part of a figure for a card, where its words could not be read: WebP in base 64."""
    figure.set_layout_engine("none")  # what stays is where it was
    for text in figure.findobj(matplotlib.text.Text):
        text.set_visible(False)
    stream, card = io.BytesIO(), io.BytesIO()
    width = figure.get_size_inches()[0]
    figure.savefig(stream, format="png", facecolor="white", dpi=_CARD / width)
    with Image.open(stream) as whole:
        upper = whole.convert("RGB").crop((0, 0, _CARD, min(whole.height, _CARD // 2)))
        upper.save(card, "webp", quality=75, method=6)
    return base64.b64encode(card.getvalue()).decode()


def _dots(figure):
    """Dots an inch; with images so many that a pixel of the widest is a whole number of them."""
    shown = [(image.get_array().shape[1], axis) for axis in figure.axes for image in axis.images]
    if not shown:
        return DOTS
    figure.draw_without_rendering()
    figure.set_layout_engine("none")  # another density moves nothing any more
    widths = [(pixels, axis.get_window_extent().width / figure.dpi) for pixels, axis in shown]
    pixels, inches = max(widths)
    times = math.ceil(0.7 * DOTS * inches / pixels)
    return (times * pixels - 1e-6) / inches  # which is rounded up


def _fit(figure):
    """Make a figure as wide as the column, and its texts such as can be read there."""
    width, height = figure.get_size_inches()
    scale = min(1, WIDTH / width)
    shaped = any(axis.get_aspect() != "auto" for axis in figure.axes)  # as wide as high, say
    figure.set_size_inches(scale * width, scale * height if shaped else height)
    for text in figure.findobj(matplotlib.text.Text):
        text.set_fontsize(max(text.get_fontsize(), LEAST))
        text.set_text(lettered(text.get_text()))
    sides = [side for axis in figure.axes for side in (axis.xaxis, axis.yaxis)]
    for side in sides:
        _plain(side)
    figure.draw_without_rendering()
    for axis in figure.axes:
        place, title = axis.get_subplotspec(), axis.title
        columns = place.get_gridspec().ncols if place else 1
        share = 0.97 * figure.bbox.width / columns / max(1, title.get_window_extent().width)
        if share < 1:
            title.set_text(textwrap.fill(title.get_text(), int(share * len(title.get_text()))))
    for side in sides:
        _thin(_ticks(side))
    for axis in figure.axes:
        _thin([text for text in axis.texts if isinstance(text, matplotlib.text.Annotation)])


class _Numbers(matplotlib.ticker.LogFormatterSciNotation):
    """Labels of a logarithmic axis: 0.02 or 1e-9 instead of a power."""

    def __call__(self, x, pos=None):
        return _number(x) if super().__call__(x, pos) else ""


def _number(value):
    """A number as it stands on an axis: 0.02, 1e-9."""
    return f"{value:g}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def _plain(side):
    """Write a logarithmic axis in plain numbers: exponents would be too small to read."""
    low, high = sorted(side.get_view_interval())
    if side.get_scale() not in ("log", "symlog"):
        return
    powers = matplotlib.ticker.LogFormatterSciNotation
    if type(side.get_major_formatter()) is powers:
        side.set_major_formatter(_Numbers(labelOnlyBase=True))
    short = low >= 1e-3 and high <= 100 * low  # else the decades are enough
    if short and type(side.get_minor_formatter()) is powers:
        side.set_minor_formatter(_Numbers())


def _ticks(side):
    """The tick labels of an axis that lie within its limits."""
    low, high = sorted(side.get_view_interval())
    along = "xy".index(side.axis_name)
    labels = (*side.get_ticklabels(), *side.get_ticklabels(minor=True))
    return [label for label in labels if low <= label.get_position()[along] <= high]


def _thin(labels):
    """Of labels that overlap, as they are drawn, keep the first."""
    taken: list[Any] = []
    for label in labels:
        if label.get_visible() and label.get_text():
            box = label.get_window_extent().padded(2)
            clear = not any(box.overlaps(other) for other in taken)
            label.set_visible(clear)
            taken += [box] * clear


def _move_legends(figure):
    """Put legends below the axes: one for all where they say the same, else each below its own."""
    told = {}
    for axis in figure.axes:
        if (legend := axis.get_legend()) is not None:
            texts = [text.get_text() for text in legend.get_texts()]
            handles, labels = axis.get_legend_handles_labels()
            own = dict(zip(labels, handles, strict=True))  # whole, with their marks
            kept = zip(texts, legend.legend_handles, strict=True)
            told[axis] = [own.get(text, handle) for text, handle in kept], texts
            legend.remove()
    if not told:
        return
    figure.draw_without_rendering()
    shared = len({tuple(labels) for _, labels in told.values()}) == 1
    width, height = figure.get_size_inches()
    rows = []
    for axis, (handles, labels) in told.items():
        room = width if shared else axis.get_window_extent().width / figure.dpi
        columns = _columns(labels, room)
        rows.append(-(-len(labels) // columns))
        how = dict(fontsize=LEAST, ncols=columns)
        if shared:
            figure.legend(handles, labels, loc="outside lower center", **how)
            break
        names = (axis.get_window_extent().y0 - axis.get_tightbbox().y0) / figure.dpi  # their height
        lower = matplotlib.transforms.ScaledTranslation(0, -names, figure.dpi_scale_trans)
        where = dict(bbox_to_anchor=(0.5, 0), bbox_transform=axis.transAxes + lower)
        axis.legend(handles, labels, loc="upper center", **where, **how)
    figure.set_size_inches(width, height + _LINE * max(rows))


def _columns(labels, room):
    """How many columns of a legend fit into so many inches."""
    longest = 0.6 + 0.07 * max(map(len, labels))  # of 9 point text, its line and gaps
    return max(1, min(len(labels), int(room / longest)))


def images(
    panels: dict[str, Array | None],
    *,
    columns: int = 4,
    limits: tuple[float, float] = (0, 1),
    zoom: tuple[int, int, int] | None = None,
    cmap: str = "gray",
    label: str | None = None,
) -> None:
    """Show images side by side, all in one range, each with a magnified inset.

    An image has its own size on a page, or a whole multiple of it, and so has an inset. Where as
    many columns have no room it has half of it, which is its own on a screen of two dots a pixel.

    panels: {title: (H, W), (1, H, W) or, in colour, (3, H, W) tensor or array; None for a place
        that stays free}.
    columns: panels in a row, at most. limits: (low, high) shown as the colour map's ends.
    zoom: (row, column, side) in pixels of the square that the inset magnifies; none by default.
    cmap: matplotlib's name. label: text of a colour bar; no bar by default.
    Returns None.
    """
    if len(panels) <= columns:  # a row alone, which may be two
        columns = -(-columns // -(-columns // 6))
    found = {
        title: None if panel is None else np.squeeze(np.asarray(panel, dtype=float))
        for title, panel in panels.items()
    }
    # from here on in dots; a page's pixel has two of them a side
    page, gap = _SHARP * int(CSS * WIDTH), _SHARP * _GAP
    widest = max(image.shape[-1] for image in found.values() if image is not None)
    room = min((page + gap) // columns - gap, _SHARP * _MOST)
    box = widest * _times(widest, room)
    columns = min(columns, max(1, (page + gap) // (box + gap)))
    rows = [list(found)[k : k + columns] for k in range(0, len(found), columns)]
    titles = {title: _lines(title, box / _SHARP) for title in found}
    lines = [max(titles[title].count("\n") + 1 for title in row) for row in rows]
    words = [_SHARP * (15 * count + 5) for count in lines]
    shapes = {
        title: np.array(image.shape[-2:]) * _times(image.shape[-1], box)
        for title, image in found.items()
        if image is not None
    }
    high = [max((shapes[title][0] for title in row if title in shapes), default=0) for row in rows]
    foot = 60 * _SHARP * bool(label)
    size = np.array([columns * (box + gap) - gap, sum(words) + sum(high) + foot])
    figure = plt.figure(figsize=size / (_SHARP * CSS), layout="none")
    place = lambda x, y, w, h: (x / size[0], 1 - (y + h) / size[1], w / size[0], h / size[1])
    style: dict[str, Any] = dict(cmap=cmap, vmin=limits[0], vmax=limits[1])
    style["interpolation"] = "nearest"
    top = 0
    for row, line, most in zip(rows, words, high, strict=True):
        top += line
        for column, title in enumerate(row):
            if (panel := found[title]) is None:
                continue
            if panel.ndim == 3:
                panel = np.moveaxis(panel, 0, -1).clip(0, 1)  # the range of colours is fixed
            height, width = shapes[title]
            left = column * (box + gap) + (box - width) // 2
            axis = figure.add_axes(place(left, top, width, height))
            axis.axis("off")
            shown = axis.imshow(panel, **style)
            axis.set_title(titles[title], fontsize=LEAST, pad=3)
            if zoom is not None:
                _inset(axis, panel, zoom, width, height, style)
        top += most
    if label is not None:
        bar = figure.add_axes(place(size[0] // 4, top + 16, size[0] // 2, 16))
        figure.colorbar(shown, cax=bar, orientation="horizontal").set_label(lettered(label))
    _display(figure, "png", dpi=_SHARP * CSS)


def _times(pixels, room):
    """Dots a pixel of an image has: whole pixels of a page, one dot where there is no such room."""
    return _SHARP * (room // (_SHARP * pixels)) or 1


def _inset(axis, panel, zoom, width, height, style):
    """Magnify a square of a panel of so many pixels in its lower right half, by a whole number."""
    row, column, side = zoom
    across = side * _times(side, width // 2)
    inset = axis.inset_axes((1 - across / width, 0.0, across / width, across / height))
    inset.imshow(panel[row : row + side, column : column + side], **style)
    inset.set(xticks=[], yticks=[])
    edge = COLOURS[4]
    inset.spines[:].set(color=edge, visible=True)
    frame = plt.Rectangle((column - 0.5, row - 0.5), side, side, fill=False, edgecolor=edge)
    axis.add_patch(frame)


def _lines(title, room):
    """A title in lines no longer than so many pixels of a page, with Greek letters."""
    parts = lettered(title).split("\n")
    return "\n".join(textwrap.fill(part, max(8, int(room / 6.9))) for part in parts)


def curves(
    series: dict[str, Array],
    x: Array,
    *,
    xlabel: str,
    ylabel: str,
    ax: Axes | None = None,
    log: bool = False,
    line: bool = True,
) -> Axes:
    """Draw one line a method with a band of one standard deviation.

    series: {name: (n,) values, or (n, seeds) values whose mean and spread are drawn}.
        Where one is infinite the line has a gap.
    x: (n,) abscissae. log: logarithmic abscissa. line: False for a mark a value and no line.
    xlabel, ylabel: texts with units. ax: axes to draw on; a new figure by default.
    Returns the axes.
    """
    ax = plt.subplots(figsize=(6.4, 3.4))[1] if ax is None else ax
    for name, values in series.items():
        values = np.asarray(values, dtype=float).reshape(len(x), -1)
        values = np.where(np.isfinite(values), values, np.nan)
        mean, spread = values.mean(1), values.std(1)
        style: dict[str, Any] = {"linestyle": "none"}
        if line:
            style = {"markevery": max(1, len(x) // 10)}
        (drawn,) = ax.plot(x, mean, label=name, **style)
        if values.shape[1] > 1:
            band: dict[str, Any] = dict(color=drawn.get_color(), alpha=0.2, label=f"_{name}")
            ax.fill_between(x, mean - spread, mean + spread, **band)
    if log:
        ax.set_xscale("log")
        if len(x) <= 8:  # name the abscissae themselves: the decades' minor labels overlap
            ax.set_xticks(x, [_number(value) for value in x])
            ax.minorticks_off()
    ax.set(xlabel=xlabel, ylabel=ylabel)
    ax.legend()
    return ax


def grid(titles: dict[Any, str], columns: int = 3) -> Any:
    """Make a panel for each title, on a grid.

    titles: {key: text}. columns: panels in a row.
    Returns (figure, {key: axes}).
    """
    rows = -(-len(titles) // columns)
    size = (round(3.2 * columns, 1), 2.9 * rows)
    figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False)
    for axis in axes.flat[len(titles) :]:
        axis.axis("off")
    for axis, title in zip(axes.flat, titles.values(), strict=False):
        axis.set_title(title, fontsize=10)
    return figure, dict(zip(titles, axes.flat, strict=False))


def looks(names: Sequence[str]) -> dict[str, dict[str, str]]:
    """Give each of many lines a colour and a marker, no two alike.

    names: of the lines, at most as many as there are pairs of the two. From the eighth on a colour
        comes again with another marker.
    Returns {name: matplotlib's `color` and `marker`}. Raises ValueError where there are more names.
    """
    count = len(COLOURS)
    if len(names) > count**2:
        raise ValueError(f"names must be at most {count**2}, got {len(names)}")
    found = {}
    for index, name in enumerate(names):
        again, place = divmod(index, count)
        found[name] = {"color": COLOURS[place], "marker": MARKERS[(place + again) % count]}
    return found


def row(
    plots: Sequence[tuple],
    *,
    size: tuple[float, float] = (9, 3.2),
    log: bool = False,
    sharey: bool = False,
) -> Any:
    """Draw plots of `curves` side by side.

    plots: list of (series, x, xlabel, ylabel). size: inches. log: as there. sharey: one ordinate.
    Returns (figure, axes).
    """
    figure, axes = plt.subplots(1, len(plots), figsize=size, sharey=sharey)
    for axis, (series, x, xlabel, ylabel) in zip(axes, plots, strict=True):
        curves(series, x, xlabel=xlabel, ylabel=ylabel, ax=axis, log=log)
    return figure, axes


def table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Show a table.

    headers: texts. rows: lists of texts or numbers, as many as headers; floats get two decimals.
    Returns None.
    """
    texts = [[_two_decimals(cell) for cell in row] for row in rows]
    display(Markdown("\n".join(markdown.table(headers, texts))))


def _two_decimals(cell):
    if isinstance(cell, float) and np.isfinite(cell):
        return f"{cell:.2f}"
    return markdown.number(cell) if isinstance(cell, float) else str(cell)


def matching(axis: Axes, x: Array, y: Array, plan: Array) -> None:
    """Draw a transport plan between two clouds of the plane.

    axis: matplotlib Axes. x: (N, 2), y: (M, 2) points. plan: (N, M) masses; an entry is drawn as a
    line of that opacity relative to the largest.
    Returns None.
    """
    x, y, plan = (np.asarray(values, dtype=float) for values in (x, y, plan))
    opacity = plan / plan.max()
    rows, columns = np.nonzero(opacity > 0.02)
    lines = matplotlib.collections.LineCollection(
        list(np.stack([x[rows], y[columns]], 1)),
        colors=[(0.3, 0.3, 0.3, alpha) for alpha in opacity[rows, columns]],
        linewidths=0.6,
    )
    axis.add_collection(lines)
    for points in (x, y):  # a point that moves no mass is still seen
        axis.scatter(points[:, 0], points[:, 1], s=4, color="0.75", marker="o", zorder=0)
    size = 14 * max(plan.shape)
    axis.scatter(x[:, 0], x[:, 1], s=size * plan.sum(1), color=COLOURS[0], marker="o", zorder=2)
    axis.scatter(y[:, 0], y[:, 1], s=size * plan.sum(0), color=COLOURS[1], marker="x", zorder=3)
    axis.set(aspect="equal", xticks=[], yticks=[])


def contact_sheet(tiles: Array, *, columns: int, framed: Collection[int] = ()) -> None:
    """Show small images on a grid, some of them framed.

    tiles: (n, h, w) tensor or array in [0, 1]. columns: tiles in a row. framed: their indices.
    Returns None.
    """
    rows = -(-len(tiles) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(0.62 * columns, 0.62 * rows))
    for index, (axis, tile) in enumerate(zip(axes.flat, np.asarray(tiles), strict=False)):
        axis.imshow(tile, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set(visible=index in framed, color=COLOURS[1], linewidth=2)
    show(figure, "png")


def compare(panels: dict[str, Array], *, scale: int = 3) -> None:
    """Show two images on top of each other; a handle, dragged or moved by keys, divides them.

    panels: {title: (H, W), (1, H, W) or (3, H, W) tensor or array in [0, 1]}, two of them, the left
        one first.
    scale: whole pixels a pixel is shown with, at most; on a narrow screen the picture shrinks.
    Returns None. Without a browser that runs scripts both halves are seen.
    """
    (left, first), (right, second) = panels.items()
    sources = [f"data:image/png;base64,{_png(panel)}" for panel in (first, second)]
    width = scale * np.squeeze(np.asarray(first)).shape[-1]
    left, right = html.escape(left), html.escape(right)
    display(
        {
            "text/html": f'''<div class="compare" role="group" \
aria-label="{left} beside {right}" style="max-width: {width}px">
<div><img src="{sources[1]}" alt="{right}"><img src="{sources[0]}" alt="{left}"></div>
<input type="range" min="0" max="100" value="50" aria-label="Share of the picture that shows {left}"
oninput="this.parentNode.style.setProperty('--cut', this.value + '%')">
<p><span>{left}</span><span>{right}</span></p></div>''',
            "text/plain": f"{left} | {right}",
        },
        raw=True,
    )


def along(
    zero: Array, one: Array, captions: dict[float, str], *, label: str, scale: int = 2
) -> None:
    """Show (1 - alpha) zero + alpha one, clipped, at the alpha of a slider: Adrai et al., eq. (4).

    zero, one: (H, W), (1, H, W) or (3, H, W) tensor or array in [0, 1], of one shape.
    captions: {alpha: text shown at it}, the slider's stops, 0 among them; it starts there.
    label: what the picture shows. scale: as in `compare`.
    Returns None. Without a browser that runs scripts the image at 0 is seen.
    """
    stops = sorted(captions)
    height, width = np.squeeze(np.asarray(zero)).shape[-2:]
    ends = [f"data:image/png;base64,{_png(panel)}" for panel in (one, zero)]
    texts = html.escape(json.dumps([[stop, captions[stop]] for stop in stops]))
    label, start = html.escape(label), stops.index(0)
    display(
        {
            "text/html": f'''<div class="along" style="max-width: {scale * width}px">
<div><img src="{ends[0]}" alt="{label}, alpha = 1"><img src="{ends[1]}" alt="{label}, alpha = 0">
<canvas width="{width}" height="{height}" aria-hidden="true"></canvas></div>
<input type="range" min="0" max="{len(stops) - 1}" value="{start}" data-stops="{texts}"
aria-label="alpha, {label}" aria-valuetext="{html.escape(captions[0])}"
oninput="{_MIX}"><p>{html.escape(captions[0])}</p></div>''',
            "text/plain": f"{label}: alpha from {stops[0]:g} to {stops[-1]:g}",
        },
        raw=True,
    )


def download(name: str, headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Show a link that saves a table as CSV; it is in the page, so that it needs no server.

    name: file name. headers, rows: as in `table`, floats in full.
    Returns None.
    """
    content = as_csv([headers, *rows])
    data = base64.b64encode(content.encode()).decode()
    link = f'<a download="{name}" href="data:text/csv;base64,{data}">{name}</a>'
    text = f"{link}, {len(rows)} rows: {html.escape(', '.join(headers))}"
    display({"text/html": f"<p>{text}</p>", "text/plain": content}, raw=True)


def _png(panel):
    """The 8-bit PNG of a grey or colour image in [0, 1], in base 64."""
    values = np.squeeze(np.asarray(panel, dtype=float)).clip(0, 1)
    if values.ndim == 3:
        values = np.moveaxis(values, 0, -1)
    stream = io.BytesIO()
    Image.fromarray((255 * values).round().astype(np.uint8)).save(stream, "png")
    return base64.b64encode(stream.getvalue()).decode()
