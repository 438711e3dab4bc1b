"""The file that describes a SLURM cluster, checked before anything is asked of SLURM."""

import re
from pathlib import Path
from typing import Annotated

import pydantic
import yaml

from companion.errors import UsageError, known
from companion.files import read_yaml

_MOST = 10**6  # dask-jobqueue counts the divisors of `cores` one by one
_WALLTIME = r"\d+:[0-5]\d:[0-5]\d|\d+-\d+(:[0-5]\d){0,2}"
_MEMORY = r"[1-9]\d*(\.\d+)? ?([kMGT]i?B?|B)"
Text = Annotated[str, pydantic.Field(pattern=r"^[^\r\n]*[^\s][^\r\n]*$")]
Count = Annotated[int, pydantic.Field(strict=True, ge=1, le=_MOST)]
Lines = Annotated[str, pydantic.Field(pattern=r"\S")]
# what a key takes, in words; by its name, else by its type
_ALLOWED = {
    "walltime": "HH:MM:SS or D-HH:MM:SS, such as 02:00:00",
    "memory": "a number with its unit, such as 32GiB",
    "job_mem": "a whole number with its unit, such as 32G",
    "list": "a list of texts, such as [--gres=gpu:1]",
    "int": f"a whole number from 1 to {_MOST}",
    "bool": "true or false",
    "str": "a text of one line",
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
    job_mem: Annotated[Text, pydantic.Field(pattern=r"^[1-9]\d*[KMGT]$")] | None = None
    job_name: Text | None = None
    job_extra_directives: list[Text] | None = None
    job_directives_skip: list[Text] | None = None
    job_script_prologue: list[Lines] | None = None
    worker_extra_args: list[Text] | None = None
    interface: Text | None = None
    local_directory: Text | None = None
    shared_temp_directory: Text | None = None
    log_directory: Text | None = None
    death_timeout: Count | None = None
    python: Text | None = None
    shebang: Text | None = None
    nanny: Annotated[bool, pydantic.Field(strict=True)] | None = None

    @pydantic.model_validator(mode="after")
    def _shared_out(self):
        if self.processes is not None and self.processes > self.cores:
            raise ValueError(f"processes: {self.processes}, expected at most cores, {self.cores}")
        return self


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
    """The value of a key: as it is written where the key takes texts, else as YAML reads it.

    YAML 1.1 reads 010 as 8 and 1:30 as 90: a number counts where it is written as one.
    """
    if typed is None or (_kind(key) == "bool" and isinstance(typed, bool)):
        return typed
    if _kind(key) == "int":
        return typed if str(typed) == written else written
    if isinstance(typed, list) and isinstance(written, list):
        return [_meant(key, *pair) for pair in zip(typed, written, strict=True)]
    return written


def _mistake(found, given):
    if not found["loc"]:
        return found["msg"].removeprefix("Value error, ")
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
