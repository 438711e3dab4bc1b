"""What the documents print, and which record answers it: book/claims/, one file a document."""

from collections import Counter
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

import pydantic

from companion.errors import UsageError, first_mistake, known
from companion.files import read_yaml
from companion.markdown import number
from companion.notebooks import names, read_profiles
from companion.page.published import leaves, published, shown


def _no_nan(value):
    if value != value:
        raise ValueError("nan is no number: nothing is near it, above or below")
    return value


Number = Annotated[float, pydantic.AfterValidator(_no_nan)]
# identity: a theorem, or a check of our code, which cannot fail where the code is right; number,
# ordering (one method against another), statement: what a document found; ours: said by us alone
Kind = Literal["number", "ordering", "statement", "identity", "ours"]
KINDS = get_args(Kind)
Grade = Literal["A", "B", "C"]


class _Entry(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True, populate_by_name=True)


class Near(_Entry):
    """A value and how far ours may lie from it; the value is left out where a cell holds it."""

    value: Number | None = None
    tolerance: float = pydantic.Field(ge=0, allow_inf_nan=False)


class Cell(_Entry):
    """A number of book/published/DOCUMENT.yml, by the keys that lead there, or some compared."""

    cell: list[str | float] = pydantic.Field(min_length=1)
    less: list[str | float] | None = None  # the number to subtract from it
    over: list[str | float] | None = None  # the number to divide it by
    than: "Cell | None" = None  # a difference to subtract from that of `cell` and `less`


class Rank(_Entry):
    """How near to a document a page's runs are: the first rank that a run meets is its own.

    Grade A: the document's data and setting; B: its data, smaller, fewer or solved less far; C: a
    stand-in.
    """

    grade: Grade
    of: str
    when: dict[str, Any] = {}  # parameters or records of the run: a value, or a list of those met


class Claim(_Entry):
    """One statement of a document."""

    id: str
    document: str
    kind: Kind
    where: str
    statement: str
    published: str | float | Cell
    notebook: str
    record: str | None = None
    at_least: Number | None = None
    at_most: Number | None = None
    near: Near | None = None
    is_: bool | None = pydantic.Field(default=None, alias="is")
    because: str = ""
    given: str = ""  # a record that has to be true of a run that is to decide
    profiles: list[str] = []
    status: Literal["reproduced", "differs", "undecided"] | None = None
    explanation: str = ""
    cause: list[str] | Literal["not known"] | None = None  # records of the page that show it
    takes: str = ""  # what an answer would take, where no run here can give one

    @pydantic.model_validator(mode="after")
    def _complete(self):
        bounds = [self.at_least, self.at_most, self.near, self.is_]
        if self.takes:
            told = [self.record, self.status, *self.profiles, *filter(None, bounds)]
            if any(told):
                raise ValueError("needs either a record or takes, what an answer would take")
            return self
        if sum(bound is not None for bound in bounds) != 1:
            raise ValueError("needs exactly one of at_least, at_most, near, is")
        for name in ("record", "because", "profiles", "status"):
            if not getattr(self, name):
                raise ValueError(f"needs {name}, or takes: what an answer would take")
        if self.status == "differs" and not (self.explanation.strip() and self.cause):
            raise ValueError("needs explanation and cause, because its status is differs")
        if self.near is not None and (self.near.value is None) != isinstance(self.published, Cell):
            raise ValueError("near.value belongs there where published is no cell, and only there")
        return self

    @property
    def tolerance(self) -> str:
        """The bound in words."""
        if self.near is not None:
            return f"{number(self.near.value)} ± {number(self.near.tolerance)}"
        if self.is_ is not None:
            return "true" if self.is_ else "false"
        return f"≥ {number(self.at_least)}" if self.at_most is None else f"≤ {number(self.at_most)}"


class Cells(_Entry):
    """All numbers of book/published/DOCUMENT.yml under one name that no claim has of its own."""

    under: list[str | float] = pydantic.Field(min_length=1)
    where: str
    notebook: str
    takes: str = ""
    words: dict[str, str] = {}  # that the statement has for the keys
    record: str = ""  # with the keys below `under` in the places of {0}, {1}, ...
    tolerance: dict[str, float] = {}  # by the last key
    because: str = ""
    profiles: list[str] = []
    explanation: str = ""
    cause: list[str] | Literal["not known"] | None = None


class Headline(_Entry):
    """A claim in the few words of its document's card on the title page, where it stands first."""

    claim: str
    says: str


class _File(_Entry):
    headlines: list[Headline] = []
    evidence: dict[str, list[Rank]] = {}
    claims: list[Claim]
    cells: list[Cells] = []


class Book(pydantic.BaseModel):
    """All claims in the order of the files, by notebook the ranks of its runs, and by document
    the headlines of its card."""

    claims: list[Claim]
    evidence: dict[str, list[Rank]] = {}
    headlines: dict[str, list[Headline]] = {}


def load_claims(root: Path) -> Book:
    """Read book/claims/*.yml, each named after the key of its document in the bibliography.

    root: project folder. Returns a Book, the published numbers filled in.
    Raises UsageError where there is none, for an entry that is not a claim, an id used twice, and
    an unknown notebook, profile, published number or claim of a headline.
    """
    paths = sorted((root / "book" / "claims").glob("*.yml"))
    if not paths:
        raise UsageError("book/claims must hold DOCUMENT.yml, a list of claims each; it has none")
    claims: list[Claim] = []
    evidence: dict[str, list[Rank]] = {}
    headlines: dict[str, list[Headline]] = {}
    notebooks, profiles = names(root), list(read_profiles(root))
    for path in paths:
        found = _read(path)
        numbers = {}
        if found.cells or any(isinstance(claim.published, Cell) for claim in found.claims):
            numbers = published(path.stem, root)
        told = {tuple(c.published.cell) for c in found.claims if _alone(c.published)}
        claims += [_filled(claim, numbers) for claim in found.claims]
        claims += _of_cells(path.stem, found.cells, numbers, told)
        headlines[path.stem] = found.headlines
        for name, ranks in found.evidence.items():
            known(f"notebook in evidence of book/claims/{path.name}", name, notebooks)
            if name in evidence:
                raise UsageError(f"book/claims: the evidence of {name!r} stands in two files")
            evidence[name] = ranks
    for name, count in Counter(claim.id for claim in claims).items():
        if count > 1:
            raise UsageError(f"book/claims: the id {name!r} is used {count} times")
    for claim in claims:
        known(f"notebook in claim {claim.id!r}", claim.notebook, notebooks)
        for profile in claim.profiles:
            known(f"profile in claim {claim.id!r}", profile, profiles)
    ids = {document: [c.id for c in claims if c.document == document] for document in headlines}
    for document, of_card in headlines.items():
        for headline in of_card:
            known(f"claim in headlines of {document}", headline.claim, ids[document])
    return Book(claims=claims, evidence=evidence, headlines=headlines)


def needed(claims: list[Claim], profile: str) -> list[str]:
    """Return the sorted names of the notebooks that the claims need at this profile."""
    return sorted({claim.notebook for claim in claims if profile in claim.profiles})


def _read(path):
    place = f"book/claims/{path.name}"
    content = read_yaml(path, place)
    if not isinstance(content, dict) or not isinstance(content.get("claims"), list):
        raise UsageError(f"{place} must have a list of claims under the key 'claims'")
    entries = [
        {"document": path.stem, **entry} if isinstance(entry, dict) else entry
        for entry in content["claims"]
    ]
    try:
        return _File.model_validate(content | {"claims": entries})
    except pydantic.ValidationError as error:
        where, why = first_mistake(error)
        if where[:1] == ["claims"] and len(where) > 1:
            entry = entries[int(where[1])]
            title = entry.get("id", "without id") if isinstance(entry, dict) else repr(entry)
            place, where = f"{place}, claim {title!r}", where[2:]
        raise UsageError(f"{place}: {'.'.join(where)} {why}") from error


def _alone(what):
    return isinstance(what, Cell) and what.less is None and what.over is None


def _filled(claim, numbers):
    """The claim with the published number in the place of the cell that it names."""
    if not isinstance(claim.published, Cell):
        return claim
    named = claim.published
    try:
        if named.over is not None and (named.less is not None or named.than is not None):
            raise UsageError("published: over stands alone, without less and than")
        if named.than is not None and (named.than.over is not None or named.than.than is not None):
            raise UsageError("published: than takes cell and less alone")
        value, text = shown(numbers, named.cell, named.less, named.over)
        if named.than is not None:
            other, _ = shown(numbers, named.than.cell, named.than.less)
            column = numbers["columns"].get(named.cell[-1], {})
            places, first = column.get("decimals", 12), value
            value = round(first - other, places)
            text = f"{value:+.{places}f} {column.get('unit', '')} = {first:+g} - ({other:+g})"
    except UsageError as error:
        raise UsageError(f"claim {claim.id!r}: {error}") from error
    near = claim.near and claim.near.model_copy(update={"value": value})
    return claim.model_copy(update={"published": text, "near": near})


def _of_cells(document, entries, numbers, told):
    """A claim for each number under an entry; the entry that says most of its path has it."""
    claims = []
    for path, _ in leaves(numbers):
        under = [one for one in entries if list(path[: len(one.under)]) == one.under]
        if not under or path in told:
            continue
        entry = max(under, key=lambda one: len(one.under))
        rest = [str(key) for key in path[len(entry.under) :]]
        claim: dict[str, Any] = entry.model_dump(exclude={"under", "words", "record", "tolerance"})
        claim |= {"id": "-".join([document, *map(str, path)]), "document": document}
        told_as = (entry.words.get(str(key), str(key)) for key in reversed(path[1:]))
        claim |= {"kind": "number", "statement": ", ".join(told_as)}
        claim["published"] = {"cell": list(path)}
        if entry.record:
            claim |= {"record": entry.record.format(*rest), "status": "undecided"}
            if path[-1] not in entry.tolerance:
                where = f"book/claims/{document}.yml, cells under {entry.under}"
                raise UsageError(f"{where}: tolerance lacks {path[-1]!r}")
            claim["near"] = {"tolerance": entry.tolerance[path[-1]]}
        claims.append(_filled(Claim.model_validate(claim), numbers))
    return claims
