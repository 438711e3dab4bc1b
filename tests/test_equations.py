"""Each numbered item of the documents has code, a page, a claim; each citation names a document."""

import ast
import importlib
import inspect
import re
from pathlib import Path

import pytest
import yaml

from companion.claims import load_claims
from companion.docstrings import modules
from companion.equations import equations_page, functions_of, load_equations
from companion.errors import UsageError
from companion.notebooks import names

ROOT = Path(__file__).parents[1]
EQUATIONS = load_equations(ROOT)
CLAIMS = load_claims(ROOT).claims
FORMULAS = [
    pytest.param(document, formula, id=f"{document}: {formula.items[0]}")
    for document, told in EQUATIONS.items()
    for formula in told.formulas
]
AUTHORS = {"mignon2023": "Mignon", "houdard2020": "Houdard", "adrai2023": "Adrai"}
# what a docstring may cite: an equation, or a numbered statement, section, figure or table
KINDS = "Definition|Theorem|Proposition|Algorithm|Table|Fig|Figs|[Ss]ecs?|[Aa]ppendix"
CITATION = re.compile(
    rf"(?<![\w`)\]])\(\d{{1,2}}\)|\b[Ee]qs?\b\.?(?! \()|\b(?:{KINDS})\b\.? (?=[IVX\d]|[A-B]\.)"
)
NAMED = re.compile(r"\b[A-Z][\w-]+(?: et al\.| and [A-Z]\w+)|\b[A-Z]\w+ (?:19|20)\d\d\b")


def docstrings(path):
    """The docstrings of a source file, as (name of what has it, text)."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "name", path.stem), text


def unnamed(text):
    """The paragraphs of a docstring that cite something and do not say of which document."""
    paragraphs = (" ".join(part.split()) for part in re.split(r"\n\s*\n", text))
    return [told for told in paragraphs if CITATION.search(told) and not NAMED.search(told)]


@pytest.mark.parametrize("document", EQUATIONS)
def test_no_numbered_item_is_missing_or_there_twice(document):
    told = EQUATIONS[document]
    items = [item for formula in told.formulas for item in formula.items]
    for kind, count in told.numbered.items():
        numbers = [int(item.split()[1]) for item in items if item.startswith(f"{kind} ")]
        assert sorted(numbers) == list(range(1, count + 1))
    assert len(set(items)) == len(items)
    numbered = tuple(f"{kind} " for kind in told.numbered) or ('"',)
    assert all(item.startswith(numbered) for item in items)


def test_all_documents_with_claims_are_there():
    assert set(EQUATIONS) == {claim.document for claim in CLAIMS}


@pytest.mark.parametrize(("document", "formula"), FORMULAS)
def test_what_an_item_names_is_there(document, formula):
    found = {claim.id: claim for claim in CLAIMS}
    for name in formula.functions:
        module, _, function = f"otlib.{name}".rpartition(".")
        assert function in importlib.import_module(module).__all__
    assert set(formula.pages) <= set(names(ROOT))
    for name in formula.claims:
        assert found[name].document == document
        assert found[name].notebook in formula.pages, f"{name} is judged on another page"


@pytest.mark.parametrize(
    ("document", "formula"),
    [p for p in FORMULAS if p.values[0] in AUTHORS and p.values[1].functions],
)
def test_the_code_of_an_item_cites_it(document, formula):
    told = []
    for name in formula.functions:
        module = modules()[f"otlib.{name.split('.')[0]}"]
        told += [inspect.getdoc(getattr(module, name.split(".")[1])), inspect.getdoc(module)]
    paragraphs = [" ".join(p.split()) for text in told for p in text.split("\n\n")]
    near = " ".join(p for p in paragraphs if AUTHORS[document] in p)
    for item in formula.items:
        kind, number = item.split()
        wanted = f"({number})" if kind == "equation" else f"{kind.title()} {number}"
        assert wanted in near, f"{formula.functions} do not cite {wanted} of {document}"


@pytest.mark.parametrize("path", sorted((ROOT / "otlib").rglob("*.py")), ids=lambda path: path.stem)
def test_a_citation_names_its_document(path):
    found = [(name, told) for name, text in docstrings(path) for told in unnamed(text)]
    assert not found


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("The gradient (7).", 1),
        ("The gradient of eq. (7).", 1),
        ("See eqs (2), (3).", 1),
        ("By Theorem 4 it is exact.", 1),
        ("Sec. 3.2 says so.", 1),
        ("As in Table I.", 1),
        ("The gradient, eq. (7) of Mignon et al. 2023.", 0),
        ("Rigollet and Weed, eq. (7).", 0),
        ("Mignon et al. 2023.\n\nThe gradient (7).", 1),
        ("x: (N, d), y: (1) or (M,). softmin(1).", 1),
        ("x: (N, d), f(1), a[i](2).", 0),
        ("A figure of speech; a table.", 0),
    ],
)
def test_what_counts_as_a_citation(text, wrong):
    assert len(unnamed(text)) == wrong


def test_the_page_has_a_line_for_each_item():
    titles = dict.fromkeys(EQUATIONS, "A paper")
    page = equations_page(EQUATIONS, CLAIMS, titles)
    lines = [line for line in page.splitlines() if line.startswith("| ")]
    assert len(lines) == len(FORMULAS) + 2 * len(EQUATIONS)
    assert all(line.count(" | ") == 1 for line in lines)  # no formula has a bar of its own
    assert "{py:obj}`sinkhorn.solve <otlib.sinkhorn.solve>`" in page


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pages": ["tou"]}, "did you mean 'toy'"),
        ({"functions": []}, "needs functions, or why"),
        ({"items": []}, "items"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_an_entry_that_is_none_is_named(project, change, message):
    entry = {"items": ["equation 1"], "formula": "x", "functions": ["sinkhorn.solve"]}
    entry |= {"pages": ["toy"], "claims": []} | change
    told = {"one2020": {"letter": "O", "numbered": {"equation": 1}, "formulas": [entry]}}
    project.write("book/equations.yml", yaml.safe_dump(told))
    with pytest.raises(UsageError, match=message):
        load_equations(project.root)


@pytest.mark.parametrize("text", ["", "[]", "3"])
def test_a_file_that_is_no_mapping_is_named(project, text):
    project.write("book/equations.yml", text)
    with pytest.raises(UsageError, match=r"book/equations\.yml.*dictionary"):
        load_equations(project.root)


def test_a_claim_that_is_none_is_named():
    with pytest.raises(UsageError, match="unknown claim in book/equations"):
        equations_page(EQUATIONS, [], dict.fromkeys(EQUATIONS, "A paper"))


def test_a_page_tells_the_functions_of_the_formulas_that_it_shows():
    found = functions_of(EQUATIONS, "dot_slides")
    assert "{py:obj}`dot.transport <otlib.dot.transport>`" in found
    assert len(found) == len(set(found))
    shown = [f for told in EQUATIONS.values() for f in told.formulas if "dot_slides" in f.pages]
    assert len(found) == len({name for formula in shown for name in formula.functions})
    assert functions_of(EQUATIONS, "no_page") == []
