"""Pictures that a reader turns: frames made before, chosen by controls (book/_static/frames.js).

Nothing here gives a number back, so that a change of it makes no archived run old: see `keys`.
"""

import base64
import html
import io
import json
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, TypeAlias

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import display
from matplotlib.axes import Axes
from PIL import Image

from companion.page.figures import COLOURS

Array: TypeAlias = Any  # a tensor, an array or a list of numbers
Key: TypeAlias = tuple[Hashable, ...]  # what a frame shows, an item a control
Panel: TypeAlias = dict[str, Any]


def pictures(images: Mapping[Key, Array], *, scale: int = 2) -> Panel:
    """A panel of images.

    images: {key: (H, W), (1, H, W) or (3, H, W) tensor or array in [0, 1]}, of one shape.
    scale: whole pixels a pixel is shown with, at most; on a narrow screen the picture shrinks.
    Returns the panel, for `show`.
    """
    sources = {key: _webp(image) for key, image in images.items()}
    width = {scale * np.squeeze(np.asarray(image)).shape[-1] for image in images.values()}
    return {"sources": sources, "width": max(width), "kind": "picture"}


def plot(
    axes: Mapping[Key, Axes], marks: Mapping[Key, Array], *, size: float, colour: str = COLOURS[0]
) -> Panel:
    """A panel of a plot on which marks move.

    axes: {key: matplotlib Axes}, each the only one of its figure, which is drawn and closed here;
        keys may share one. marks: {key: (n, 2) points in the coordinates of the axes}, the same n
        for all. size: radius of a mark, pixels. colour: of the marks, as HTML has it.
    Returns the panel, for `show`. Raises ValueError where numbers of marks differ.
    """
    counts = {len(points) for points in marks.values()}
    if len(counts) != 1:
        raise ValueError(f"marks must be as many in each frame, got {sorted(counts)}")
    drawn: dict[Any, str] = {axis.figure: _svg(axis.figure) for axis in axes.values()}
    places = {}
    for key, points in marks.items():
        figure = axes[key].figure
        at = axes[key].transData.transform(np.asarray(points, dtype=float))
        share = at / figure.bbox.size
        places[key] = np.stack([share[:, 0], 1 - share[:, 1]], 1)
    (size_in,) = {tuple(figure.get_size_inches()) for figure in drawn}
    return {
        "sources": {key: drawn[axis.figure] for key, axis in axes.items()},
        "marks": places,
        "width": round(100 * size_in[0]),
        "height": round(100 * size_in[1]),
        "radius": size,
        "colour": colour,
        "kind": "plot",
    }


def show(
    frames: Mapping[Key, str],
    panels: Mapping[str, Panel],
    *,
    controls: Sequence[str],
    start: Key,
    label: str,
) -> None:
    """Show panels side by side, all at the frame that the controls choose.

    frames: {key: what its panels show, in words}; the last item of a key is what the slider goes
        through, in this order, each other one is a choice from a list.
    panels: {title: panel of `pictures` or `plot`}, which hold every key of the frames.
    controls: the names of a key's items. start: the frame shown first, and alone in print and
        without scripts. label: what all of it shows.
    Returns None. Raises ValueError where a key has another length, a panel lacks a frame, choices
    have no frame together, or start is none.
    """
    for key in frames:
        if len(key) != len(controls):
            raise ValueError(f"a key needs {len(controls)} items, {controls}, got {key}")
    lists = [list(dict.fromkeys(items)) for items in zip(*frames, strict=True)]
    chosen = {key[:-1] for key in frames}
    if len(chosen) != np.prod([len(values) for values in lists[:-1]]):
        raise ValueError(f"each choice needs a frame with each other, got {sorted(chosen)}")
    for title, panel in panels.items():
        for part in {"sources", "marks"} & set(panel):
            if lacking := [key for key in frames if key not in panel[part]]:
                raise ValueError(f"panel {title!r} lacks the frame {lacking[0]}")
    if start not in frames:
        raise ValueError(f"start must be one of the frames, got {start}")
    plots = [panel for panel in panels.values() if "marks" in panel]
    sources = list(dict.fromkeys(s for panel in panels.values() for s in panel["sources"].values()))
    number = {source: place for place, source in enumerate(sources)}
    data = {
        "sources": sources,
        "titles": list(panels),
        "frames": [
            {
                "key": [_text(item) for item in key],
                "told": told,
                "shown": [number[panel["sources"][key]] for panel in panels.values()],
                "marks": [_thousandths(panel, key) for panel in plots],
            }
            for key, told in frames.items()
        ],
    }
    boxes = "\n".join(_panel(title, panel, start, frames[start]) for title, panel in panels.items())
    menus = "\n".join(map(_menu, controls[:-1], lists[:-1], start[:-1]))
    name = html.escape(controls[-1])
    # no <output>, which the label would name in place of the slider
    slider = f'<label>{name} <span class="value"></span><input type="range" min="0"></label>'
    display(
        {
            "text/html": f"""<div class="frames" role="group" aria-label="{html.escape(label)}"
data-start="{list(frames).index(start)}">
<div class="panels">
{boxes}
</div>
<div class="controls" hidden>
{menus}
{slider}
</div>
<p class="told" aria-live="polite">{html.escape(frames[start])}</p>
<script type="application/json">{_json(data)}</script>
</div>""",
            "text/plain": f"{label}: {len(frames)} frames, by {', '.join(controls)}",
        },
        raw=True,
    )


def wipe(images: Mapping[str, Array], *, left: str, right: str, scale: int = 2) -> None:
    """Show two images on top of each other, divided by a handle; either is chosen from a list.

    images: {title: image as in `pictures`}, of one shape. left, right: titles of those shown first,
        and alone in print and without scripts. scale: as in `pictures`.
    Returns None. Raises ValueError where left or right is no title, or shapes differ.
    """
    if absent := {left, right} - set(images):
        raise ValueError(f"left and right must be titles, {list(images)}, got {sorted(absent)}")
    shapes = {title: tuple(np.squeeze(np.asarray(image)).shape) for title, image in images.items()}
    if len(set(shapes.values())) > 1:
        raise ValueError(f"images must have one shape, got {shapes}")
    sources = {title: _webp(image) for title, image in images.items()}
    shown = "".join(
        f'<img src="{sources[title]}" alt="{html.escape(title)}">' for title in (right, left)
    )
    width = scale * shapes[left][-1]
    menus = "".join(
        _menu(side, list(images), title) for side, title in (("left", left), ("right", right))
    )
    display(
        {
            "text/html": f"""<div class="compare" role="group" \
aria-label="Any two of {len(images)} pictures, divided by a handle" style="max-width: {width}px">
<div>{shown}</div>
<input type="range" min="0" max="100" value="50" aria-label="Share that shows the left picture"
oninput="this.parentNode.style.setProperty('--cut', this.value + '%')">
<p><span>{html.escape(left)}</span><span>{html.escape(right)}</span></p>
<div class="controls" hidden>{menus}</div>
<script type="application/json">{_json(sources)}</script></div>""",
            "text/plain": " | ".join(images),
        },
        raw=True,
    )


def loupe(
    images: Mapping[Key, Mapping[str, Array]],
    *,
    controls: Sequence[str],
    start: Key,
    label: str,
    side: int = 40,
) -> None:
    """Show images side by side, and of each the same square, magnified, which a reader moves.

    images: {key: {title: image as in `pictures`}}, of one shape and the same titles for one key; an
        item of a key is a choice from a list. controls: the names of a key's items. start: the key
        shown first, and alone in print and without scripts, with the square in the middle.
    label: what all of it shows. side: of the square, pixels; no larger than the images.
    Returns None. Raises ValueError where start is no key, titles or shapes differ, or side is too
    large.
    """
    if start not in images:
        raise ValueError(f"start must be one of the keys, got {start}")
    titles = list(images[start])
    number: dict[str, int] = {}  # of each source, which is kept once
    views = []
    for key, panels in images.items():
        shapes = {np.squeeze(np.asarray(panel)).shape[-2:] for panel in panels.values()}
        if list(panels) != titles or len(shapes) != 1:
            raise ValueError(f"images of {key} must have one shape and be {titles}, got {shapes}")
        ((height, width),) = shapes
        if side > min(height, width):
            raise ValueError(f"side must be at most {min(height, width)}, got {side}")
        shown = [number.setdefault(_webp(panel), len(number)) for panel in panels.values()]
        key_texts = [_text(item) for item in key]
        views.append({"key": key_texts, "shown": shown, "shape": [height, width]})
    sources = list(number)
    first = views[list(images).index(start)]
    height, width = first["shape"]
    square = f"{(width - side) / 2} {(height - side) / 2} {side} {side}"
    boxes = "\n".join(
        f"""<div><p>{html.escape(title)}</p>
<div class="picture"><img src="{source}" alt="{html.escape(title)}"><i></i></div>
<svg viewBox="{square}" role="img" aria-label="{html.escape(title)}, a square of it magnified">\
<image href="{source}" width="{width}" height="{height}"/></svg></div>"""
        for title, source in zip(titles, map(sources.__getitem__, first["shown"]), strict=True)
    )
    lists = [list(dict.fromkeys(items)) for items in zip(*images, strict=True)]
    menus = "\n".join(map(_menu, controls, lists, start))
    sliders = "\n".join(
        f'<label>{way} <input type="range" min="0" max="100" value="50"></label>'
        for way in ("across", "down")
    )
    place = f"--side: {side}; --height: {height}; --width: {width}; --across: 0.5; --down: 0.5"
    display(
        {
            "text/html": f"""<div class="loupe" role="group" aria-label="{html.escape(label)}"
style="{place}" data-start="{list(images).index(start)}">
<div class="panels">
{boxes}
</div>
<div class="controls" hidden>
{menus}
{sliders}
</div>
<script type="application/json">{_json({"sources": sources, "titles": titles, "views": views})}\
</script>
</div>""",
            "text/plain": f"{label}: {', '.join(titles)}",
        },
        raw=True,
    )


def _panel(title, panel, key, told):
    """One panel as it stands before a script runs."""
    alt = html.escape(f"{title}: {told}")
    image = f'<img src="{panel["sources"][key]}" alt="{alt}">'
    if panel["kind"] == "plot":
        width, height = panel["width"], panel["height"]
        high = round(1000 * height / width)
        radius = round(1000 * panel["radius"] / width, 1)
        flat = _thousandths(panel, key)
        dots = "".join(
            f'<circle cx="{x}" cy="{y}" r="{radius}"/>'
            for x, y in zip(flat[::2], flat[1::2], strict=True)
        )
        look = f'viewBox="0 0 1000 {high}" fill="{panel["colour"]}" fill-opacity="0.8"'
        image += f'<svg {look} aria-hidden="true">{dots}</svg>'
    box = f'<div class="{panel["kind"]}">{image}</div>'
    return f'<div style="width: {panel["width"]}px"><p>{html.escape(title)}</p>{box}</div>'


def _menu(name, values, chosen):
    """A list to choose from."""
    options = "".join(
        f"<option{' selected' * (value == chosen)}>{html.escape(_text(value))}</option>"
        for value in values
    )
    return f"<label>{html.escape(name)} <select>{options}</select></label>"


def _thousandths(panel, key):
    """The marks of a frame, x and y in turn, in thousandths of the plot's width."""
    high = panel["height"] / panel["width"]
    places = panel["marks"][key] * [1000, 1000 * high]
    return places.round().astype(int).flatten().tolist()


def _json(data):
    """Data for a script element of a page: no end of it may stand in them."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")


def _text(item):
    return f"{item:g}" if isinstance(item, float) else str(item)


def _webp(panel):
    """An image without loss, as an address that holds it."""
    values = np.squeeze(np.asarray(panel, dtype=float)).clip(0, 1)
    if values.ndim == 3:
        values = np.moveaxis(values, 0, -1)
    stream = io.BytesIO()
    image = Image.fromarray((255 * values).round().astype(np.uint8)).convert("RGB")
    # quality=100 takes up to a hundred times as long for 2 %
    image.save(stream, "webp", lossless=True, quality=90, method=6)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"


def _svg(figure):
    """A figure as an address that holds it, whole, so that its own coordinates stay; closed."""
    stream = io.BytesIO()
    figure.savefig(stream, format="svg", metadata={"Date": None}, facecolor="white")
    plt.close(figure)
    return f"data:image/svg+xml;base64,{base64.b64encode(stream.getvalue()).decode()}"
