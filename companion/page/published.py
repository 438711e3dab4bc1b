"""The numbers that the documents print: book/published/, one file a document."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from companion.errors import UsageError, known
from companion.files import project_root, read_yaml
from companion.markdown import number


def published(document: str, root: Path | None = None) -> dict[str, Any]:
    """Read the numbers that a document prints.

    document: its key in book/references.bib, such as "mignon2023". root: project folder; None for
        the one around, or for the installed package, which carries the folder.
    Returns nested dicts, with numbers or lists of numbers at their ends; a key is a name or, such
    as an alpha, a number. `columns` tells unit and decimals by a number's last name.
    Raises UsageError for a document without such a file, and for a file that holds none.
    """
    if root is None:
        try:
            root = project_root()
        except UsageError:
            root = Path(__file__).parents[1]  # which has book/published/ inside, see pyproject.toml
    folder = root / "book" / "published"
    known("document in book/published", document, sorted(p.stem for p in folder.glob("*.yml")))
    where = f"book/published/{document}.yml"
    numbers = read_yaml(folder / f"{document}.yml", where)
    if not (isinstance(numbers, dict) and isinstance(numbers.get("columns"), dict)):
        raise UsageError(f"{where} must be a mapping of numbers, its key `columns` another")
    return numbers


def leaves(numbers: Any) -> Iterator[tuple[tuple[str | float, ...], float]]:
    """Each (path, number) of what `published` returns, but for how the columns are shown."""
    for key, inside in numbers.items():
        if key != "columns":
            yield from _below(inside, (key,))


def cell(numbers: dict[str, Any], path: Sequence[str | float]) -> float:
    """One number of `published`.

    numbers: what that returns. path: list of keys from the outermost to the number's own.
    Returns it. Raises UsageError where no number has that path.
    """
    found: Any = numbers
    for depth, key in enumerate(path):
        here = found if isinstance(found, dict) else {}
        if here and key not in here:
            known(f"key {depth + 1} of the published number {path}", str(key), list(map(str, here)))
        found = here.get(key)
    if not isinstance(found, int | float):
        raise UsageError(f"published number {path}: the path does not end at a number")
    return found


def shown(
    numbers: dict[str, Any],
    path: Sequence[str | float],
    less: Sequence[str | float] | None = None,
    over: Sequence[str | float] | None = None,
) -> tuple[float, str]:
    """One number, or how it compares with another, as the document prints numbers.

    numbers, path: as for `cell`. less: path of a number to subtract. over: path of a divisor.
    Returns (value, text).
    """
    column = numbers["columns"].get(path[-1], {})
    unit = f" {column['unit']}" if "unit" in column else ""

    def told(value, sign=""):
        places = column.get("decimals")
        return number(value) if places is None else f"{value:{sign}.{places}f}"

    value = cell(numbers, path)
    if less is not None:
        other = cell(numbers, less)
        # the rounding of floats must not decide at the edge of a tolerance
        value, first = round(value - other, column.get("decimals", 12)), value
        return value, f"{told(value, '+')}{unit} = {told(first)} - {told(other)}"
    if over is not None:
        other = cell(numbers, over)
        return value / other, f"{value / other:.3g} = {told(value)} / {told(other)}"
    return value, f"{told(value)}{unit}"


def _below(inside, path):
    if isinstance(inside, dict):
        for key, more in inside.items():
            yield from _below(more, (*path, key))
    else:
        yield path, inside
