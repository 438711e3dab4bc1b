"""Every public function says what it takes and gives; mypy, in `make lint`, holds it to that."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted([*(ROOT / "otlib").rglob("*.py"), *(ROOT / "companion").rglob("*.py")])


def public(tree):
    """The functions of a module that anyone may call, those of its classes too."""
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            bases = {ast.unparse(base) for base in node.bases}
            if not bases & {"nn.Module", "torch.autograd.Function"}:
                yield from public(node)
        elif isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            yield node


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_public_signature_is_whole(path):
    if path.name.startswith("_") and path.name != "__init__.py":
        return  # of the package alone
    for function in public(ast.parse(path.read_text())):
        given = function.args
        every = [*given.posonlyargs, *given.args, *given.kwonlyargs, given.vararg, given.kwarg]
        lacking = [a.arg for a in every if a and a.arg != "self" and a.annotation is None]
        assert not lacking, f"{function.name} tells no type of {', '.join(lacking)}"
        assert function.returns is not None, f"{function.name} tells no type of what it gives"


def test_the_types_are_there_for_others():
    assert (ROOT / "otlib" / "py.typed").is_file()
