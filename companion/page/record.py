"""Numbers worth quoting: a notebook records them, the pipeline reads them back."""

import math
from collections.abc import Sequence
from typing import Any, Literal, get_args

from companion.files import INFINITE, numbers, plain

# The prefix keeps the output off the page while MyST's `glue` roles still find it.
_MIME = "application/papermill.record/"
Better = Literal["", "higher", "lower"]
_BETTER = get_args(Better)


def record(
    name: str,
    value: Any,
    unit: str = "",
    better: Better = "",
    interval: Sequence[float] | None = None,
) -> None:
    """Record a number, a truth value or a word under a name, from inside a notebook.

    name: identifier, once a notebook, e.g. "psnr_semi".
    value: bool, int, float or str; a numpy or torch scalar (0-d) is converted by `.item()`.
    unit: text shown behind the value, "" for none.
    better: "higher", "lower", or "" where neither is better.
    interval: (low, high) of a number that images or seeds make uncertain, at the level of
        `intervals`; a claim on it is undecided where its bound lies between.
    Returns None: one display output, not shown on the page, holds the record.
    Raises ValueError for a bad name, an array, a NaN, another `better`, an interval of a text or
    one that does not hold the value.
    """
    if not (isinstance(name, str) and name.isidentifier()):
        raise ValueError(f"record name {name!r} is not an identifier, e.g. psnr_semi")
    if better not in _BETTER:
        raise ValueError(f"record {name}: better={better!r}, allowed: {_BETTER}")
    if not isinstance(unit, str):
        raise ValueError(f"record {name}: unit={unit!r} is not a text")
    value = _plain(name, value)
    told = {"value": plain(value), "unit": unit, "better": better}
    if interval is not None:
        told["interval"] = [plain(end) for end in _interval(name, value, interval)]

    from IPython.display import display  # late: only notebooks need it

    display(
        # repr, because the glue roles read the text back as a Python literal
        {_MIME + "text/plain": repr(value)},
        raw=True,
        metadata={
            "scrapbook": {"name": name, "mime_prefix": _MIME},
            "record": told,
        },
    )


def collect(nb: Any) -> dict[str, dict[str, Any]]:
    """Read the records of an executed notebook.

    nb: notebook as a mapping (nbformat node or parsed .ipynb).
    Returns {name: {"value", "unit", "better"}}, "interval" too where it has one, sorted by name.
    Raises ValueError where a name was recorded twice.
    """
    found = {}
    for cell in nb["cells"]:
        for output in cell.get("outputs", ()):
            metadata = output.get("metadata", {})
            if "record" not in metadata:
                continue
            name = metadata["scrapbook"]["name"]
            if name in found:
                raise ValueError(f"record {name!r} is made twice; a name belongs to one number")
            found[name] = metadata["record"]
    return numbers(dict(sorted(found.items())))


def _interval(name, value, interval):
    low, high = (_plain(name, end) for end in interval)
    texts = isinstance(value, bool | str) or any(isinstance(x, bool | str) for x in (low, high))
    if texts or not low <= value <= high:
        raise ValueError(f"record {name}: interval {low} to {high} does not hold the value {value}")
    return low, high


def _plain(name, value):
    if getattr(value, "ndim", 0) != 0:
        raise ValueError(f"record {name}: {tuple(value.shape)} array, allowed: one number")
    if hasattr(value, "item"):
        value = value.item()
    if not isinstance(value, bool | int | float | str):
        raise ValueError(f"record {name}: {type(value).__name__}, allowed: bool, int, float or str")
    if isinstance(value, float) and math.isnan(value):
        raise ValueError(f"record {name}: nan is no number, allowed: a number, inf or -inf")
    if value in INFINITE:  # what a file says of infinity: a reader would take the word for it
        raise ValueError(f"record {name}: the text {value!r}, allowed: any other text, or a float")
    return value
