"""The notebooks of the project: where they are, which parameters they take."""

import ast
import functools
import io
import math
import re
import tokenize
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from yaml import YAMLError

from companion.errors import UsageError, known, nearest
from companion.files import named, of_user, read_yaml

DEFAULT_PROFILE = "laptop"
TYPES = ("int", "float", "bool", "str", "list")
Overrides = Mapping[str, Any] | Iterable[tuple[str, Any]]
# how a parameter's comment may end: see `parse_parameters`
_RANGE = re.compile(r"(?:(?P<sign>>=?) (?P<bound>\S+)|(?P<low>\S+) to (?P<high>\S+))")
_INT64 = 2**63  # what torch, numpy and a table can hold
_CHOICES = re.compile(r"one of (?P<choices>.+?)(?P<path>,? or a path)?")
_PATH, _NEW = "path", "path to write"
_RECORDING = re.compile(r"\b(record|tell\w*)\(")  # what makes a record
# what comes after the last "; " is one of these or prose: this is neither, but a slip
_SLIP = re.compile(r"[<>=≥≤]|[-+.]?\d|one of\b|path\b")


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
    parameters: dict[str, Parameter]  # name -> Parameter
    code: tuple[str, ...] = ()  # sources of its code cells, but for those
    aside: tuple[str, ...] = ()  # tagged `picture` or `apart`: no record of another depends on them


def names(root: Path) -> list[str]:
    """Return the sorted names of the notebooks under root/notebooks."""
    return sorted(path.stem for path in (root / "notebooks").glob("*.md"))


def load(root: Path, name: str) -> Notebook:
    """Read one notebook source.

    root: project folder; name: file name without .md.
    Returns a Notebook. Raises UsageError for an unknown name, a source that cannot be parsed or
    one without a parameters cell.
    """
    import jupytext  # late: half a second
    from jupytext.myst import MystMetadataParsingError

    known("notebook", name, names(root))
    path = root / "notebooks" / f"{name}.md"
    try:
        nb = jupytext.read(path, fmt="md:myst")
    except (ValueError, YAMLError, MystMetadataParsingError) as error:
        raise UsageError(f"notebook {name!r}: {' '.join(str(error).split())}") from error
    about = nb.metadata.get("companion", {})
    if not isinstance(about, dict):
        raise UsageError(f"notebook {name!r}: `companion` must be a mapping, got {about!r}")
    cells = [c for c in nb.cells if "parameters" in c.metadata.get("tags", ())]
    if len(cells) != 1:
        raise UsageError(f"notebook {name!r}: {len(cells)} cells are tagged `parameters`, needs 1")
    code = [cell for cell in nb.cells if cell.cell_type == "code"]
    tagged = lambda *tags: [c for c in code if not {*tags}.isdisjoint(c.metadata.get("tags", ()))]
    if wrong := [call for c in tagged("picture") for call in _RECORDING.findall(c.source)]:
        raise UsageError(f"notebook {name!r}: a cell tagged `picture` may not call {wrong[0]}")
    aside = tagged("picture", "apart")
    return Notebook(
        name=name,
        path=path,
        title=_title(nb, name),
        document=str(about.get("document", "")),
        section=str(about.get("section", "")),
        parameters=parse_parameters(cells[0].source, name),
        code=tuple(cell.source for cell in code if cell not in aside),
        aside=tuple(cell.source for cell in aside),
    )


def parse_parameters(source: str, notebook: str) -> dict[str, Parameter]:
    """Read the lines `name: type = literal  # meaning; allowed` of a parameters cell.

    source: Python text; notebook: name for messages. What is allowed may be left out; it is one of
        `; > 0`, `; >= 1`, `; 0 to 1`   for numbers, and for each number in a list
        `; one of a, b, cuda:N`         for texts, and for each text in a list; N is any number
        `; one of a, b or a path`       the same, or a file or folder that is there
        `; path`                        a file, a folder or a pattern such as *.png; "" for none
        `; path to write`               a file or folder that need not be there yet; "" for none
        A list holds what its default holds, and at least one: whole numbers, numbers, texts, lists
        of these. Whole numbers have 64 bits. Comments on lines of their own below go on.
    Returns {name: Parameter} in the order written. Raises UsageError for any other statement, for
    an unknown type, for what looks as if it told what is allowed and does not, or not of this
    type, and for a default that is not of its type or not allowed.
    """
    try:
        body = ast.parse(source).body
    except SyntaxError as error:
        raise UsageError(f"notebook {notebook!r}, parameters cell: {error}") from error
    found, comments = {}, _comments(source)
    for node in body:
        where = f"notebook {notebook!r}, parameters cell, {ast.unparse(node)!r}"
        if not (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)):
            raise UsageError(f"{where}: write `name: type = literal  # meaning`")
        name, kind = node.target.id, ast.unparse(node.annotation).partition("[")[0]
        if kind not in TYPES:
            raise UsageError(f"{where}: type {kind!r}, allowed: {', '.join(TYPES)}")
        meaning = comments.get(node.end_lineno or 0, "")
        told = _told(ending := _ending(meaning))
        if _SLIP.match(ending) and not told:
            raise UsageError(f"{where}: {ending!r} does not tell what is allowed, e.g. `; > 0`")
        try:
            value = _literal(node.value)
            if told and not _fits(told, value):
                raise ValueError(f"{ending!r} is not for it")
            default = convert(Parameter(name, kind, value, meaning), value)
        except ValueError as error:
            raise UsageError(f"{where}: the default is no literal, or {error}") from error
        found[name] = Parameter(name, kind, default, meaning)
    return found


def convert(parameter: Parameter, value: Any) -> Any:
    """Turn a value from the command line or from YAML into the parameter's type.

    parameter: Parameter; value: text (converted), or a value of the type (an int passes as float).
    Returns the value. Raises ValueError, its message says what is expected, where it is of another
    type or not allowed, and for a NaN.
    """
    kind, told = parameter.type, _told(_ending(parameter.meaning)) or {}
    choices = told.get("choices") or ""
    expected = {"bool": "true or false", "list": _list_of(parameter.default)}.get(kind, kind)
    if told:
        expected += (
            f"{'' if told.get('sign') or told.get('low') else ','} {_ending(parameter.meaning)}"
        )
    wrong = ValueError(f"expected {expected}")
    if isinstance(value, str) and kind != "str":
        try:
            value = _from_text(kind, value)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
            raise wrong from error
    if kind == "float" and type(value) is int:
        value = _float(value, wrong)
    if type(value).__name__ != kind or (kind == "float" and math.isnan(value)):
        raise wrong
    if kind == "list":
        value = [_like(item, parameter.default, wrong) for item in value]
        if parameter.default and not value:
            raise ValueError(f"{wrong}, at least one")
    for item in _flat([value]):
        _storable(item)
        if not _allowed(item, told):
            near = nearest(item, _names(choices)) if isinstance(item, str) else ""
            raise ValueError(f"{wrong}{'; ' * bool(near)}{near}")
    return value


def is_path(parameter: Parameter, value: object) -> bool:
    """Whether a text given for a parameter has to name something that is there."""
    told = _told(_ending(parameter.meaning)) or {}
    chosen = _chosen(value, told["choices"]) if told.get("choices") else False
    return bool(value) and (told.get("kind") == _PATH or (bool(told.get("path")) and not chosen))


def written(notebook: Notebook, parameters: Mapping[str, Any]) -> dict[str, str]:
    """The paths that a run writes to, of its settled parameters: {parameter: path}."""
    new = [name for name in parameters if of_texts(notebook.parameters[name])["new"]]
    return {name: parameters[name] for name in new if parameters[name]}


def setting(notebook: Notebook, name: str, value: Any) -> Any:
    """Return a parameter's value as `convert` does.

    Raises UsageError for an unknown parameter and for a value of the wrong type or out of range.
    """
    known(f"parameter of {notebook.name}", name, list(notebook.parameters))
    try:
        return convert(notebook.parameters[name], value)
    except ValueError as error:
        raise UsageError(f"parameter {name!r} of {notebook.name}: {value!r}, {error}") from error


def resolve(
    root: Path, notebook: Notebook, profile: str = DEFAULT_PROFILE, overrides: Overrides = ()
) -> dict[str, Any]:
    """Settle the parameters of a run: defaults, then the profile's values, then the overrides.

    notebook: Notebook; profile: name in notebooks/profiles.yml; overrides: mapping or
        pairs (name, value), the last one of a name counts.
    Returns {name: value}, every parameter of the notebook.
    Raises UsageError for an unknown profile, where the profile leaves a value to the user and none
    is given, and as `setting` does.
    """
    values = of_profile(root, notebook, profile)
    missing = [
        name for name, value in values.items() if value is None and name not in dict(overrides)
    ]
    if missing:
        told = (f"{name}, {notebook.parameters[name].meaning}" for name in missing)
        raise UsageError(
            f"profile {profile!r} of {notebook.name} leaves to you: {'; '.join(told)}; "
            f"give {' '.join(f'-p {name} VALUE' for name in missing)}"
        )
    for name, value in dict(overrides).items():
        values[name] = seen(setting(notebook, name, value), notebook.parameters[name], root)
        for text in _flat([values[name]]):
            if is_path(notebook.parameters[name], text) and not named(text, root):
                choices = _told(_ending(notebook.parameters[name].meaning)).get("choices") or ""
                other = f"one of {choices} or " if choices else ""
                near = nearest(text, _names(choices))
                raise UsageError(
                    f"parameter {name!r} of {notebook.name}: {text!r}, expected {other}a file or "
                    f"folder, which is neither here nor in the project{'; ' * bool(near)}{near}"
                )
    return values


def of_profile(root: Path, notebook: Notebook, profile: str) -> dict[str, Any]:
    """The defaults with a profile's values; None where the profile leaves a value to the user.

    root, notebook, profile: as for `resolve`, as are the errors.
    """
    values = {name: parameter.default for name, parameter in notebook.parameters.items()}
    profiles = read_profiles(root)
    known("profile", profile, list(profiles))
    for name, value in profiles[profile].get(notebook.name, {}).items():
        known(f"parameter of {notebook.name}", name, list(notebook.parameters))
        values[name] = None if value is None else setting(notebook, name, value)
    return values


def seen(value: Any, parameter: Parameter, root: Path) -> Any:
    """A value that the user gave, with the paths in it as the user sees them.

    value: of `setting`. parameter: of the notebook. root: project folder.
    """
    if isinstance(value, list):
        return [seen(item, parameter, root) for item in value]
    if not isinstance(value, str):
        return value
    told = _told(_ending(parameter.meaning)) or {}
    if told.get("choices") and _chosen(value, told["choices"]):
        return value
    return of_user(value, root, new=told.get("kind") == _NEW)


def read_profiles(root: Path) -> dict[str, dict[str, dict[str, Any]]]:
    """Return {profile: {notebook: {parameter: value}}}.

    Raises UsageError where notebooks/profiles.yml is not YAML or names an unknown notebook.
    """
    profiles, there = _parsed(root / "notebooks" / "profiles.yml"), names(root)
    for profile, settings in profiles.items():
        for name in settings:
            known(f"notebook in profile {profile!r}", name, there)
    return profiles


def _parsed(path):
    """The profiles of a file, read once for each state of it: a plan of each page asks."""
    facts = path.stat()
    return _profiles(path, facts.st_mtime_ns, facts.st_size)


@functools.lru_cache(8)
def _profiles(path, _time, _size):
    where = "notebooks/profiles.yml"
    profiles = read_yaml(path, where)
    if profiles is None:
        raise UsageError(f"{where} must be a mapping of names, got nothing")
    for place, value in [(where, profiles), *_within_mappings(where, profiles)]:
        if not isinstance(value, dict | None):
            raise UsageError(f"{place} must be a mapping of names, got {value!r}")
        for name in value or ():
            if not isinstance(name, str):
                raise UsageError(f"{place}: {name!r} is no name; a name is a text")
    return {
        profile: {name: values or {} for name, values in (settings or {}).items()}
        for profile, settings in profiles.items()
    }


def _within_mappings(where, profiles):
    """(place, value) of each profile and of each notebook in it."""
    for profile, settings in profiles.items() if isinstance(profiles, dict) else ():
        yield f"{where}, profile {profile!r}", settings
        for name, values in settings.items() if isinstance(settings, dict) else ():
            yield f"{where}, profile {profile!r}, notebook {name!r}", values


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
    if kind == "list":
        return _literal(ast.parse(text.strip(), mode="eval").body)
    value = {"int": int, "float": float}[kind](text)
    if math.isinf(value) and "inf" not in text.lower():
        raise ValueError("beyond the range of a float")
    return value


def of_texts(parameter: Parameter) -> dict[str, Any]:
    """What a parameter's comment tells of its texts: {"choices", "path", "new"}.

    choices: names, N of cuda:N is any number; path: whether it may be a file or folder that is
    there; new: whether it is one to write.
    """
    told = _told(_ending(parameter.meaning)) or {}
    choices = _names(told["choices"]) if told.get("choices") else []
    path = told.get("kind") == _PATH or bool(told.get("path"))
    return {"choices": choices, "path": path, "new": told.get("kind") == _NEW}


def purpose(parameter: Parameter) -> str:
    """The meaning of a parameter without the range allowed, where it ends with one."""
    ending = _ending(parameter.meaning)
    return parameter.meaning.rpartition("; ")[0] if ending and _told(ending) else parameter.meaning


def _ending(meaning):
    """What stands behind the last semicolon of a meaning, where it may tell what is allowed."""
    return meaning.rpartition("; ")[2].strip() if "; " in meaning else ""


def _told(ending):
    """What an ending allows, as a dict of the groups above; None for prose."""
    if ending in (_PATH, _NEW):
        return {"kind": ending}
    found = _RANGE.fullmatch(ending) or _CHOICES.fullmatch(ending)
    if found is None:
        return None
    told = found.groupdict()
    try:
        bounds = [float(told[key]) for key in ("bound", "low", "high") if told.get(key)]
    except ValueError:
        return None
    return None if any(map(math.isnan, bounds)) else told


def _allowed(value, told):
    """Whether a number or text is among what was told; other kinds are not restricted by it."""
    if isinstance(value, str) and told.get("choices"):
        return bool(told["path"]) or _chosen(value, told["choices"])
    if isinstance(value, str | bool):
        return True
    if told.get("sign"):
        bound = float(told["bound"])
        return value > bound if told["sign"] == ">" else value >= bound
    return not told.get("low") or float(told["low"]) <= value <= float(told["high"])


def _names(choices):
    """The names in a text such as "a, b or c"."""
    return re.split(", | or ", choices)


def _chosen(value, choices):
    patterns = (re.sub(":N$", r":\\d+", re.escape(choice)) for choice in _names(choices))
    return any(re.fullmatch(pattern, value) for pattern in patterns)


def _fits(told, default):
    """Whether what a comment tells is for values like this default: a range is for numbers."""
    kinds = {type(item) for item in _flat([default])}
    return kinds <= ({int, float} if told.get("sign") or told.get("low") else {str})


def _storable(item):
    """Raise ValueError for what no file, array or path could hold."""
    if type(item) is int and not -_INT64 <= item < _INT64:
        raise ValueError("expected int of 64 bits")
    if isinstance(item, str) and ("\0" in item or item.encode(errors="replace").decode() != item):
        raise ValueError("expected text in UTF-8 without a null character")


def _flat(values):
    for value in values:
        if isinstance(value, list):
            yield from _flat(value)
        else:
            yield value


def _like(item, default, wrong):
    """An item of a list, of the kind that the default's items have; any plain one without them."""
    kinds = (
        {type(other) for other in default}
        if isinstance(default, list) and default
        else {int, float, str, bool, list}
    )
    if type(item) is int and int not in kinds and float in kinds:
        return _float(item, wrong)
    if type(item) not in kinds or (isinstance(item, float) and math.isnan(item)):
        raise wrong
    if isinstance(item, list):
        inner = [other for part in default or () if isinstance(part, list) for other in part]
        return [_like(part, inner, wrong) for part in item]
    return item


def _float(value, wrong):
    try:
        return float(value)
    except OverflowError as error:
        raise wrong from error


def _list_of(default):
    """What a list parameter holds, in words."""
    names = {int: "whole numbers", float: "numbers", str: "texts", bool: "truth values"}
    names[list] = "lists"
    items = default if isinstance(default, list) else []
    kinds = dict.fromkeys(names[type(item)] for item in items if type(item) in names)
    return f"list of {' and '.join(kinds)}" if kinds else "list"


def _literal(node):
    """The value of an expression without names but `inf`, the one useful float without literal."""
    if isinstance(node, ast.List):
        return [_literal(item) for item in node.elts]
    written = ast.unparse(node) if node is not None else ""
    if written in ("inf", "-inf", "float('inf')", "float('-inf')"):
        return float(written.removeprefix("float('").removesuffix("')"))
    value = ast.literal_eval(node)
    if isinstance(value, float) and math.isinf(value):
        raise ValueError("beyond the range of a float")
    return value


def _comments(source):
    """{line: comment}; one on a line of its own goes on with that of the line above."""
    found: dict[int, str] = {}
    first = last = 0
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type != tokenize.COMMENT:
            continue
        line, text = token.start[0], token.string.lstrip("# ").strip()
        if token.line.lstrip().startswith("#") and last == line - 1:
            found[first] += f" {text}"
        else:
            found[line], first = text, line
        last = line
    return found
