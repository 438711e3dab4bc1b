"""A Sphinx extension: docstrings as this project writes them, as the reference shows them.

name, other: what it is.    a list of arguments
Returns ... Raises ...      paragraphs of their own
`softmin`, `semidual.solve` links, where they name something public of otlib
"""

import importlib
import inspect
import pkgutil
import re
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import Any


def setup(app: Any) -> dict[str, bool]:
    """Connect to Sphinx."""
    app.connect("autodoc-process-docstring", _process)
    app.connect("autodoc-skip-member", _skip)
    return {"parallel_read_safe": True}


@cache
def modules() -> dict[str, ModuleType]:
    """The public modules of otlib, by name: {dotted name: module}."""
    import otlib  # late: torch takes longer than a page that has no docstring

    found = {}
    for entry in pkgutil.walk_packages(otlib.__path__, "otlib."):
        if not entry.name.rpartition(".")[2].startswith("_") and not entry.ispkg:
            found[entry.name] = importlib.import_module(entry.name)
    return found


def restructured(text: str, names: set[str], link: Callable[[str], str | None]) -> str:
    """A docstring as reStructuredText.

    text: the docstring, its indentation removed. names: of the arguments or fields it may explain.
    link: function of what stands between backquotes to the full name it has, or None.
    Returns text.
    """
    blocks = []
    for block in re.split(r"\n\s*\n", text.strip("\n")):
        lines = block.split("\n")
        if lines[0].startswith(">>>"):
            blocks.append(block)
        elif all(line.startswith("    ") for line in lines):
            blocks.append(".. code-block:: text\n\n" + block)
        elif explained := _explained(" ".join(map(str.strip, lines)), names):
            told = (
                f"* {', '.join(f'**{name}**' for name in own.split(', '))}: {_inline(what, link)}"
                for own, what in explained
            )
            blocks.append("\n".join(told))
        else:
            told = _inline(" ".join(map(str.strip, lines)), link)
            blocks.append(re.sub(r"(^| (?<=[.;] ))(Returns|Raises)\b", r"\n\n**\2**", told).strip())
    return "\n\n".join(blocks)


def _explained(text, names):
    """The (names, text) of a paragraph that explains arguments; [] where it explains none."""
    if not names:
        return []
    name = "(?:" + "|".join(map(re.escape, sorted(names, key=len, reverse=True))) + ")"
    parts = re.split(rf"(?:^|(?<=[.;?)] ))({name}(?:, {name})*): ", text)
    if parts[0].strip():
        return []
    return [(own, what.strip()) for own, what in zip(parts[1::2], parts[2::2], strict=True)]


def _inline(text, link):
    """Escape what reStructuredText would read as markup; turn backquotes into code and links."""
    found = []
    for index, part in enumerate(text.split("`")):
        if index % 2 == 0:
            part = re.sub(r"([\\*|])", r"\\\1", part)
            found.append(re.sub(r"(?<=\w)_(?!\w)", r"\\_", part))
        elif full := link(part):
            found.append(f":py:obj:`{part} <{full}>`")
        else:
            found.append(f"``{part}``")
    return "".join(found)


def _process(_app, _what, name, what, _options, lines):
    """Sphinx's hook: rewrite the lines of a docstring in place."""
    text = restructured("\n".join(lines), _names(what), lambda words: _full(words, name))
    lines[:] = [*text.split("\n"), ""]


def _names(what):
    if inspect.isclass(what):
        own = set(getattr(what, "__annotations__", ()))
        return own | (set(inspect.signature(what).parameters) if "__init__" in vars(what) else own)
    return set(inspect.signature(what).parameters) if callable(what) else set()


def _full(words, where):
    """The full name of what the docstring of `where` means, None where it is no object."""
    if not re.fullmatch(r"[A-Za-z_][\w.]*", words):
        return None
    first, _, rest = words.rpartition(".")
    home = next(name for name in modules() if f"{where}.".startswith(f"{name}."))
    places = [home] if not first else [f"otlib.{first}", f"otlib.assets.{first}", first]
    for place in places:
        module = modules().get(place)
        if module is not None and rest in module.__all__:
            return f"{place}.{rest}"
    dotted = (f"otlib.{words}", f"otlib.assets.{words}", words)
    return next((full for full in dotted if full in modules()), None)


def _skip(_app, what, name, member, skip, _options):
    """Sphinx's hook: of a class show what it does, not its fields, which its docstring explains."""
    if what == "class":
        shown = inspect.isfunction(member) or isinstance(member, property)
        return name.rpartition(".")[2].startswith("_") or not shown
    return skip
