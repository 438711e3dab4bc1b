"""The house has four rooms: mathematics, assets, pages, pipeline. Imports lead one way only."""

import ast
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
ASSETS = sorted((ROOT / "otlib/assets").rglob("*.py"))
MATHEMATICS = sorted({*(ROOT / "otlib").rglob("*.py")} - {*ASSETS})
PAGE = sorted((ROOT / "companion/page").rglob("*.py"))
PIPELINE = sorted({*(ROOT / "companion").rglob("*.py")} - {*PAGE})
CORE = {"torch", "numpy", "skimage", "sklearn", "ot", "PIL"}  # PIL comes with scikit-image
GROUND = {"errors", "files", "markdown", "keys", "contents", "notebooks"}  # below both rooms


def module(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module(path) for path in (*ASSETS, *MATHEMATICS, *PAGE, *PIPELINE)}


def imports(path, inside=True):
    """The modules that a file imports, by their full names; inside: in its functions too."""
    found, package = set(), module(path).split(".")
    package = package if path.name == "__init__.py" else package[:-1]

    def look(node):
        if isinstance(node, ast.Import):
            found.update(name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*base, *([node.module] if node.module else [])])
            found.add(base)
            # `from otlib import assets` imports a module, `from otlib.dot import fit` does not
            found.update({f"{base}.{name.name}" for name in node.names} & MODULES)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found.update(a.value for a in node.args[:1] if isinstance(a, ast.Constant))
        if inside or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            for child in ast.iter_child_nodes(node):
                look(child)

    look(ast.parse(path.read_text(encoding="utf-8")))
    return found


def within(name, *packages):
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def told(path):
    return str(path.relative_to(ROOT))


def test_the_rooms_hold_what_they_should():
    """Else the tests below look at nothing."""
    assert {"otlib.sinkhorn", "otlib.patches", "otlib._check"} <= {*map(module, MATHEMATICS)}
    assert {"otlib.assets.images", "otlib.assets.saved"} <= {*map(module, ASSETS)}
    assert {"companion.page.record", "companion.page.figures"} <= {*map(module, PAGE)}
    assert {"companion.run", "companion.sweep", "companion"} <= {*map(module, PIPELINE)}
    assert imports(ROOT / "otlib/assets/pairs.py") >= {"otlib.assets.images", "otlib._check"}
    assert "otlib.assets.restorers" in imports(ROOT / "companion/page/restored.py")
    assert "otlib.assets.restorers" not in imports(ROOT / "companion/page/restored.py", False)


@pytest.mark.parametrize("path", MATHEMATICS, ids=told)
def test_mathematics_imports_no_asset_and_opens_no_file(path):
    found = imports(path)
    assert not {name for name in found if within(name, "otlib.assets", "companion")}
    tops = {name.partition(".")[0] for name in found}
    assert tops <= CORE | sys.stdlib_module_names | {"otlib", "pykeops"}
    early = {name.partition(".")[0] for name in imports(path, inside=False)}
    assert "pykeops" not in early  # it may compile
    if module(path) != "otlib._compiled":  # a compiler takes files
        assert not tops & {"pathlib", "tempfile", "glob", "pickle", "urllib"}
    calls = [n for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
    names = {ast.unparse(call.func) for call in calls}
    assert not names & {"open", "io.open", "os.open", "eval", "exec"}
    readers = {"load", "save", "fromfile", "tofile", "loadtxt", "savetxt", "memmap"}
    assert not names & {f"{library}.{name}" for library in ("torch", "np") for name in readers}
    files = {"read_bytes", "read_text", "write_bytes", "write_text", "imread", "imsave"}
    assert not {name.rpartition(".")[2] for name in names} & files


@pytest.mark.parametrize("path", ASSETS, ids=told)
def test_assets_know_nothing_of_the_companion(path):
    assert not {name for name in imports(path) if within(name, "companion")}


@pytest.mark.parametrize("path", PAGE, ids=told)
def test_pages_do_not_import_the_pipeline(path):
    ours = {name for name in imports(path) if within(name, "companion")} - {"companion"}
    allowed = {"companion.page", *(f"companion.{name}" for name in GROUND)}
    assert {name for name in ours if not within(name, *allowed)} == set()


@pytest.mark.parametrize("path", PIPELINE, ids=told)
def test_the_pipeline_imports_no_page_of_the_book(path):
    assert not {name for name in imports(path) if within(name, "notebooks", "benchmarks", "tests")}


@pytest.mark.parametrize("name", sorted(GROUND))
def test_the_ground_stands_on_itself(name):
    ours = {found for found in imports(ROOT / f"companion/{name}.py") if within(found, "companion")}
    assert ours <= {"companion", *(f"companion.{other}" for other in GROUND)}


ALONE = """
import importlib, json, sys

refused = {*json.loads(sys.argv[1])}


class Others:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in refused:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Others())
for name in json.loads(sys.argv[2]):
    importlib.import_module(name)
import torch
from otlib import metrics, sinkhorn

x = torch.rand(50, 3, generator=torch.Generator().manual_seed(0))
assert sinkhorn.solve(x, x.flip(1), eps=0.1).converged
image = torch.rand(1, 16, 16, generator=torch.Generator().manual_seed(0))
assert metrics.ssim(image, image) == 1
print(*sorted({name.partition(".")[0] for name in sys.modules}))
"""


def closure(requirements):
    """The distributions that some requirements bring along here."""
    found, todo = set(), [*requirements]
    while todo:
        requirement = Requirement(todo.pop())
        name = canonicalize_name(requirement.name)
        if name in found or (requirement.marker and not requirement.marker.evaluate({"extra": ""})):
            continue
        try:
            todo += importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue  # of another machine
        found.add(name)
    return found


def test_mathematics_runs_on_its_five_packages_alone():
    """In a process where only what these packages bring can be imported."""
    brought = closure(["torch", "numpy", "scikit-image", "scikit-learn", "POT"])
    of = importlib.metadata.packages_distributions()
    core = {top for top in of if brought & {*map(canonicalize_name, of[top])}}
    refused = of.keys() - core - {"otlib"}
    assert core >= CORE
    assert refused >= {"safetensors", "matplotlib", "diffusers", "pykeops", "pydantic", "yaml"}
    lists = [json.dumps(sorted(refused)), json.dumps([*map(module, MATHEMATICS)])]
    command = [sys.executable, "-c", ALONE, *lists]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert not refused & {*done.stdout.split()}
