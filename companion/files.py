"""The project's folder, files written whole or not at all, values as JSON holds them."""

import glob
import hashlib
import math
import os
import re
import secrets
import tempfile
from pathlib import Path
from typing import Any

import yaml

from companion.errors import UsageError

INFINITE = {"inf": math.inf, "-inf": -math.inf}  # as `plain` writes them


def project_root() -> Path:
    """Return the project folder: the nearest one above the working folder, else this package's.

    Raises UsageError where neither holds notebooks/profiles.yml, and for a path that is no UTF-8:
    notebooks and their pages name it.
    """
    here = Path.cwd()
    for folder in (here, *here.parents, Path(__file__).resolve().parents[1]):
        if (folder / "notebooks" / "profiles.yml").is_file():
            if os.fsencode(folder).decode(errors="replace") != str(folder):
                raise UsageError(
                    f"the project's folder {str(folder)!r} has a name that is no UTF-8"
                )
            return folder
    raise UsageError(f"no notebooks/profiles.yml in {here} or above: run inside a checkout")


def write_aside(path: Path, content: str | bytes) -> None:
    """Write a file under another name and rename it; leave a file of the same content alone.

    path: Path, its folders are made; content: str or bytes.
    """
    data = content.encode() if isinstance(content, str) else content
    if path.is_file() and path.read_bytes() == data:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        aside.write_bytes(data)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)


def writable(folder: Path) -> None:
    """Make a folder; raise UsageError where it cannot be, or where no file can be made in it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UsageError(f"cannot write into {str(folder)!r}: {error.strerror}") from error


def write_sealed(path: Path, data: bytes) -> None:
    """Write a file behind a hash of its name and content, for `read_sealed`."""
    write_aside(path, _seal(path, data) + data)


def read_sealed(path: Path) -> bytes | None:
    """The content of a file of `write_sealed`; None where it is missing, damaged or another's."""
    try:
        whole = path.read_bytes()
    except FileNotFoundError:
        return None
    seal, data = whole[:32], whole[32:]
    return data if seal == _seal(path, data) else None


def _seal(path, data):
    return hashlib.sha256(path.name.encode() + b"\0" + data).digest()


def plain(value: Any) -> Any:
    """Return the value as strict JSON can hold it: an infinite float becomes "inf" or "-inf"."""
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def notebook_text(nb: Any) -> str:
    """Return the text of an .ipynb file of the notebook."""
    import nbformat

    return nbformat.writes(nb) + "\n"


def named(text: str, root: Path) -> list[Path]:
    """What a path among parameters means: the file or folder of that name, else a pattern's files.

    text: absolute, or from the project's folder `root`; "" names nothing.
    Returns a sorted list of Path, empty where nothing is there.
    """
    if not text:
        return []
    path = root / text
    if os.path.exists(path):
        return [path]
    return [root / name for name in sorted(glob.glob(text, root_dir=root))]


def of_user(text: str, root: Path, new: bool = False) -> str:
    """A path that a user typed, as `named` is to be asked for it.

    text: as typed; what is there from the working folder is meant, with ~ for the home. new:
        whether it need not be there.
    """
    path = Path(os.path.expanduser(text))
    here = Path.cwd()
    if text and here != root.resolve() and not path.is_absolute():
        if new or os.path.exists(path):
            return str(here / path)
        if glob.glob(str(path)):
            return os.path.join(glob.escape(str(here)), path)
    return str(path) if text.startswith("~") else text


def walk(folder: Path) -> list[str]:
    """The files below a folder, at any depth and behind links, each folder once.

    Returns their paths from the folder as sorted texts.
    """
    found, seen = [], set()
    for place, below, files in os.walk(folder, followlinks=True):
        identity = os.path.realpath(place)
        if identity in seen:  # a link that leads back
            below.clear()
            continue
        seen.add(identity)
        below.sort()
        paths = (os.path.relpath(os.path.join(place, file), folder) for file in files)
        found += [path for path in paths if os.path.isfile(os.path.join(folder, path))]
    return sorted(found)


def numbers(records: dict[str, dict]) -> dict[str, dict]:
    """Records as `plain` left them in a file, with their infinite numbers again."""
    found = {}
    for name, told in records.items():
        found[name] = {**told, "value": INFINITE.get(told["value"], told["value"])}
        if "interval" in told:
            found[name]["interval"] = [INFINITE.get(end, end) for end in told["interval"]]
    return found


def read_yaml(path: Path, where: str) -> Any:
    """Read a YAML file whose mappings name each key once.

    path: Path. where: how a message calls the file.
    Returns what it holds, None where it is empty. Raises UsageError where it is missing, cannot be
    read, or is no such YAML.
    """
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Once)
    except FileNotFoundError as error:
        raise UsageError(f"{where} is missing: {error.strerror}") from error
    except OSError as error:
        raise UsageError(f"{where}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{where}: is no UTF-8 text") from error
    except yaml.YAMLError as error:
        raise UsageError(f"{where}: {' '.join(str(error).split())}") from error


class _Once(yaml.SafeLoader):
    """PyYAML's safe loader, without its ways to read something else than is written.

    It takes the last of two equal keys, and numbers as YAML 1.1 has them: 1:30 is 90 there, 010 is
    8 and 1e-3 a text. Here numbers are those of YAML 1.2 in decimals, and all else stays a text.
    """

    def construct_mapping(self, node, deep=False):
        keys = [key.value for key, _ in node.value]
        twice = next((key for key in keys if keys.count(key) > 1 and key != "<<"), None)
        if twice is not None:
            raise yaml.YAMLError(f"the key {twice!r} stands twice, {node.start_mark}")
        return super().construct_mapping(node, deep)


_NUMBERS = {
    "tag:yaml.org,2002:int": r"[-+]?(0|[1-9]\d*)$",
    "tag:yaml.org,2002:float": (
        r"([-+]?(\.\d+|(0|[1-9]\d*)(\.\d*)?)([eE][-+]?\d+)?|[-+]?\.inf|\.nan)$"
    ),
}
_Once.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in pairs if tag not in _NUMBERS]
    for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _tag, _pattern in _NUMBERS.items():
    _Once.add_implicit_resolver(_tag, re.compile(_pattern), list("-+.0123456789"))
