"""Run a notebook at every point of a grid of parameters; put the results into one table."""

import contextlib
import hashlib
import io
import itertools
import json
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path

from tqdm import tqdm

from companion.cluster import on_gpu, performed
from companion.errors import UsageError
from companion.files import plain, project_root, writable, write_aside
from companion.notebooks import DEFAULT_PROFILE, load, seen, setting
from companion.run import Plan, export, finished, settle

_OFTEN = 1  # seconds between two writes of sweep.json
_NFS = 60  # seconds after which a shared filesystem shows what a worker wrote


def points(
    name: str,
    axes: Iterable[str],
    profile: str = DEFAULT_PROFILE,
    seeds: int | None = None,
    root: Path | None = None,
) -> tuple[dict[str, list], list[Plan]]:
    """Settle the points of a sweep without starting it.

    name: notebook; axes: texts `parameter=value,value,...`, the grid is their product; a list is
        written with its brackets; profile: name; seeds: number of seeds 0, 1, ... at each point;
        root: project folder, found from the working folder if None.
    Returns ({parameter: values}, list of Plan).
    Raises UsageError as `load` does, and one that lists all that is wrong with the axes.
    """
    root = root or project_root()
    notebook = load(root, name)
    grid: dict[str, list] = {}
    mistakes = []
    if seeds:
        axes = [*axes, "seed=" + ",".join(map(str, range(seeds)))]
    if not axes:
        raise UsageError("a sweep needs --grid PARAMETER=VALUE,VALUE or --seeds N")
    for axis in axes:
        parameter, sign, text = axis.partition("=")
        if not sign:
            mistakes.append(f"{axis!r} is not PARAMETER=VALUE,VALUE")
        elif parameter in grid:
            mistakes.append(f"parameter {parameter!r} is given twice")
        grid[parameter] = []
        for value in _split(text) if sign else ():
            try:
                given = setting(notebook, parameter, value)
                grid[parameter].append(seen(given, notebook.parameters[parameter], root))
            except UsageError as error:
                mistakes.append(str(error))
                if parameter not in notebook.parameters:
                    break  # each of its values is as wrong
        if any(grid[parameter].count(value) > 1 for value in grid[parameter]):
            mistakes.append(f"parameter {parameter!r} has a value twice: {text}")
    if mistakes:
        raise UsageError("; ".join(dict.fromkeys(mistakes)))
    combinations = itertools.product(*grid.values())
    plans = [
        settle(root, notebook, profile, dict(zip(grid, values, strict=True)))
        for values in combinations
    ]
    return grid, plans


def folder_of(plans: list[Plan]) -> Path:
    """Where the results of a sweep are kept if nothing else is said."""
    digest = hashlib.sha256("".join(todo.key for todo in plans).encode()).hexdigest()
    name = f"{plans[0].notebook.name}-{digest[:16]}"
    return plans[0].root / ".companion" / "sweeps" / name


def sweep(
    grid: dict[str, list],
    plans: list[Plan],
    connect: Callable[[bool], AbstractContextManager],
    out: Path | None = None,
) -> tuple[Path, list[dict]]:
    """Run the points that are not run yet and gather the results of all.

    grid, plans: from `points`. connect: function of whether a GPU is needed, gives a context
        manager with a Dask client, see `cluster`; called only if there is something to run.
    out: folder of the results, by default that of `folder_of`: sweep.json, table.csv,
        table.parquet, and points/KEY16/ with NAME.ipynb and NAME.json, or with the notebook alone
        of a point that failed.
    Returns (out, [{"parameters", "key", "status": done or failed, "error"}]) in the order of plans.
    Raises UsageError before anything runs, OSError where results cannot be kept, RunFailed where
    the cluster is lost.
    """
    import pyarrow  # noqa: F401  where it is missing this is the time to say so

    first = plans[0]
    out = out or folder_of(plans)
    for folder in (out, first.folder.parent):
        writable(folder)
    settled = {}

    def keep(todo, result, error=None):
        key = todo.key[:16]
        if result is not None:
            export(todo.folder, todo.notebook.name, out / "points" / key)
        entry = {"parameters": plain(todo.parameters), "key": todo.key}
        entry |= {"status": "failed", "error": error} if error else {"status": "done"}
        settled[todo.key] = entry, todo.parameters, result

    waiting, failed = [], lambda todo: out / "points" / todo.key[:16]
    for todo in plans:
        result = finished(todo)
        keep(todo, result) if result is not None else waiting.append(todo)
    label = f"{first.notebook.name}, {len(settled)} of {len(plans)} reused"
    try:
        with (
            connect(on_gpu(waiting)) if waiting else contextlib.nullcontext() as client,
            tqdm(total=len(plans), initial=len(settled), desc=label, unit="point") as bar,
        ):
            written = time.monotonic()
            for todo, error in performed(client, waiting, failed) if waiting else ():
                result = None if error else _awaited(todo)
                if not (error or result):
                    error = "its result is not seen here: the workers need the project's folder"
                keep(todo, result, error)
                failures = sum(entry["status"] == "failed" for entry, *_ in settled.values())
                bar.set_postfix_str(f"{failures} failed", refresh=False)
                bar.update()
                if time.monotonic() > written + _OFTEN:
                    _write(out, first, grid, plans, settled)
                    written = time.monotonic()
    finally:
        _write(out, first, grid, plans, settled)
    return out, [settled[todo.key][0] for todo in plans]


def _awaited(todo):
    """The finished run of a worker, as soon as the filesystem shows it; None if it does not."""
    until = time.monotonic() + _NFS
    while (result := finished(todo)) is None and time.monotonic() < until:
        time.sleep(0.5)
    return result


def _write(out, first, grid, plans, settled):
    """Write sweep.json and the table of the points that have ended."""
    ended = [settled[todo.key] for todo in plans if todo.key in settled]
    content = {
        "notebook": first.notebook.name,
        "profile": first.profile,
        "grid": plain(grid),
        "points": [entry for entry, *_ in ended],
    }
    write_aside(out / "sweep.json", json.dumps(content, indent=1, allow_nan=False) + "\n")
    rows = [_row(parameters, result) for _, parameters, result in ended]
    for name, data in _tables(rows).items():
        write_aside(out / name, data)


def _row(parameters, result):
    """Parameters, then records; a record of a parameter's name gets a longer one."""
    row = {name: str(v) if isinstance(v, list) else v for name, v in parameters.items()}
    for name, found in (result or {"records": {}})["records"].items():
        row[f"{name}_recorded" if name in parameters else name] = found["value"]
    return row


def _tables(rows):
    """The bytes of table.csv and table.parquet: one row a point, what is missing is empty."""
    import pyarrow
    import pyarrow.csv
    import pyarrow.parquet

    columns = {}
    for name in dict.fromkeys(name for row in rows for name in row):
        values = [row.get(name) for row in rows]
        try:
            columns[name] = pyarrow.array(values)
        except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, OverflowError):  # of several types
            columns[name] = pyarrow.array([None if v is None else str(v) for v in values])
    table, files = pyarrow.table(columns), {}
    for name, write in {
        "table.csv": pyarrow.csv.write_csv,
        "table.parquet": pyarrow.parquet.write_table,
    }.items():
        stream = io.BytesIO()
        write(table, stream)
        files[name] = stream.getvalue()
    return files


def _split(text):
    """Split at the commas that are outside of brackets and quotes."""
    parts, depth, quote = [""], 0, ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"" and depth:
            quote = letter
        depth += (letter in "[(") - (letter in "])") if not quote else 0
        if letter == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += letter
    return parts
