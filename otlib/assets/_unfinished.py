"""A training that is not done, in one file: its tensors, its settings and what it has reached.

Written aside and renamed: whenever the training is killed, all in the file is of the same step.
"""

import hashlib
import json
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from otlib.assets.registry import holding

_RESUMED = "the state of an interrupted training, else delete it to begin anew"


def digest(*parts):
    """Of bytes, in their order; 16 digits tell enough."""
    hashes = [hashlib.sha256(part).digest() for part in parts]
    return hashlib.sha256(b"".join(hashes)).hexdigest()[:16]


def aside(path, write):
    """Write a file aside and rename it. write: function of a path."""
    other = path.with_name(f".{path.name}")
    write(other)
    other.replace(path)


def save(path, tensors, told):
    """Write tensors and what is told of them. Raises OSError where the file cannot be written."""
    try:
        save_file(tensors, path, told)
    except SafetensorError as error:
        raise OSError(f"{path} cannot be written: {error}") from error


def read(path, settings, reached):
    """The tensors {name: value} in a file, and what that training had reached.

    path: Path, or None. settings: {name: value} as JSON holds them. reached: {name: value} of a
    training that begins. Returns ({}, reached) where there is no file. Raises ValueError where it
    is damaged, and where its training had other settings, which are named.
    """
    if path is None or not path.exists():
        return {}, reached
    with holding(path, _RESUMED):
        with safe_open(path, framework="pt") as file:
            kept = file.metadata() or {}
            # copies: the tensors lie in the file, which is written anew
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        before, told = (dict(json.loads(kept[key])) for key in ("settings", "reached"))
        reached = {name: told[name] for name in reached}
    differ = [
        f"{name} was {before.get(name)!r} in {path.parent}, got {value!r}"
        for name, value in settings.items()
        if before.get(name) != value
    ]
    if differ:
        raise ValueError(f"{'; '.join(differ)}: take the former, or delete {path}")
    return tensors, reached


def restore(path, tensors, random, **parts):
    """Put the tensors of `read` where they were; without any all stays as it is.

    random: torch.Generator. parts: modules and optimisers of one group by the names of `write`.
    """
    if not tensors:
        return
    with holding(path, _RESUMED):
        states: dict[str, dict] = {name: {} for name in parts}
        for name, value in tensors.items():
            part, _, rest = name.partition(".")
            if rest:
                states[part][rest] = value
        for name, part in parts.items():
            part.load_state_dict(_nested(part, states[name]))
        random.set_state(tensors["random"])


def write(path, settings, reached, random, **parts):
    """Write the file. path: Path, or None, which keeps nothing; else as `read` and `restore`."""
    if path is None:
        return
    tensors = {"random": random.get_state()}
    for part, of in parts.items():
        tensors |= {f"{part}.{name}": value for name, value in _flat(of).items()}
    kept = dict(settings=json.dumps(settings), reached=json.dumps(reached))
    aside(path, lambda other: save(other, tensors, kept))


def done(path):
    """Remove the file of a training that is done. path: Path, or None."""
    if path is not None:
        path.unlink(missing_ok=True)


def place(state):
    """The file of a caller, a path or None, in a folder that is there before the work begins."""
    if state is None:
        return None
    path = Path(state)
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _flat(part):
    """The tensors of a module, or of an optimiser: {number.name: value}."""
    told = part.state_dict()
    if "param_groups" not in told:
        return told
    each = told["state"].items()
    return {f"{number}.{name}": value for number, of in each for name, value in of.items()}


def _nested(part, tensors):
    """What `load_state_dict` of a module or an optimiser takes, from tensors of `_flat`."""
    told = part.state_dict()
    if "param_groups" not in told:
        return tensors
    for name, value in tensors.items():
        number, _, key = name.partition(".")
        told["state"].setdefault(int(number), {})[key] = value
    return told
