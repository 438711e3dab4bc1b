"""The form of a page: what it offers, and what the values that come back mean."""

import json
import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from companion import notebooks, sweep
from companion.build import given
from companion.errors import UsageError, known, nearest
from companion.files import named, of_user
from companion.markdown import duration
from companion.notebooks import (
    Notebook,
    Parameter,
    is_path,
    load,
    of_profile,
    of_texts,
    read_profiles,
)
from companion.run import Plan, settle, times
from companion.section import beside_profile
from companion.serve.uploads import UPLOADS

MOST_VALUES, MOST_POINTS = 50, 500  # of an axis, of a sweep
_PAPER = re.compile(r"\(([^()]*:[^()]*)\)")  # as in (paper: 100)
_RANGE = re.compile(r"(?P<low>[^:,]+):(?P<high>[^:,]+):(?P<count>[^:,]+?)(?P<log> +log)?")


class FormError(UsageError):
    """Values that cannot be run; `fields` has a line for each parameter that is wrong."""

    def __init__(self, fields: dict[str, str]) -> None:
        """fields: {parameter: message}."""
        super().__init__("; ".join(f"{name}: {told}" for name, told in fields.items()))
        self.fields = fields


@dataclass(frozen=True)
class Served:
    """What a server was started with."""

    root: Path
    folders: tuple[Path, ...] = ()  # whose files a form may name
    profile: str | None = None  # of the forms, that of the built page if None
    device: str | None = None


def described(served: Served, name: str) -> dict[str, Any]:
    """What the form of a page shows.

    Returns {"notebook", "title", "profile", "profiles": {profile: {parameter: text}}, "times":
    {profile: text}, "parameters": [{"name", "type", "meaning", "placeholder", "choices", "path",
    "new", "numeric", "upload"}], "folders": whether there are any, "changed": whether the notebook
    is no longer the one of the built page, "built": its profile}.
    Raises UsageError as `load` does.
    """
    notebook = load(served.root, name)
    built = built_profile(served.root, name)
    profiles = {}
    for profile in read_profiles(served.root):
        values = _preset(served, notebook, profile)
        profiles[profile] = {key: shown(value) for key, value in values.items()}
    took = times(Plan(served.root, notebook, "", {}, ""))
    source = served.root / "book" / "sections" / "files" / f"{name}.md"
    return {
        "notebook": name,
        "title": notebook.title,
        "profile": served.profile or built,
        "profiles": profiles,
        "times": {profile: duration(seconds) for profile, seconds in took.items()},
        "parameters": [_field(parameter) for parameter in notebook.parameters.values()],
        "folders": bool(served.folders),
        "changed": not source.is_file() or source.read_bytes() != notebook.path.read_bytes(),
        "built": built,
    }


def built_profile(root: Path, name: str) -> str:
    """The profile at which the page of a notebook was built."""
    return built_run(root, name)["profile"]


def built_run(root: Path, name: str) -> dict[str, Any]:
    """What the built page of a notebook tells of its run: its profile, key, parameters, records.

    Raises UsageError where the page is not built.
    """
    path = root / "book" / "sections" / "files" / f"{name}.ipynb"
    try:
        return json.loads(path.read_text(encoding="utf-8"))["metadata"]["companion"]
    except (OSError, ValueError, LookupError) as error:
        raise UsageError(f"the page {name} is not built: first companion build") from error


def settled(
    served: Served, name: str, profile: str, texts: dict[str, str]
) -> tuple[list[Plan], list[str]]:
    """Settle what a form asks for.

    profile: name; texts: {parameter: text of its field}, those of the profile may be left out. A
        field of a number may hold several: `0.1, 1, 10`, or `0.1:10:3 log`, three from .1 to 10
        that are evenly spaced in their logarithm, without `log` in themselves.
    Returns (plans, axes), the axes as `sweep.points` takes them; a run is one plan without axes.
    Raises FormError with a line for each field that is wrong, and for unknown names.
    """
    notebook = load(served.root, name)
    known("profile", profile, list(read_profiles(served.root)))
    preset = _preset(served, notebook, profile)
    wrong, values, grid = {}, {}, {}
    for key, text in texts.items():
        if key not in notebook.parameters:
            wrong[key] = f"no parameter of {name}; {nearest(key, list(preset))}".rstrip("; ")
            continue
        if preset[key] is not None and text == shown(preset[key]):
            values[key] = text
            continue
        parameter = notebook.parameters[key]
        try:
            several = spread(parameter, text)
            for one in several:
                inside(served, parameter, one)
                _alone(served, notebook, profile, key, one)
        except UsageError as error:
            start = f"parameter {key!r} of {name}: "
            wrong[key] = str(error).removeprefix(start)
        else:
            values[key] = several[0]
            if len(several) > 1:
                grid[key] = several
    for key, value in preset.items():
        if value is None and key not in texts:
            wrong[key] = f"profile {profile!r} leaves it to you: give a value"
    points = math.prod(map(len, grid.values()))
    if points > MOST_POINTS:
        wrong[next(iter(grid))] = f"{points} points, allowed are {MOST_POINTS}"
    if wrong:
        raise FormError(wrong)
    device = given(notebook, [("device", served.device)] if served.device else [])
    overrides = {**dict(device), **values}
    todo = settle(served.root, notebook, profile, overrides)
    if not grid:
        return [todo], []
    other = {key: shown(value) for key, value in beside_profile(todo).items() if key not in grid}
    for key, text in other.items():
        if "," in text and notebook.parameters[key].type == "str":
            raise FormError({key: f"{text!r}: in a sweep a comma would divide it"})
    axes = [f"{key}={','.join(several)}" for key, several in grid.items()]
    axes += [f"{key}={value}" for key, value in other.items()]
    return sweep.points(name, axes, profile, root=served.root)[1], axes


def shown(value: object) -> str:
    """A value as the text of its field."""
    return "" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def spread(parameter: Parameter, text: str) -> list[str]:
    """The values that a field holds, each as a text: several for a number alone.

    Raises UsageError for a range that is none, and for too many values.
    """
    if parameter.type not in ("int", "float"):
        return [text]
    found = _RANGE.fullmatch(text.strip())
    if found is None:
        parts = [part.strip() for part in text.split(",")]
        if len(parts) > MOST_VALUES:
            raise UsageError(f"{len(parts)} values, allowed are {MOST_VALUES}")
        if len(set(parts)) < len(parts):
            raise UsageError(f"{text!r} has a value twice")
        return parts
    wrong = UsageError(f"{text!r} is no range: write LOW:HIGH:COUNT or LOW:HIGH:COUNT log")
    try:
        low, high, count = float(found["low"]), float(found["high"]), int(found["count"])
    except ValueError as error:
        raise wrong from error
    # between the ends of what a float holds there is no finite step
    if not (math.isfinite(high - low) and low < high) or count < 2:
        raise wrong
    if count > MOST_VALUES:
        raise UsageError(f"{count} values, allowed are {MOST_VALUES}")
    if found["log"] and low <= 0:
        raise UsageError(f"{text!r}: a range of logarithms starts above 0")
    if found["log"] and not math.isfinite(high / low):
        raise wrong
    steps = [i / (count - 1) for i in range(count)]
    if found["log"]:
        values = [low * (high / low) ** step for step in steps]
    else:
        values = [low + (high - low) * step for step in steps]
    if parameter.type == "int":
        return list(dict.fromkeys(str(round(value)) for value in values))
    return [f"{value:.6g}" for value in values]


def inside(served: Served, parameter: Parameter, text: str) -> None:
    """Raise UsageError for a path outside of the folders of a server; names of choices are none.

    text: of one value. Nothing tells whether there is something at such a path.
    """
    told = of_texts(parameter)
    for one in _paths(parameter, text):
        if not (told["new"] or is_path(parameter, one)):
            continue
        folders = [*served.folders, served.root / UPLOADS]
        # a home is not looked up for what no path can be
        typed = one if "\0" in one else of_user(one, served.root, new=told["new"])
        found = _within(served.root / typed, folders)  # before a pattern is looked at
        if not found or not all(_within(path, folders) for path in named(typed, served.root)):
            where = ", ".join(map(str, served.folders)) or "none"
            raise UsageError(
                f"{one!r} lies outside of the folders that this server was given (--folder): "
                f"{where}"
            )


def listing(served: Served, folder: str) -> dict[str, Any]:
    """The files and folders of a folder that may be named in a form.

    folder: path, "" for the folders that the server was given.
    Returns {"folder", "above": path or None, "folders": [path], "files": [path]}; hidden ones and
    those that lead elsewhere are left out. Raises UsageError for a folder outside.
    """
    if not folder:
        return {"folder": "", "above": None, "folders": list(map(str, served.folders)), "files": []}
    path = Path(folder)
    # os.path: what cannot be looked at, by its name or its rights, is none
    if not (path.is_absolute() and _within(path, served.folders) and os.path.isdir(path)):
        raise UsageError(f"{folder!r} is no folder inside of those that this server was given")
    try:
        names = sorted(os.listdir(path))
    except OSError as error:
        raise UsageError(f"{folder!r} cannot be listed: {error.strerror}") from error
    above = str(path.parent) if _within(path.parent, served.folders) else ""
    seen = [path / name for name in names if not name.startswith(".")]
    seen = [one for one in seen if _within(one, served.folders)]
    return {
        "folder": str(path),
        "above": above,
        "folders": [str(one) for one in seen if os.path.isdir(one)],
        "files": [str(one) for one in seen if os.path.isfile(one)],
    }


def _preset(served: Served, notebook: Notebook, profile: str) -> dict[str, Any]:
    """The values of a profile on the server's device; None where it leaves one to the user."""
    values = of_profile(served.root, notebook, profile)
    if served.device and "device" in values:
        values["device"] = served.device
    return values


def _field(parameter):
    paper, told = _PAPER.search(parameter.meaning), of_texts(parameter)
    return {
        "name": parameter.name,
        "type": parameter.type,
        "meaning": parameter.meaning,
        "placeholder": paper[1] if paper else "",
        "numeric": parameter.type in ("int", "float"),
        "upload": told["path"] and bool(re.search(r"\bfile\b", parameter.meaning)),
        **told,
    }


def _alone(served, notebook, profile, name, text):
    """Settle one value; those that the profile leaves to the user are the other fields'."""
    values = of_profile(served.root, notebook, profile)
    left = {key: notebook.parameters[key].default for key, v in values.items() if v is None}
    notebooks.resolve(served.root, notebook, profile, {**left, name: text})


def _paths(parameter, text):
    """The texts in a value that may be paths."""
    if parameter.type == "str":
        return [text] if text else []
    if parameter.type == "list":
        try:
            value = notebooks.convert(replace(parameter, meaning=""), text)
        except ValueError:  # which the check of its type tells
            return []
        return [one for one in value if isinstance(one, str) and one]
    return []


def _within(path: Path, folders: Iterable[Path]) -> bool:
    """Whether a path, behind its links, lies in one of the folders, or is one."""
    try:
        real = os.path.realpath(path)
    except ValueError:  # a null character in it
        return False
    return any(
        os.path.commonpath([real, os.path.realpath(folder)]) == os.path.realpath(folder)
        for folder in folders
    )
