"""The reference shows every public name of otlib and nothing else; docstrings read well there."""

import inspect
import re
import typing
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml

import otlib
from companion.docstrings import modules, restructured, setup
from otlib import patches, semidual

ROOT = Path(__file__).parents[1]
PAGES = ROOT / "book" / "reference"


def pages(entries):
    for entry in entries:
        if "file" in entry:
            yield entry["file"]
        yield from pages(entry.get("sections", ()))


def test_every_module_has_its_page_and_every_page_a_module():
    toc = yaml.safe_load((ROOT / "book/_toc.yml").read_text())
    (part,) = [part for part in toc["parts"] if part["caption"] == "Reference"]
    files = [Path(file) for file in pages(part["chapters"])]
    listed = [file.name for file in files if file.parent.name == "reference"]
    names = [name.removeprefix("otlib.") for name in modules()]
    assert sorted(listed) == sorted(["index", *names])
    assert sorted(path.stem for path in PAGES.glob("*.md")) == sorted(listed)
    index = (PAGES / "index.md").read_text()
    for name in names:
        assert f"[]({name}.md)" in index
        assert f".. automodule:: otlib.{name}\n" in (PAGES / f"{name}.md").read_text()


@pytest.mark.parametrize("name", modules())
def test_all_is_what_a_module_defines_and_each_has_a_docstring(name):
    module = modules()[name]
    defined = {
        key
        for key, value in vars(module).items()
        if not key.startswith("_") and getattr(value, "__module__", None) == name
    }
    constants = set(module.__all__) - defined
    assert defined <= set(module.__all__)
    source = inspect.getsource(module)
    for key in constants:
        assert key.isupper() or typing.get_origin(getattr(module, key)) is typing.Literal
        before = source[: re.search(rf"^{key}(: .*)? = ", source, re.M).start()]
        assert before.splitlines()[-1].startswith("#: "), f"{name}.{key} has no words"
    for key in defined:
        value = getattr(module, key)
        assert value.__doc__ and value.__doc__.strip().split("\n")[0].endswith((".", ":")), key
        if inspect.isfunction(value):
            told = value.__doc__
            lacking = [p for p in inspect.signature(value).parameters if p not in told]
            elsewhere = re.search("(as in|[Ss]ee) `", told)  # explained with another function
            assert elsewhere or not lacking, f"{name}.{key} says nothing of {lacking}"


def test_of_a_class_only_what_it_does_is_shown():
    """A frozen dataclass has methods that nobody wrote, such as `__delattr__`."""
    hooks = {}
    setup(SimpleNamespace(connect=hooks.__setitem__))

    def shown(what):
        members = vars(what).items()
        skips = hooks["autodoc-skip-member"]
        return [name for name, of in members if not skips(None, "class", name, of, False, None)]

    assert shown(semidual.Solution) == []
    assert shown(patches.Moments) == ["covariance"]


def test_the_version_is_the_installed_one():
    import importlib.metadata

    assert otlib.__version__ == importlib.metadata.version("ot-imaging-companion")


def test_arguments_become_a_list_and_returns_a_paragraph():
    text = """Do it.

x, y: clouds |x - y|^2.
    More. eps: the temperature; see `solve`. A word: no argument.

Returns f_ and *g*. Raises ValueError on `bad`.

    min_pi <C, pi>

>>> 1 + 1
2"""
    told = restructured(text, {"x", "y", "eps"}, {"solve": "otlib.sinkhorn.solve"}.get)
    assert (
        told
        == r"""Do it.

* **x**, **y**: clouds \|x - y\|^2. More.
* **eps**: the temperature; see :py:obj:`solve <otlib.sinkhorn.solve>`. A word: no argument.

**Returns** f\_ and \*g\*.

**Raises** ValueError on ``bad``.

.. code-block:: text

    min_pi <C, pi>

>>> 1 + 1
2"""
    )
