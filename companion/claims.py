"""Published numbers and statements beside our records: verdicts and the scoreboard."""

import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pydantic

from companion.errors import UsageError, known
from companion.files import read_yaml
from companion.markdown import number, table
from companion.notebooks import names, read_profiles
from companion.page.published import published, shown

REPRODUCED, DIFFERS, NOT_RUN = "reproduced", "differs", "not run at this profile"
SYMBOLS = {REPRODUCED: "✔", DIFFERS: "✘", NOT_RUN: "–"}


def _no_nan(value):
    if math.isnan(value):
        raise ValueError("nan is no number: nothing is near it, above or below")
    return value


Number = Annotated[float, pydantic.AfterValidator(_no_nan)]


class Near(pydantic.BaseModel):
    """A value and how far ours may lie from it; the value is left out where a cell holds it."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)
    value: Number | None = None
    tolerance: float = pydantic.Field(ge=0, allow_inf_nan=False)


class Cell(pydantic.BaseModel):
    """A number of book/published/DOCUMENT.yml, by the keys that lead there, or two compared."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)
    cell: list[str | float] = pydantic.Field(min_length=1)
    less: list[str | float] | None = None  # the number to subtract from it
    over: list[str | float] | None = None  # the number to divide it by


class Claim(pydantic.BaseModel):
    """One entry of book/claims.yml."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, populate_by_name=True)
    id: str
    document: str
    where: str
    statement: str
    published: str | float | Cell
    notebook: str
    record: str
    at_least: Number | None = None
    at_most: Number | None = None
    near: Near | None = None
    is_: bool | None = pydantic.Field(default=None, alias="is")
    because: str
    profiles: list[str] = pydantic.Field(min_length=1)
    status: Literal["reproduced", "differs"]
    explanation: str = ""

    @pydantic.model_validator(mode="after")
    def _complete(self):
        bounds = [self.at_least, self.at_most, self.near, self.is_]
        if sum(bound is not None for bound in bounds) != 1:
            raise ValueError("needs exactly one of at_least, at_most, near, is")
        if self.status == DIFFERS and not self.explanation.strip():
            raise ValueError("needs an explanation, because its status is differs")
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


@dataclass(frozen=True)
class Judged:
    """A claim and what this run says of it."""

    claim: Claim
    ours: str
    verdict: str

    @property
    def broken(self) -> bool:
        """Whether we stand by the claim and this run does not bear it out."""
        return self.claim.status == REPRODUCED and self.verdict == DIFFERS

    @property
    def note(self) -> str:
        """What a reader of the verdict should know, or nothing."""
        if self.broken:
            return "marked reproduced, does not hold in this run"
        if self.claim.status == DIFFERS and self.verdict == REPRODUCED:
            return "marked differs, holds in this run"
        return ""


def load_claims(root: Path) -> list[Claim]:
    """Read book/claims.yml.

    root: project folder. Returns a list of Claim in the order of the file, the cells that they
    name filled in.
    Raises UsageError for a missing file, an entry that is not a claim, an id used twice, and an
    unknown notebook, profile or published number.
    """
    entries = read_yaml(root / "book" / "claims.yml", "book/claims.yml")
    if not isinstance(entries, list):
        raise UsageError(f"book/claims.yml must be a list of claims, got {_kind(entries)}")
    claims = []
    for entry in entries:
        title = entry.get("id", "without id") if isinstance(entry, dict) else repr(entry)
        try:
            claims.append(Claim.model_validate(entry))
        except pydantic.ValidationError as error:
            first = error.errors()[0]
            place = ".".join(str(part) for part in first["loc"])
            why = first["msg"].removeprefix("Value error, ")
            raise UsageError(f"book/claims.yml, claim {title!r}: {place} {why}") from error
    for name, count in Counter(claim.id for claim in claims).items():
        if count > 1:
            raise UsageError(f"book/claims.yml: the id {name!r} is used {count} times")
    notebooks, profiles = names(root), list(read_profiles(root))
    for claim in claims:
        known(f"notebook in claim {claim.id!r}", claim.notebook, notebooks)
        for profile in claim.profiles:
            known(f"profile in claim {claim.id!r}", profile, profiles)
    documents = {claim.document for claim in claims if isinstance(claim.published, Cell)}
    numbers = {document: published(document, root) for document in documents}
    return [_filled(claim, numbers.get(claim.document)) for claim in claims]


def _kind(value):
    words: dict[type, str] = {dict: "a mapping", str: "a text", type(None): "nothing"}
    return words.get(type(value), repr(value))


def judge(claims: list[Claim], records: dict[str, dict], profile: str) -> list[Judged]:
    """Compare claims with records.

    claims: list of Claim; records: {notebook: {record name: {"value", "unit", "better"}}};
    profile: name of the profile the records come from.
    Returns a list of Judged. A record that is missing or of another kind counts as `differs`.
    """
    return [_judge(claim, records.get(claim.notebook, {}), profile) for claim in claims]


def needed(claims: list[Claim], profile: str) -> list[str]:
    """Return the sorted names of the notebooks that the claims need at this profile."""
    return sorted({claim.notebook for claim in claims if profile in claim.profiles})


def counts(judged: list[Judged]) -> dict[str, int]:
    """Return how many claims have each verdict: {verdict: number}."""
    found = Counter(item.verdict for item in judged)
    return {verdict: found[verdict] for verdict in (REPRODUCED, DIFFERS, NOT_RUN)}


def scoreboard(judged: list[Judged], titles: dict[str, str], profile: str) -> str:
    """Return the scoreboard page as MyST Markdown.

    judged: list of Judged; titles: {bib key: title of the document}; profile: name.
    Raises UsageError where a claim's document is not among the titles.
    """
    lines = [
        "(scoreboard)=",
        "# Scoreboard",
        "",
        f"Every published number and statement that a page answers, at profile `{profile}`. "
        "The last column is computed when the book is built; what differs is explained below "
        "the table.",
    ]
    for document in dict.fromkeys(item.claim.document for item in judged):
        known("document in book/claims.yml", document, list(titles))
        group = [item for item in judged if item.claim.document == document]
        lines += ["", f"## {titles[document]}", "", f"{{cite:t}}`{document}`", ""]
        head = ("Where", "Statement", "Published", "This run", "Tolerance", "Verdict")
        lines += [":::{table}", ":class: scoreboard", ""]
        lines += [*table(head, [_row(item) for item in group]), ":::"]
        for item in group:
            if item.claim.explanation and (item.claim.status == DIFFERS or item.broken):
                title = f"{item.claim.where}: {item.claim.statement.strip().rstrip('.')}."
                lines += ["", f"**{title}** {item.claim.explanation}"]
    return "\n".join(lines) + "\n"


def summary(judged: list[Judged], profile: str, date: str) -> str:
    """Return the scoreboard's summary, five lines of MyST Markdown for the title page.

    judged: list of Judged; profile: name; date: text.
    """
    found = counts(judged)
    return "\n".join(
        [
            f"Of {len(judged)} published numbers and statements, at profile `{profile}`, {date}:",
            "",
            f"- {SYMBOLS[REPRODUCED]} {REPRODUCED}: **{found[REPRODUCED]}**",
            f"- {SYMBOLS[DIFFERS]} {DIFFERS}: **{found[DIFFERS]}**",
            f"- {SYMBOLS[NOT_RUN]} {NOT_RUN}: **{found[NOT_RUN]}**",
            "",
            "All of them, with their tolerances: {doc}`/sections/scoreboard`.",
            "",
        ]
    )


def _filled(claim, numbers):
    """The claim with the published number in the place of the cell that it names."""
    if not isinstance(claim.published, Cell):
        return claim
    named = claim.published
    try:
        value, text = shown(numbers, named.cell, named.less, named.over)
    except UsageError as error:
        raise UsageError(f"book/claims.yml, claim {claim.id!r}: {error}") from error
    near = claim.near and claim.near.model_copy(update={"value": value})
    return claim.model_copy(update={"published": text, "near": near})


def _judge(claim, records, profile):
    if profile not in claim.profiles:
        return Judged(claim, "", NOT_RUN)
    found = records.get(claim.record)
    if found is None:
        return Judged(claim, f"no record `{claim.record}`", DIFFERS)
    value = found["value"]
    ours = f"{number(value)} {found['unit']}".strip()
    return Judged(claim, ours, REPRODUCED if _holds(claim, value) else DIFFERS)


def _holds(claim, value):
    if claim.is_ is not None:
        return value is claim.is_
    if isinstance(value, bool | str):
        return False
    if claim.near is not None:
        # rounding of the published decimals must not decide at the edge
        if math.isinf(value) or math.isinf(claim.near.value):
            return value == claim.near.value
        return abs(value - claim.near.value) <= claim.near.tolerance * (1 + 1e-9)
    return value >= claim.at_least if claim.at_most is None else value <= claim.at_most


def _row(item):
    claim = item.claim
    verdict = f"{SYMBOLS[item.verdict]} {item.verdict}"
    return (
        f"{{doc}}`{claim.where} </sections/{claim.notebook}>`",
        claim.statement,
        number(claim.published),
        item.ours or "–",
        f"{claim.tolerance}: {claim.because}",
        f"{verdict} ({item.note})" if item.note else verdict,
    )
