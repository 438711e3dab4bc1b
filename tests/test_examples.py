"""What the docstrings and the README show runs and prints what they say."""

import doctest
import re
from pathlib import Path

import pytest

from companion.docstrings import modules

ROOT = Path(__file__).parents[1]
EXAMPLES = {
    f"{name}.{key}": value.__doc__
    for name, module in modules().items()
    for key in module.__all__
    if ">>> " in (getattr((value := getattr(module, key)), "__doc__", None) or "")
}


def test_there_are_examples():
    assert len(EXAMPLES) >= 10


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_prints_what_it_says(name):
    """In the names of its module: `doctest` itself does not find what a decorator wraps."""
    space = dict(vars(modules()[name.rpartition(".")[0]]))
    example = doctest.DocTestParser().get_doctest(EXAMPLES[name], space, name, None, 0)
    told = []
    found = doctest.DocTestRunner(verbose=False).run(example, out=told.append)
    assert found.attempted and not found.failed, "".join(told)


def test_the_code_of_the_readme_runs():
    (source,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    # fewer steps of the same call: the README's take half a minute
    assert source.count("steps=40") == 1
    space = {}
    exec(source.replace("steps=40", "steps=2"), space)
    assert space["clean"].shape == space["noisy"].shape
    assert space["clean"].isfinite().all() and not space["clean"].equal(space["noisy"])
