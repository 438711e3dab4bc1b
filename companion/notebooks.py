"""The notebooks of the project: where they are, which parameters they take."""

import ast
import functools
import io
import math
import re
import tokenize
from dataclasses import dataclass
from pathlib import Path

import yaml

from companion.errors import UsageError, known
from companion.files import of_user

DEFAULT_PROFILE = "laptop"
TYPES = ("int", "float", "bool", "str", "list")
# how a parameter's comment may end: "; > 0", "; >= 1", "; 0 to 1"
RANGE = re.compile(r"; (?:(>=?) (\S+)|(\S+) to (\S+))$")


@dataclass(frozen=True)
class Parameter:
    """One line of a notebook's parameters cell; the meaning may end with the range allowed."""

    name: str
    type: str
    default: object
    meaning: str


@dataclass(frozen=True)
class Notebook:
    """A notebook source and what it says of itself."""

    name: str
    path: Path
    title: str
    document: str
    section: str
    parameters: dict  # name -> Parameter
    code: tuple = ()  # sources of its code cells


def names(root):
    """Return the sorted names of the notebooks under root/notebooks."""
    return sorted(path.stem for path in (root / "notebooks").glob("*.md"))


def load(root, name):
    """Read one notebook source.

    root: project folder; name: file name without .md.
    Returns a Notebook. Raises UsageError for an unknown name, a source that cannot be parsed or
    one without a parameters cell.
    """
    import jupytext  # late: half a second

    known("notebook", name, names(root))
    path = root / "notebooks" / f"{name}.md"
    nb = jupytext.read(path, fmt="md:myst")
    about = nb.metadata.get("companion", {})
    cells = [c for c in nb.cells if "parameters" in c.metadata.get("tags", ())]
    if len(cells) != 1:
        raise UsageError(f"notebook {name!r}: {len(cells)} cells are tagged `parameters`, needs 1")
    return Notebook(
        name=name,
        path=path,
        title=_title(nb, name),
        document=about.get("document", ""),
        section=str(about.get("section", "")),
        parameters=parse_parameters(cells[0].source, name),
        code=tuple(cell.source for cell in nb.cells if cell.cell_type == "code"),
    )


def parse_parameters(source, notebook):
    """Read the lines `name: type = literal  # meaning; range` of a parameters cell.

    source: Python text; notebook: name for messages. The range, such as `> 0` or `0 to 1`, is
        optional; in a list it is one of each number.
    Returns {name: Parameter} in the order written. Raises UsageError for any other statement, for
    an unknown type and for a default that is not of its type or out of its range.
    """
    try:
        body = ast.parse(source).body
    except SyntaxError as error:
        raise UsageError(f"notebook {notebook!r}, parameters cell: {error}") from error
    comments = {
        token.start[0]: token.string.lstrip("# ").strip()
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    found = {}
    for node in body:
        where = f"notebook {notebook!r}, parameters cell, {ast.unparse(node)!r}"
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            raise UsageError(f"{where}: write `name: type = literal  # meaning`")
        name, kind = node.target.id, ast.unparse(node.annotation).partition("[")[0]
        if kind not in TYPES:
            raise UsageError(f"{where}: type {kind!r}, allowed: {', '.join(TYPES)}")
        meaning = comments.get(node.end_lineno, "")
        try:
            default = convert(Parameter(name, kind, None, meaning), _literal(node.value))
        except ValueError as error:
            raise UsageError(f"{where}: the default is no literal, or {error}") from error
        found[name] = Parameter(name, kind, default, meaning)
    return found


def convert(parameter, value):
    """Turn a value from the command line or from YAML into the parameter's type.

    parameter: Parameter; value: text (converted), or a value of the type (an int passes as float).
    Returns the value. Raises ValueError, its message says what is expected, where it is of another
    type or out of the parameter's range, and for a NaN.
    """
    kind = parameter.type
    bound = RANGE.search(parameter.meaning)
    expected = "true or false" if kind == "bool" else kind
    expected += bound[0].lstrip(";") if bound else ""
    if isinstance(value, str) and kind != "str":
        try:
            value = _from_text(kind, value)
        except (ValueError, SyntaxError) as error:
            raise ValueError(f"expected {expected}") from error
    if kind == "float" and type(value) is int:
        value = float(value)
    if type(value).__name__ != kind or (kind == "float" and math.isnan(value)):
        raise ValueError(f"expected {expected}")
    numbers = value if kind == "list" else [value]
    if bound and not all(_within(number, *bound.groups()) for number in numbers):
        raise ValueError(f"expected {expected}")
    return value


def setting(notebook, name, value):
    """Return a parameter's value as `convert` does.

    Raises UsageError for an unknown parameter and for a value of the wrong type or out of range.
    """
    known(f"parameter of {notebook.name}", name, list(notebook.parameters))
    try:
        return convert(notebook.parameters[name], value)
    except ValueError as error:
        raise UsageError(f"parameter {name!r} of {notebook.name}: {value!r}, {error}") from error


def resolve(root, notebook, profile=DEFAULT_PROFILE, overrides=()):
    """Settle the parameters of a run: defaults, then the profile's values, then the overrides.

    notebook: Notebook; profile: name in notebooks/profiles.yml; overrides: mapping or
        pairs (name, value), the last one of a name counts.
    Returns {name: value}, every parameter of the notebook.
    Raises UsageError for an unknown profile and as `setting` does.
    """
    values = {name: parameter.default for name, parameter in notebook.parameters.items()}
    profiles = read_profiles(root)
    known("profile", profile, list(profiles))
    for name, value in (profiles[profile].get(notebook.name) or {}).items():
        values[name] = setting(notebook, name, value)
    for name, value in dict(overrides).items():
        values[name] = _seen(setting(notebook, name, value), root)
    return values


def _seen(value, root):
    """A value that the user gave, with the paths in it as the user sees them."""
    if isinstance(value, list):
        return [_seen(item, root) for item in value]
    return of_user(value, root) if isinstance(value, str) else value


def read_profiles(root):
    """Return {profile: {notebook: {parameter: value}}}.

    Raises UsageError where notebooks/profiles.yml is not YAML or names an unknown notebook.
    """
    profiles = _parsed(root / "notebooks" / "profiles.yml")
    for profile, settings in profiles.items():
        for name in settings:
            known(f"notebook in profile {profile!r}", name, names(root))
    return profiles


def _parsed(path):
    """The profiles of a file, read once for each state of it: a plan of each page asks."""
    facts = path.stat()
    return _profiles(path, facts.st_mtime_ns, facts.st_size)


@functools.lru_cache(8)
def _profiles(path, _time, _size):
    try:
        profiles = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except yaml.YAMLError as error:
        raise UsageError(f"notebooks/profiles.yml: {' '.join(str(error).split())}") from error
    return {profile: settings or {} for profile, settings in profiles.items()}


def _title(nb, name):
    for cell in nb.cells:
        if cell.cell_type == "markdown":
            for line in cell.source.splitlines():
                if line.startswith("# "):
                    return line[2:].strip()
    return name


def _from_text(kind, text):
    if kind == "bool":
        if text.lower() not in ("true", "false"):
            raise ValueError("not a bool")
        return text.lower() == "true"
    return {"int": int, "float": float, "list": ast.literal_eval}[kind](text)


def _within(value, sign, bound, low, high):
    """Whether a number is in the range that RANGE found; what is no number has none."""
    if isinstance(value, str | bool | list):
        return True
    if sign is None:
        return float(low) <= value <= float(high)
    return value > float(bound) if sign == ">" else value >= float(bound)


def _literal(node):
    if node is not None and ast.unparse(node) in ("float('inf')", "float('-inf')"):
        return float(node.args[0].value)  # the one useful float that has no literal
    return ast.literal_eval(node)
