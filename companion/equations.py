"""The page of equations: what the documents number, and where the book has it."""

from pathlib import Path

import pydantic

from companion.anchors import claim_link
from companion.claims import Claim
from companion.errors import UsageError, first_mistake, known
from companion.files import read_yaml
from companion.markdown import cards
from companion.notebooks import names


class Formula(pydantic.BaseModel):
    """One entry of book/equations.yml; `why` tells why there is no function."""

    model_config = pydantic.ConfigDict(extra="forbid")
    items: list[str] = pydantic.Field(min_length=1)  # "definition 1", "equation 2", or a title
    formula: str
    functions: list[str]  # of otlib, such as "sinkhorn.solve"
    pages: list[str]
    claims: list[str]
    why: str = ""

    @pydantic.model_validator(mode="after")
    def _complete(self):
        if bool(self.functions) == bool(self.why):
            raise ValueError("needs functions, or why there are none")
        return self


class Document(pydantic.BaseModel):
    """The formulas of a document, the letter it is cited by, how many of each kind it numbers."""

    model_config = pydantic.ConfigDict(extra="forbid")
    letter: str = pydantic.Field(pattern="^[A-Z]$")  # [M, eq. 3] is equation 3 of document M
    numbered: dict[str, int]
    formulas: list[Formula]


def load_equations(root: Path) -> dict[str, Document]:
    """Read book/equations.yml.

    root: project folder. Returns {document: Document} in the order of the file.
    Raises UsageError for a missing file and an entry that is none, and for an unknown page.
    """
    entries = read_yaml(root / "book" / "equations.yml", "book/equations.yml")
    try:
        found = pydantic.TypeAdapter(dict[str, Document]).validate_python(entries)
    except pydantic.ValidationError as error:
        place, why = first_mistake(error)
        raise UsageError(f"book/equations.yml: {'.'.join(place)} {why}") from error
    pages = names(root)
    for document, told in found.items():
        for formula in told.formulas:
            for page in formula.pages:
                known(f"page in book/equations.yml, {document}", page, pages)
    return found


def equations_page(
    equations: dict[str, Document], claims: list[Claim], titles: dict[str, str]
) -> str:
    """Return the page of equations as MyST Markdown.

    equations: of `load_equations`; claims: list of Claim; titles: {bib key: title of the document}.
    Raises UsageError where a document or a claim is not among them.
    """
    lines = [
        "(equations)=",
        "# Equations",
        "",
        "Every numbered equation, definition, theorem, proposition and algorithm of the documents: "
        "the function of `otlib` that computes it, the pages that show it, and the claims of the "
        "{doc}`scoreboard </sections/scoreboard>` that judge it. Where a misprint is known the "
        "formula is the mended one, see {doc}`/sections/errata`. Pages cite these numbers with the "
        "letter of the document; a number in parentheses alone, such as (1), is the page's own.",
    ]
    ids = [claim.id for claim in claims]
    for document, told in equations.items():
        known("document in book/equations.yml", document, list(titles))
        rows = [_row(told.letter, formula, ids) for formula in told.formulas]
        head = ("Item and formula", "Function, pages, claims")
        cited = f"**{told.letter}**: {{cite:t}}`{document}`"
        lines += ["", f"## {titles[document]}", "", cited, ""]
        lines += cards(head, rows)
    return "\n".join(lines) + "\n"


def functions_of(equations: dict[str, Document], page: str) -> list[str]:
    """The functions of the formulas that a page shows, as links to the reference, each once.

    equations: of `load_equations`; page: name of a notebook.
    """
    formulas = [formula for told in equations.values() for formula in told.formulas]
    names = [name for formula in formulas if page in formula.pages for name in formula.functions]
    return [_function(name) for name in dict.fromkeys(names)]


def citations(equations: dict[str, Document]) -> dict[str, str]:
    """How a page cites each numbered item, and the anchor of its row on the page of equations.

    equations: of `load_equations`. Returns {"M, eq. 3": anchor, "M, Theorem 1": anchor, ...}.
    """
    return {
        cited: anchor
        for told in equations.values()
        for formula in told.formulas
        for cited, anchor in _cited(told.letter, formula)
    }


def _cited(letter, formula):
    """Pairs (how it is cited, anchor) of the items of a formula that have a number."""
    for item in formula.items:
        kind, _, number = item.partition(" ")
        if number.isdecimal():
            name = f"eq. {number}" if kind == "equation" else f"{kind.title()} {number}"
            yield f"{letter}, {name}", f"{letter}-{kind}-{number}"


def _function(name):
    return f"{{py:obj}}`{name} <otlib.{name}>`"


def _row(letter, formula, ids):
    for name in formula.claims:
        known("claim in book/equations.yml", name, ids)
    cited = [f'<span id="{to}"></span>[{name}]' for name, to in _cited(letter, formula)]
    items = cited or formula.items
    functions = [_function(name) for name in formula.functions]
    pages = [f"{{doc}}`{page} </sections/{page}>`" for page in formula.pages]
    claims = [claim_link("scoreboard", name, f"`{name}`") for name in formula.claims]
    # side by side in five columns they would not fit the page
    where = [", ".join(functions) or formula.why, ", ".join(pages) or "no page"]
    where.append(", ".join(claims) or "no claim")
    return f"**{', '.join(items)}**<br>${formula.formula}$", "<br>".join(where)
