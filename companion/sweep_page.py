"""The page of the book that shows a sweep: a plot and a table for each record that varies."""

import hashlib
import io
import itertools
import json
import math
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from companion.files import numbers, write_aside
from companion.markdown import number, table
from companion.notebooks import load

SEED = "seed"  # its values are drawn together, as mean and spread


def write(root: Path, out: Path) -> Path:
    """Write book/sections/sweeps/NAME-HASH.md, its plots beside it, from the results of a sweep.

    root: project folder. out: folder of the results, see `sweep.sweep`.
    Returns the path; the next `companion build` takes the page up.
    """
    told, results = read(out)
    page = root / "book" / "sections" / "sweeps" / f"{told['notebook']}-{_digest(told)}.md"
    write_aside(page.with_suffix("") / "table.csv", (out / "table.csv").read_bytes())
    grid, lines = told["grid"], _head(root, told, results, page.stem)
    moved = varying(told, results)
    fixed = [record for record in _records(results) if record not in moved]
    for record, values in moved.items():
        label, better = _label(results, record)
        lines += ["", f"## `{record}`", ""]
        plot = drawn(told, results, record)
        if plot is not None:
            write_aside(page.with_suffix("") / f"{record}.svg", plot)
            lines += [
                f":::{{figure}} {page.stem}/{record}.svg",
                f":alt: {label} over {', '.join(_axes(grid))}; the table below has its values.",
                f"{label}{better}. The band is one standard deviation over the seeds."
                + " Where a value is infinite the line has a gap." * bool(np.isinf(values).any()),
                ":::",
                "",
            ]
        lines += [":::{admonition} Values", ":class: dropdown", ""]
        lines += [*_rows(grid, values, label), ":::"]
    if fixed:
        lines += ["", f"The same at every point, or no number: {_names(fixed)}."]
    write_aside(page, "\n".join(lines) + "\n")
    return page


def read(out: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the folder of a sweep holds as yet: sweep.json, and the results of its points."""
    told = json.loads((out / "sweep.json").read_text(encoding="utf-8"))
    name, results = told["notebook"], []
    for point in told["points"]:
        if point["status"] == "done":
            path = out / "points" / point["key"][:16] / f"{name}.json"
            result = json.loads(path.read_text(encoding="utf-8"))
            results.append({**result, "records": numbers(result["records"])})
    return told, results


def varying(told: dict[str, Any], results: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    """The records that are numbers and not the same everywhere, on the grid, the seeds last.

    told, results: of `read`. NaN stands where there is none.
    """
    found = {}
    for record in _records(results):
        values = _values(told["grid"], results, record)
        if values is not None and np.unique(values[~np.isnan(values)]).size > 1:
            found[record] = values
    return found


def drawn(told: dict[str, Any], results: list[dict[str, Any]], record: str) -> bytes | None:
    """The SVG of a record of `varying`; None where no axis of the grid can be drawn along."""
    values = _values(told["grid"], results, record)
    return _plot(told["grid"], values, _label(results, record)[0])


def command(name: str, profile: str, grid: dict[str, list]) -> list[str]:
    """The words of the command that makes a sweep."""
    words = ["companion", "sweep", name, "--profile", profile]
    for key, values in grid.items():
        if key == SEED and values == list(range(len(values))):
            words += ["--seeds", str(len(values))]
        else:
            words += ["--grid", f"{key}={','.join(map(str, values))}"]
    return words


def _records(results):
    return dict.fromkeys(record for result in results for record in result["records"])


def _label(results, record):
    """What stands at the axis of a record, and which direction is better, in brackets."""
    about = next(result["records"][record] for result in results if record in result["records"])
    label = f"{record}, {about['unit']}" if about["unit"] else record
    return label, f" ({about['better']} is better)" if about["better"] else ""


def _digest(told):
    """So that one sweep has one page, whatever the code was."""
    what = [told[key] for key in ("notebook", "profile", "grid")]
    return hashlib.sha256(json.dumps(what, sort_keys=True).encode()).hexdigest()[:8]


def _head(root, told, results, stem):
    name, grid = told["notebook"], told["grid"]
    notebook = load(root, name)
    done, all_ = len(results), math.prod(map(len, grid.values()))
    devices = sorted({result["provenance"]["device"] for result in results})
    dates = sorted({result["provenance"]["date"][:10] for result in results})
    rows = [
        (f"`{key}`", ", ".join(f"`{value}`" for value in values), notebook.parameters[key].meaning)
        for key, values in grid.items()
    ]
    return [
        f"# {notebook.title}: a sweep over {', '.join(_axes(grid) or grid)}",
        "",
        f"The page {{doc}}`/sections/{name}` at each point of a grid, the other parameters as at "
        f"profile `{told['profile']}`: {done} of {all_} points, "
        f"{' to '.join(dates[:: max(1, len(dates) - 1)])}, {', '.join(devices)}.",
        "",
        *table(("Parameter", "Values", "Meaning"), rows),
        "",
        "```bash",
        shlex.join([*command(name, told["profile"], grid), "--page"]),
        "```",
        "",
        f"All points: {{download}}`table.csv <{stem}/table.csv>`.",
    ]


def _axes(grid):
    """The parameters of the grid without the seed."""
    return [key for key in grid if key != SEED]


def _values(grid, results, record):
    """A record on the grid, the seeds last: an array, NaN where there is none; None for texts."""
    axes = _axes(grid)
    shape = [len(grid[key]) for key in axes] + [len(grid.get(SEED, [0]))]
    values = np.full(shape, np.nan)
    for result in results:
        if record not in result["records"]:
            continue
        value = result["records"][record]["value"]
        if isinstance(value, str):
            return None
        place = [grid[key].index(result["parameters"][key]) for key in axes]
        seed = grid[SEED].index(result["parameters"][SEED]) if SEED in grid else 0
        values[(*place, seed)] = value
    return values


def _plot(grid, values, label):
    """An SVG: the record over the first axis of numbers, a line for each point of the others."""
    axes = _axes(grid)
    along = next((i for i, key in enumerate(axes) if _numeric(grid[key])), None)
    if along is None:
        return None
    from matplotlib.figure import Figure  # not of pyplot: a server draws beside its main thread

    from companion.page import figures

    x = np.array(grid[axes[along]], dtype=float)
    order = np.argsort(x)
    others = [key for i, key in enumerate(axes) if i != along]
    series = {}
    moved = np.moveaxis(values, along, -2)
    for place in itertools.product(*(range(len(grid[key])) for key in others)):
        key = ", ".join(f"{o}={grid[o][i]}" for o, i in zip(others, place, strict=True))
        key = key.replace("$", r"\$")  # a path is no formula
        series[key or label] = moved[place][order]
    log = x.min() > 0 and x.max() >= 10 * x.min()
    figure = Figure(figsize=(6.4, 3.4))
    axis = figure.subplots()
    figures.curves(series, x[order], xlabel=axes[along], ylabel=label, ax=axis, log=log)
    stream = io.BytesIO()
    style: dict[str, Any] = {
        "metadata": {"Date": None},
        "facecolor": "white",
        "bbox_inches": "tight",
    }
    figure.savefig(stream, format="svg", **style)
    return stream.getvalue()


def _numeric(values):
    """Whether an axis can be drawn: two finite numbers or more."""
    finite = [type(v) in (int, float) and math.isfinite(v) for v in values]
    return len(values) > 1 and all(finite)


def _rows(grid, values, label):
    axes = _axes(grid)
    rows = []
    for place in itertools.product(*(range(len(grid[key])) for key in axes)):
        found = values[place][~np.isnan(values[place])]
        finite = np.isfinite(found).all()  # else there is no mean: all that occurs is told
        spread = number(float(found.std())) if found.size > 1 and finite else "–"
        told = found.mean(keepdims=True) if found.size and finite else found
        mean = ", ".join(dict.fromkeys(number(float(value)) for value in told)) or "–"
        point = [f"`{grid[key][i]}`" for key, i in zip(axes, place, strict=True)]
        rows.append((*point, mean, spread, found.size))
    head = (*(f"`{key}`" for key in axes), f"mean of {label}", "standard deviation", "seeds")
    return table(head, rows)


def _names(names):
    return ", ".join(f"`{name}`" for name in names)
