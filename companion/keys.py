"""What a run depends on: the code that its page reaches, the state of what it may read."""

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import sys
from pathlib import Path
from typing import Any

from companion.contents import contents
from companion.errors import UsageError
from companion.files import named, plain
from companion.notebooks import Notebook, load, written

PROJECT = ("otlib", "companion")  # followed into; all else is told by its version
# What a run was made with is told by these: a page that asks them takes no number from them.
_BOOKS = {f"companion/{name}.py" for name in ("keys", "contents", "notebooks")}
# A list of what may be opened, each by its hash, which a run tells of what it did open: another
# entry makes no kept run old.
_LISTS = {"otlib/assets/registry.py"}
# They draw what a run found and give no number back.
_DRAWN = {
    f"companion/page/{name}.py" for name in ("as_csv", "figures", "frames", "letters", "plotted")
}
_REQUIREMENT = re.compile(r"[A-Za-z][\w.-]*==[\w.]+")  # of a package whose files are read
_COMPILED = re.compile(r"\w+\.cpp")  # a source that a module names, beside it
_PUBLISHED = "companion/page/published.py"  # which reads book/published/
_VARIABLE = re.compile(r"OTLIB_[A-Z0-9_]+")  # with the path of an asset of the user's


def key(root: Path, notebook: Notebook, profile: str, parameters: dict[str, Any]) -> str:
    """Hash all that the records of a run may depend on and that can be known before it.

    root: project folder; notebook: Notebook; profile: name; parameters: {name: value}, settled.
    Returns the SHA-256 as text.
    """
    # a cell aside is part of what a run shows, and of no other record
    reached = _reach(root, notebook, parameters, (*notebook.code, *notebook.aside))
    set_here = {name: os.environ[name] for name in reached.variables if os.environ.get(name)}
    own = written(notebook, parameters)  # the run's own work, which is none that it reads
    given = (value for name, value in parameters.items() if name not in own)
    read = {text: named(text, root) for text in _texts(given)}
    read |= {name: [Path(path)] for name, path in set_here.items()}
    content = {
        "source": notebook.path.read_text(encoding="utf-8"),
        "parameters": plain(parameters),
        "profile": profile,
        "code": reached.code,
        "data": {name: [(str(p), state(p, root)) for p in paths] for name, paths in read.items()},
        "variables": set_here,
        "versions": _versions(reached),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def code(root: Path, notebook: Notebook, parameters: dict[str, Any]) -> dict[str, str]:
    """The code that a page reaches: {file, from the project's folder: digest}, itself among them.

    root, notebook, parameters: as for `key`. It follows the imports of the code cells, wherever in
    a file they stand; where a cell calls `companion`, the program, its templates and the notebooks
    that the cell or a parameter names count too. Where it reads published numbers, so do these.
    What tells a run's key and code, this file above all, is none that a record depends on, nor is a
    cell tagged `picture`; one tagged `apart` has records of its own, which a run made before lacks.
    """
    return dict(sorted(_reach(root, notebook, parameters, notebook.code).code.items()))


def changed(told: dict[str, str], root: Path | None) -> list[str]:
    """The files of a run's `code` that are no longer what they were, sorted.

    told: {file: digest}; root: project folder, or None where the project is only installed.
    """
    passed = _LISTS | _DRAWN | (set() if "companion/cli.py" in told else _BOOKS)
    return sorted(f for f, was in told.items() if f not in passed and _now(root, f) != was)


def whole() -> str:
    """SHA-256 of all code of the project that this process would import, as text."""
    found = {}
    for package in PROJECT:
        folder = _package(None, package)
        for path in sorted(p for end in ("py", "cpp") for p in folder.rglob(f"*.{end}")):
            found[f"{package}/{path.relative_to(folder).as_posix()}"] = digest(path)
    return together(found)


def together(told: dict[str, str]) -> str:
    """One SHA-256, as text, of a {file: digest}."""
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def imported(*modules: str) -> dict[str, str]:
    """The code of the project that modules reach, as `code` tells it: {file: digest}."""
    found = _Reach()
    _follow(None, [(f"import {', '.join(modules)}", "", "")], found)
    return found.code


def digest(path: Path) -> str:
    """Hash a file: Python by its syntax tree without docstrings, anything else by its bytes."""
    return _facts(path)[0]


def state(path: Path, root: Path) -> str | None:
    """Hash a file, or a folder with all below it, by content; None where nothing is there.

    root: project folder, under which hashes are remembered.
    """
    if path.is_file():
        return hashlib.sha256(path.read_bytes()).hexdigest()
    return contents(path, root / ".companion" / "contents") if path.is_dir() else None


class _Reach:
    """What following imports finds."""

    def __init__(self):
        self.code: dict[str, str] = {}  # file: digest
        self.passed = _BOOKS  # not followed into
        self.packages: set[str] = set()  # first names of what others wrote
        self.requirements: set[str] = set()  # packages whose files are read
        self.variables: set[str] = set()  # environment variables with the user's paths


def _reach(root, notebook, parameters, cells):
    found = _Reach()
    sources = [(cell, "", f"notebook {notebook.name!r}") for cell in cells]
    file = notebook.path.relative_to(root).as_posix()
    found.code[file] = _sha("\n\n".join(cells))
    shell = "\n".join(cell for cell in cells if _is_shell(cell))
    if re.search(r"\bcompanion\b", shell):
        sources.append(("import companion.cli", "", ""))
        found.passed = set()
        folder = _package(root, "companion") / "templates"
        found.code |= {f"companion/templates/{p.name}": digest(p) for p in folder.iterdir()}
        for page in sorted((root / "notebooks").glob("*.md")):
            told = {page.relative_to(root).as_posix(), page.stem}
            if told & {*_texts(parameters.values()), *re.findall(r"[\w./-]+", shell)}:
                cells = load(root, page.stem).code
                found.code[page.relative_to(root).as_posix()] = _sha("\n\n".join(cells))
                sources += [(cell, "", f"notebook {page.stem!r}") for cell in cells]
    _follow(root, sources, found)
    if _PUBLISHED in found.code:
        numbers = sorted((root / "book" / "published").glob("*.yml"))
        found.code |= {path.relative_to(root).as_posix(): digest(path) for path in numbers}
    return found


def _follow(root, sources, found):
    """Add to `found` what the sources import and name.

    sources: triples (text, name of their package, where they stand, for a message).
    """
    waiting = []
    met: set[str] = set()  # names looked up already
    for text, package, where in sources:
        if _is_shell(text):
            continue
        try:
            waiting.append((*_cell(text), package))
        except SyntaxError as error:
            raise UsageError(f"{where}: {error.msg}: {(error.text or text).strip()!r}") from error
    while waiting:
        imports, texts, package = waiting.pop()
        found.requirements |= {text for text in texts if _REQUIREMENT.fullmatch(text)}
        found.variables |= {text for text in texts if _VARIABLE.fullmatch(text)}
        new = _absolute(imports, package) - met
        met |= new
        for name in new:
            first, *parts = name.split(".")
            if first not in PROJECT:
                found.packages.add(first)
                continue
            folder = _package(root, first)
            for depth in range(len(parts) + 1):
                path = folder.joinpath(*parts[:depth])
                inside = ".".join([first, *parts[:depth]])
                if (path / "__init__.py").is_file():
                    path = path / "__init__.py"
                elif depth and path.with_suffix(".py").is_file():
                    path, inside = path.with_suffix(".py"), inside.rpartition(".")[0]
                else:
                    continue  # a name in the module
                file = f"{first}/{path.relative_to(folder).as_posix()}"
                if file not in found.code and file not in found.passed:
                    found.code[file], imports, texts = _facts(path)
                    waiting.append((imports, texts, inside))
                    beside = map(path.with_name, filter(_COMPILED.fullmatch, texts))
                    found.code |= {
                        f"{first}/{s.relative_to(folder).as_posix()}": digest(s) for s in beside
                    }


def _absolute(imports, package):
    """The dotted names of imports (level, module, names) in a package."""
    found = set()
    for level, module, names in imports:
        above = package.split(".")[: len(package.split(".")) - level + 1] if level else ()
        base = ".".join([*above, *filter(None, [module])])
        found |= {base, *(f"{base}.{name}" for name in names)}
    return found


@functools.lru_cache(1024)
def _cell(text):
    """What a cell imports and the texts in it, as `_told` has them."""
    lines = (re.sub(r"^(\s*)[%!].*", r"\1pass", line) for line in text.splitlines())
    return _told(ast.walk(_syntax("\n".join(lines))))


def _told(nodes):
    """The imports (level, module, names) in a source, and the texts that may name what it reads."""
    imports: set[tuple[int, str | None, tuple[str, ...]]] = set()
    texts: set[str] = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            imports |= {(0, alias.name, ()) for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imports.add((node.level, node.module, tuple(alias.name for alias in node.names)))
        elif isinstance(node, ast.Call) and _last_name(node.func) == "import_module":
            named_there = [text for arg in node.args if (text := _text(arg)) is not None]
            imports |= {(0, text, ()) for text in named_there}
        elif (words := _text(node)) is not None:
            texts.add(words)
    return imports, texts


def _last_name(node):
    """The name of a function that is called, without what it is an attribute of."""
    return node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", None)


def _syntax(text):
    """The syntax tree of a cell, whose lines may be IPython's: `x = !ls`, `help?`."""
    try:
        return ast.parse(text)
    except SyntaxError:
        from IPython.core.inputtransformer2 import TransformerManager  # late: few cells need it

        return ast.parse(TransformerManager().transform_cell(text))


def _text(node: ast.AST) -> str | None:
    """The text that a node is, None for any other."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    return None


def _is_shell(text):
    return text.lstrip().startswith(("%%bash", "%%sh", "%%script"))


def _package(root: Path | None, name: str) -> Path:
    """The folder of a package: the project's own, where a kernel finds it, or the installed."""
    if root is not None and (root / name).is_dir():
        return root / name
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    return Path(spec.origin).parent


def _now(root, file):
    """The digest of a file of the project as it is now, None where it is gone."""
    first, _, rest = file.partition("/")
    path = _package(root, first) / rest if first in PROJECT else (root or Path()) / file
    if not path.is_file():
        return None
    if first == "notebooks":
        return _sha("\n\n".join(load(root, path.stem).code))
    return digest(path)


def _facts(path):
    """The digest of a file, and of Python what `_told` tells of it."""
    facts = path.stat()
    return _facts_then(path, facts.st_mtime_ns, facts.st_size)


@functools.lru_cache(1024)
def _facts_then(path, _time, _size):
    data = path.read_bytes()
    if path.suffix != ".py":
        return hashlib.sha256(data).hexdigest(), set(), set()
    try:
        tree = ast.parse(data)
    except SyntaxError as error:
        raise UsageError(f"{path}, line {error.lineno}: {error.msg}") from error
    nodes: list[ast.AST] = []
    return _sha(_tree(tree, nodes)), *_told(nodes)


def _tree(node, nodes):
    """A syntax tree as text, the same in every version of Python, without docstrings.

    It reads as nested tuples, and makes none: Python's collector would go through them all. What
    is in the text is added to `nodes`, for who looks at each: a second walk would take as long.
    """
    if isinstance(node, list):
        return f"({', '.join([_tree(item, nodes) for item in node])}{',' * (len(node) == 1)})"
    if not isinstance(node, ast.AST):
        return repr(node)
    nodes.append(node)
    told = ""
    for name in node._fields:
        value = getattr(node, name, None)
        if name == "body":
            match value:
                case [ast.Expr(value=ast.Constant(value=str())), *value]:
                    pass
        if isinstance(node, ast.JoinedStr):  # Python 3.12 leaves empty texts in some formats
            value = [part for part in node.values if getattr(part, "value", None) != ""]
        if value not in (None, []):
            told += f", ({name!r}, {_tree(value, nodes)})"
    return f"({type(node).__name__!r}{told or ','})"


def _texts(values):
    """The texts among parameters, those in lists too."""
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, list):
            yield from _texts(value)


def _versions(reached):
    """{package: version} of what the code of others reached comes from."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    path = tuple(sys.path)
    for module in sorted(reached.packages - sys.stdlib_module_names):
        found |= _brought(module, path)
    for package in sorted(text.partition("==")[0] for text in reached.requirements):
        found[package] = _version(package, path)
    return found


@functools.cache
def _version(package, path):
    """The version installed, None where none is; path: sys.path, where it is looked for."""
    told = importlib.metadata.distributions(name=package, path=list(path))
    return next((distribution.version for distribution in told), None)


@functools.cache
def _brought(module, path):
    """{package: version} of those that bring a module; the first on the path is imported."""
    told = [one.metadata for modules, one in _distributions(path) if module in modules]
    return {about["Name"]: about["Version"] for about in reversed(told)}


@functools.cache
def _distributions(path):
    """What is installed: pairs (modules, distribution), whose long metadata are not read here."""
    return [(_modules(one), one) for one in importlib.metadata.distributions(path=list(path))]


def _modules(distribution):
    """The first names of what a package brings: those that it declares, or its Python files'."""
    if declared := (distribution.read_text("top_level.txt") or "").split():
        return declared
    record = distribution.read_text("RECORD") or ""
    return set(re.findall(r"^(\w+)(?:/.*)?\.py,", record, re.MULTILINE))


def _sha(text):
    return hashlib.sha256(text.encode()).hexdigest()
