"""Finished runs as files: read them from anywhere, group them by their setting."""

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pydantic

from companion.claims import Number
from companion.errors import UsageError, first_mistake
from companion.files import numbers
from companion.keys import together

PARTS = ("notebook", "profile", "parameters", "records", "provenance")


class _Record(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)
    value: bool | int | Number | str
    unit: str
    better: str
    # infinite ends are texts there, see `files.plain`
    interval: list[Number | Literal["inf", "-inf"]] | None = pydantic.Field(
        default=None, min_length=2, max_length=2
    )


class _Provenance(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(strict=True)
    code: dict[str, str]
    date: str
    device: str
    wall_seconds: float
    commit: str | None
    seed: int | None


class _Result(pydantic.BaseModel):
    """What is relied on in the NAME.json of a run; there is more in it."""

    model_config = pydantic.ConfigDict(strict=True)
    notebook: str
    profile: str
    parameters: dict[str, Any]
    records: dict[str, _Record]
    provenance: _Provenance


@dataclass(frozen=True)
class Setting:
    """Runs of one notebook that differ by their seed alone."""

    path: str  # as given
    notebook: str
    profile: str
    parameters: dict  # without the seed
    code: str  # one hash of it
    runs: tuple  # results, by seed

    @property
    def seeds(self) -> list:
        """The seeds of the runs, in order; None for a notebook without one."""
        return [run["parameters"].get("seed") for run in self.runs]


def read(path: Path | str) -> list[dict]:
    """Read the NAME.json of a finished run, or all those under a folder.

    path: a file, or the folder of a run, of a sweep or of many.
    Returns a list of results, each the content of a NAME.json with its `path`, sorted by it; of a
    sweep the points of its last call, in its order.
    Raises UsageError for a missing path, a folder without runs, a file that was cut off, is no run,
    or does not belong to the notebook beside it.
    """
    path = Path(path)
    if path.is_dir():
        files = sorted(
            file
            for file in path.rglob("*.json")
            if not any(part.startswith(".") for part in file.relative_to(path).parts)
        )
        files = _listed(path, files)
        found = [result for file in files if (result := _read(file)) is not None]
        if not found:
            raise UsageError(f"{path} holds no NAME.json of a finished run")
        return found
    result = _read(path)
    if result is None:
        raise UsageError(f"{path} is not the NAME.json of a finished run")
    return [result]


def settings(path: Path | str) -> list[Setting]:
    """Group the runs under a path by all that is not their seed.

    path: as for `read`. Returns a list of Setting, in the order of the files.
    Raises UsageError as `read` does, and where two runs are of one setting and seed.
    """
    groups: dict[tuple, tuple[dict, dict]] = {}
    for run in read(path):
        parameters = {k: v for k, v in run["parameters"].items() if k != "seed"}
        code = together(run["provenance"]["code"])
        key = (run["notebook"], run["profile"], json.dumps(parameters, sort_keys=True), code)
        seeds = groups.setdefault(key, (parameters, {}))[1]
        seed = run["parameters"].get("seed")
        if seed in seeds:
            raise UsageError(
                f"{seeds[seed]['path']} and {run['path']} are runs of {run['notebook']} with the "
                "same parameters and code: give one of them"
            )
        seeds[seed] = run
    return [
        Setting(
            path=str(path),
            notebook=notebook,
            profile=profile,
            parameters=parameters,
            code=code,
            runs=tuple(seeds[seed] for seed in sorted(seeds, key=lambda s: (s is not None, s))),
        )
        for (notebook, profile, _, code), (parameters, seeds) in groups.items()
    ]


def pictures(run: dict) -> dict[str, dict]:
    """Return the figures of a run's notebook, NAME.ipynb beside its NAME.json.

    run: result from `read`. Returns {name: {"mime", "data", "caption", "alt"}} in the order of the
    page, data being bytes; {} where the notebook is not there.
    """
    path = Path(run["path"]).with_name(f"{run['notebook']}.ipynb")
    if not path.is_file():
        return {}
    found = {}
    for index, cell in enumerate(_cells(path)):
        about = cell["metadata"].get("mystnb", {})
        figure, name = about.get("figure", {}), cell["metadata"].get("name", f"cell-{index + 1}")
        shown = [image for output in cell.get("outputs", ()) if (image := _image(output))]
        for number, (mime, data) in enumerate(shown):
            title = figure.get("name", name) + (f"-{number + 1}" if number else "")
            caption = " ".join(figure.get("caption", "").split())
            alt = about.get("image", {}).get("alt", "") or caption or title
            found[title] = {"mime": mime, "data": data, "caption": caption, "alt": alt}
    return found


def _cells(path):
    """The cells of a notebook file, valid ones."""
    import nbformat  # late: a quarter of a second

    try:
        nb = json.loads(path.read_text(encoding="utf-8"))
        nbformat.validate(nb, version=4)
    except (ValueError, AttributeError, nbformat.ValidationError) as error:
        raise UsageError(f"{path} is damaged: no notebook") from error
    return nb["cells"]


def _listed(folder, files):
    """Those of the files under a folder that count: of a sweep, the points of its last call."""
    try:
        points = json.loads((folder / "sweep.json").read_text(encoding="utf-8"))["points"]
        done = [point["key"][:16] for point in points if point["status"] == "done"]
    except FileNotFoundError:
        return files
    except (ValueError, LookupError, TypeError) as error:
        raise UsageError(f"{folder / 'sweep.json'} is damaged, or not of a sweep") from error
    return sorted(
        (file for file in files if file.parent.name in done),
        key=lambda file: done.index(file.parent.name),
    )


def _read(path):
    """The result in a JSON file with its path; None for a file that tells of something else."""
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"{path} is missing") from error
    except ValueError as error:
        raise UsageError(f"{path} is damaged: not JSON, or cut off") from error
    if not (isinstance(result, dict) and all(part in result for part in PARTS)):
        return None
    try:
        _Result.model_validate(result)
    except pydantic.ValidationError as error:
        place, why = first_mistake(error)
        raise UsageError(f"{path} is no result of a run: {'.'.join(place)}: {why}") from error
    beside = path.with_name(f"{result['notebook']}.ipynb")
    if "notebook_sha256" in result and beside.is_file():
        data = beside.read_bytes()
        whole = hashlib.sha256(data).hexdigest() == result["notebook_sha256"]
        told = json.loads(data)["metadata"].get("companion", {}) if whole else {}
        if any(told.get(part) != result[part] for part in PARTS):
            raise UsageError(f"{path} does not belong to {beside.name} beside it: one was changed")
    return {**result, "records": numbers(result["records"]), "path": str(path)}


def _image(output):
    """MIME type and bytes of the picture that an output shows, or None."""
    data = output.get("data", {})
    if "image/svg+xml" in data:
        return "image/svg+xml", "".join(data["image/svg+xml"]).encode()
    if "image/png" in data:
        return "image/png", base64.b64decode("".join(data["image/png"]))
    return None
