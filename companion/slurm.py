"""The file that describes a SLURM cluster, checked before anything is asked of SLURM."""

import re
from pathlib import Path
from typing import Annotated

import pydantic
import yaml

from companion.errors import UsageError, known
from companion.files import read_yaml

Text = Annotated[str, pydantic.Field(min_length=1)]
Count = Annotated[int, pydantic.Field(strict=True, ge=1)]
Texts = list[Text]
_WALLTIME = r"\d+:[0-5]\d:[0-5]\d|\d+-\d+(:[0-5]\d){0,2}"
_MEMORY = r"\d+(\.\d+)? ?([kMGT]i?B?|B)"
# what a key takes, in words; by its name, else by its type
_ALLOWED = {
    "walltime": "HH:MM:SS or D-HH:MM:SS, such as 02:00:00",
    "memory": "a number with its unit, such as 32GiB",
    "job_mem": "a number with its unit, such as 32G",
    "list": "a list of texts, such as [--gres=gpu:1]",
    "int": "a whole number >= 1",
    "bool": "true or false",
    "str": "a text",
}


class Cluster(pydantic.BaseModel):
    """What dask_jobqueue.SLURMCluster is asked for, and how many jobs."""

    model_config = pydantic.ConfigDict(extra="forbid")
    cores: Count
    memory: Annotated[Text, pydantic.Field(pattern=f"^({_MEMORY})$")]
    jobs: Count = 1
    processes: Count | None = None
    queue: Text | None = None
    account: Text | None = None
    walltime: Annotated[Text, pydantic.Field(pattern=f"^({_WALLTIME})$")] | None = None
    job_cpu: Count | None = None
    job_mem: Annotated[Text, pydantic.Field(pattern=f"^({_MEMORY})$")] | None = None
    job_name: Text | None = None
    job_extra_directives: Texts | None = None
    job_directives_skip: Texts | None = None
    job_script_prologue: Texts | None = None
    worker_extra_args: Texts | None = None
    interface: Text | None = None
    local_directory: Text | None = None
    shared_temp_directory: Text | None = None
    log_directory: Text | None = None
    death_timeout: Count | None = None
    python: Text | None = None
    shebang: Text | None = None
    nanny: Annotated[bool, pydantic.Field(strict=True)] | None = None


def read(path: Path) -> Cluster:
    """Read a file such as book/slurm.yaml.

    path: of the file. Texts are taken as they are written: `1:00:00` is a time and no number.
    Returns a Cluster. Raises UsageError for a file that is missing or no YAML, and one that names
    all mistakes at once: each key, its value and what is allowed.
    """
    where = f"--slurm {str(path)!r}"
    typed = read_yaml(path, where)
    if not isinstance(typed, dict):
        raise UsageError(f"{where}: is no list of `name: value`")
    written = yaml.load(path.read_text(encoding="utf-8"), Loader=yaml.BaseLoader)
    given = {str(k): _meant(str(k), v, written.get(str(k))) for k, v in typed.items()}
    try:
        return Cluster.model_validate(given)
    except pydantic.ValidationError as error:
        told = dict.fromkeys(_mistake(found, given) for found in error.errors())
        raise UsageError(f"{where}: {'; '.join(told)}") from error


def _meant(key, typed, written):
    """The value of a key: as it is written where the key takes texts, else as YAML reads it."""
    return typed if typed is None or _kind(key) in ("int", "bool") else written


def _mistake(found, given):
    key = str(found["loc"][0])
    if found["type"] == "extra_forbidden":
        try:
            known("key", key, list(Cluster.model_fields))
        except UsageError as error:
            return str(error)
    value = "nothing" if found["type"] == "missing" else repr(given[key])
    return f"{key}: {value}, expected {_ALLOWED.get(key) or _ALLOWED[_kind(key)]}"


def _kind(key):
    """Which of _ALLOWED's types a key takes."""
    words = re.split(r"\W+", str(Cluster.__annotations__.get(key, str)))
    return next(kind for kind in ("list", "int", "bool", "str") if kind in words)
